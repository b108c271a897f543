"""Thin slices averaged to thicker ones, with the slice sensitivity that the thicker ones have.

A slice of thickness t sees a box of that width along the normal. A thicker slice of thickness T is
the mean of slices at distances s under a box of width W, each weighted by the share of the box that
its cell (half-way to its neighbors) takes. Where the box's edges are those of cells,

    W² = T² + s² - t²

gives the sensitivity the variance of the thicker slice, T² / 12, and of contiguous slices (s = t)
the result is exactly the thicker slice. Elsewhere the weights nearest to the box's are taken that
have the right sum, center and variance; where the center lies between slices that are nearly as
thick, the outer ones of four are a little below 0, as in cubic interpolation, at most a sixteenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import GeometryError

SAME_THICKNESS = 0.1
"""Relative difference below which two thicknesses count as one; headers round them."""
LEAST_WEIGHT = 1e-3
"""Share of a thicker slice's box below which a slice is left out, unless its center needs it."""

MOST_BELOW = -1 / 16
"""Lowest weight, that of the outer two of four slices between which a slice is interpolated."""

MOST_GAP = 1.5
"""Largest distance between slices, in slice thicknesses, at which thicker ones are made of them."""


@dataclass(frozen=True)
class SliceAverage:
    """Which slices are averaged to each thicker slice, and with what weights.

    Args:
        z_mm: centers of the thicker slices along the normal.
        thickness_mm, spacing_mm: of the thicker slices.
        first: index of the first slice that each is made of.
        weights: of that slice and those that follow; they sum to 1.
        gap: distance between the slices over their thickness; above 1 parts of the body were not
            seen.
    """

    z_mm: Float[np.ndarray, " thick"]
    thickness_mm: float
    spacing_mm: float
    first: tuple[int, ...]
    weights: tuple[Float[np.ndarray, " _"], ...]
    gap: float

    def __len__(self) -> int:
        """Number of thicker slices."""
        return len(self.first)

    def sources(self, i: int) -> range:
        """Indices of the slices that thicker slice `i` is made of."""
        return range(self.first[i], self.first[i] + len(self.weights[i]))

    def nearest(self, i: int) -> int:
        """Index of the slice that thicker slice `i` has most of; of equals the middle one."""
        weights = self.weights[i]
        best = np.flatnonzero(weights > weights.max() - 1e-6)
        return self.first[i] + int(best[len(best) // 2])

    def apply(
        self, values: Float[np.ndarray, "slices rows columns"]
    ) -> Float[np.ndarray, "thick rows columns"]:
        """Averages of values of all slices."""
        return np.stack(
            [
                np.tensordot(weights, values[first : first + len(weights)], 1).astype(values.dtype)
                for first, weights in zip(self.first, self.weights, strict=True)
            ]
        )


def is_thickness(thickness_mm: float, wanted_mm: float) -> bool:
    """Whether two thicknesses are one, as far as headers tell."""
    return abs(thickness_mm - wanted_mm) <= SAME_THICKNESS * wanted_mm


def average_slices(
    z_mm: Float[np.ndarray, " slices"],
    thickness_mm: float,
    to_thickness_mm: float,
    to_spacing_mm: float | None = None,
    to_z_mm: Sequence[float] | None = None,
) -> SliceAverage:
    """Plan the average of evenly spaced slices to thicker ones.

    Args:
        z_mm: centers of the slices along their normal, rising.
        thickness_mm: of the slices; 0 or less where it is not known, which is refused.
        to_thickness_mm: of the thicker slices.
        to_spacing_mm: distance between them; None for their thickness.
        to_z_mm: their centers, in place of a grid that begins at the first slice's edge; those that
            the slices do not cover are left out.

    Raises:
        GeometryError: if the slices are thicker than asked for, too far apart, too few to cover one
            thicker slice, or of unknown thickness.

    Example:
        >>> average = average_slices(np.arange(10.0), 1.0, 5.0)
        >>> average.z_mm, average.weights[0]
        (array([2., 7.]), array([0.2, 0.2, 0.2, 0.2, 0.2]))
    """
    if thickness_mm <= 0:
        raise GeometryError(
            "the header tells no slice thickness, so that thicker slices cannot be made; "
            "add Slice Thickness, or leave the series out"
        )
    if len(z_mm) < 2:
        raise GeometryError("a single slice, of which no thicker ones can be made")
    if thickness_mm > to_thickness_mm * (1 + SAME_THICKNESS):
        raise GeometryError(
            f"slices of {thickness_mm:g} mm, thicker than the {to_thickness_mm:g} mm asked for; "
            "thinner slices are never made up"
        )
    step = float((z_mm[-1] - z_mm[0]) / (len(z_mm) - 1))
    gap = step / thickness_mm
    if gap > MOST_GAP:
        raise GeometryError(
            f"slices of {thickness_mm:g} mm every {step:g} mm: most of the body between them was "
            f"not seen, so that slices of {to_thickness_mm:g} mm cannot be made of them"
        )
    width = math.sqrt(max(to_thickness_mm**2 + step**2 - thickness_mm**2, step**2))
    variance = max(to_thickness_mm**2 - thickness_mm**2, 0.0) / 12
    spacing = to_thickness_mm if to_spacing_mm is None else to_spacing_mm
    low, high = float(z_mm[0]) - step / 2, float(z_mm[-1]) + step / 2
    slack = 1e-3 * step
    if to_z_mm is None:
        between = variance >= 0.999 * step**2 / 4  # that of two slices in equal parts
        margin = step * _cells_under(width / step, not between) / 2  # to a center of symmetry
        count = math.floor((high - low - margin - width / 2 + slack) / spacing) + 1
        centers = low + margin + spacing * np.arange(max(count, 0))
    else:
        given = np.asarray(to_z_mm, dtype=np.float64)
        kept = (given - width / 2 >= low - slack) & (given + width / 2 <= high + slack)
        centers = given[kept]
    if not len(centers):
        raise GeometryError(
            f"{len(z_mm)} slices over {high - low:g} mm, too few for one of {to_thickness_mm:g} mm"
        )
    edges = np.append(z_mm - step / 2, high)
    first, weights = [], []
    for center in centers:
        part = _weights(z_mm, edges, float(center), width, variance)
        used = np.flatnonzero(part)
        part = part[used[0] : used[-1] + 1]
        first.append(int(used[0]))
        weights.append(part / part.sum())
    return SliceAverage(
        np.asarray(centers), to_thickness_mm, spacing, tuple(first), tuple(weights), gap
    )


def _cells_under(width: float, odd: bool) -> int:
    """Fewest cells that hold a box of a width in cells, which is in their middle then.

    It is symmetric about a slice (odd) or about the border of two, whichever is nearer to it.
    """
    nearest = 2 * round((width - 1) / 2) + 1 if odd else round(width)
    return nearest if nearest >= width - 1e-3 else nearest + 2


def _weights(
    z_mm: Float[np.ndarray, " slices"],
    edges: Float[np.ndarray, " edges"],
    center: float,
    width: float,
    variance: float,
) -> Float[np.ndarray, " slices"]:
    """Weights of the slices: a box's, or the nearest with the right sum, center and variance."""
    box: Float[np.ndarray, " slices"] = (
        np.diff(np.clip(edges, center - width / 2, center + width / 2)) / width
    )
    box[box <= LEAST_WEIGHT] = 0
    under = np.flatnonzero(box)
    step = float(z_mm[1] - z_mm[0])
    wanted = np.array([1.0, 0.0, variance / step**2])
    weights = box
    for further in range(3):  # slices on either side of the box
        low, high = max(under[0] - further, 0), min(under[-1] + 1 + further, len(z_mm))
        away = (z_mm[low:high] - center) / step
        moments = np.stack([np.ones_like(away), away, away**2])
        missing = wanted - moments @ box[low:high]
        if np.abs(missing).max() <= LEAST_WEIGHT:
            return box
        if high - low < len(wanted):
            continue
        weights = np.zeros(len(z_mm))
        weights[low:high] = box[low:high] + np.linalg.lstsq(moments, missing, rcond=None)[0]
        if weights.min() >= MOST_BELOW:
            break
    return weights
