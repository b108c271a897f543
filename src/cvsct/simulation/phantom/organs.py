"""Organs within the chest and under the diaphragm, and the mediastinum that bounds the lungs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy import ndimage

from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.shapes import (
    Array,
    Field,
    Lattice,
    Tubes,
    chain,
    ellipsoid,
    join_tubes,
    noise_nodes,
    scaled,
    smooth_intersection,
    smooth_union,
)
from cvsct.simulation.phantom.torso import Torso, spine_y


@dataclass(frozen=True)
class Organs:
    """Smooth organs by name, and the large tubes of the mediastinum by name.

    Fields: sac (heart with its fat), heart, blood (its chambers), mediastinum (all that is not
    lung between the lungs), fissure (zero on the fissures); in patients liver, spleen, stomach.
    Tubes: aorta, pulmonary, veins, oesophagus, nodes (lymph nodes), airways (their lumen).
    """

    fields: Mapping[str, Field]
    tubes: Mapping[str, Tubes]


def great_vessels(body: Body) -> dict[str, Tubes]:
    """Aorta, pulmonary arteries, veins, airways and oesophagus: x, y, z, radius in mm."""
    v, h = body.vessel, body.heart
    lines: dict[str, list[list[tuple[float, float, float, float]]]] = {
        "aorta": [
            [(4, -34, -48, 15), (-6, -42, -34, 16), (-15, -46, -12, 16), (-17, -43, 8, 15.5),
             (-11, -32, 24, 14.5), (1, -16, 32, 13.5), (13, 2, 31, 13), (22, 17, 21, 12.5),
             (27, 28, 4, 12.5), (28, 31, -20, 12), (25, 30, -60, 12), (18, 26, -100, 11.5),
             (10, 21, -135, 11), (4, 16, -170, 10.5), (2, 12, -230, 10)],
            [(-7, -28, 36, 6.5), (-13, -22, 52, 6), (-20, -14, 78, 5.5), (-24, -8, 130, 4)],
            [(6, -14, 42, 4.5), (13, -11, 60, 4), (19, -3, 90, 4), (22, 0, 130, 4)],
            [(15, 2, 40, 5.5), (21, 6, 60, 5), (32, 2, 76, 4.5), (62, -6, 84, 4.5)],
            [(-19, -14, 76, 5), (-34, -8, 84, 4.5), (-64, -8, 86, 4.5)],
        ],
        "pulmonary": [
            [(22, -58, -50, 13), (25, -52, -32, 14), (24, -40, -16, 14), (20, -26, -9, 13)],
            [(20, -30, -10, 12), (32, -14, -4, 11.5), (44, 2, -6, 10), (50, 14, -18, 8.5),
             (53, 20, -34, 7)],
            [(18, -26, -11, 12), (4, -20, -14, 11), (-14, -14, -17, 10.5), (-32, -9, -20, 10),
             (-44, -2, -28, 8.5), (-50, 8, -42, 7)],
            [(-30, -11, -18, 8), (-44, -12, -6, 6.5)],
            [(42, -4, -4, 7), (52, -10, 4, 5.5)],
        ],
        "veins": [
            [(-27, -40, 40, 7.5), (-29, -36, 20, 9), (-31, -34, -5, 9.5), (-33, -36, -30, 10.5)],
            [(26, -30, 60, 6.5), (14, -46, 46, 7), (-6, -50, 42, 7.5), (-26, -42, 38, 8)],
            [(-27, -40, 38, 7.5), (-32, -34, 58, 7), (-38, -26, 80, 6.5)],
            [(-30, -30, -84, 12), (-27, -22, -98, 12), (-24, -14, -115, 12), (-22, -6, -150, 12),
             (-20, 4, -230, 12)],
            [(-22, -4, -44, 7), (-42, -10, -36, 6.5)],
            [(-20, 6, -58, 7), (-42, 10, -64, 6.5)],
            [(24, -10, -38, 7), (42, -14, -28, 6.5)],
            [(24, 2, -54, 7), (44, 12, -60, 6.5)],
            [(-28, -36, 10, 4.5), (-24, -6, 14, 4), (-12, 30, 6, 3.5), (-9, 34, -40, 3),
             (-7, 34, -120, 2.5), (-4, 28, -200, 2)],
        ],
        "airways": [
            [(0, -6, 130, 8), (0, 2, 95, 8.5), (1, 12, 40, 8.5), (2, 20, 6, 8.5), (2, 22, -2, 8)],
            [(0, 22, 0, 7.5), (-14, 23, -14, 7), (-24, 23, -24, 6)],
            [(4, 22, 0, 7), (18, 23, -14, 6.5), (34, 21, -26, 5.8), (44, 20, -32, 5)],
        ],
        "oesophagus": [
            [(3, 16, 130, 6.5), (4, 24, 90, 6.5), (5, 34, 40, 7), (7, 38, 5, 7),
             (7, 36, -40, 7), (8, 28, -80, 7.5), (14, 14, -108, 8), (26, 4, -124, 9),
             (42, 2, -134, 10)],
        ],
    }  # fmt: skip
    thickness = {"aorta": v, "pulmonary": v * h**0.5, "veins": v, "airways": v**0.5}
    lines["nodes"] = [
        [(-8, 8, 12, 3.5), (-11, 5, 16, 3)], [(-14, 2, 2, 3), (-12, -2, 7, 3.5)],
        [(12, 2, 8, 3), (17, 4, 12, 2.5)], [(4, 30, -16, 3.5), (-2, 30, -22, 4.5)],
        [(-9, 6, 34, 2.5), (-10, 4, 38, 2.5)], [(2, -44, 26, 2.5), (8, -42, 22, 3)],
        [(-26, -74, -10, 1.6), (-26, -66, 20, 1.6)], [(26, -74, -10, 1.6), (26, -66, 20, 1.6)],
        [(14, 26, -6, 2.5), (18, 30, -10, 3)],
    ]  # fmt: skip
    rng = body.stream("great vessels")
    vessels = {}
    for name, knots in lines.items():
        branches = []
        for line in knots:
            table = np.array(line, dtype=float)
            if body.is_patient:
                table[1:-1, :3] += rng.normal(0, 1.3, (len(line) - 2, 3))
            branches.append(chain(table.tolist(), body.posture, thickness.get(name, 1.0)))
        vessels[name] = join_tubes(branches)
    return vessels


HEART = np.array([6.0, -30.0, -68.0])
"""Point that stays in place when the heart is scaled, about the middle of its back."""


def _heart(body: Body, at: tuple[Array, Array, Array]) -> dict[str, Array]:
    """Heart, its blood and its sac; chambers by centre, half-widths, long axis and wall."""
    chambers = (
        ((36.0, -42.0, -76.0), (48.0, 31.0, 32.0), (0.72, -0.5, -0.45), 10.0),
        ((10.0, -66.0, -78.0), (46.0, 24.0, 33.0), (0.85, -0.25, -0.45), 4.0),
        ((20.0, -64.0, -48.0), (26.0, 17.0, 18.0), (0.3, 0.2, 0.9), 4.0),
        ((-34.0, -44.0, -66.0), (34.0, 24.0, 26.0), (0.1, 0.2, 1.0), 3.0),
        ((2.0, -4.0, -50.0), (33.0, 18.0, 23.0), (1.0, 0.0, -0.1), 3.0),
    )
    roots = ((8.0, -42.0, -44.0), (30.0, 34.0, 28.0), (0.3, 0.0, 1.0))  # of the great vessels

    def chamber_distance(
        centre: tuple[float, float, float],
        half: tuple[float, float, float],
        axis: tuple[float, float, float],
    ) -> Array:
        middle = HEART + body.heart * (np.array(centre) - HEART)
        place = (float(middle[0]), float(middle[1]), float(middle[2]))
        return ellipsoid(at, place, scaled(half, body.heart), axis)

    walls = [chamber[3] for chamber in chambers]
    outlines = [chamber_distance(*chamber[:3]) for chamber in chambers]
    outer, sac, inner = outlines[0], outlines[0], outlines[0] + walls[0]
    for outline, wall in zip(outlines[1:], walls[1:], strict=True):
        outer = smooth_union(outer, outline, 9.0)
        sac = smooth_union(sac, outline, 26.0)
        inner = np.minimum(inner, outline + wall)
    sac = smooth_union(sac, chamber_distance(*roots), 20.0) - body.epicardial_mm
    return {"heart": outer, "blood": inner, "sac": sac}


def _abdomen(
    body: Body, at: tuple[Array, Array, Array], cavity: Array, under: Array
) -> dict[str, Array]:
    x, y, z = at
    shift = float(np.mean(body.domes_mm)) + 105.0
    room = smooth_intersection(cavity + 2.0, under + 1.5, 3.0)
    left = (x - 44) * 0.72 + (y + 44) * 0.69
    bottom = -(z - shift + 215) + 0.2 * (y + 40)
    liver = smooth_intersection(smooth_intersection(room, left, 14.0), bottom, 10.0)
    hollow = ellipsoid(at, (-22.0, 22.0, -170.0 + shift), (30.0, 24.0, 80.0), (1.0, 0.4, 0.0))
    liver = smooth_intersection(liver, -hollow, 10.0)
    spleen = ellipsoid(at, (96.0, 46.0, -146.0 + shift), (46.0, 26.0, 46.0), (0.35, -0.8, 0.3))
    stomach = ellipsoid(at, (58.0, 4.0, -140.0 + shift), (42.0, 34.0, 36.0), (0.3, -0.4, -0.6))
    lower = ellipsoid(at, (40.0, -42.0, -180.0 + shift), (46.0, 34.0, 30.0), (0.8, -0.4, -0.3))
    stomach = smooth_union(stomach, lower, 16.0)
    stomach = smooth_intersection(stomach, room + 3.0, 8.0)
    stomach = smooth_intersection(stomach, 4.0 - liver, 6.0)
    spleen = smooth_intersection(smooth_intersection(spleen, room, 6.0), 5.0 - stomach, 6.0)
    return {"liver": liver, "spleen": spleen, "stomach": stomach}


def _lobe_borders(at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Height above the oblique fissure and above the right lung's horizontal one, mm."""
    x, y, z = at
    oblique = (z + 46 - 0.9 * y - 0.0022 * (np.abs(x) - 60) ** 2) / np.float32(1.3)
    level = (z + 38 + 0.0030 * ((x + 70) ** 2 + (y + 40) ** 2)) / np.float32(1.1)
    return oblique, level


def lobe_of(x: Array, y: Array, z: Array) -> Int[np.ndarray, "..."]:
    """Lobe at a point: 0 to 2 right upper, middle and lower, 3 and 4 left upper and lower."""
    oblique, level = _lobe_borders((x, y, z))
    right = np.where(oblique < 0, 2, np.where(level > 0, 0, 1))
    lobe: Int[np.ndarray, "..."] = np.where(x < 0, right, np.where(oblique < 0, 4, 3))
    return lobe


def _fissures(at: tuple[Array, Array, Array]) -> Array:
    """Distance from the nearest fissure, signed where that is the oblique one."""
    oblique, level = _lobe_borders(at)
    horizontal = np.where((at[0] < 0) & (oblique > 0), np.abs(level), np.float32(60.0))
    fissure: Array = np.where(np.abs(oblique) < horizontal, oblique, horizontal)
    return fissure


def _mediastinum(
    body: Body,
    at: tuple[Array, Array, Array],
    lattice: Lattice,
    tubes: Mapping[str, Tubes],
    sac: Array,
) -> Array:
    x, y, z = at
    column = spine_y(body, z)
    wide = 21.5 + 0.02 * np.clip(-z, -60, 150)
    spine = np.hypot(np.maximum(np.abs(x) - wide + 12, 0), np.maximum(column - 3 - y, 0)) - 12.0
    total = smooth_union(sac - 1.0, spine, 12.0)
    for name, extra in (
        ("aorta", 2.0), ("pulmonary", 1.6), ("veins", 1.6), ("airways", 3.0), ("oesophagus", 1.5),
    ):  # fmt: skip
        total = smooth_union(total, lattice.tubes(tubes[name].grown(extra), 40.0), 9.0)
    lean = 2.0 + 4.0 * np.tanh((z + 30) / 40)
    plane = np.abs(x - lean) - 2.5
    front = smooth_intersection(plane, y - column, 5.0)
    total = smooth_union(total, front, 14.0)
    wide = 22.0 + 6.0 * np.clip((z - 20) / 60, 0, 1)
    core = (np.hypot((x - 3) / wide, (y - column + 40) / 46.0) - 1) * wide
    total = smooth_union(total, smooth_intersection(core, -38.0 - z, 14.0), 8.0)
    domes = [
        ellipsoid(at, (side * 46.0, 17.0, 4.0), (78.0, 62.0, 96.0), (0.0, 0.0, 1.0))
        for side in (-1.0, 1.0)
    ]
    beyond = smooth_intersection(-np.minimum(domes[0], domes[1]), 20.0 - z, 10.0)
    return smooth_union(total, beyond, 4.0)


def _without_pockets(central: Array, at: tuple[Array, Array, Array], torso: Torso) -> Array:
    """The mediastinum with the slivers of lung filled that its organs would cut off."""
    x, y, _ = at
    lung = np.maximum(np.maximum(torso.cavity.nodes, -central), -torso.diaphragm.nodes)
    parts, _ = ndimage.label(lung < -1.5)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    main = np.isin(parts, np.argsort(sizes)[-2:])
    main = ndimage.binary_dilation(main, iterations=2, mask=lung < 0.5)
    sliver = ~main & (lung < 1.5) & (np.abs(x) < 55) & (y < 60)
    filled: Array = np.where(ndimage.binary_dilation(sliver), np.minimum(central, -2.5), central)
    return filled


def build_organs(body: Body, torso: Torso) -> Organs:
    """Sample the organs on the torso's lattice."""
    lattice = torso.lattice
    at = (lattice.x, lattice.y, lattice.z)
    scale = body.posture.in_plane
    rng = body.stream("organs")
    uneven = [lattice.noise(noise_nodes(rng, 24), cell) * body.wobble_mm for cell in (18.0, 32.0)]
    tubes = great_vessels(body)
    shapes: dict[str, Array] = _heart(body, at)
    cavity = torso.cavity.nodes / scale
    under = torso.diaphragm.nodes / scale
    sac = smooth_intersection(shapes["sac"] + 0.6 * uneven[1], cavity + 3.0, 8.0)
    shapes["sac"] = smooth_intersection(sac, 0.6 - under, 4.0)
    shapes["heart"] = np.maximum(shapes["heart"] + 0.5 * uneven[0], shapes["sac"] + 1.2)
    shapes["blood"] = shapes["blood"] + 0.8 * uneven[0]
    if body.is_patient:
        for name, shape in _abdomen(body, at, cavity, under).items():
            shapes[name] = shape + (1.8 if name == "stomach" else 0.6) * uneven[0]
    central = smooth_union(_mediastinum(body, at, lattice, tubes, sac), under, 14.0)
    shapes["mediastinum"] = _without_pockets(central + 0.5 * uneven[0], at, torso)
    shapes["fissure"] = _fissures(at) + 1.5 * uneven[1]
    return Organs({name: lattice.field(shape * scale) for name, shape in shapes.items()}, tubes)
