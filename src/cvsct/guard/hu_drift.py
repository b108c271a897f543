"""Shifts of CT numbers, averaged over regions so large that texture cancels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from cvsct.core.masks import LUNG_WITH_TISSUE, SOFT_TISSUE
from cvsct.guard.pyramid import Level, gaussian

MIN_PX = 300
"""Fewest pixels of a tissue, about 25 cm², of which a median is taken."""

WALL_PX = 2
"""Width in pixels of the margin of lung that is left out."""

REGION_MM = 8.0
"""Sigma of the window of a regional shift: an organ, not an edge."""


@dataclass(frozen=True)
class HUShifts:
    """Shifts of CT numbers between two images, in HU.

    Args:
        tissue_hu: median shift of soft tissue.
        lung_hu: median shift of lung.
        region_hu: largest deviation of a region's mean shift from the median of its tissue.
    """

    tissue_hu: float
    lung_hu: float
    region_hu: float


def measure_hu_shifts(level: Level, unclipped: Level) -> HUShifts:
    """Measure the shifts between both images of a level, on a grid of about 3 mm.

    Args:
        unclipped: the same level without the shift of clipped noise, which differs between
            regions (`clipping.remove_clipping_shift`).
    """
    before, after = gaussian(level.before, 1.0), gaussian(level.after, 1.0)
    tissue = ndimage.binary_erosion(_between(before, after, SOFT_TISSUE.limits_hu) & level.inside)
    lung = ndimage.binary_erosion(
        _between(before, after, LUNG_WITH_TISSUE.limits_hu) & level.inside, iterations=WALL_PX
    )
    local = gaussian(unclipped.after, 1.0) - before
    return HUShifts(
        _median(after - before, tissue),
        _median(after - before, lung),
        max(_largest_region(local, part, level.pixel_mm) for part in (tissue, lung)),
    )


def _largest_region(
    change: Float32[np.ndarray, "rows columns"],
    part: Bool[np.ndarray, "rows columns"],
    pixel_mm: float,
) -> float:
    if part.sum() < MIN_PX:
        return 0.0
    weight = part.astype(np.float32)
    deviation = change - np.float32(np.median(change[part]))
    share = gaussian(weight, REGION_MM / pixel_mm)
    mean = gaussian(weight * deviation, REGION_MM / pixel_mm) / np.maximum(share, 1e-3)
    return float(np.max(np.abs(mean), where=(share > 0.5) & part, initial=0.0))


def _between(
    before: Float32[np.ndarray, "rows columns"],
    after: Float32[np.ndarray, "rows columns"],
    hu_range: tuple[float, float],
) -> Bool[np.ndarray, "rows columns"]:
    """Where the mean of both lies in a range, so that neither image does the choosing."""
    middle = 0.5 * (before + after)
    within: Bool[np.ndarray, "rows columns"] = (middle >= hu_range[0]) & (middle <= hu_range[1])
    return within


def _median(
    change: Float32[np.ndarray, "rows columns"], part: Bool[np.ndarray, "rows columns"]
) -> float:
    return float(np.median(change[part])) if part.sum() >= MIN_PX else 0.0
