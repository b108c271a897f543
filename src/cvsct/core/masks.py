"""Tissue masks: the table of HU ranges, masks of tissue, random square regions, drawn regions.

Tissue is separated from air and bone on a *blurred* image. On raw HU the noise itself decides which
pixels pass, and any statistic of what passed is biased by it (notebook/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from cvsct.core.errors import GeometryError


@dataclass(frozen=True)
class HURange:
    """One row of the table of HU ranges.

    Whether an end belongs to the range is decided where the range is used.

    Args:
        low_hu: lower end; minus infinity where there is none.
        high_hu: upper end; infinity where there is none.
        what: which tissue the range holds, on which image, and why it ends there.
        source: where the numbers come from; `chosen` where they are this program's own.
    """

    low_hu: float
    high_hu: float
    what: str
    source: str = "chosen"

    @property
    def limits_hu(self) -> tuple[float, float]:
        """Both ends."""
        return self.low_hu, self.high_hu


# Masks, on the blurred image
BODY = HURange(-300.0, np.inf, "the patient: halfway between air and soft tissue, well above lung")
SOFT_TISSUE = HURange(
    -200.0, 300.0, "fat to contrast-filled vessels; below lie lung and air, above cortical bone"
)
LUNG = HURange(
    -np.inf, -500.0, "lung, gas in the bowel, and outside the body air; ends halfway to tissue"
)
FAT = HURange(-150.0, -50.0, "fat; from lung's -500 to -150 HU is mostly edges, of no tissue")
ORGANS = HURange(-50.0, 200.0, "soft tissue but fat: muscle, blood and organs, contrast in vessels")
BONE = HURange(200.0, np.inf, "bone, and dense contrast medium with it")
LUNG_WITH_TISSUE = HURange(
    -930.0, -500.0,
    "lung that holds tissue; below, clipped noise shifts the mean by what depends on the kernel",
)  # fmt: skip
CLIPPED_NOISE = HURange(
    -np.inf, -650.0, "air and dark lung, of which noise reaches the floor at -1024 HU"
)

# Means of homogeneous patches
UNENHANCED_ORGANS = HURange(
    -30.0, 110.0, "muscle, blood and organs without fat: the two peaks must not be confused"
)

# Single voxels, noise included
FAT_VOXELS = HURange(
    -200.0, -30.0, "fat as single voxels show it, with their noise: wider than of the blurred image"
)
AIR_VOXELS = HURange(-1100.0, -850.0, "air, with its noise and what calibration leaves")
CUT_AIR_VOXELS = HURange(
    -1100.0, -900.0,
    "where a lowest stored value cuts noise of air and lung; lower ones are padding",
)  # fmt: skip
TISSUE_WITHOUT_FAT = HURange(
    -10.0, 300.0, "the median of a scan of nothing but the inside of a body; above air and fat"
)
BODY_VOXELS = HURange(
    -900.0, 4000.0, "lung to metal: a declared padding value in here would erase real voxels"
)

# What images are clipped to before they are compared
SOFT_TISSUE_BORDERS = HURange(
    -150.0, 250.0, "fat, muscle and organs, which tell bodies apart; steps to air and bone do not"
)
AIR_TO_VESSELS = HURange(
    -1000.0, 300.0, "without floors of air, which differ by kernel, and metal, which outshines all"
)
AIR_TO_BONE = HURange(-1000.0, 1000.0, "the same, before a blur through which metal would shine")

# What pictures show from black to white
SOFT_TISSUE_WINDOW = HURange(-160.0, 240.0, "level 40, width 400", "the usual soft-tissue window")
LUNG_WINDOW = HURange(-1350.0, 150.0, "level -600, width 1500", "the usual lung window")
BONE_WINDOW = HURange(-450.0, 1050.0, "level 300, width 1500", "the usual bone window")
NETWORK_WINDOW = HURange(-1000.0, 900.0, "all that a network sees", "paper, Model Implementation")


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
    """A labeled region of any shape in one slice: a mask within its bounding box.

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
) -> Bool[np.ndarray, "slices rows columns"]:
    """True where the blurred image is soft tissue, both ends of the range included."""
    return soft_tissue_of(blurred(hu))


def soft_tissue_of(
    smooth: Float[np.ndarray, "slices rows columns"],
) -> Bool[np.ndarray, "slices rows columns"]:
    """`soft_tissue` of an image that is already blurred."""
    return (smooth >= SOFT_TISSUE.low_hu) & (smooth <= SOFT_TISSUE.high_hu)


def covered_fraction(
    mask: Bool[np.ndarray, "slices rows columns"], size_px: int, step_px: int = 1
) -> Float[np.ndarray, "slices starts_y starts_x"]:
    """Share of each square of `size_px` that lies in the mask, by its first row and column.

    Args:
        mask: voxels that count.
        size_px: side of the squares.
        step_px: step between the first rows and columns of squares.
    """
    if min(mask.shape[1:]) < size_px:
        raise GeometryError(
            f"slices of {mask.shape[1]}x{mask.shape[2]} pixels hold no region of {size_px} pixels"
        )
    summed = np.zeros((len(mask), mask.shape[1] + 1, mask.shape[2] + 1), dtype=np.int32)
    for plane, total in zip(mask, summed, strict=True):  # a slice's sums fit into the cache
        np.cumsum(plane, axis=0, dtype=np.int32, out=total[1:, 1:])
        np.cumsum(total, axis=1, out=total)
    n = size_px
    first, last = slice(None, -n, step_px), slice(n, None, step_px)
    inside = summed[:, last, last] - summed[:, first, last] - summed[:, last, first]
    return (inside + summed[:, first, first]) / float(n * n)


def sample_regions(
    mask: Bool[np.ndarray, "slices rows columns"],
    size_px: int,
    count: int,
    rng: np.random.Generator,
    min_fraction: float = 0.95,
    exclude: Bool[np.ndarray, "slices rows columns"] | None = None,
) -> list[Region]:
    """Draw up to `count` square regions that do not overlap, spread evenly over the slices.

    Args:
        mask: voxels in which regions may lie.
        size_px: side of the squares.
        count: number of regions wanted.
        rng: source of randomness.
        min_fraction: the share of a region that must lie in the mask.
        exclude: voxels no region may touch, such as padding.

    Returns:
        Regions in random order; fewer than `count` where the mask has no room for more.
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
    return body_of(blurred(hu))


def body_of(
    smooth: Float[np.ndarray, "slices rows columns"],
) -> Bool[np.ndarray, "slices rows columns"]:
    """`body` of an image that is already blurred."""
    outline = np.zeros(smooth.shape, dtype=bool)
    for index, plane in enumerate(smooth > BODY.low_hu):
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
