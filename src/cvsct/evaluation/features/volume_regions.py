"""Regions of a volume in three dimensions: masks, blocks of soft tissue, and the lungs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import ORGANS, blurred, sample_regions
from cvsct.core.seeding import random_stream
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.densitometry import FIGURES, LungDensity
from cvsct.evaluation.image.lungs import lung_mask

LUNG_REGION = "lung"
"""Name of the region of both lungs, the only one with densitometry."""
SOFT_TISSUE_REGION = "soft_tissue"
"""Beginning of the names of the blocks: `soft_tissue_1` and so on."""

BLOCK_TISSUE = ORGANS
"""HU of the blurred image in which all of a block lies: texture of fat says little of a kernel, and
a rim of lung, fat or bone outweighs any texture beside it."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class VolumeRegion:
    """A named region of a volume: a mask within its bounding box.

    Args:
        name: name of the region in tables.
        start: slice, row and column of the mask's first voxel.
        mask: true where a voxel belongs to the region.
        reason: why there is nothing to measure; the mask is then empty.
        with_shape: whether its shape is measured.
    """

    name: str
    start: tuple[int, int, int] = (0, 0, 0)
    mask: Bool[np.ndarray, "slices rows columns"] | None = None
    reason: str = ""
    with_shape: bool = True

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return 0 if self.mask is None else int(self.mask.sum())

    @property
    def box(self) -> Box:
        """Where the mask lies in its volume."""
        shape = (0, 0, 0) if self.mask is None else self.mask.shape
        z, y, x = (
            slice(first, first + size) for first, size in zip(self.start, shape, strict=True)
        )
        return z, y, x

    def largest_slice(self) -> VolumeRegion:
        """The region within the slice in which it has the most voxels; the first such slice."""
        if self.mask is None:
            return self
        index = int(np.argmax(self.mask.sum(axis=(1, 2))))
        inner = region_of(self.name, self.mask[index : index + 1])
        start = (
            self.start[0] + index,
            self.start[1] + inner.start[1],
            self.start[2] + inner.start[2],
        )
        return replace(self, start=start, mask=inner.mask)


def region_of(name: str, mask: Bool[np.ndarray, "slices rows columns"]) -> VolumeRegion:
    """The region that a mask of a whole volume marks; an empty one has a reason."""
    boxes = ndimage.find_objects(mask.astype(np.uint8), max_label=1)
    if not boxes or boxes[0] is None:
        return VolumeRegion(name, reason=f"region {name!r} is empty; check that its mask was saved")
    box: Box = boxes[0]
    start = (box[0].start, box[1].start, box[2].start)
    return VolumeRegion(name, start, mask[box].copy())


def seeded_regions(
    volume: CTVolume,
    count: int,
    size_px: int,
    seed: int,
    missing: Callable[[str], None] = lambda _: None,
) -> list[VolumeRegion]:
    """Blocks of soft tissue at seeded random positions, and the lungs where the scan shows them.

    The shape of the lungs is not measured: it is that of the part of them that was scanned.

    A block is a square of `size_px` pixels in as many slices as make it about as high as it is
    wide, or as there are. All of it lies in `BLOCK_TISSUE`: organs, muscle and blood, neither fat
    nor lung nor bone.

    Args:
        volume: the scan, a source where there is one: its harmonized series has the same regions.
        count: number of blocks; fewer where there is no room.
        size_px: side of a block.
        seed: seed of the positions; each series has its own.
        missing: called with what the scan has no region of, and why.

    Raises:
        EvaluationError: if the scan has room for no block and shows no lungs.
    """
    regions = _blocks(volume, count, size_px, seed)
    if len(regions) < count:
        missing(f"room for {len(regions)} of {count} blocks of soft tissue, {size_px} pixels wide")
    lungs = lung_mask(volume)
    if lungs.why_none:
        missing(f"no row {LUNG_REGION!r}: {lungs.why_none}")
    else:
        regions.append(replace(region_of(LUNG_REGION, lungs.mask), with_shape=False))
    if not regions:
        raise EvaluationError(
            f"no block of {size_px} pixels of soft tissue and no lungs in this scan; give masks"
        )
    return regions


def _blocks(volume: CTVolume, count: int, size_px: int, seed: int) -> list[VolumeRegion]:
    """Blocks of soft tissue; fewer than `count` where there is no room."""
    if min(volume.shape[1:]) < size_px:
        return []
    smooth = blurred(volume.hu)
    tissue = (smooth >= BLOCK_TISSUE.low_hu) & (smooth <= BLOCK_TISSUE.high_hu)
    if volume.padding is not None:
        tissue &= ~volume.padding
    depth = _depth(volume, size_px)
    rng = random_stream(seed, "volume regions", volume.series_uid)
    first = int(rng.integers(0, (len(volume) - depth) % depth + 1))
    starts = np.arange(first, len(volume) - depth + 1, depth)
    layers = np.stack([tissue[start : start + depth].all(axis=0) for start in starts])
    whole = np.ones((depth, size_px, size_px), dtype=bool)
    squares = sample_regions(layers, size_px, count, rng, min_fraction=1.0)
    squares.sort(key=lambda square: (square.slice_index, square.row, square.column))
    return [
        VolumeRegion(
            f"{SOFT_TISSUE_REGION}_{number}",
            (int(starts[square.slice_index]), square.row, square.column),
            whole,
        )
        for number, square in enumerate(squares, start=1)
    ]


def densitometry(volume: CTVolume, region: VolumeRegion) -> dict[str, float]:
    """Columns of the lungs' densitometry; none for other regions."""
    if region.name != LUNG_REGION or region.mask is None:
        return {}
    mask = np.zeros(volume.shape, dtype=bool)
    mask[region.box] = region.mask
    density = LungDensity.of(volume, mask)
    values = {name: getattr(density, name) for name in FIGURES}
    return {f"{LUNG_REGION}_{name}": value for name, value in values.items() if value is not None}


def voxel_mm3(volume: CTVolume) -> float:
    """Volume of a voxel in mm3, by the distance between slices."""
    rows_mm, columns_mm = volume.geometry.pixel_mm
    return slice_mm(volume) * rows_mm * columns_mm


def slice_mm(volume: CTVolume) -> float:
    """Distance between slices in mm; 1 where a single slice does not tell its thickness."""
    return abs(volume.geometry.spacing_mm) or 1.0


def _depth(volume: CTVolume, size_px: int) -> int:
    """Number of slices that make a block about as high as it is wide, at most all."""
    wanted = round(size_px * volume.pixel_mm / slice_mm(volume))
    return max(1, min(wanted, len(volume)))
