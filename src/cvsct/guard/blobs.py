"""Structures that only one of two images shows, found as blobs in their difference.

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

CENTER_PX, SURROUND_PX = 1.0, 2.0
"""Sigmas of the difference of Gaussians, on every grid."""

ACTIVITY_PX = 1.5
"""Sigma over which squared derivatives are averaged."""

CURVATURE = np.float32(2.0)
"""Weight of second derivatives: the middle of a vessel has no gradient, but is no
homogeneous tissue."""

ACTIVITY_STEP = 1.5
ACTIVITY_HU = tuple(2.0 * ACTIVITY_STEP**k for k in range(17))
"""Edges of the classes of activity in HU per pixel: from noise to the wall of a lung."""

MIN_CLASS = 150
"""Fewest pixels of a class from which its spread is measured. The spread of smaller classes is
interpolated, and above the last measured class it grows in proportion."""

FLOOR_HU, FLOOR_SHARE = 1.0, 0.02
"""Smallest spread, and its increase with each HU of activity: a kernel may change the height of
a vessel by so much, however similar all other edges are."""

SPREAD_QUANTILE = 0.9
NORMAL_QUANTILE = 1.6449
"""The spread is this quantile of a class's differences over that of a normal distribution."""


@dataclass(frozen=True)
class BlobContrast:
    """Contrast of the most conspicuous blob that only one image shows, on one grid.

    Args:
        highest: largest ratio of a difference to its spread; no unit.
        mottle_hu: typical difference in homogeneous tissue.
    """

    highest: float
    mottle_hu: float


def measure_blobs(level: Level) -> BlobContrast:
    """Measure how far the most conspicuous structure that only one image shows stands out."""
    difference, activity, inside = blob_differences(level)
    if inside.sum() < MIN_CLASS:
        return BlobContrast(0.0, 0.0)
    change = difference[inside]
    spread, least_spread = spread_by_activity(change, activity[inside])
    return BlobContrast(float(np.max(np.abs(change) / spread)), least_spread)


def blob_differences(
    level: Level,
) -> tuple[
    Float32[np.ndarray, "rows columns"],
    Float32[np.ndarray, "rows columns"],
    Bool[np.ndarray, "rows columns"],
]:
    """Difference of both images in blobs of this grid's scale.

    Returns:
        The difference in HU, the lesser activity of both images in HU per pixel, and the mask of
        pixels where both are valid.
    """
    smooth_b, smooth_a = (gaussian(image, CENTER_PX) for image in (level.before, level.after))
    further = (SURROUND_PX**2 - CENTER_PX**2) ** 0.5
    blobs_b, blobs_a = (smooth - gaussian(smooth, further) for smooth in (smooth_b, smooth_a))
    activity = np.minimum(_activity(smooth_b), _activity(smooth_a))
    change = remove_kernel_change(blobs_a - blobs_b, 0.5 * (blobs_a + blobs_b), level.inside)
    return change, activity, level.inside


def remove_kernel_change(
    change: Float32[np.ndarray, "rows columns"],
    image: Float32[np.ndarray, "rows columns"],
    inside: Bool[np.ndarray, "rows columns"],
) -> Float32[np.ndarray, "rows columns"]:
    """Subtract from a change what a filter of second and fourth order explains best.

    Any difference of two kernels is such a filter, as far as it acts at this scale.
    """
    second = ndimage.laplace(image, mode="nearest")
    fourth = ndimage.laplace(second, mode="nearest")
    terms = np.stack([second[inside], fourth[inside]], axis=1).astype(np.float64)
    target = change[inside].astype(np.float64)
    gram = terms.T @ terms + np.eye(2)
    second_weight, fourth_weight = np.linalg.solve(gram, terms.T @ target)
    remainder: Float32[np.ndarray, "rows columns"] = (
        change - np.float32(second_weight) * second - np.float32(fourth_weight) * fourth
    )
    return remainder


def spread_by_activity(
    change: Float32[np.ndarray, " n"], activity: Float32[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, " n"], float]:
    """Typical size of a difference at each pixel's activity, and in the class of least activity."""
    class_index = np.digitize(activity, np.array(ACTIVITY_HU, dtype=np.float32))
    size = np.abs(change)
    classes, spreads_found = [], []
    for k in range(len(ACTIVITY_HU) + 1):
        members = size[class_index == k]
        if len(members) >= MIN_CLASS:
            classes.append(k)
            spreads_found.append(float(np.quantile(members, SPREAD_QUANTILE)) / NORMAL_QUANTILE)
    if not classes:
        return FLOOR_HU + FLOOR_SHARE * activity, 0.0
    all_classes = np.arange(len(ACTIVITY_HU) + 1)
    rising = np.maximum.accumulate(spreads_found)
    spreads = np.interp(all_classes, classes, rising)
    spreads *= ACTIVITY_STEP ** np.maximum(all_classes - classes[-1], 0)
    floor = FLOOR_HU + FLOOR_SHARE * activity
    return np.maximum(spreads.astype(np.float32)[class_index], floor), spreads_found[0]


def _activity(image: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "rows columns"]:
    down, across = np.gradient(image)
    bend = CURVATURE * ndimage.laplace(image, mode="nearest")
    size: Float32[np.ndarray, "rows columns"] = np.sqrt(
        gaussian(down * down + across * across + bend * bend, ACTIVITY_PX)
    )
    return size
