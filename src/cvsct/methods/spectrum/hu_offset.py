"""Difference in CT number of soft tissue between two scanners, and its optional correction.

A scanner whose water is not quite at 0 HU has every attenuation a little off: HU + 1000 is scaled,
air stays where it is. The difference is read off the most frequent CT number of soft tissue in each
patient. In bodies of different patients it may be theirs (contrast agent, fat, age) as well as the
scanners', so that this shift is for phantoms; `methods.spectrum.tone` compares patients.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cvsct.core.masks import HURange

AIR_HU = -1000.0
BIN_HU, SMOOTH_HU = 1.0, 5.0
MIN_MODE_PATCHES = 30


def tissue_mode_hu(mean_hu: Float[np.ndarray, " patches"], tissue: HURange) -> float | None:
    """Most frequent CT number of patches of a tissue; None where there are too few."""
    low, high = tissue.limits_hu
    inside = mean_hu[(mean_hu >= low) & (mean_hu <= high)]
    if len(inside) < MIN_MODE_PATCHES:
        return None
    counts, edges = np.histogram(inside, np.arange(low, high + BIN_HU, BIN_HU))
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), SMOOTH_HU / BIN_HU)
    highest = int(np.argmax(smooth))
    if min(highest, len(counts) - 1 - highest) * BIN_HU < SMOOTH_HU:
        return None  # no peak: it rises towards a tissue beyond the range
    return float(edges[highest] + BIN_HU / 2)


def shift_soft_tissue(
    hu: Float[np.ndarray, "slices rows columns"], soft_tissue_hu: float
) -> Float[np.ndarray, "slices rows columns"]:
    """Shift soft tissue (0 HU) by `soft_tissue_hu` and other CT numbers in proportion, air by 0."""
    moved: Float[np.ndarray, "slices rows columns"] = hu + np.float32(soft_tissue_hu / -AIR_HU) * (
        hu - np.float32(AIR_HU)
    )
    return moved
