"""Outlines of a mask that is known as the share of each pixel, as closed contours.

Reading them by DICOM's rule (a voxel belongs to the structure if its center lies inside) gives
exactly the pixels whose share reaches the level. Holes are either contours of their own, combined
by exclusive or, or joined with the contour around them by a channel of no width (PS3.3 C.8.8.6.3,
"keyhole"), which readers of either rule understand.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import import_extra

MARGIN = 0.05
"""Least distance of an outline from a pixel's center, in shares of the pixel: rounding of
coordinates never carries it across."""
_STRAIGHT_PX = 0.01
"""Corners that lie nearer than this to the line through their neighbors are left out."""


def outlines(
    share: Float[np.ndarray, "rows columns"], level: float, *, keyholes: bool
) -> list[Float[np.ndarray, "_ 2"]]:
    """Closed contours around the pixels that reach a level, as rows and columns of their corners.

    Between the centers of two pixels a contour passes where the share, taken as linear, has the
    level. The last corner is not the first one again.

    Args:
        share: of each pixel, 0 to 1.
        keyholes: join holes with the contours around them; else each is a contour of its own.

    Raises:
        MissingExtraError: if scikit-image is not installed.
    """
    measure = import_extra("skimage.measure", "drawing this mask", "evaluate")
    inside = share >= level
    clear = np.where(inside, np.maximum(share, level + MARGIN), np.minimum(share, level - MARGIN))
    padded = np.pad(clear, 1)
    outer: list[Float[np.ndarray, "_ 2"]] = []
    holes: list[Float[np.ndarray, "_ 2"]] = []
    for closed in measure.find_contours(padded, level, fully_connected="high"):
        corners = measure.approximate_polygon(closed, _STRAIGHT_PX)[:-1] - 1
        if len(corners) >= 3:
            (outer if _area(corners) > 0 else holes).append(corners)
    if keyholes and holes:
        return _joined(outer, holes)
    return outer + holes


def _joined(
    outer: list[Float[np.ndarray, "_ 2"]], holes: list[Float[np.ndarray, "_ 2"]]
) -> list[Float[np.ndarray, "_ 2"]]:
    """Contours with their holes, each joined at the nearest corners, nearest holes first.

    The shortest way between two outlines crosses no third one.
    """
    points_in_poly = import_extra("skimage.measure", "drawing this mask", "evaluate").points_in_poly
    around: list[list[Float[np.ndarray, "_ 2"]]] = [[] for _ in outer]
    sizes = [_area(corners) for corners in outer]
    for hole in holes:
        holders = [i for i, corners in enumerate(outer) if points_in_poly(hole[:1], corners)[0]]
        around[min(holders, key=lambda i: sizes[i])].append(hole)
    return [_with_holes(corners, inner) for corners, inner in zip(outer, around, strict=True)]


def _with_holes(
    corners: Float[np.ndarray, "_ 2"], holes: list[Float[np.ndarray, "_ 2"]]
) -> Float[np.ndarray, "_ 2"]:
    left = list(holes)
    while left:
        ways = [_nearest(corners, hole) for hole in left]
        which = int(np.argmin([distance for distance, _, _ in ways]))
        _, at, start = ways[which]
        hole = np.roll(left.pop(which), -start, axis=0)
        corners = np.concatenate([corners[: at + 1], hole, hole[:1], corners[at:]])
    return corners


def _nearest(
    corners: Float[np.ndarray, "_ 2"], hole: Float[np.ndarray, "_ 2"]
) -> tuple[float, int, int]:
    """Distance of the nearest corners of two contours, and which they are."""
    from scipy.spatial import cKDTree  # noqa: PLC0415  (only masks with holes need it)

    distances, nearest = cKDTree(corners).query(hole)
    start = int(np.argmin(distances))
    return float(distances[start]), int(nearest[start]), start


def _area(corners: Float[np.ndarray, "_ 2"]) -> float:
    """Area of a contour; negative where it runs around a hole."""
    following = np.roll(corners, -1, axis=0)
    return float(np.sum(corners[:, 1] * following[:, 0] - following[:, 1] * corners[:, 0])) / 2
