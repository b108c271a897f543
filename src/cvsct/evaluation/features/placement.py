"""Placement of the regions where features are measured, the same in every side's images.

Regions are squares of soft tissue at seeded random positions, whole slices, or the user's masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import MaskedRegion, Region, sample_regions
from cvsct.core.seeding import random_stream
from cvsct.evaluation.features.roi import whole_slices
from cvsct.evaluation.shared_slices import SharedSlices, images_of


@dataclass(frozen=True)
class PlacedRegion:
    """A region with the volume that it lies in.

    Args:
        volume: number of the volume among the shared ones.
        z_mm: position of its slice along the normal.
        region: the region.
    """

    volume: int
    z_mm: float
    region: Region | MaskedRegion


def place_regions(
    shared: Sequence[SharedSlices],
    soft: Sequence[Bool[np.ndarray, "_ _ _"]],
    count: int,
    size_px: int,
    seed: int,
) -> list[PlacedRegion]:
    """Place squares at random positions in soft tissue, as the blurred target shows it.

    They are distributed over all volumes.

    Args:
        shared: slices of every side, with a target.
        soft: soft tissue of each target.
        count: number of squares.
        size_px: side of a square.
        seed: seed of the positions.

    Raises:
        EvaluationError: if no volume has room for a square.
    """
    placed: list[PlacedRegion] = []
    for number, slices in enumerate(shared):
        target = images_of(slices, "target")
        rng = random_stream(seed, "regions", str(number))
        share = -(-(count - len(placed)) // (len(shared) - number))
        searched = rng.permutation(len(target.hu))[: 2 * share]  # enough slices of a long series
        volumes = (slices.harmonized, target, slices.source)
        padding = [v.padding[searched] for v in volumes if v is not None and v.padding is not None]
        regions = sample_regions(
            soft[number][searched],
            size_px,
            share,
            rng,
            exclude=np.logical_or.reduce(padding) if padding else None,
        )
        for region in regions:
            index = int(searched[region.slice_index])
            z_mm = float(target.geometry.z_mm[index])
            placed.append(PlacedRegion(number, z_mm, replace(region, slice_index=index)))
    if not placed:
        raise EvaluationError(
            f"no {size_px}x{size_px} px region of soft tissue in the target; "
            "give scans of the trunk, or a smaller roi_px"
        )
    return placed


def place_slices(shared: Sequence[SharedSlices]) -> list[PlacedRegion]:
    """Make a region of all soft tissue of each slice, as the blurred target shows it.

    Raises:
        EvaluationError: if no slice shows soft tissue.
    """
    placed = []
    for number, slices in enumerate(shared):
        target = images_of(slices, "target")
        for region in whole_slices(target):
            z_mm = float(target.geometry.z_mm[region.slice_index])
            placed.append(PlacedRegion(number, z_mm, region))
    return placed


def place_masks(
    shared: Sequence[SharedSlices], masks: Mapping[int, Sequence[MaskedRegion]]
) -> list[PlacedRegion]:
    """Place the user's masks on the slices that are compared.

    Args:
        shared: slices of every side, with a target.
        masks: regions drawn on target series, by the number of the series.

    Raises:
        EvaluationError: if no mask lies on a slice that is compared.
    """
    placed = []
    for number, slices in enumerate(shared):
        series, target_slices = slices.target_at
        index_of = {slice_index: i for i, slice_index in enumerate(target_slices)}
        for region in masks.get(series, ()):
            if region.slice_index in index_of:
                i = index_of[region.slice_index]
                z_mm = float(images_of(slices, "target").geometry.z_mm[i])
                placed.append(PlacedRegion(number, z_mm, replace(region, slice_index=i)))
    if not placed:
        raise EvaluationError(
            "no mask lies on a slice that is compared; draw masks on the target series"
        )
    return placed
