"""Natural edges of a body: short, smooth pieces of skin and lung border between homogeneous sides.

They are found on a blurred mean of all sides of the evaluation, so that neither noise nor a
kernel's overshoot decides which pieces count, and every side is measured on the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from cvsct.core.masks import LUNG, blurred, body
from cvsct.core.volume import CTVolume
from cvsct.evaluation.extras import load_extra

EdgeKind = Literal["skin", "lung"]

LEVEL_HU = LUNG.high_hu
"""Level of the contours that are searched. The exact value does not matter, because the position
of each edge is measured again on each side's image."""

LENGTH_PX = 20
"""Length of a piece of edge."""

REACH_PX = 8.0
"""Distance up to which pixels on either side of an edge belong to its profile."""

CLEAR_PX = 4.0
"""Distance from an edge beyond which its blur has died away: two deviations of the Gaussian."""

MIN_CONTRAST_HU = 300.0
"""Smallest difference between the two sides of an edge, on the blurred image."""

MAX_SIDE_VARIATION = 0.15
"""Largest range of HU along a side of an edge, on the blurred image, as a share of the contrast."""

MAX_CURVATURE_PER_PX = 1 / 20
"""Largest curvature of a piece of edge."""

MAX_ROUGHNESS_PX = 0.25
"""Largest root mean square distance of a piece's contour from its parabola."""


@dataclass(frozen=True)
class Edge:
    """A piece of edge: a parabola v(u) around a point, u along the edge and v towards tissue.

    Args:
        kind: `skin` or `lung`.
        slice_index: slice that it lies in.
        middle_px: row and column of u = v = 0.
        inwards: unit vector (down rows, across columns) from air or lung to tissue.
        parabola: coefficients of v(u) in pixels, highest power first.
    """

    kind: EdgeKind
    slice_index: int
    middle_px: tuple[float, float]
    inwards: tuple[float, float]
    parabola: tuple[float, float, float]

    def profile(
        self, hu: Float[np.ndarray, "slices rows columns"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Distance from the edge in pixels (positive in tissue) and HU of each pixel near it.

        Args:
            hu: a volume that shows the slices on which the edge was found.
        """
        plane = hu[self.slice_index]
        half = int(np.ceil(np.hypot(LENGTH_PX / 2, REACH_PX))) + 1
        row, column = (round(value) for value in self.middle_px)
        rows = np.arange(max(row - half, 0), min(row + half + 1, plane.shape[0]))
        columns = np.arange(max(column - half, 0), min(column + half + 1, plane.shape[1]))
        down = (rows - self.middle_px[0])[:, None]
        across = columns - self.middle_px[1]
        v = down * self.inwards[0] + across * self.inwards[1]
        u = down * -self.inwards[1] + across * self.inwards[0]
        bend, slope, offset = self.parabola
        distance = (v - (bend * u + slope) * u - offset) / np.hypot(1, 2 * bend * u + slope)
        near = (np.abs(u) <= LENGTH_PX / 2) & (np.abs(distance) <= REACH_PX)
        return distance[near], plane[np.ix_(rows, columns)][near].astype(np.float64)


def find_edges(volumes: Sequence[CTVolume]) -> list[Edge]:
    """Find all usable pieces of edge in volumes that show the same slices, clear of padding.

    Raises:
        MissingExtraError: if scikit-image is not installed.
    """
    find_contours: Any = load_extra("skimage.measure").find_contours
    mean = np.asarray(np.mean([volume.hu for volume in volumes], axis=0, dtype=np.float64))
    inside = body(mean)
    padded = np.zeros(mean.shape, dtype=bool)
    for volume in volumes:
        if volume.padding is not None:
            padded |= volume.padding
    room = round(np.hypot(LENGTH_PX / 2, REACH_PX)) + 1
    edges = []
    for index, smooth in enumerate(blurred(mean)):
        for contour in find_contours(smooth, LEVEL_HU):
            length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(contour, axis=0).T))])
            steps = np.arange(0.0, length[-1])
            points = np.stack([np.interp(steps, length, axis) for axis in contour.T], axis=-1)
            for start in range(0, len(points) - LENGTH_PX, LENGTH_PX):
                piece = points[start : start + LENGTH_PX + 1]
                row, column = (round(float(value)) for value in piece.mean(axis=0))
                around = padded[
                    index, max(row - room, 0) : row + room, max(column - room, 0) : column + room
                ]
                edge = None if around.any() else _edge(piece, smooth, inside[index], index)
                if edge is not None:
                    edges.append(edge)
    return edges


def _edge(
    piece: Float[np.ndarray, "points 2"],
    smooth: Float[np.ndarray, "rows columns"],
    inside: Bool[np.ndarray, "rows columns"],
    index: int,
) -> Edge | None:
    """The edge along a piece of contour; None unless it is smooth between homogeneous sides."""
    middle = piece.mean(axis=0)
    room = min(*middle, *(np.array(smooth.shape) - 1 - middle))
    if room < np.hypot(LENGTH_PX / 2, REACH_PX) + 1:
        return None
    along = np.linalg.svd(piece - middle, full_matrices=False)[2][0]
    normal = np.array([along[1], -along[0]])
    both_sides = _sampled(smooth, middle, normal, np.array([-CLEAR_PX, CLEAR_PX]), np.zeros(1))
    if both_sides[0, 0] > both_sides[1, 0]:
        normal = -normal
    u = (piece - middle) @ np.array([-normal[1], normal[0]])
    v = (piece - middle) @ normal
    parabola = np.polyfit(u, v, 2)
    roughness = float(np.sqrt(np.mean((v - np.polyval(parabola, u)) ** 2)))
    if roughness > MAX_ROUGHNESS_PX or 2 * abs(parabola[0]) > MAX_CURVATURE_PER_PX:
        return None
    distance = np.arange(CLEAR_PX, REACH_PX + 0.5)
    along_edge = np.array([-0.4, -0.2, 0.0, 0.2, 0.4]) * LENGTH_PX
    low = _sampled(smooth, middle, normal, -distance, along_edge)
    high = _sampled(smooth, middle, normal, distance, along_edge)
    contrast = float(high.mean() - low.mean())
    if contrast < MIN_CONTRAST_HU or max(np.ptp(low), np.ptp(high)) > MAX_SIDE_VARIATION * contrast:
        return None
    row, column = (round(float(value)) for value in middle - CLEAR_PX * normal)
    return Edge(
        kind="lung" if inside[row, column] else "skin",
        slice_index=index,
        middle_px=(float(middle[0]), float(middle[1])),
        inwards=(float(normal[0]), float(normal[1])),
        parabola=(float(parabola[0]), float(parabola[1]), float(parabola[2])),
    )


def _sampled(
    smooth: Float[np.ndarray, "rows columns"],
    middle: Float[np.ndarray, " 2"],
    normal: Float[np.ndarray, " 2"],
    v: Float[np.ndarray, " across"],
    u: Float[np.ndarray, " along"],
) -> Float[np.ndarray, "across along"]:
    """The blurred image at distances from a point, along the normal (v) and the edge (u)."""
    tangent = np.array([-normal[1], normal[0]])
    positions = middle + v[:, None, None] * normal + u[:, None] * tangent
    return np.asarray(ndimage.map_coordinates(smooth, np.moveaxis(positions, -1, 0), order=1))
