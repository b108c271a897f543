"""Masks of thin slices on the thicker slices made of them: the share of each voxel that they take.

A voxel of a thicker slice belongs to a mask if more than half of it does, by the weights with which
the thin slices were averaged. Where two slices are averaged alike, all that is in one of them alone
is half in: of such voxels the deeper half belongs to the mask, so that its volume stays.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.ndimage import distance_transform_edt, label

from cvsct.core.slice_average import SliceAverage

HALF = 0.5
"""Share of a voxel above which it is in the mask."""

TIE = 1e-3
"""Difference from a half up to which a voxel is half in; weights below that are left out."""

PER_PIXEL = 0.05
"""By how much the share of a voxel that is half in rises with each pixel that it lies deeper."""


def mask_fraction(
    mask: Bool[np.ndarray, "slices rows columns"], average: SliceAverage, i: int
) -> Float[np.ndarray, "rows columns"]:
    """Share of each voxel of thicker slice `i` that lies in a mask of the thin slices.

    It is 0 to 1, a little beyond where weights are below 0. Shares of a half are made larger or
    smaller by the depth of the voxel.
    """
    sources = average.sources(i)
    return _untied(mask[sources.start : sources.stop], average.weights[i])


def label_majority(
    labels: Integer[np.ndarray, "slices rows columns"], average: SliceAverage, i: int
) -> Integer[np.ndarray, "rows columns"]:
    """Labels of the voxels of thicker slice `i`; 0 is the background.

    Where more than half of a voxel has labels, it gets the one with the largest share, of equals
    the lowest.
    """
    sources, weights = average.sources(i), average.weights[i]
    part = labels[sources.start : sources.stop]
    labeled = _untied(part != 0, weights)
    best = np.zeros(part.shape[1:])
    result = np.zeros(part.shape[1:], labels.dtype)
    for number in np.unique(part[part != 0]):
        fraction = _weighted(part == number, weights)
        larger = fraction > best + 1e-9
        result[larger], best[larger] = number, fraction[larger]
    result[labeled <= HALF] = 0
    return result


def _untied(
    part: Bool[np.ndarray, "part rows columns"], weights: Float[np.ndarray, " part"]
) -> Float[np.ndarray, "rows columns"]:
    """Share of each voxel, of which those of a half are told apart by their depth.

    Depth is the mean distance to the border of the mask in each slice. Of each connected region of
    such voxels one half is in.
    """
    fraction = _weighted(part, weights)
    tied = np.abs(fraction - HALF) <= TIE
    if not tied.any():
        return fraction
    rows, columns = (np.flatnonzero(part.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    box = slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)
    inner = part[(slice(None), *box)]
    depth = np.zeros(inner.shape[1:])
    for plane, weight in zip(inner, weights, strict=True):
        if plane.any():
            depth += weight * (distance_transform_edt(plane) - distance_transform_edt(~plane))
    regions, count = label(tied[box])
    for number in range(1, count + 1):
        own = regions == number
        deeper = PER_PIXEL * (depth[own] - _middle(depth[own]))
        fraction[box][own] = HALF + np.clip(deeper, -0.25, 0.25)
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
