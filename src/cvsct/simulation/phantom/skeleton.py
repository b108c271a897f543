"""The skeleton of a body: vertebrae, ribs with their cartilage, sternum, clavicles, scapulae.

Vertebrae, sternum and scapulae are fields on fine lattices; ribs and clavicles are tubes of oval
section laid on the outside of the thoracic cavity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.shapes import (
    Array,
    Field,
    Lattice,
    Ovals,
    Tubes,
    chain,
    join_ovals,
    smooth_intersection,
    smooth_path,
    smooth_union,
)
from cvsct.simulation.phantom.torso import CAVITY, Torso, spine_y

VERTEBRA_Z = (
    111.0, 93.0, 74.0, 53.5, 32.5, 11.0, -11.0, -33.5, -56.5, -80.0, -104.0, -128.5, -154.0,
    -180.5, -208.0,
)  # fmt: skip
"""Centres of the bodies of C6, C7, T1 to T12 and L1."""

PATIENT_VERTEBRAE = np.array([
    (0, 2, 4, 6, 8, 10, 12, 14), (11, 13, 12.6, 13.4, 14.4, 16.2, 19.2, 22),
    (8.5, 9.8, 11.5, 13, 13.8, 14.7, 16, 17.2),
])  # fmt: skip
"""Index into `VERTEBRA_Z`, half-width and half-depth of a patient's vertebral bodies: about those
of Panjabi et al. (Spine 16, 1991), from T3 to T9 nearly as deep as wide; not looked up again."""

RIB_DROP = (45, 66, 84, 98, 110, 120, 126, 128, 124, 116, 104, 84)
"""How far each rib would fall from its head to the midline in front, mm."""
RIB_END_DEG = (146, 148, 148, 148, 148, 146, 144, 136, 126, 115, 88, 58)
"""Where the bony rib ends: angle around the chest from the back."""
CARTILAGE_Z = (26, -5, -26, -44, -61, -77, -90, -100, -112, -122)
"""Where the cartilages of ribs 1 to 10 reach the sternum or the cartilage above."""


@dataclass(frozen=True)
class Skeleton:
    """Bones, cartilages, discs, spinal canal and cord."""

    spine: Field
    sternum: Field
    scapulae: Field
    ribs: Ovals
    cartilage: Ovals
    discs: Tubes
    canal: Tubes
    cord: Tubes


def _segment(
    position: tuple[Array, Array, Array],
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
) -> Array:
    """Distance from a capsule."""
    d = np.array(end) - np.array(start)
    offset = [p - np.float32(s) for p, s in zip(position, start, strict=True)]
    t = sum(o * np.float32(v) for o, v in zip(offset, d, strict=True)) / np.float32(d @ d)
    t = np.clip(t, 0, 1)
    from_axis = [o - t * np.float32(v) for o, v in zip(offset, d, strict=True)]
    distance: Array = np.sqrt(sum(r * r for r in from_axis)) - np.float32(radius)
    return distance


def _vertebra(ax: Array, y: Array, z: Array, half: tuple[float, float, float], level: int) -> Array:
    """One vertebra around the centre of its body; `ax` is the distance from the midline."""
    wide, deep, high = half
    waist = 1 - 0.09 * (1 - np.clip(z / high, -1, 1) ** 2)
    u, v = ax / (wide * waist), y / (deep * waist)
    body = (
        np.sqrt(np.sqrt(u**4 * 0.6 + u * u * v * v * 1.6 + v**4 * 0.8 + 0.2 * u * u)) - 1
    ) * deep
    body = smooth_intersection(body, np.abs(z) - high, 2.5)
    at = (ax, y, z)
    behind = deep + 0.0
    slope = 24.0 if 3 <= level <= 10 else 12.0
    arch = _segment(at, (wide * 0.62, behind - 3, 3.0), (wide * 0.72, behind + 10, 2.0), 3.6)
    parts = (
        _segment(at, (wide * 0.62, behind - 3, 6.0), (wide * 0.72, behind + 10, 5.0), 3.4),
        _segment(at, (wide * 0.72, behind + 10, 3.0), (3.0, behind + 19, -3.0), 3.0),
        _segment(at, (wide * 0.70, behind + 11, -5.0), (2.0, behind + 19, -10.0), 2.8),
        _segment(at, (wide * 0.72, behind + 10, 4.0), (wide + 15, behind + 20, 7.0), 3.7),
        _segment(at, (wide * 0.66, behind + 12, -13.0), (wide * 0.70, behind + 10, 13.0), 3.1),
        _segment(at, (0.0, behind + 18, -6.0), (0.0, behind + 38, -6.0 - slope), 2.8),
        _segment(at, (0.0, behind + 18, -1.0), (0.0, behind + 35, -2.0 - slope), 2.4),
    )
    for part in parts:
        arch = smooth_union(arch, part, 2.5)
    canal = np.hypot(ax, (y - behind - 8) * 1.05) - 8.2
    vertebra: Array = np.maximum(smooth_union(body, arch, 3.0), -canal)
    return vertebra


def _spine_level(body: Body) -> Callable[[float], float]:
    return lambda z: float(spine_y(body, np.array([z]))[0])


def _spine(body: Body, low_z: float, high_z: float) -> tuple[Field, Tubes, Tubes, Tubes]:
    posture, scale = body.posture, body.posture.in_plane
    middle = posture.to_scanner(np.array([[0.0, 68.0, -50.0]]))[0]
    lattice = Lattice(
        (float(middle[0]) - 54, float(middle[1]) - 72, low_z),
        (float(middle[0]) + 54, float(middle[1]) + 66, high_z),
        (2.0, 2.0, 2.0),
        posture,
    )
    values = np.full(lattice.shape, 12.0, np.float32)
    level_y = _spine_level(body)
    discs, canal = [], []
    for level, centre in enumerate(VERTEBRA_Z):
        grow = (level - 2) / 11
        half = (14.5 + 6.0 * grow, 11.0 + 4.6 * grow, 8.0 + 3.4 * grow)
        if body.is_patient:
            levels, wide, deep = PATIENT_VERTEBRAE
            half = (
                float(np.interp(level, levels, wide)),
                float(np.interp(level, levels, deep)),
                half[2],
            )
        ys = level_y(centre)
        tilt = (level_y(centre + 8) - level_y(centre - 8)) / 16
        above = lattice.z.ravel() - centre
        rows = np.flatnonzero((above > -38) & (above < 19))
        if len(rows) == 0:
            continue
        behind = lattice.y.mean(axis=(0, 2)) - ys
        near = np.flatnonzero((behind > -26) & (behind < 62))
        part = (slice(rows[0], rows[-1] + 1), slice(near[0], near[-1] + 1))
        x, y0, z0 = (
            np.broadcast_to(axis, lattice.shape)[part] - np.float32(centre_at)
            for axis, centre_at in ((lattice.x, 0.0), (lattice.y, ys), (lattice.z, centre))
        )
        cos = 1 / np.hypot(1, tilt)
        y, z = cos * (y0 - tilt * z0), cos * (z0 + tilt * y0)
        values[part] = np.minimum(values[part], _vertebra(np.abs(x), y, z, half, level) * scale)
        canal.append((0.0, ys + half[1] + 8.0, centre, 7.6))
        if level + 1 < len(VERTEBRA_Z):
            below = (centre + VERTEBRA_Z[level + 1]) / 2
            discs.append((0.0, level_y(below) - 0.3, below, half[1] + 0.6))
    pads = []
    for _, y, z, r in discs:
        for side in (-0.36, 0.36):
            pads.append(chain([(side * r, y, z - 2, r), (side * r, y, z + 2, r)], posture))
    flat = Tubes(
        np.concatenate([p.starts for p in pads]),
        np.concatenate([p.ends for p in pads]),
        np.concatenate([p.radii for p in pads]),
    )
    tube = chain(canal, posture)
    cord = Tubes(tube.starts, tube.ends, tube.radii * np.float32(0.62))
    return lattice.field(values), flat, tube, cord


def _outside(
    torso: Torso, side: float, angle_rad: Array, z: Array, height_mm: float
) -> Float[np.ndarray, "points 3"]:
    """Points at a height above the cavity, by angle from the back and z, in body coordinates."""
    posture = torso.lattice.posture
    level = np.interp(z, CAVITY[:, 0], CAVITY[:, 4])
    direction = np.stack((side * np.sin(angle_rad), np.cos(angle_rad), np.zeros_like(z)), axis=1)
    centre = np.stack((np.zeros_like(z), level, z), axis=1)
    radius = np.full(len(z), 90.0)
    points: Float[np.ndarray, "points 3"] = centre + radius[:, None] * direction
    for _ in range(14):
        radius -= 0.8 * (torso.cavity.at(posture.to_scanner(points)) - height_mm)
        points = centre + radius[:, None] * direction
    return points


def _oval(torso: Torso, path: Float[np.ndarray, "points 5"]) -> Ovals:
    """A tube along x, y, z in body coordinates; columns 3 and 4: half-width outwards, along."""
    points = torso.lattice.posture.to_scanner(path[:, :3])
    starts, ends = points[:-1], points[1:]
    middle = (starts + ends) / 2
    outwards = np.stack(
        [
            torso.cavity.at(middle + step) - torso.cavity.at(middle - step)
            for step in np.eye(3) * 2.0
        ],
        axis=1,
    )
    along = (ends - starts) / np.linalg.norm(ends - starts, axis=1, keepdims=True)
    outwards -= (outwards * along).sum(axis=1, keepdims=True) * along
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    half = np.concatenate((path[:-1, 3:], path[1:, 3:]), axis=1)
    return Ovals(
        starts.astype(np.float32), ends.astype(np.float32), outwards.astype(np.float32),
        half.astype(np.float32),
    )  # fmt: skip


def _ribs(body: Body, torso: Torso) -> tuple[Ovals, Ovals]:
    rng = body.stream("ribs")
    level_y = _spine_level(body)
    bones, cartilages = [], []
    for number in range(12):
        for side in (-1.0, 1.0):
            z0 = VERTEBRA_Z[number + 2] + 7.0
            ys = level_y(z0)
            grow = number / 11
            drop = 1.12 * RIB_DROP[number] * (1 + rng.normal(0, 0.02))
            angle = np.deg2rad(np.arange(30.0, RIB_END_DEG[number] + 1, 6.0))
            z = z0 - drop * (angle / np.pi) ** 1.12
            stout = (3.1 if number else 4.6, 5.3 if number else 3.4)
            if number == 1:
                stout = (3.6, 5.0)
            points = _outside(torso, side, angle, z, 2.2 + stout[0])
            wide = 13.5 + 5.5 * grow
            head = np.array([
                [side * (wide - 1.0), ys + 6, z0], [side * (wide + 6), ys + 17, z0 - 1],
                [side * (wide + 17), ys + 26, z0 - 3],
            ])  # fmt: skip
            if number > 9:
                head = head[:2]
            knots = np.concatenate((head, points))
            half = np.tile(np.array(stout), (len(knots), 1))
            half[0] = half[0, 0] + 0.6
            half[-1] *= (1.15, 1.25)
            bones.append(_oval(torso, smooth_path(np.concatenate((knots, half), axis=1), 6.0)))
            if number < 10:
                end = points[-1]
                end_z = CARTILAGE_Z[number]
                reach = 12.0 + (9.0 if number == 0 else 0.0) + max(0, number - 6) * 9.0
                turn = np.deg2rad(np.linspace(RIB_END_DEG[number] + 6, 180 - reach / 2.2, 6))
                heights = np.linspace(float(end[2]) - 2, end_z, 6)
                arc = _outside(torso, side, turn, heights, 2.2 + stout[0])
                line = np.concatenate((end[None], arc))
                size = np.tile(np.array((3.4, 5.2)), (len(line), 1))
                cartilages.append(
                    _oval(torso, smooth_path(np.concatenate((line, size), axis=1), 6.0))
                )
    for side in (-1.0, 1.0):
        clavicle = np.array([
            (side * 15, -60, 36, 7.0, 7.5), (side * 30, -62, 42, 6.0, 6.5),
            (side * 52, -54, 54, 5.5, 5.5), (side * 80, -36, 68, 5.5, 5.5),
            (side * 106, -10, 82, 5.5, 6.0), (side * 128, 12, 94, 5.0, 7.0),
        ])  # fmt: skip
        bones.append(_oval(torso, smooth_path(clavicle, 6.0)))
    return join_ovals(bones), join_ovals(cartilages)


def _sternum(body: Body, torso: Torso) -> Field:
    posture, scale = body.posture, body.posture.in_plane
    low = posture.to_scanner(np.array([[-38.0, -118.0, -128.0]]))[0]
    high = posture.to_scanner(np.array([[38.0, -40.0, 56.0]]))[0]
    lattice = Lattice(
        (float(low[0]) - 6, float(low[1]) - 8, float(low[2])),
        (float(high[0]) + 6, float(high[1]) + 8, float(high[2])),
        (1.5, 1.5, 1.5),
        posture,
    )
    x, y, z = lattice.x, lattice.y, lattice.z
    level = np.linspace(-140.0, 60.0, 41)
    surface = _outside(torso, 1.0, np.full(41, np.pi), level, 0.0)[:, 1]
    depth = np.interp(z.ravel(), level, surface).reshape(z.shape).astype(np.float32) - y
    wide = np.interp(
        z.ravel(),
        [-126, -118, -106, -100, -70, -40, -14, -6, 4, 20, 34, 42],
        [5, 8, 10, 15, 19, 15, 12, 14, 17, 26, 27, 20],
    )
    wide = wide.reshape(z.shape).astype(np.float32)
    thick = np.where(z > -4, np.float32(6.2), np.float32(5.2))
    thick = np.minimum(thick, wide)
    u, v = np.maximum(np.abs(x) - wide + thick, 0), depth - 2.5 - thick
    plate = np.hypot(u, v) - thick
    ends = np.maximum(z - 44 + 0.012 * (20 - np.minimum(np.abs(x), 20)) ** 2, -127 - z)
    return lattice.field(smooth_intersection(plate, ends, 3.0) * scale)


def _scapulae(body: Body, torso: Torso) -> Field:
    """Both shoulder blades with spine, neck and the head of the humerus."""
    posture, scale = body.posture, body.posture.in_plane
    z_low, z_high = (float(v) * posture.scale[2] for v in (-82.0, 112.0))
    lattice = Lattice((-174.0, -40.0, z_low), (174.0, 132.0, z_high), (2.0, 2.0, 2.5), posture)
    x, y, z = lattice.x, lattice.y, lattice.z
    height = lattice.resample(torso.cavity) / np.float32(scale)
    ax = np.abs(x)
    level = np.interp(z.ravel(), CAVITY[:, 0], CAVITY[:, 4]).reshape(z.shape).astype(np.float32)
    angle = np.rad2deg(np.arctan2(ax, y - level))
    medial = 40.0 + 0.10 * np.abs(z - 10) + 0.10 * (10 - z)
    lateral = 84.0 - 0.30 * np.maximum(20 - z, 0)
    edge = np.maximum(medial - angle, angle - lateral) * np.float32(1.9)
    edge = smooth_intersection(edge, np.maximum(z - 62, -74 - z), 8.0)
    thick = 1.7 + 2.4 * np.exp(-(((angle - lateral + 4) / 6) ** 2))
    lift = 21.5 + 3.0 * np.exp(-(((angle - 60) / 12) ** 2))
    blade = smooth_intersection(np.abs(height - lift) - thick, edge, 3.0)
    ridge = (np.abs(z - 30 - 0.85 * (angle - 62) - 0.4 * (height - 30)) - 3.2) * np.float32(0.72)
    ridge = smooth_intersection(ridge, np.abs(height - 31) - 9.0, 4.0)
    ridge = smooth_intersection(ridge, np.maximum(46 - angle, angle - 98) * np.float32(1.9), 4.0)
    at = (ax, y, z)
    neck = _segment(at, (128.0, 42.0, 38.0), (136.0, 30.0, 52.0), 8.5)
    acromion = _segment(at, (132.0, 74.0, 62.0), (146.0, 30.0, 92.0), 7.0)
    head = np.sqrt((ax - 141) ** 2 + (y - 20) ** 2 + (z - 74) ** 2) - 20.0
    total = smooth_union(smooth_union(blade, ridge, 4.0), neck, 5.0)
    total = np.minimum(np.minimum(total, acromion), head)
    return lattice.field(np.maximum(total * scale, lattice.resample(torso.fascia) + 3.0))


def build_skeleton(body: Body, torso: Torso) -> Skeleton:
    """All bones of a body."""
    z_low = torso.lattice.origin_mm[2]
    z_high = z_low + torso.lattice.step_mm[2] * (torso.lattice.shape[0] - 1)
    spine, discs, canal, cord = _spine(body, z_low, z_high)
    ribs, cartilage = _ribs(body, torso)
    return Skeleton(
        spine=spine,
        sternum=_sternum(body, torso),
        scapulae=_scapulae(body, torso),
        ribs=ribs,
        cartilage=cartilage,
        discs=discs,
        canal=canal,
        cord=cord,
    )
