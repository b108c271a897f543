"""Patches of a volume that features are measured on: squares, whole slices and masks.

A region belongs to a place, not to an image: it is drawn on one side, the target, and the same
region is cut from every other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import MaskedRegion, Region, body, masked_regions, soft_tissue
from cvsct.core.volume import CTVolume
from cvsct.evaluation.features.radiomics import Patch

MIN_SLICE_SHARE = 0.01
"""Smallest share of a slice's pixels that must be tissue for it to be a region."""


def patch_of(volume: CTVolume, region: Region | MaskedRegion) -> Patch:
    """Cut a region from a volume; it has a mask unless it is a square.

    Raises:
        EvaluationError: if the region does not lie in the volume.
    """
    mask = region.mask if isinstance(region, MaskedRegion) else None
    height, width = (region.size_px,) * 2 if isinstance(region, Region) else region.mask.shape
    slices, rows, columns = volume.hu.shape
    last_row, last_column = region.row + height, region.column + width
    if (
        not 0 <= region.slice_index < slices
        or min(region.row, region.column) < 0
        or last_row > rows
        or last_column > columns
    ):
        raise EvaluationError(
            f"a region of {height}x{width} px at slice {region.slice_index}, row {region.row}, "
            f"column {region.column} does not lie in a volume of {volume.hu.shape}; "
            "draw it on a volume of the same grid"
        )
    geometry = volume.geometry
    thickness_mm = geometry.thickness_mm or geometry.spacing_mm
    return Patch(region.cut(volume.hu), (thickness_mm, *geometry.pixel_mm), mask)


def whole_slices(
    volume: CTVolume,
    slices: Sequence[int] | None = None,
    part: Literal["soft tissue", "body"] = "soft tissue",
) -> list[MaskedRegion]:
    """Make a region of each slice: all its soft tissue, or the body with its lungs and bones.

    Padding is left out, and so are slices with less than a hundredth of tissue.

    Args:
        volume: the volume.
        slices: numbers of the slices; None for all.
        part: what belongs to a region; also its label.

    Raises:
        EvaluationError: if no slice has any.
    """
    indices = list(range(len(volume.hu))) if slices is None else list(slices)
    regions: list[MaskedRegion] = []
    for i in indices:
        stack = volume.hu[i : i + 1]
        mask = soft_tissue(stack) if part == "soft tissue" else body(stack)
        if volume.padding is not None:
            mask = mask & ~volume.padding[i : i + 1]
        if mask.mean() >= MIN_SLICE_SHARE:
            regions += [replace(region, slice_index=i) for region in masked_regions(mask, part)]
    if not regions:
        raise EvaluationError(f"no slice shows any {part}; give scans of the trunk")
    return regions
