"""Where features are measured: seeded soft-tissue regions, the same in every side's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cvsct.errors import EvaluationError
from cvsct.evaluation.pairing import SharedSlices, images_of
from cvsct.regions import Region, sample_regions, soft_tissue
from cvsct.runs import random_stream


@dataclass(frozen=True)
class Placed:
    """A region, and which of the shared volumes it lies in."""

    volume: int
    z_mm: float
    region: Region


def place_regions(
    shared: Sequence[SharedSlices], count: int, size_px: int, seed: int
) -> list[Placed]:
    """Seeded regions in soft tissue as the blurred target shows it, shared out over the volumes.

    Raises:
        EvaluationError: if no volume has room for one.
    """
    placed: list[Placed] = []
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
            placed.append(Placed(number, float(target.geometry.z_mm[at]), where))
    if not placed:
        raise EvaluationError(
            f"no {size_px}x{size_px} px region of soft tissue in the target; "
            "give scans of the trunk, or a smaller roi_px"
        )
    return placed
