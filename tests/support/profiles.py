"""Scans of several small patients, and their profiles."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from pydicom import Dataset

from cvsct.core.volume import Acquisition, CTVolume
from cvsct.profile.profile import ScannerProfile, measure_profile
from tests.conftest import make_volume, phantom_hu
from tests.support.dicom_files import write_series

SOFT_PX = 0.8


@cache
def patient(
    number: int,
    blur_px: float = 0.0,
    kernel: str = "K1",
    noise_of: int = 0,
    pixel_mm: float = 0.7,
) -> CTVolume:
    """A trunk of its own on one scanner.

    Args:
        noise_of: seed added to that of body and noise.
    """
    volume = make_volume(
        phantom_hu(100 + number + noise_of, blur_px, slices=4, size_px=256), pixel_mm=pixel_mm
    )
    return replace(
        volume,
        patient=f"patient {number}",
        series_uid=f"1.2.{number}.{int(10 * blur_px)}",
        acquisition=Acquisition("Maker", "Scanner", kernel, 120.0),
    )


def patients(first: int, last: int, blur_px: float = 0.0, kernel: str = "K1") -> list[CTVolume]:
    """Patients with these numbers, the last left out."""
    return [patient(number, blur_px, kernel) for number in range(first, last)]


@cache
def profile_of(first: int, last: int, blur_px: float = 0.0) -> ScannerProfile:
    """Profile of the patients with these numbers, with every sum kept."""
    return measure_profile(patients(first, last, blur_px))


def write_patient(folder: Path, number: int, hu: np.ndarray, name: str) -> None:
    """Write a series of a patient of that name as DICOM."""

    def name_patient(ds: Dataset, _: int) -> None:
        ds.PatientID = name

    stored = (hu + 1024).astype("<u2")
    write_series(folder, stored=stored, series=f"1.2.{number}", change=name_patient)
