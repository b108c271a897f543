"""The large shapes of the trunk: skin, fascia, muscles, thoracic cavity, diaphragm, lungs.

Written in body coordinates (mm): x to the left, y to the back, z to the head, z = 0 at the carina,
the body about 330 mm wide and 240 mm deep. Contours are chosen after axial chest CT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.shapes import (
    Array,
    Field,
    Lattice,
    Number,
    ellipsoid,
    noise_nodes,
    scaled,
    smooth_intersection,
    smooth_union,
)

STEP_MM = (3.3, 3.3, 4.5)
"""Distance of the nodes along x, y, z; the cubic spline between them rounds off less than 0.5 mm
of a shape of 15 mm radius."""

SPINE_KNOTS = np.array([
    (-240, 34), (-195, 40), (-150, 48), (-110, 55), (-70, 59), (-30, 60), (0, 57), (30, 51),
    (60, 42), (90, 30), (120, 18),
])  # fmt: skip
"""z and y of the centres of the vertebral bodies."""

# z, half-width, front, back, level of the greatest width, exponent in front and behind
CAVITY = np.array([
    (-240, 122, -92, 68, -12, 2.1, 2.3), (-200, 126, -94, 76, -10, 2.1, 2.3),
    (-150, 130, -98, 83, -6, 2.1, 2.4), (-100, 131, -100, 87, -4, 2.1, 2.5),
    (-60, 128, -97, 88, 0, 2.1, 2.5), (-30, 123, -91, 87, 4, 2.1, 2.5),
    (0, 115, -80, 85, 8, 2.1, 2.5), (20, 107, -69, 81, 12, 2.1, 2.4),
    (40, 95, -54, 75, 16, 2.1, 2.3), (60, 77, -38, 66, 20, 2.0, 2.2),
    (80, 56, -22, 56, 20, 2.0, 2.1), (110, 40, -10, 46, 20, 2.0, 2.0),
])  # fmt: skip
FASCIA = np.array([
    (-240, 138, -106, 98, -10, 2.2, 2.5), (-200, 141, -107, 102, -10, 2.2, 2.5),
    (-150, 145, -111, 107, -6, 2.2, 2.5), (-100, 147, -113, 111, -2, 2.2, 2.5),
    (-50, 150, -111, 113, 6, 2.2, 2.5), (-20, 153, -107, 114, 14, 2.2, 2.5),
    (10, 156, -96, 114, 22, 2.1, 2.5), (40, 157, -79, 110, 28, 2.0, 2.5),
    (70, 155, -58, 103, 32, 2.0, 2.5), (100, 150, -42, 94, 34, 2.0, 2.4),
    (130, 140, -32, 86, 34, 2.0, 2.3),
])  # fmt: skip


@dataclass(frozen=True)
class Torso:
    """Fields of the trunk; all share one lattice. Muscles are drawn for patients alone."""

    lattice: Lattice
    skin: Field
    fascia: Field
    muscle: Field
    cavity: Field
    diaphragm: Field


def spine_y(body: Body, z: Array) -> Array:
    """Level of the vertebral bodies' centres (y) at z, in body coordinates."""
    base = PchipInterpolator(SPINE_KNOTS[:, 0], SPINE_KNOTS[:, 1])(np.clip(z, -240, 120))
    bow = body.kyphosis_mm * (1 - np.clip((np.asarray(z) + 50) / 130, -1.2, 1.2) ** 2)
    curve: Array = (base + bow).astype(np.float32)
    return curve


def envelope(position: tuple[Array, Array, Array], table: np.ndarray) -> Array:
    """Distance from a trunk whose sections are rounded boxes, to first order."""
    x, y, z = position
    knots = PchipInterpolator(table[:, 0], table[:, 1:])(np.clip(z, table[0, 0], table[-1, 0]))
    width, front, back, level, n_front, n_back = np.moveaxis(knots.astype(np.float32), -1, 0)
    dy = y - level
    depth = np.where(dy > 0, back - level, level - front)
    n = np.where(dy > 0, n_back, n_front)
    u, v = np.abs(x) / width + np.float32(1e-4), np.abs(dy) / depth + np.float32(1e-4)
    q = (u**n + v**n) ** (1 / n)
    slope = np.hypot((u / q) ** (n - 1) / width, (v / q) ** (n - 1) / depth)
    distance: Array = (q - 1) / slope
    return distance


def _bump(value: Array, centre: Number, breadth: Number) -> Array:
    bump: Array = np.exp(-(((value - centre) / breadth) ** 2))
    return bump


def _step(value: Array, breadth: Number) -> Array:
    """0 well below zero, 1 well above."""
    return 0.5 + 0.5 * np.tanh(value / np.float32(breadth))


def build_torso(body: Body, low_z: float, high_z: float) -> Torso:
    """Sample the trunk's shapes between two z."""
    lattice = Lattice((-177.0, -144.0, low_z), (177.0, 144.0, high_z), STEP_MM, body.posture)
    at = (lattice.x, lattice.y, lattice.z)
    x, y, z = at
    ax = np.abs(x)
    rng = body.stream("torso")
    uneven = [lattice.noise(noise_nodes(rng, 24), cell) * body.wobble_mm for cell in (28.0, 45.0)]
    scale = body.posture.in_plane

    cavity = envelope(at, CAVITY) + 0.8 * uneven[1] + 17.0 * _step(y - 40, 14) * _bump(x, 0, 30)
    back_mid = _step(y - 70, 12) * _bump(x, 0, 15)
    front = _step(-20 - y, 12)
    fascia = envelope(at, FASCIA) + 0.5 * uneven[0] + 0.6 * uneven[1]
    fascia = fascia + 2.0 * back_mid - 2.0 * _step(y - 70, 12) * _bump(ax, 38, 20)
    fascia = fascia + front * (
        3.0 * _bump(x, 0, 16) - 5.0 * body.muscle * _bump(ax, 68, 34) * _bump(z, 0, 42)
    )
    fat = (
        body.fat_mm
        * (
            1
            - 0.35 * front * _bump(x, 0, 30)
            - 0.12 * back_mid
            + 0.25 * _step(ax - 105, 20)
            + 0.15 * _step(-60 - z, 30)
        )
        + 0.1 * body.fat_mm * uneven[1] / body.wobble_mm
    )
    skin = fascia - fat / scale - 2.0
    if body.breast_mm > 0:
        half = (62.0, 42.0 + body.breast_mm, 58.0)
        for side in (-1.0, 1.0):
            breast = ellipsoid(at, (side * 82.0, -72.0, -45.0), half)
            skin = smooth_union(skin, breast, 14.0)
    skin = smooth_intersection(skin, (lattice.off_centre_mm - 171.0) / scale, 6.0)
    fascia = np.maximum(fascia, skin + 3.0)
    muscle = fascia
    if body.is_patient:
        muscle = _muscles(body, at, cavity, fascia) + 0.35 * uneven[0]
    return Torso(
        lattice,
        skin=lattice.field(skin * scale),
        fascia=lattice.field(fascia * scale),
        muscle=lattice.field(muscle * scale),
        cavity=lattice.field(cavity * scale),
        diaphragm=lattice.field(_diaphragm(body, at) + 0.6 * uneven[0]),
    )


def _sheet(depth: Array, outer: Number, thickness: Array) -> Array:
    """Distance from a sheet between `depth = outer` and `outer + thickness`; none below 0."""
    t = np.maximum(thickness, np.float32(1.0))
    middle = depth - (outer + t / 2)
    distance = (middle * middle - (t / 2) ** 2) / t
    sheet: Array = np.where(thickness < 1.0, np.maximum(distance, 1.0 - thickness), distance)
    return sheet


def _muscles(body: Body, at: tuple[Array, Array, Array], cavity: Array, fascia: Array) -> Array:
    """Distance from the muscles between the rib cage and the fascia."""
    x, y, z = at
    ax, m = np.abs(x), body.muscle
    under = -fascia  # depth below the fascia; `cavity` is the height above the pleura
    front, back = _step(-15 - y, 10), _step(y - 25, 12)
    side = _step(ax - 90, 10)
    parts = []
    pectoral = 15 * m * front * _step(ax - 22, 5) * _step(128 - ax, 8) * _step(z + 62, 12)
    pectoral = pectoral * (0.55 + 0.45 * _bump(z, 15, 45)) * (0.6 + 0.6 * _bump(ax, 95, 45))
    parts.append(_sheet(under, 0.5, pectoral))
    minor = 8 * m * front * _bump(ax, 88, 28) * _step(z + 38, 9)
    parts.append(_sheet(cavity, 12.5, minor))
    serratus = 7 * m * side * _step(z + 115, 12) * _step(40 - z, 12) * _step(y + 62, 10)
    parts.append(_sheet(cavity, 11.0, serratus))
    dorsal = (6 + 7 * _bump(z, 5, 45)) * m * back * _step(ax - 50 - 0.25 * np.maximum(z, 0), 10)
    parts.append(_sheet(under, 0.5, dorsal * _step(45 - z, 14)))
    trapezius = (
        (6.5 + 6 * _step(z - 45, 14))
        * m
        * _step(y - 55, 10)
        * _step(80 + 0.35 * z - ax, 9)
        * _step(z + 125, 20)
    )
    parts.append(_sheet(under, 0.5, trapezius))
    rhomboid = 6 * m * back * _bump(ax, 55, 26) * _step(z + 45, 10)
    parts.append(_sheet(cavity, 12.0, rhomboid))
    belly = 8 * m * _step(-70 - z, 14)
    parts.append(_sheet(under, 0.5, belly * _step(y + 105, 12) * (0.35 + 0.65 * _step(40 - y, 20))))
    shoulder = back * _step(ax - 62 - 0.15 * z, 9) * _step(z + 62, 12)
    parts.append(_sheet(cavity, 11.0, 9.5 * m * shoulder))
    parts.append(_sheet(cavity, 24.5, 13 * m * shoulder * _step(z + 50, 12)))
    spine = spine_y(body, z)
    for centre, half in (((26, 33), (24, 15)), ((13, 30), (11, 14)), ((46, 32), (13, 10))):
        swell = np.float32(1.0) + 0.25 * _step(-90 - z, 40) - 0.25 * _step(z - 20, 40)
        u = (ax - centre[0]) / (half[0] * swell)
        v = (y - spine - centre[1]) / (half[1] * swell * min(m + 0.15, 1.1))
        q = np.sqrt(u * u + v * v)
        parts.append((q - 1) * half[1])
    for place, size, axis in (
        ((140.0, 26.0, 72.0), (52.0, 27.0, 30.0), (0.1, 0.0, 1.0)),  # deltoid
        ((98.0, 58.0, 60.0), (48.0, 17.0, 15.0), (0.85, -0.5, 0.1)),  # supraspinatus
        ((124.0, 46.0, 10.0), (46.0, 16.0, 13.0), (0.35, -0.2, 1.0)),  # teres
        ((58.0, 62.0, 100.0), (52.0, 20.0, 46.0), (1.0, -0.25, 0.1)),  # levator, trapezius
        ((44.0, 8.0, 104.0), (44.0, 18.0, 14.0), (-0.35, 0.2, 1.0)),  # scalenes
        ((22.0, -14.0, 104.0), (50.0, 12.0, 8.0), (0.3, 0.4, 1.0)),  # sternomastoid
    ):
        parts.append(ellipsoid((ax, y, z), place, scaled(size, m**0.4), axis))
    parts.append(_sheet(cavity, 0.0, 6.5 * _step(52 - z, 8)))
    for cx, dy, r in ((25, -20, 11), (42, -8, 11), (22, 26, 16), (46, 14, 15), (10, -13, 7)):
        neck = np.hypot(ax - cx, y - spine - dy) - r * m**0.5
        parts.append(np.maximum(neck, 52 - z + 0.5 * cx))
    total = parts[0]
    for part in parts[1:]:
        total = np.minimum(total, part)
    inside = np.maximum(total, fascia + 0.5)
    muscles: Array = np.maximum(inside, -2.0 - cavity)
    return muscles


def _diaphragm(body: Body, at: tuple[Array, Array, Array]) -> Array:
    """Distance from the space under the diaphragm (mm in scanner coordinates, along its normal)."""
    x, y, z = at
    heights = []
    for cx, cy, top, wide in (
        (-62.0, -8.0, body.domes_mm[0], (72.0, 80.0)),
        (62.0, -4.0, body.domes_mm[1], (80.0, 70.0)),
    ):
        u = (x - cx) / np.where(x < cx, wide[0], wide[1])
        v = (y - cy) / np.float32(96.0)
        lateral = np.where((x - cx) * cx > 0, 58.0, 20.0)
        height = top - lateral * np.abs(u) ** 2.2 - np.where(y > cy, 84.0, 34.0) * np.abs(v) ** 2.3
        heights.append(height)
    surface = np.maximum(-smooth_union(-heights[0], -heights[1], 14.0), -260.0)
    slope = np.hypot(*np.gradient(surface, axis=(1, 2))) / STEP_MM[0] * body.posture.scale[2]
    under: Array = (z - surface) * body.posture.scale[2] / np.sqrt(1 + slope**2)
    return under
