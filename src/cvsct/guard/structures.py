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

from cvsct.guard.levels import Level

CENTRE_PX, SURROUND_PX = 1.0, 2.0
"""Sigmas of the difference of Gaussians, on every grid."""

ACTIVITY_PX = 1.5
"""Sigma over which squared derivatives are averaged."""

CURVATURE = np.float32(2.0)
"""Weight of second derivatives: the middle of a vessel has no gradient, but is no even tissue."""

ACTIVITY_HU = tuple(2.0 * 1.5**k for k in range(17))
"""Edges of the classes of activity in HU per pixel: from noise to the wall of a lung."""

MIN_CLASS = 150
"""Pixels of a class that tell its own spread; smaller ones take that of the class below."""

FLOOR_HU = 1.0
"""The least spread: differences below mean nothing however even the image is."""

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
    change = smooth_a - smooth_b
    change -= gaussian(change, (SURROUND_PX**2 - CENTRE_PX**2) ** 0.5)
    activity = np.minimum(_activity(smooth_b), _activity(smooth_a))
    inside = level.inside
    if inside.any():
        change = unexplained(change, 0.5 * (smooth_a + smooth_b), inside)
    return change, activity, inside


def unexplained(
    change: Float32[np.ndarray, "rows columns"],
    image: Float32[np.ndarray, "rows columns"],
    inside: Bool[np.ndarray, "rows columns"],
) -> Float32[np.ndarray, "rows columns"]:
    """What is left of the change once the best filter of second and fourth order is taken off."""
    second = ndimage.laplace(image, mode="nearest")
    fourth = ndimage.laplace(second, mode="nearest")
    terms = np.stack([second[inside], fourth[inside]], axis=1).astype(np.float64)
    target = change[inside].astype(np.float64)
    gram = terms.T @ terms + np.eye(2)
    first, other = np.linalg.solve(gram, terms.T @ target)
    return change - np.float32(first) * second - np.float32(other) * fourth


def spread_by_activity(
    change: Float32[np.ndarray, " n"], activity: Float32[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " n"], float]:
    """The usual size of a difference at each pixel's activity, and at the least activity."""
    which = np.digitize(activity, np.array(ACTIVITY_HU, dtype=np.float32))
    size = np.abs(change)
    spreads = np.empty(len(ACTIVITY_HU) + 1, dtype=np.float32)
    least, quiet = FLOOR_HU, 0.0
    for k in range(len(spreads)):
        members = size[which == k]
        if len(members) >= MIN_CLASS:
            found = float(np.quantile(members, SPREAD_QUANTILE)) / NORMAL_QUANTILE
            quiet = quiet or found
            least = max(least, found)
        spreads[k] = least
    return spreads[which], quiet


def _activity(image: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "rows columns"]:
    down, across = np.gradient(image)
    bend = CURVATURE * ndimage.laplace(image, mode="nearest")
    return np.sqrt(gaussian(down * down + across * across + bend * bend, ACTIVITY_PX))


def gaussian(
    image: Float32[np.ndarray, "rows columns"], sigma_px: float
) -> Float32[np.ndarray, "rows columns"]:
    """A Gaussian blur, cut off at three sigmas, mirrored at the edges."""
    smooth: Float32[np.ndarray, "rows columns"] = ndimage.gaussian_filter(
        image, sigma_px, mode="mirror", truncate=3.0
    )
    return smooth
