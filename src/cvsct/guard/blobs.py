"""Structures that one image shows and the other does not: blobs left in their difference.

A change of kernel alters edges, vessels and noise, and all of that is told from a nodule that
came or went by three properties. It leaves little at the nodule's scale (a difference of
Gaussians, whose response to a kernel's change is of second order). What it leaves is in
proportion to structure that *both* images show, so the difference is divided by the spread of all
differences in the slice where the lesser of the two activities is alike: a rim of a nodule that
only one image has counts as no structure. And it is everywhere in the slice, so that the slice
gives its own measure, robustly, whatever the two scanners are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from cvsct.guard.pyramid import Level, gaussian

CENTRE_PX, SURROUND_PX = 1.0, 2.0
"""Sigmas of the difference of Gaussians, on every grid."""

ACTIVITY_PX = 1.5
"""Sigma over which squared derivatives are averaged."""

CURVATURE = np.float32(2.0)
"""Weight of second derivatives: the middle of a vessel has no gradient, but is no even tissue."""

ACTIVITY_STEP = 1.5
ACTIVITY_HU = tuple(2.0 * ACTIVITY_STEP**k for k in range(17))
"""Edges of the classes of activity in HU per pixel: from noise to the wall of a lung."""

MIN_CLASS = 150
"""Pixels of a class that tell its own spread. That of others lies between their neighbours', and
above the last it grows in proportion."""

FLOOR_HU, FLOOR_SHARE = 1.0, 0.02
"""The least spread, and what is added for each HU of activity: a vessel's height may change so
much by a kernel, however alike all other edges came out."""

SPREAD_QUANTILE = 0.9
NORMAL_QUANTILE = 1.6449
"""The spread is this quantile of a class's differences over that of a normal distribution."""


@dataclass(frozen=True)
class Blobs:
    """The most conspicuous difference on one grid, and the common ones.

    Args:
        highest: of the difference over its spread; without unit.
        mottle_hu: typical difference where the image is even.
    """

    highest: float
    mottle_hu: float


def blobs(level: Level) -> Blobs:
    """How far the most conspicuous structure that came or went stands out."""
    found, activity, inside = differences(level)
    if inside.sum() < MIN_CLASS:
        return Blobs(0.0, 0.0)
    change, lively = found[inside], activity[inside]
    spread, quiet = spread_by_activity(change, lively)
    return Blobs(float(np.max(np.abs(change) / spread)), quiet)


def differences(
    level: Level,
) -> tuple[
    Float32[np.ndarray, "rows columns"],
    Float32[np.ndarray, "rows columns"],
    Bool[np.ndarray, "rows columns"],
]:
    """Differences at this grid's scale, the lesser activity of both images, and where both hold."""
    smooth_b, smooth_a = (gaussian(image, CENTRE_PX) for image in (level.before, level.after))
    further = (SURROUND_PX**2 - CENTRE_PX**2) ** 0.5
    blobs_b, blobs_a = (smooth - gaussian(smooth, further) for smooth in (smooth_b, smooth_a))
    activity = np.minimum(_activity(smooth_b), _activity(smooth_a))
    change = unexplained(blobs_a - blobs_b, 0.5 * (blobs_a + blobs_b), level.inside)
    return change, activity, level.inside


def unexplained(
    change: Float32[np.ndarray, "rows columns"],
    image: Float32[np.ndarray, "rows columns"],
    inside: Bool[np.ndarray, "rows columns"],
) -> Float32[np.ndarray, "rows columns"]:
    """What is left of the change once the best filter of second and fourth order is taken off.

    Any difference of two kernels is such a filter, as far as it acts at this scale.
    """
    second = ndimage.laplace(image, mode="nearest")
    fourth = ndimage.laplace(second, mode="nearest")
    terms = np.stack([second[inside], fourth[inside]], axis=1).astype(np.float64)
    target = change[inside].astype(np.float64)
    gram = terms.T @ terms + np.eye(2)
    first, other = np.linalg.solve(gram, terms.T @ target)
    rest: Float32[np.ndarray, "rows columns"] = (
        change - np.float32(first) * second - np.float32(other) * fourth
    )
    return rest


def spread_by_activity(
    change: Float32[np.ndarray, " n"], activity: Float32[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " n"], float]:
    """The usual size of a difference at each pixel's activity, and at the least activity."""
    which = np.digitize(activity, np.array(ACTIVITY_HU, dtype=np.float32))
    size = np.abs(change)
    classes, found = [], []
    for k in range(len(ACTIVITY_HU) + 1):
        members = size[which == k]
        if len(members) >= MIN_CLASS:
            classes.append(k)
            found.append(float(np.quantile(members, SPREAD_QUANTILE)) / NORMAL_QUANTILE)
    if not classes:
        return FLOOR_HU + FLOOR_SHARE * activity, 0.0
    every = np.arange(len(ACTIVITY_HU) + 1)
    rising = np.maximum.accumulate(found)
    spreads = np.interp(every, classes, rising)
    spreads *= ACTIVITY_STEP ** np.maximum(every - classes[-1], 0)
    floor = FLOOR_HU + FLOOR_SHARE * activity
    return np.maximum(spreads.astype(np.float32)[which], floor), found[0]


def _activity(image: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "rows columns"]:
    down, across = np.gradient(image)
    bend = CURVATURE * ndimage.laplace(image, mode="nearest")
    size: Float32[np.ndarray, "rows columns"] = np.sqrt(
        gaussian(down * down + across * across + bend * bend, ACTIVITY_PX)
    )
    return size
