"""Slices on another pixel grid, for domains whose pixels differ. It changes texture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from cvsct.core.volume import CTVolume


def resampled_shape(
    shape: tuple[int, int, int], pixel_mm: tuple[float, float], to_mm: float
) -> tuple[int, int, int]:
    """Slices, rows and columns that cover the same field of view with pixels of `to_mm`."""
    slices, rows, columns = shape
    down, across = (n * mm / to_mm for n, mm in zip((rows, columns), pixel_mm, strict=True))
    return slices, max(1, round(down)), max(1, round(across))


def resampled(volume: CTVolume, to_mm: float) -> CTVolume:
    """The volume in pixels of exactly `to_mm`, about the same center, by a cubic spline.

    Towards coarser pixels it is smoothed first, by half the excess of the ratio in pixels, as
    scikit-image's `resize` does: else noise would be folded into lower frequencies. Values are
    rounded to whole HU, as scanners round them. Padding and headers no longer fit and are left.
    """
    geometry = volume.geometry
    slices, rows, columns = volume.hu.shape
    shape = resampled_shape((slices, rows, columns), geometry.pixel_mm, to_mm)
    ratio = to_mm / np.array(geometry.pixel_mm)
    first_px = (np.array([rows, columns]) - 1) / 2 - ratio * (np.array(shape[1:]) - 1) / 2
    hu = np.empty(shape, dtype=np.float32)
    for plane, fine in zip(volume.hu, hu, strict=True):
        smooth = ndimage.gaussian_filter(plane, np.maximum(0, (ratio - 1) / 2), mode="nearest")
        ndimage.affine_transform(
            smooth, ratio, first_px, output_shape=shape[1:], output=fine, mode="nearest"
        )
    first_mm = first_px * geometry.pixel_mm
    moved = np.outer(first_mm, [1, 1, 1]) * [geometry.column_direction, geometry.row_direction]
    return CTVolume(
        hu=np.rint(hu, out=hu),
        geometry=replace(
            geometry,
            positions_mm=geometry.positions_mm + moved.sum(axis=0),
            pixel_mm=(to_mm, to_mm),
        ),
        acquisition=volume.acquisition,
        series_uid=volume.series_uid,
        patient=volume.patient,
    )
