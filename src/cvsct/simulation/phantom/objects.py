"""Test objects for the virtual scanners: discs, from a wire to a water cylinder."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

SAMPLES = 8
"""Samples a pixel's side when its covered part is counted."""


def disc_amounts(
    size: int, extent_mm: float, radius_mm: float, centre_mm: tuple[float, float] = (0.0, 0.0)
) -> Float32[np.ndarray, "size size"]:
    """A disc of amount 1: each pixel holds the part of it that is covered (8 x 8 samples).

    Args:
        size: rows and columns.
        extent_mm: side of the square raster, centred on the isocentre.
        centre_mm: the disc's middle, x and y. What lies beyond the raster is cut off.
    """
    pixel_mm = extent_mm / size
    borders_mm = np.arange(size + 1) * pixel_mm - extent_mm / 2
    inner = (np.arange(SAMPLES) + 0.5) / SAMPLES * pixel_mm
    columns, rows = (
        slice(
            max(int(np.searchsorted(borders_mm, middle - radius_mm)) - 1, 0),
            min(int(np.searchsorted(borders_mm, middle + radius_mm)), size),
        )
        for middle in centre_mm
    )
    across = (borders_mm[:-1][columns, None] + inner - centre_mm[0]) ** 2
    covered = np.zeros((size, size), np.float32)
    for row in range(rows.start, rows.stop):
        down = (borders_mm[row] + inner - centre_mm[1]) ** 2
        inside = across[:, :, None] + down < radius_mm**2
        covered[row, columns] = inside.mean(axis=(1, 2))
    return covered
