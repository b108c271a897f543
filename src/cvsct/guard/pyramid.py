"""A slice before and after a mapping on a few coarse grids, where reconstruction kernels agree.

A kernel has gain 1 at zero frequency and differs from others mostly above 0.2 cycles/mm; averaged
over 1.4 mm and more, two reconstructions of one body differ little, and the rest of their
difference is close to the second derivative of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from cvsct.core.masks import body

FINEST_MM = 1.4
"""Pixels of the finest grid: two of a usual chest scan; finer shows noise and kernel only."""

SMALLEST_PX = 16
"""Fewest rows and columns of a grid that is used."""

LEVELS = 3
"""Number of grids, each twice as coarse as the one before."""


@dataclass(frozen=True)
class Level:
    """Images before and after a mapping and the mask of the patient, on one grid of a pyramid.

    Args:
        inside: the patient, away from the outline, lungs included.
        pixel_mm: side of the grid's pixels.
    """

    before: Float32[np.ndarray, "rows columns"]
    after: Float32[np.ndarray, "rows columns"]
    inside: Bool[np.ndarray, "rows columns"]
    pixel_mm: float

    def halved(self) -> Level:
        """The next coarser grid."""
        return Level(
            binned(self.before, 2),
            binned(self.after, 2),
            binned(self.inside.astype(np.float32), 2) > 0.99,
            2 * self.pixel_mm,
        )


def finest_level(
    before_hu: Float32[np.ndarray, "rows columns"],
    after_hu: Float32[np.ndarray, "rows columns"],
    pixel_mm: float,
) -> Level:
    """Both images averaged to pixels of about `FINEST_MM`."""
    step = max(1, round(FINEST_MM / pixel_mm))
    before, after = (binned(image, step) for image in (before_hu, after_hu))
    inside = ndimage.binary_erosion(body(before[None])[0], iterations=2)
    return Level(before, after, inside, step * pixel_mm)


def pyramid_levels(finest: Level) -> Iterator[Level]:
    """Levels from the finest to the coarsest that has at least `SMALLEST_PX` rows and columns."""
    level = finest
    for _ in range(LEVELS):
        if min(level.before.shape) < SMALLEST_PX:
            return
        yield level
        level = level.halved()


def gaussian(
    image: Float32[np.ndarray, "rows columns"], sigma_px: float
) -> Float32[np.ndarray, "rows columns"]:
    """A Gaussian blur, cut off at three sigmas, mirrored at the edges."""
    smooth: Float32[np.ndarray, "rows columns"] = ndimage.gaussian_filter(
        image, sigma_px, mode="mirror", truncate=3.0
    )
    return smooth


def binned(
    image: Float32[np.ndarray, "rows columns"], step: int
) -> Float32[np.ndarray, "less_rows less_columns"]:
    """Means of squares of `step` pixels; remaining rows and columns are left out."""
    rows, columns = (n // step * step for n in image.shape)
    tall = sum(image[first:rows:step] for first in range(1, step)) + image[0:rows:step]
    wide = sum(tall[:, first:columns:step] for first in range(1, step)) + tall[:, 0:columns:step]
    means: Float32[np.ndarray, "less_rows less_columns"] = wide / np.float32(step * step)
    return means
