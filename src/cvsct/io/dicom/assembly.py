"""Assembly of a volume from slices that are read one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from pydicom import Dataset

from cvsct.core.errors import SeriesError
from cvsct.core.volume import CTVolume, Geometry, OpenedScan
from cvsct.io.dicom.pixels import Slice

MAX_VOXELS = 2**31
"""Most voxels of a volume: 8 GiB of float32, more than 8000 slices of 512 x 512."""


def volume_of(
    slices: Iterable[tuple[Slice, Dataset]], shape: tuple[int, int, int], geometry: Geometry
) -> CTVolume:
    """A volume of slices and their headers."""
    hu = np.empty(shape, dtype=np.float32)
    padding = np.zeros(shape, dtype=bool)
    padding_stored, headers = [], []
    for slot, (pixels, header) in enumerate(slices):
        hu[slot], padding[slot] = pixels.hu, pixels.padding
        padding_stored.append(pixels.padding_stored)
        headers.append(header)
    padded = bool(padding.any())
    return CTVolume(
        hu=hu,
        geometry=geometry,
        padding=padding if padded else None,
        padding_stored=tuple(padding_stored) if padded else (),
        headers=tuple(headers),
    )


def volume_between(
    opened: OpenedScan, name: str, slices: Iterable[tuple[Slice, Dataset]], index: range
) -> CTVolume:
    """Consecutive slices of a series, read as they are asked for, as a volume of their own.

    Raises:
        SeriesError: if they are more voxels than `MAX_VOXELS`; nothing is read then.
    """
    shape = (len(index), *opened.shape[1:])
    refuse_huge(name, shape)
    positions_mm = opened.geometry.positions_mm[index.start : index.stop]
    return replace(
        volume_of(slices, shape, replace(opened.geometry, positions_mm=positions_mm)),
        acquisition=opened.acquisition,
        series_uid=opened.series_uid,
        patient=opened.patient,
        notes=opened.notes,
    )


def refuse_huge(name: str, shape: tuple[int, int, int]) -> None:
    """Refuse more voxels than `MAX_VOXELS` at once."""
    if int(np.prod(shape, dtype=np.int64)) > MAX_VOXELS:
        raise SeriesError(
            f"{name}: {shape[0]} slices of {shape[1]} x {shape[2]} are more than {MAX_VOXELS} "
            "voxels; split the series"
        )
