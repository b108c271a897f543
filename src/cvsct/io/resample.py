"""Scans of thin slices brought to thicker ones, in memory or from disk to disk.

The thicker slices are still the scanner's images: training and harmonization take them as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvsct.core.errors import GeometryError
from cvsct.core.thick_slices import plan_average, thick_geometry, thick_slices
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.header import label, quiet
from cvsct.io.dicom.resampled import ResampledWriter, Resampling
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import DerivedSeries
from cvsct.io.nifti.read import NiftiStack
from cvsct.io.nifti.resampled import NiftiResampledWriter
from cvsct.io.series import open_series


def resample_volume(
    volume: CTVolume,
    to_thickness_mm: float,
    to_spacing_mm: float | None = None,
    to_z_mm: Sequence[float] | None = None,
) -> CTVolume:
    """Average a volume's slices to thicker ones.

    Args:
        volume: slices of known thickness.
        to_thickness_mm: of the thicker slices.
        to_spacing_mm: distance between them; None for their thickness.
        to_z_mm: their centers along the normal, evenly apart, in place of a grid that begins at the
            edge of the first slice; those that the slices do not cover are left out.

    Returns:
        The thicker slices, without the headers that only writers need. A voxel is padding where
        more than half of its weight is padding, else the mean of what is not padding.

    Raises:
        GeometryError: if the slices are thicker than asked for, too far apart, too few, or of
            unknown thickness.
    """
    average = plan_average(volume.geometry, to_thickness_mm, to_spacing_mm, to_z_mm)
    resampling = Resampling.of(volume.geometry, volume.geometry.thickness_mm, average)
    made = list(thick_slices(volume, average))
    padding = np.stack([thick.padding for thick in made])
    return CTVolume(
        hu=np.stack([thick.hu for thick in made]),
        geometry=thick_geometry(volume.geometry, average),
        acquisition=volume.acquisition,
        padding=padding if padding.any() else None,
        series_uid=resampling.uid(volume.series_uid, "series") if volume.series_uid else "",
        patient=volume.patient,
        notes=volume.notes,
    )


def resample_series(
    series: SeriesFiles,
    folder: Path,
    to_thickness_mm: float,
    to_spacing_mm: float | None = None,
    to_z_mm: Sequence[float] | None = None,
    *,
    own_thickness_mm: float = 0.0,
) -> DerivedSeries:
    """Write a series' slices, averaged to thicker ones, as a series of the same scanner.

    DICOM becomes derived DICOM, NIfTI becomes NIfTI. Slices are read as they are needed and then
    freed. NIfTI knows no slice thickness: the distance between its slices is taken for it.

    Args:
        series: the source.
        folder: one series a folder; files of an earlier identical run are replaced.
        to_thickness_mm, to_spacing_mm, to_z_mm: as in `resample_volume`.
        own_thickness_mm: thickness of its slices, in place of what its files say; 0 to go by them.

    Raises:
        SeriesError: if the series cannot be read or its headers not be rewritten.
        GeometryError: if thicker slices cannot be made of it.
        OSError: if a file cannot be written.
    """
    with quiet():  # once for all attributes of all files
        opened = open_series(series)
        geometry = opened.geometry
        is_nifti = isinstance(opened, NiftiStack)
        told_mm = geometry.spacing_mm if is_nifti else geometry.thickness_mm
        thickness_mm = own_thickness_mm or told_mm
        try:
            average = plan_average(
                geometry, to_thickness_mm, to_spacing_mm, to_z_mm, thickness_mm=thickness_mm
            )
        except GeometryError as error:
            raise GeometryError(f"{label(series.files[0])}: {error}") from None
        resampling = Resampling.of(geometry, thickness_mm, average)
        writer: NiftiResampledWriter | ResampledWriter
        if isinstance(opened, NiftiStack):
            writer = NiftiResampledWriter(folder, resampling, average, opened, series.name)
        else:
            writer = ResampledWriter(folder, resampling, len(average), series.repeated)
        for thick in thick_slices(opened, average):
            writer.write(thick)
        return writer.finish()
