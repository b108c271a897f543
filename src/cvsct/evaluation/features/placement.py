"""Where features are measured, the same places in every side's images.

Seeded squares of soft tissue, whole slices, or the user's own masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import MaskedRegion, Region, sample_regions, soft_tissue
from cvsct.core.seeding import random_stream
from cvsct.evaluation.features.roi import whole_slices
from cvsct.evaluation.shared_slices import SharedSlices, images_of


@dataclass(frozen=True)
class PlacedRegion:
    """A region, and which of the shared volumes it lies in."""

    volume: int
    z_mm: float
    region: Region | MaskedRegion


def place_regions(
    shared: Sequence[SharedSlices], count: int, size_px: int, seed: int
) -> list[PlacedRegion]:
    """Seeded regions in soft tissue as the blurred target shows it, shared out over the volumes.

    Raises:
        EvaluationError: if no volume has room for one.
    """
    placed: list[PlacedRegion] = []
    for number, one in enumerate(shared):
        target = images_of(one, "target")
        rng = random_stream(seed, "regions", str(number))
        wanted = -(-(count - len(placed)) // (len(shared) - number))
        some = rng.permutation(len(target.hu))[: 2 * wanted]  # of a long series, enough slices
        volumes = (one.harmonized, target, one.source)
        outside = [v.padding[some] for v in volumes if v is not None and v.padding is not None]
        found = sample_regions(
            soft_tissue(target.hu[some]),
            size_px,
            wanted,
            rng,
            exclude=np.logical_or.reduce(outside) if outside else None,
        )
        for region in found:
            at = int(some[region.slice_index])
            where = replace(region, slice_index=at)
            placed.append(PlacedRegion(number, float(target.geometry.z_mm[at]), where))
    if not placed:
        raise EvaluationError(
            f"no {size_px}x{size_px} px region of soft tissue in the target; "
            "give scans of the trunk, or a smaller roi_px"
        )
    return placed


def place_slices(shared: Sequence[SharedSlices]) -> list[PlacedRegion]:
    """The soft tissue of each whole slice, as the blurred target shows it.

    Raises:
        EvaluationError: if no slice has any.
    """
    return [
        PlacedRegion(number, float(images_of(one, "target").geometry.z_mm[each.slice_index]), each)
        for number, one in enumerate(shared)
        for each in whole_slices(images_of(one, "target"))
    ]


def place_masks(
    shared: Sequence[SharedSlices], masks: Mapping[int, Sequence[MaskedRegion]]
) -> list[PlacedRegion]:
    """The user's masks, where the slices they were drawn on are compared.

    Args:
        masks: drawn on target series, by the number of the series.

    Raises:
        EvaluationError: if none lies on a slice that is compared.
    """
    placed = []
    for number, one in enumerate(shared):
        series, slices = one.target_at
        at = {slice_index: i for i, slice_index in enumerate(slices)}
        for region in masks.get(series, ()):
            if region.slice_index in at:
                i = at[region.slice_index]
                z_mm = float(images_of(one, "target").geometry.z_mm[i])
                placed.append(PlacedRegion(number, z_mm, replace(region, slice_index=i)))
    if not placed:
        raise EvaluationError(
            "no mask lies on a slice that is compared; draw masks on the target series"
        )
    return placed
