"""Masks of thin slices on the thicker slices made of them: the share of each voxel that they take.

A voxel of a thicker slice belongs to a mask if at least half of it does, by the weights with which
the thin slices were averaged.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Integer

from cvsct.core.slice_average import SliceAverage

HALF = 0.5 - 1e-6
"""Least share of a voxel in the mask; sums of weights are rounded in the last digits."""


def mask_fraction(
    mask: Bool[np.ndarray, "slices rows columns"], average: SliceAverage, i: int
) -> Float[np.ndarray, "rows columns"]:
    """Share of each voxel of thicker slice `i` that lies in a mask of the thin slices, 0 to 1."""
    sources = average.sources(i)
    return _weighted(mask[sources.start : sources.stop], average.weights[i])


def label_majority(
    labels: Integer[np.ndarray, "slices rows columns"], average: SliceAverage, i: int
) -> Integer[np.ndarray, "rows columns"]:
    """Labels of the voxels of thicker slice `i`; 0 is the background.

    Where at least half of a voxel has labels, it gets the one with the largest share, of equals the
    lowest.
    """
    sources, weights = average.sources(i), average.weights[i]
    part = labels[sources.start : sources.stop]
    labeled = _weighted(part != 0, weights)
    best = np.zeros(part.shape[1:])
    result = np.zeros(part.shape[1:], labels.dtype)
    for number in np.unique(part[part != 0]):
        fraction = _weighted(part == number, weights)
        larger = fraction > best + 1e-9
        result[larger], best[larger] = number, fraction[larger]
    result[labeled < HALF] = 0
    return result


def _weighted(
    part: Bool[np.ndarray, "part rows columns"], weights: Float[np.ndarray, " part"]
) -> Float[np.ndarray, "rows columns"]:
    fraction = np.zeros(part.shape[1:])
    for plane, weight in zip(part, weights, strict=True):
        fraction += weight * plane
    return fraction
