"""Table and arms: objects in the beam beside the body.

Both are the same in every slice. The table is a curved shell of carbon fibre around foam; an arm
is a cylinder of muscle in fat with a hollow bone. Sizes are chosen after common tables and adult
upper arms. They are added to a wider raster than the body's, since the table and the arms reach
beyond it; most of what they do to an image is noise and streaks, for they lie at its border.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cvsct.core.errors import GeometryError
from cvsct.simulation.phantom.materials import (
    ADIPOSE,
    CARBON_FIBRE,
    CORTICAL_BONE,
    MUSCLE,
    TABLE_FOAM,
    YELLOW_MARROW,
    Material,
    basis_amounts,
)

Row = Float64[np.ndarray, "1 columns"]
Column = Float64[np.ndarray, "rows 1"]
Layers = Iterator[tuple[Bool[np.ndarray, "rows columns"], Material]]

TABLE_HALF_WIDTH_MM = 205.0
TABLE_CURVE_MM = 420.0
"""Radius of the table's cradle."""
TABLE_THICK_MM = 22.0
TABLE_SKIN_MM = 1.2
MATTRESS_MM = 8.0
"""Between body and table; it attenuates as air does."""
ARM_MM = 44.0
ARM_SKIN_AND_FAT_MM = 7.0
HUMERUS_MM = 11.0
HUMERUS_CORTEX_MM = 4.0
GAP_MM = 3.0
"""Between the arms and the body."""
SEEN_MM = 245.0
"""Radius within which both must lie, so that they lie alike on any scanner with a field of
50 cm."""
SAMPLES = 4
"""Samples a pixel's side when its covered part is counted."""


@dataclass(frozen=True)
class BodyOutline:
    """The ellipse around a body's slices, in mm from the isocentre."""

    x_mm: float
    y_mm: float
    half_width_mm: float
    half_depth_mm: float

    @staticmethod
    def of(filled: Bool[np.ndarray, "rows columns"], extent_mm: float) -> BodyOutline:
        """The ellipse in the bounding box of a body.

        Raises:
            GeometryError: if the mask is empty.
        """
        if not filled.any():
            raise GeometryError("there is no body to lay on a table: the slices are empty")
        pixel_mm = extent_mm / len(filled)
        spans = []
        for axis in (0, 1):
            places = np.flatnonzero(filled.any(axis=axis))
            spans.append((places[[0, -1]] + np.array([0, 1])) * pixel_mm - extent_mm / 2)
        (left, right), (front, back) = spans
        return BodyOutline(
            float(left + right) / 2, float(front + back) / 2, float(right - left) / 2,
            float(back - front) / 2,
        )  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """A table, arms, or both around a body.

    Args:
        outline: of the body.
        table: lay the body on a table.
        arms: `up` is out of the scan, `side` along the body.
        reach_mm: radius of the circle that a scanner sees whole; nothing may lie beyond.
    """

    outline: BodyOutline
    table: bool
    arms: str
    reach_mm: float = SEEN_MM

    def amounts(self, size_px: int, extent_mm: float) -> Float32[np.ndarray, "2 rows columns"]:
        """Amounts of the basis materials in a slice, the body left out.

        Raises:
            GeometryError: if there is no room for them in what the scanner sees.
        """
        pixel_mm = extent_mm / size_px
        fine = (np.arange(size_px * SAMPLES) + 0.5) * (pixel_mm / SAMPLES) - extent_mm / 2
        total = np.zeros((2, size_px, size_px))
        for inside, material in self._layers(fine[None, :], fine[:, None]):
            covered = inside.reshape(size_px, SAMPLES, size_px, SAMPLES).mean(axis=(1, 3))
            share = np.array(basis_amounts(material))[:, None, None]
            total = total * (1 - covered) + share * covered
        return total.astype(np.float32)

    def _layers(self, x_mm: Row, y_mm: Column) -> Layers:
        """Masks and materials of table and arms; later layers cover earlier ones."""
        if self.table:
            yield from self._table_layers(x_mm, y_mm)
        if self.arms == "side":
            for x, y in self._arm_places():
                distance = np.hypot(x_mm - x, y_mm - y)
                for radius, material in (
                    (ARM_MM, ADIPOSE),
                    (ARM_MM - ARM_SKIN_AND_FAT_MM, MUSCLE),
                    (HUMERUS_MM, CORTICAL_BONE),
                    (HUMERUS_MM - HUMERUS_CORTEX_MM, YELLOW_MARROW),
                ):
                    yield distance < radius, material

    def _table_layers(self, x_mm: Row, y_mm: Column) -> Layers:
        """The skin, then the foam within it."""
        top_mm = self.outline.y_mm + self.outline.half_depth_mm + MATTRESS_MM
        lowest_mm = top_mm + TABLE_THICK_MM
        if np.hypot(self._table_half_width_mm(top_mm), lowest_mm) > self.reach_mm:
            raise GeometryError(
                f"a table under this body reaches {lowest_mm:.0f} mm down, beyond the "
                f"{self.reach_mm:.0f} mm that the scanner sees; choose a smaller body"
            )
        # Two cradles of one curvature; the upper one touches the mattress below the body's middle.
        depth = y_mm - top_mm - self._sag_mm(x_mm)
        across = np.abs(x_mm - self.outline.x_mm)
        half = self._table_half_width_mm(top_mm)
        for inset, material in ((0.0, CARBON_FIBRE), (TABLE_SKIN_MM, TABLE_FOAM)):
            yield (
                (depth > inset) & (depth < TABLE_THICK_MM - inset) & (across < half - inset),
                material,
            )

    def _sag_mm(self, x_mm: Row) -> Row:
        """How far the cradle lies above its lowest line, downwards positive."""
        across = np.minimum(np.abs(x_mm - self.outline.x_mm), TABLE_CURVE_MM)
        return np.asarray(np.sqrt(TABLE_CURVE_MM**2 - across**2) - TABLE_CURVE_MM)

    def _table_half_width_mm(self, top_mm: float) -> float:
        """Half the width: the table's own, or what the scanner sees of it."""
        corner = max(self.reach_mm**2 - (top_mm + TABLE_THICK_MM) ** 2, 0.0)
        return min(TABLE_HALF_WIDTH_MM, float(np.sqrt(corner)) - abs(self.outline.x_mm) - 1.0)

    def _arm_places(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The middles of the two arms: beside the body, or as far before it as there is room."""
        a, b = self.outline.half_width_mm, self.outline.half_depth_mm
        for degrees in range(91):
            turn = np.radians(degrees)
            normal = np.array([np.cos(turn) / a, np.sin(turn) / b])
            normal /= np.hypot(*normal)
            x, y = np.array([a * np.cos(turn), b * np.sin(turn)]) + (ARM_MM + GAP_MM) * normal
            sides = tuple(
                (self.outline.x_mm + side * float(x), self.outline.y_mm - float(y))
                for side in (-1, 1)
            )
            farthest = max(float(np.hypot(*place)) for place in sides)
            if farthest + ARM_MM <= self.reach_mm and x > ARM_MM:
                return sides[0], sides[1]
        raise GeometryError(
            f"there is no room for the arms of a body {2 * a:.0f} mm wide in the "
            f"{2 * self.reach_mm:.0f} mm that the scanner sees; scan with arms up"
        )


def beside(
    body: Float32[np.ndarray, "2 rows columns"],
    surroundings: Float32[np.ndarray, "2 more_rows more_columns"],
) -> Float32[np.ndarray, "2 more_rows more_columns"]:
    """A body's slice in the middle of a wider raster of its surroundings, which it covers."""
    size = body.shape[1]
    margin = (surroundings.shape[1] - size) // 2
    middle = np.s_[:, margin : margin + size, margin : margin + size]
    result = surroundings.copy()
    result[middle] = body + result[middle] * np.clip(1 - body.sum(axis=0), 0, 1)
    return result
