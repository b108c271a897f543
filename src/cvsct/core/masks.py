"""Where the soft tissue is: masks, seeded square regions, regions of any shape.

Tissue is told from air and bone on a *blurred* image. On raw HU the noise itself decides which
pixels pass, and any statistic of what passed is biased by it (notebook/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from cvsct.core.errors import GeometryError

SOFT_TISSUE_HU = (-200.0, 300.0)
"""Fat to contrast-filled vessels; lung and air lie below, cortical bone above."""

SOFT_TISSUE_WINDOW_HU = (-160, 240)
"""What pictures show from black to white: level 40, width 400, the usual soft-tissue window."""


BODY_HU = -300.0
"""Halfway between air and soft tissue, well above lung, on the blurred image."""


@dataclass(frozen=True)
class Region:
    """A square of one slice, by its first row and column."""

    slice_index: int
    row: int
    column: int
    size_px: int

    def cut(self, stack: Shaped[np.ndarray, "slices rows columns"]) -> Shaped[np.ndarray, "n n"]:
        """The region's pixels of a stack of slices, as a view."""
        rows = slice(self.row, self.row + self.size_px)
        return stack[self.slice_index, rows, self.column : self.column + self.size_px]


@dataclass(frozen=True)
class MaskedRegion:
    """Part of one slice in any shape: a mask within its bounding box, and what it is called.

    Args:
        mask: true where a pixel belongs to the region; its first pixel lies at `row`, `column`.
    """

    label: str
    slice_index: int
    row: int
    column: int
    mask: Bool[np.ndarray, "rows columns"]

    def cut(self, stack: Shaped[np.ndarray, "slices rows columns"]) -> Shaped[np.ndarray, "_ _"]:
        """The bounding box's pixels of a stack of slices, as a view."""
        height, width = self.mask.shape
        rows = slice(self.row, self.row + height)
        return stack[self.slice_index, rows, self.column : self.column + width]


def masked_regions(mask: Bool[np.ndarray, "slices rows columns"], label: str) -> list[MaskedRegion]:
    """One region for each slice in which the mask holds anything, in slice order."""
    regions = []
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        rows, columns = (np.flatnonzero(mask[index].any(axis=axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        box = mask[index, top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
        regions.append(MaskedRegion(label, int(index), top, left, box.copy()))
    return regions


def blurred(
    hu: Float[np.ndarray, "slices rows columns"], sigma_px: float = 2.0
) -> Float[np.ndarray, "slices rows columns"]:
    """Each slice smoothed by a Gaussian, wide enough to leave anatomy and drop noise."""
    smooth: Float[np.ndarray, "slices rows columns"] = ndimage.gaussian_filter(
        hu, sigma=(0, sigma_px, sigma_px), mode="nearest"
    )
    return smooth


def soft_tissue(
    hu: Float[np.ndarray, "slices rows columns"],
    hu_range: tuple[float, float] = SOFT_TISSUE_HU,
    sigma_px: float = 2.0,
) -> Bool[np.ndarray, "slices rows columns"]:
    """True where the blurred image is soft tissue."""
    smooth = blurred(hu, sigma_px)
    return (smooth >= hu_range[0]) & (smooth <= hu_range[1])


def covered_fraction(
    mask: Bool[np.ndarray, "slices rows columns"], size_px: int
) -> Float[np.ndarray, "slices starts_y starts_x"]:
    """For each square of `size_px`, by its first row and column, the share that is in the mask."""
    if min(mask.shape[1:]) < size_px:
        raise GeometryError(
            f"slices of {mask.shape[1]}x{mask.shape[2]} pixels hold no region of {size_px} pixels"
        )
    summed = np.zeros((len(mask), mask.shape[1] + 1, mask.shape[2] + 1), dtype=np.int64)
    np.cumsum(mask, axis=1, out=summed[:, 1:, 1:])
    np.cumsum(summed, axis=2, out=summed)
    n = size_px
    inside = summed[:, n:, n:] - summed[:, :-n, n:] - summed[:, n:, :-n] + summed[:, :-n, :-n]
    return inside / float(n * n)


def sample_regions(
    mask: Bool[np.ndarray, "slices rows columns"],
    size_px: int,
    count: int,
    rng: np.random.Generator,
    min_fraction: float = 0.95,
    exclude: Bool[np.ndarray, "slices rows columns"] | None = None,
) -> list[Region]:
    """Up to `count` regions that do not overlap, in random order, spread evenly over the slices.

    Args:
        mask: where regions may lie.
        min_fraction: the share of a region that must lie in the mask.
        exclude: voxels no region may touch, such as padding.

    Returns:
        Fewer than `count` regions where the tissue runs out.
    """
    allowed = covered_fraction(mask, size_px) >= min_fraction
    if exclude is not None:
        allowed &= covered_fraction(exclude, size_px) == 0
    free = [_starts(plane, rng) for plane in allowed]
    chosen: list[Region] = []
    while len(chosen) < count and any(len(starts) for starts in free):
        for index in rng.permutation(len(free)):
            if len(free[index]) == 0 or len(chosen) == count:
                continue
            row, column = (int(value) for value in free[index][0])
            chosen.append(Region(int(index), row, column, size_px))
            apart = np.abs(free[index] - free[index][0]).max(axis=1) >= size_px
            free[index] = free[index][apart]
    return chosen


def _starts(
    plane: Bool[np.ndarray, "rows columns"], rng: np.random.Generator
) -> Int[np.ndarray, "n 2"]:
    starts = np.argwhere(plane)
    return starts[rng.permutation(len(starts))]


def body(
    hu: Float[np.ndarray, "slices rows columns"],
) -> Bool[np.ndarray, "slices rows columns"]:
    """True inside the patient, lungs included: each slice's largest object, holes filled."""
    outline = np.zeros(hu.shape, dtype=bool)
    for index, plane in enumerate(blurred(hu) > BODY_HU):
        objects, count = ndimage.label(plane)
        if count == 0:
            continue
        largest = objects == 1 + int(np.argmax(np.bincount(objects.ravel())[1:]))
        gaps, count = ndimage.label(~largest)
        open_gap = np.zeros(count + 1, dtype=bool)
        for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
            open_gap[edge] = True
        open_gap[0] = False
        outline[index] = ~open_gap[gaps]
    return outline
