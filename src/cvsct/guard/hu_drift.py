"""Shifts of CT numbers: differences averaged over so much of the body that texture is gone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from cvsct.core.masks import LUNG_WITH_TISSUE, SOFT_TISSUE
from cvsct.guard.pyramid import Level, gaussian

MIN_PX = 300
"""Pixels of a tissue, about 25 cm², of which a median means something."""

WALL_PX = 2
"""Pixels left out along the walls of lung: in a lung of air alone nothing is left."""

REGION_MM = 8.0
"""Sigma of the window of a regional shift: an organ, not an edge."""


@dataclass(frozen=True)
class Drift:
    """Shifts in HU: median of soft tissue, of lung, and the largest one that a region has.

    Args:
        region_hu: of any region's mean from that of the soft tissue around it.
    """

    tissue_hu: float
    lung_hu: float
    region_hu: float


def drift(level: Level, even: Level) -> Drift:
    """Shifts between both images, on a grid of about 3 mm.

    Args:
        even: the same without what clipped noise shifts, which differs from region to region.
    """
    before, after = gaussian(level.before, 1.0), gaussian(level.after, 1.0)
    tissue = ndimage.binary_erosion(_between(before, after, SOFT_TISSUE.limits_hu) & level.inside)
    lung = ndimage.binary_erosion(
        _between(before, after, LUNG_WITH_TISSUE.limits_hu) & level.inside, iterations=WALL_PX
    )
    local = gaussian(even.after, 1.0) - before
    return Drift(
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
    found: Bool[np.ndarray, "rows columns"] = (middle >= hu_range[0]) & (middle <= hu_range[1])
    return found


def _median(
    change: Float32[np.ndarray, "rows columns"], part: Bool[np.ndarray, "rows columns"]
) -> float:
    return float(np.median(change[part])) if part.sum() >= MIN_PX else 0.0
