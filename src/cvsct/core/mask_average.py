"""Masks of thin slices on the thicker slices made of them.

Where the thin slices agree, so does the thicker one. Elsewhere its border lies between theirs: a
voxel is in where its mean distance from their borders, inward, by the weights with which the slices
were averaged, is above 0 (shape-based interpolation: Raya and Udupa, IEEE Trans Med Imaging
1990;9:32). Distances count up to two pixels, so that a slice that is further in or out is not more
than one vote. Where votes are equal, as at the end of a mask in slices averaged in pairs, the
deeper half of such voxels is in, so that the volume stays.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.ndimage import distance_transform_edt, label

from cvsct.core.slice_average import SliceAverage

HALF = 0.5
"""Share above which a voxel is in the mask."""

FARTHEST_PX = 2.0
"""Distance up to which a voxel's place in a slice counts."""

PER_PIXEL = 0.1
"""By how much the share of a voxel rises with each pixel that it lies further in."""

TIE = 1e-3
"""Difference from a half up to which weights hold a half; those below that are left out."""


def mask_fraction(
    mask: Bool[np.ndarray, "slices rows columns"], average: SliceAverage, i: int
) -> Float[np.ndarray, "rows columns"]:
    """How far in each voxel of thicker slice `i` is: 0 out, 1 in, above a half in the mask.

    Between them it rises with the mean distance from the borders in the thin slices.
    """
    sources = average.sources(i)
    return _interpolated(mask[sources.start : sources.stop], average.weights[i])


def label_majority(
    labels: Integer[np.ndarray, "slices rows columns"], average: SliceAverage, i: int
) -> Integer[np.ndarray, "rows columns"]:
    """Labels of the voxels of thicker slice `i`; 0 is the background.

    A voxel that is in the mask of all labels together gets the one with the largest share, of
    equals the lowest.
    """
    sources, weights = average.sources(i), average.weights[i]
    part = labels[sources.start : sources.stop]
    labeled = _interpolated(part != 0, weights)
    best = np.zeros(part.shape[1:])
    result = np.zeros(part.shape[1:], labels.dtype)
    for number in np.unique(part[part != 0]):
        fraction = _weighted(part == number, weights)
        larger = fraction > best + 1e-9
        result[larger], best[larger] = number, fraction[larger]
    result[labeled <= HALF] = 0
    return result


def _interpolated(
    part: Bool[np.ndarray, "part rows columns"], weights: Float[np.ndarray, " part"]
) -> Float[np.ndarray, "rows columns"]:
    """How far in each voxel is, by its distances from the borders in some slices."""
    fraction: Float[np.ndarray, "rows columns"] = np.all(part, axis=0).astype(np.float64)
    apart: Bool[np.ndarray, "rows columns"] = np.any(part, axis=0) & ~np.all(part, axis=0)
    if not apart.any():
        return fraction
    rows, columns = (np.flatnonzero(part.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    box = slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)
    held, votes, depth = np.zeros((3, *part[(0, *box)].shape))
    for plane, weight in zip(part[(slice(None), *box)], weights, strict=True):
        if not plane.any():
            votes -= weight * FARTHEST_PX
            continue
        held += weight * plane
        inward = distance_transform_edt(plane) - distance_transform_edt(~plane)
        votes += weight * np.clip(inward, -FARTHEST_PX, FARTHEST_PX)
        depth += weight * inward
    share = HALF + PER_PIXEL * np.round(votes, 9)  # not by the last digits of sums
    regions, count = label(apart[box] & (np.abs(held - HALF) <= TIE))
    for number in range(1, count + 1):
        own = regions == number
        deeper = PER_PIXEL * (depth[own] - _middle(depth[own]))
        share[own] = HALF + np.clip(deeper, -0.2, 0.2)
    fraction[box] = np.where(apart[box], share, fraction[box])
    return fraction


def _middle(depth: Float[np.ndarray, " voxels"]) -> float:
    """Depth above which half of the voxels lie, or the nearest number to that."""
    middle = float(np.median(depth))
    above, from_there = np.count_nonzero(depth > middle), np.count_nonzero(depth >= middle)
    nearer = abs(from_there - len(depth) / 2) < abs(above - len(depth) / 2)
    return middle - 1e-3 if nearer else middle


def _weighted(
    part: Bool[np.ndarray, "part rows columns"], weights: Float[np.ndarray, " part"]
) -> Float[np.ndarray, "rows columns"]:
    fraction = np.zeros(part.shape[1:])
    for plane, weight in zip(part, weights, strict=True):
        fraction += weight * plane
    return fraction
