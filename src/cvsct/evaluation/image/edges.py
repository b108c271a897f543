"""Natural edges of a body: short, smooth pieces of skin and lung border between homogeneous sides.

They are found on a blurred mean of all sides of the evaluation, so that neither noise nor a
kernel's overshoot decides which pieces count, and every side is measured on the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from cvsct.core.masks import LUNG
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.image.mean_image import MeanImage

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

    def pixels(self, shape: tuple[int, int]) -> EdgePixels:
        """The pixels near the edge, in slices of a number of rows and columns."""
        half = int(np.ceil(np.hypot(LENGTH_PX / 2, REACH_PX))) + 1
        row, column = (round(value) for value in self.middle_px)
        rows = np.arange(max(row - half, 0), min(row + half + 1, shape[0]))
        columns = np.arange(max(column - half, 0), min(column + half + 1, shape[1]))
        down = (rows - self.middle_px[0])[:, None]
        across = columns - self.middle_px[1]
        v = down * self.inwards[0] + across * self.inwards[1]
        u = down * -self.inwards[1] + across * self.inwards[0]
        bend, slope, offset = self.parabola
        distance = (v - (bend * u + slope) * u - offset) / np.hypot(1, 2 * bend * u + slope)
        near = (np.abs(u) <= LENGTH_PX / 2) & (np.abs(distance) <= REACH_PX)
        near_rows, near_columns = np.nonzero(near)
        return EdgePixels(self.slice_index, rows[near_rows], columns[near_columns], distance[near])

    def profile(
        self, hu: Float[np.ndarray, "slices rows columns"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Distance from the edge in pixels (positive in tissue) and HU of each pixel near it.

        Args:
            hu: a volume that shows the slices on which the edge was found.
        """
        pixels = self.pixels((hu.shape[1], hu.shape[2]))
        return pixels.distance_px, pixels.hu_of(hu)


@dataclass(frozen=True)
class EdgePixels:
    """Pixels near an edge, the same in every side's image.

    Args:
        slice_index: slice that they lie in.
        rows: their rows.
        columns: their columns.
        distance_px: their distances from the edge in pixels, positive in tissue.
    """

    slice_index: int
    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    distance_px: Float[np.ndarray, " n"]

    def hu_of(self, hu: Float[np.ndarray, "slices rows columns"]) -> Float[np.ndarray, " n"]:
        """Their HU in a volume."""
        return np.asarray(hu[self.slice_index, self.rows, self.columns], dtype=np.float64)


def find_edges(mean: MeanImage) -> list[Edge]:
    """Find all usable pieces of edge in the blurred mean of all sides, clear of padding.

    Raises:
        MissingExtraError: if scikit-image is not installed.
    """
    find_contours: Any = load_extra("skimage.measure").find_contours
    edges = []
    for index, smooth in enumerate(mean.smooth):
        pieces = [
            piece
            for contour in find_contours(smooth, LEVEL_HU)
            for piece in _pieces(contour)
            if _is_clear(piece, smooth.shape, mean.padding[index])
        ]
        if pieces:
            edges += _edges(np.stack(pieces), smooth, mean.body[index], index)
    return edges


def _pieces(contour: Float[np.ndarray, "points 2"]) -> list[Float[np.ndarray, "_ 2"]]:
    """Pieces of a contour, with points a pixel apart."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(contour, axis=0).T))])
    steps = np.arange(0.0, length[-1])
    points = np.stack([np.interp(steps, length, axis) for axis in contour.T], axis=-1)
    starts = range(0, len(points) - LENGTH_PX, LENGTH_PX)
    return [points[start : start + LENGTH_PX + 1] for start in starts]


def _is_clear(
    piece: Float[np.ndarray, "points 2"],
    shape: tuple[int, ...],
    padding: Bool[np.ndarray, "rows columns"],
) -> bool:
    """Whether the surroundings of a piece lie within the image and hold no padding."""
    middle = piece.mean(axis=0)
    reach = np.hypot(LENGTH_PX / 2, REACH_PX)
    if min(*middle, *(np.array(shape) - 1 - middle)) < reach + 1:
        return False
    row, column = (round(float(value)) for value in middle)
    room = round(reach) + 1
    around = padding[max(row - room, 0) : row + room, max(column - room, 0) : column + room]
    return not around.any()


def _edges(
    pieces: Float[np.ndarray, "pieces points 2"],
    smooth: Float[np.ndarray, "rows columns"],
    inside: Bool[np.ndarray, "rows columns"],
    index: int,
) -> list[Edge]:
    """The edges along pieces of contour that are smooth between homogeneous sides."""
    middle = pieces.mean(axis=1)
    offsets = pieces - middle[:, None]
    along = np.linalg.svd(offsets, full_matrices=False)[2][:, 0]
    normal = np.stack([along[:, 1], -along[:, 0]], axis=-1)
    sides = _sampled(smooth, middle, normal, np.array([-CLEAR_PX, CLEAR_PX]), np.zeros(1))
    normal[sides[:, 0, 0] > sides[:, 1, 0]] *= -1
    tangent = np.stack([-normal[:, 1], normal[:, 0]], axis=-1)
    u, v = (np.einsum("ijk,ik->ij", offsets, axis) for axis in (tangent, normal))
    powers = np.stack([u**2, u, np.ones_like(u)], axis=-1)
    parabola = np.einsum("ijk,ik->ij", np.linalg.pinv(powers), v)
    roughness = np.sqrt(np.mean((v - np.einsum("ijk,ik->ij", powers, parabola)) ** 2, axis=1))
    kept = (roughness <= MAX_ROUGHNESS_PX) & (2 * np.abs(parabola[:, 0]) <= MAX_CURVATURE_PER_PX)
    middle, normal, parabola = middle[kept], normal[kept], parabola[kept]
    distance = np.arange(CLEAR_PX, REACH_PX + 0.5)
    along_edge = np.array([-0.4, -0.2, 0.0, 0.2, 0.4]) * LENGTH_PX
    low, high = (_sampled(smooth, middle, normal, side * distance, along_edge) for side in (-1, 1))
    contrast = high.mean(axis=(1, 2)) - low.mean(axis=(1, 2))
    variation = np.maximum(np.ptp(low, axis=(1, 2)), np.ptp(high, axis=(1, 2)))
    is_edge = (contrast >= MIN_CONTRAST_HU) & (variation <= MAX_SIDE_VARIATION * contrast)
    edges = []
    for number in np.flatnonzero(is_edge):
        row, column = (round(float(x)) for x in middle[number] - CLEAR_PX * normal[number])
        bend, slope, offset = (float(x) for x in parabola[number])
        edges.append(
            Edge(
                kind="lung" if inside[row, column] else "skin",
                slice_index=index,
                middle_px=(float(middle[number, 0]), float(middle[number, 1])),
                inwards=(float(normal[number, 0]), float(normal[number, 1])),
                parabola=(bend, slope, offset),
            )
        )
    return edges


def _sampled(
    smooth: Float[np.ndarray, "rows columns"],
    middle: Float[np.ndarray, "pieces 2"],
    normal: Float[np.ndarray, "pieces 2"],
    v: Float[np.ndarray, " across"],
    u: Float[np.ndarray, " along"],
) -> Float[np.ndarray, "pieces across along"]:
    """The blurred image at distances from points, along their normals (v) and edges (u)."""
    tangent = np.stack([-normal[:, 1], normal[:, 0]], axis=-1)
    across = v[:, None, None] * normal[:, None, None]
    positions = middle[:, None, None] + across + u[:, None] * tangent[:, None, None]
    return np.asarray(ndimage.map_coordinates(smooth, np.moveaxis(positions, -1, 0), order=1))
