"""Fan-beam projection of a slice onto an equi-angular curved detector, and its adjoint.

At view angle b the source lies at `R (sin b, -cos b)`; the ray at fan angle g runs at the
parallel angle `b - g`, at the signed distance `R sin g` from the isocentre (Kak and Slaney,
Principles of Computerized Tomographic Imaging, section 3.4). Coordinates are the DICOM patient's:
x to the left and along a row, y to the back and down a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float32, Float64

from cvsct.core.errors import GeometryError
from cvsct.simulation.physics import ray_kernels as rays


@dataclass(frozen=True)
class FanGeometry:
    """Positions of the source and angles of the detector elements.

    Args:
        source_isocentre_mm: radius of the circle on which the source moves.
        views: number of source positions, equally spaced over one rotation.
        elements: number of detector elements.
        element_rad: angle that one element subtends at the source.
        offset_rad: fan angle of the middle of the detector.
        turn_rad: angle of the source at the first view.
    """

    source_isocentre_mm: float
    views: int
    elements: int
    element_rad: float
    offset_rad: float = 0.0
    turn_rad: float = 0.0

    @cached_property
    def boundary_rad(self) -> Float64[np.ndarray, " boundaries"]:
        """Fan angles of the boundaries of the elements, `elements + 1` in number."""
        positions = np.arange(self.elements + 1) - self.elements / 2
        return np.asarray(positions * self.element_rad + self.offset_rad)

    @cached_property
    def centre_rad(self) -> Float64[np.ndarray, " elements"]:
        """Fan angle of the centre of each element."""
        return np.asarray((self.boundary_rad[1:] + self.boundary_rad[:-1]) / 2)

    @cached_property
    def view_rad(self) -> Float64[np.ndarray, " views"]:
        """Angle of the source at each view."""
        return self.turn_rad + np.arange(self.views) * (2 * np.pi / self.views)

    @property
    def radius_mm(self) -> float:
        """Radius of the field of view: the circle that lies inside the fan of every view."""
        edge = min(-self.boundary_rad[0], self.boundary_rad[-1])
        return float(self.source_isocentre_mm * np.sin(edge))


def project(
    amounts: Float32[np.ndarray, "2 size size"], extent_mm: float, fan: FanGeometry
) -> Float32[np.ndarray, "views elements 2"]:
    """Line integrals of two maps, averaged over the strip of each element.

    Args:
        amounts: relative amounts of the two basis materials.
        extent_mm: side of the square raster, centred on the isocentre.
        fan: geometry of the fan beam.

    Returns:
        Path length in mm through each basis material at its full density.

    Raises:
        GeometryError: if part of the object lies outside the field of view.
    """
    _check_truncation(amounts, extent_mm, fan)
    pixel_mm = extent_mm / amounts.shape[1]
    upright = rays.prefix_sums(amounts)
    lying = rays.prefix_sums(np.ascontiguousarray(amounts.transpose(0, 2, 1)))
    lines = np.zeros((fan.views, fan.elements, 2), np.float32)
    for out, parts in zip(lines, _all_parts(fan, amounts.shape[1], pixel_mm), strict=True):
        for part in parts:
            sums, extent = upright if part.upright else lying
            rays.strip_sums(
                sums,
                extent,
                part.across,
                part.along,
                part.turn,
                part.sense,
                fan.boundary_rad,
                part.first,
                part.last,
                part.slopes,
                out,
            )
            out[part.first : part.last] *= part.factors[:, None]
    return lines


def project_adjoint(
    lines: Float32[np.ndarray, "views elements 2"], extent_mm: float, size: int, fan: FanGeometry
) -> Float32[np.ndarray, "2 size size"]:
    """Apply the transpose of projection to line integrals; gradients need it, it is no inverse."""
    pixel_mm = extent_mm / size
    shape = (size, size + 1 + 2 * rays.MARGIN_PX, 2)
    upright, lying = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for values, parts in zip(lines, _all_parts(fan, size, pixel_mm), strict=True):
        for part in parts:
            scaled = np.zeros_like(values)
            scaled[part.first : part.last] = values[part.first : part.last] * part.factors[:, None]
            rays.strip_sums_adjoint(
                scaled,
                part.across,
                part.along,
                part.first,
                part.last,
                part.slopes,
                upright if part.upright else lying,
            )
    result = _prefix_adjoint(upright) + _prefix_adjoint(lying).transpose(0, 2, 1)
    return np.ascontiguousarray(result.astype(np.float32))


@dataclass(frozen=True)
class _Part:
    """Range of elements of one view whose rays are all steep, or all flat, to the raster's rows.

    Args:
        upright: whether the rays are steep, so that they cross every row; otherwise the raster is
            transposed.
        across, along: position of the source in columns and in rows.
        turn, sense: a ray of slope s has the fan angle `turn + sense * atan(s)`, modulo pi.
        first, last: range of the elements.
        slopes: columns per row along the ray of each boundary.
        factors: factor of each element that turns a strip sum into mm.
    """

    upright: bool
    across: float
    along: float
    turn: float
    sense: float
    first: int
    last: int
    slopes: Float32[np.ndarray, " boundaries"]
    factors: Float32[np.ndarray, " elements"]


@lru_cache(maxsize=16)
def _all_parts(fan: FanGeometry, size: int, pixel_mm: float) -> tuple[tuple[_Part, ...], ...]:
    """Parts of every view, cached for the next slices."""
    return tuple(_parts(fan, view, size, pixel_mm) for view in range(fan.views))


def _parts(fan: FanGeometry, view: int, size: int, pixel_mm: float) -> tuple[_Part, ...]:
    """Divide a view where its rays change between steep and flat (45 degrees)."""
    turn = float(fan.view_rad[view])
    x = fan.source_isocentre_mm * np.sin(turn) / pixel_mm + size / 2
    y = -fan.source_isocentre_mm * np.cos(turn) / pixel_mm + size / 2
    angle = turn - fan.centre_rad
    steep = np.abs(np.cos(angle)) >= np.abs(np.sin(angle))
    changes = np.flatnonzero(steep[1:] != steep[:-1]) + 1
    parts = []
    for first, last in zip([0, *changes], [*changes, fan.elements], strict=True):
        upright = bool(steep[first])
        slopes, factors = rays.ray_slopes(turn, fan.boundary_rad, upright, pixel_mm)
        parts.append(
            _Part(
                upright=upright,
                across=float(x if upright else y) + rays.MARGIN_PX,
                along=float(y if upright else x),
                turn=turn if upright else turn - np.pi / 2,
                sense=1.0 if upright else -1.0,
                first=int(first),
                last=int(last),
                slopes=slopes,
                factors=factors[first:last],
            )
        )
    return tuple(parts)


def _prefix_adjoint(
    sums: Float32[np.ndarray, "rows boundaries 2"],
) -> Float64[np.ndarray, "2 rows columns"]:
    """Transpose of the running sum: a column contributes to every boundary to its right."""
    margin = rays.MARGIN_PX
    totals = np.cumsum(sums[:, ::-1].astype(np.float64), axis=1)[:, ::-1]
    return totals[:, margin + 1 : -margin].transpose(2, 0, 1)


def _check_truncation(
    amounts: Float32[np.ndarray, "2 size size"], extent_mm: float, fan: FanGeometry
) -> None:
    """Raise GeometryError if part of the object lies outside the field of view."""
    size = amounts.shape[1]
    centre_mm = (np.arange(size) + 0.5) * (extent_mm / size) - extent_mm / 2
    filled = (amounts != 0).any(axis=0)
    distance_mm = np.sqrt(
        centre_mm[:, None] ** 2 + centre_mm[None, :] ** 2, where=filled, out=np.zeros((size, size))
    )
    farthest_mm = float(distance_mm.max())
    if farthest_mm > fan.radius_mm:
        raise GeometryError(
            f"the object reaches {farthest_mm:.0f} mm from the isocentre, the detector sees "
            f"{fan.radius_mm:.0f} mm; make the body smaller, or centre it"
        )
