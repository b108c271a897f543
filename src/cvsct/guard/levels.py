"""A slice before and after a mapping on a few coarse grids, where reconstruction kernels agree.

A kernel has gain 1 at zero frequency and differs from others mostly above 0.2 cycles/mm; averaged
over 1.4 mm and more, two reconstructions of one body differ little, and what still differs looks
like the second derivative of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from cvsct.spectra import body
from cvsct.volume import AIR_FLOOR_HU

FINEST_MM = 1.4
"""Pixels of the finest grid: two of a usual chest scan; finer shows noise and kernel only."""

LEVELS = 3
"""Grids, each twice as coarse as the one before."""

CLIPPED_BELOW_HU = -650.0
"""Where the mean lies below, noise may have been cut off at -1024 HU: its mean depends on how much
noise there is."""

CLIP_STEP_HU = 20.0
CLIP_MIN_PX = 100
"""Classes of CT number for which a shift by clipping is read, and the fewest pixels of one."""


@dataclass(frozen=True)
class Level:
    """Both images and where they show the patient, on one grid.

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


def unclipped(level: Level) -> Level:
    """The image after, less what clipped noise shifts the CT numbers of lung and air by.

    A sharper kernel has more noise, of which more is cut off at -1024 HU: the darker a place, the
    more its mean rises. That is the same wherever the image is as dark: the median of a class of
    CT number, which a nodule does not move.
    """
    smooth_b, smooth_a = (
        ndimage.gaussian_filter(image, 1.0, mode="mirror", truncate=3.0)
        for image in (level.before, level.after)
    )
    middle, change = 0.5 * (smooth_b + smooth_a), smooth_a - smooth_b
    edges = np.arange(AIR_FLOOR_HU, CLIPPED_BELOW_HU + 1, CLIP_STEP_HU, dtype=np.float32)
    dark = level.inside & (middle < CLIPPED_BELOW_HU)
    which, values = np.digitize(middle[dark], edges), change[dark]
    shifts = [0.0]
    for k in range(1, len(edges) + 1):
        members = values[which == k]
        shifts.append(float(np.median(members)) if len(members) >= CLIP_MIN_PX else 0.0)
    centres = np.append(edges[:1], edges + CLIP_STEP_HU / 2)
    shift = np.interp(middle, centres, shifts, left=0.0, right=0.0).astype(np.float32)
    return replace(level, after=level.after - shift)


def levels_of(finest: Level) -> Iterator[Level]:
    """The grids from the finest to the coarsest that still holds a few pixels."""
    level = finest
    for _ in range(LEVELS):
        yield level
        if min(level.before.shape) < 16:
            return
        level = level.halved()


def binned(
    image: Float32[np.ndarray, "rows columns"], step: int
) -> Float32[np.ndarray, "less_rows less_columns"]:
    """Means of squares of `step` pixels; what is over at the last edges is left out."""
    rows, columns = (n // step * step for n in image.shape)
    tall = sum(image[first:rows:step] for first in range(1, step)) + image[0:rows:step]
    wide = sum(tall[:, first:columns:step] for first in range(1, step)) + tall[:, 0:columns:step]
    means: Float32[np.ndarray, "less_rows less_columns"] = wide / np.float32(step * step)
    return means
