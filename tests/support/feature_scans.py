"""Small scans of several patients with masks of three kinds, for tests of feature tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset
from scipy import ndimage

from cvsct.core.volume import CTVolume
from cvsct.io.dicom.simulated_masks import write_segmentation
from cvsct.io.dicom.write import write_derived
from cvsct.io.nifti.write import write_label_map
from cvsct.io.read import find_series, read_series
from tests.support.dicom_files import DERIVATION, INTERCEPT, write_series
from tests.support.structure_sets import rings, save_structures

SLICES, ROWS, COLUMNS = 6, 48, 52
CENTER, RADIUS_PX = (24, 30), 7.0
LESION_SLICES = (1, 2, 3)


def scan_hu(seed: int) -> np.ndarray:
    """Soft tissue with smooth noise, in whole HU, different for each seed."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(SLICES, ROWS, COLUMNS)), (0, 1, 1))
    return np.rint(40 + 20 * noise / noise.std()).astype(np.int64)


def write_patient(
    folder: Path,
    patient: str,
    number: int,
    institution: str = "Hospital",
    kernel: str = "K1",
) -> Path:
    """Write one patient's series; every number gives other UIDs and other voxels."""
    uid = f"1.2.826.{number}"

    def change(ds: Dataset, _: int) -> None:
        ds.PatientID, ds.InstitutionName, ds.ConvolutionKernel = patient, institution, kernel
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = f"{uid}.1", f"{uid}.2"

    stored = scan_hu(number) - INTERCEPT
    return write_series(folder, change=change, stored=stored, series=f"{uid}.3")


def volume_in(folder: Path) -> CTVolume:
    """The only series in a folder."""
    (series,) = find_series(folder)
    return read_series(series)


def harmonize_series(source: Path, folder: Path, shift_hu: int = 5) -> Path:
    """Write a derived series that differs from its source by a constant."""
    volume = volume_in(source)
    write_derived(volume, volume.hu + shift_hu, folder, DERIVATION)
    return folder


def lesion() -> np.ndarray:
    """The true mask of the lesion that all masks show: a cylinder over three slices."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    disk = (rows - CENTER[0]) ** 2 + (columns - CENTER[1]) ** 2 <= RADIUS_PX**2
    mask = np.zeros((SLICES, ROWS, COLUMNS), dtype=bool)
    mask[list(LESION_SLICES)] = disk
    return mask


def write_seg(path: Path, source: Path, mask: np.ndarray | None = None) -> Path:
    """The lesion as a DICOM segmentation; names of the source's files run against its slices."""
    drawn = lesion() if mask is None else mask
    write_segmentation(source, drawn[::-1], "lesion", path)
    return path


def write_rtstruct(path: Path, source: Path, name: str = "lesion") -> Path:
    """The lesion as an RT structure set, a little smaller or larger at its edge."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contours = rings(LESION_SLICES, *CENTER, RADIUS_PX + 0.1)
    return save_structures(path, volume_in(source), {name: contours})


def write_nifti_mask(path: Path, source: Path, mask: np.ndarray | None = None) -> Path:
    """The lesion as label 1 of a NIfTI label map."""
    drawn = lesion() if mask is None else mask
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_map(volume_in(source).geometry, drawn.astype(np.uint8), path)
    return path
