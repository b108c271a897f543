"""Simulated lung nodules, spherical and spiculated, and the places of nodules and lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import SimulationError
from cvsct.simulation.benchmark import LesionTraits
from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.lesion import RADIUS_LIMITS, Lesion
from cvsct.simulation.phantom.organs import Organs
from cvsct.simulation.phantom.shapes import Tubes, join_tubes
from cvsct.simulation.phantom.torso import Torso
from cvsct.simulation.phantom.vessels import LungTrees, Tree, lung_points

DIAMETERS_MM = (5.0, 8.0, 10.0, 12.0)
CT_NUMBERS_HU = (100.0, -630.0, -800.0)
"""Sizes and CT numbers (at 120 kVp) of the nodules sold with the Lungman phantom."""
NEAR_MIDDLE_MM = 10.0
"""Greatest distance of a lesion's centre from the middle of the z range, along z."""
CANDIDATES = 200
"""Places of a lesion that are compared by their distance from vessels and airways."""


@dataclass(frozen=True)
class Nodule:
    """One nodule.

    Args:
        centre_mm: x, y, z in scanner coordinates.
        diameter_mm: of the sphere; spicules reach further.
        hu: nominal CT number at 120 kVp.
        shape: "spherical" or "spiculated".
        volume_mm3: true volume, spicules included.
        tubes: the capsules it consists of; a sphere is a capsule without length.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    shape: str
    volume_mm3: float
    tubes: Tubes


def make_nodule(
    rng: np.random.Generator,
    centre_mm: tuple[float, float, float],
    diameter_mm: float,
    hu: float,
    shape: str,
) -> Nodule:
    """A nodule; the spicules of a spiculated one are drawn at random."""
    centre = np.array([centre_mm])
    radius = diameter_mm / 2
    parts = [_capsules(centre, centre, radius, radius)]
    volume = 4 / 3 * np.pi * radius**3
    if shape == "spiculated":
        count = int(rng.integers(14, 24))
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        length = rng.uniform(0.25, 0.7, (count, 1)) * radius
        parts.append(
            _capsules(
                centre + 0.8 * radius * directions,
                centre + (radius + length) * directions,
                0.16 * radius,
                0.05 * radius,
            )
        )
        volume = _volume(join_tubes(parts), centre[0], 1.8 * radius)
    return Nodule(centre_mm, diameter_mm, hu, shape, float(volume), join_tubes(parts))


def _capsules(
    starts: Float[np.ndarray, "tubes 3"],
    ends: Float[np.ndarray, "tubes 3"],
    first_mm: float,
    last_mm: float,
) -> Tubes:
    radii = np.tile(np.array([[first_mm, last_mm]], np.float32), (len(starts), 1))
    return Tubes(starts.astype(np.float32), ends.astype(np.float32), radii)


def _volume(tubes: Tubes, centre: Float[np.ndarray, " 3"], reach_mm: float) -> float:
    """Volume of a union of capsules, by counting points."""
    axis = (np.arange(40) + 0.5) / 20 - 1
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    points = (centre + reach_mm * offsets).astype(np.float32)
    inside = np.zeros(len(points), dtype=bool)
    for start, end, radii in zip(tubes.starts, tubes.ends, tubes.radii, strict=True):
        way = end - start
        near = np.flatnonzero(
            (np.abs(points - (start + end) / 2) <= np.abs(way) / 2 + radii.max()).all(axis=1)
        )
        t = np.clip((points[near] - start) @ way / max(float(way @ way), 1e-9), 0, 1)
        gap = np.linalg.norm(points[near] - start - t[:, None] * way, axis=1)
        inside[near] |= gap < radii[0] + t * (radii[1] - radii[0])
    return float(inside.mean() * (2 * reach_mm) ** 3)


def clearance(
    points: Float[np.ndarray, "points 3"], tubes: Tubes
) -> Float[np.ndarray, "points tubes"]:
    """Distance of each point from the wall of each tube."""
    way = tubes.ends - tubes.starts
    squared = np.maximum((way * way).sum(axis=1), 1e-9)
    from_start = points[:, None, :].astype(np.float32) - tubes.starts[None]
    t = np.clip((from_start * way).sum(axis=2) / squared, 0, 1)
    gap: Float[np.ndarray, "points tubes"] = np.linalg.norm(from_start - t[..., None] * way, axis=2)
    gap -= tubes.radii[:, 0] + t * (tubes.radii[:, 1] - tubes.radii[:, 0])
    return gap


def place_nodules(
    body: Body, torso: Torso, organs: Organs, vessels: Tree, airways: Tubes
) -> tuple[tuple[Nodule, ...], Tree]:
    """Draw nodules clear of one another, of airways and of vessels above 1 mm in radius.

    Returns the nodules and the vessels without the twigs that would pass through one.
    """
    rng = body.stream("nodules")
    count = int(rng.integers(2, 9) if body.is_patient else rng.integers(8, 13))
    obstacles = join_tubes(
        [vessels.tubes.select(vessels.tubes.radii[:, 1] > 1.0), airways.grown(1.0)]
    )
    nodules: list[Nodule] = []
    sizes = rng.permutation(np.resize(rng.permutation(DIAMETERS_MM), count))
    numbers = np.resize(rng.permutation(CT_NUMBERS_HU), count)
    for index in np.argsort(-sizes, kind="stable"):
        diameter, hu = float(sizes[index]), float(numbers[index])
        shape = "spiculated" if hu > 0 and rng.random() < 0.4 else "spherical"
        reach = diameter / 2 * (1.8 if shape == "spiculated" else 1.0)
        points = lung_points(rng, torso, organs, reach + 2.5)[:60]
        points = _away_from(nodules, points, reach + 6.0)
        room = clearance(points, obstacles).min(axis=1) - reach
        free = points[room > 0.5] if (room > 0.5).any() else points[room >= room.max()]
        x, y, z = (float(round(v, 3)) for v in free[0])
        nodules.append(make_nodule(rng, (x, y, z), diameter, hu, shape))
    crossed = np.zeros(len(vessels.tubes), dtype=bool)
    for nodule in nodules:
        gap = clearance(np.array([nodule.centre_mm]), vessels.tubes)[0]
        crossed |= (gap < nodule.diameter_mm / 2 + 0.4) & (vessels.tubes.radii[:, 1] <= 1.0)
    return tuple(nodules), vessels.without(crossed)


def _away_from(
    nodules: Sequence[Nodule], points: Float[np.ndarray, "points 3"], margin_mm: float
) -> Float[np.ndarray, "away 3"]:
    """Points further from every nodule's centre than its diameter and a margin."""
    for nodule in nodules:
        apart = np.linalg.norm(points - np.array(nodule.centre_mm), axis=1)
        points = points[apart > nodule.diameter_mm + margin_mm]
    return points


def place_lesion(
    body: Body,
    torso: Torso,
    organs: Organs,
    trees: LungTrees,
    nodules: Sequence[Nodule],
    traits: LesionTraits,
    middle_mm: float,
) -> Lesion:
    """Place a lesion wholly in a lung, clear of nodules, large airways and large vessels.

    Where no place is as clear, the lesion reaches the pleura, or vessels run into it.

    Args:
        middle_mm: z about which it lies, within `NEAR_MIDDLE_MM`.

    Raises:
        SimulationError: if the lungs have no room at all there.
    """
    rng = body.stream("lesion")
    seed = int(rng.integers(2**31))
    radius = traits.diameter_mm / 2
    vessels = trees.vessels.tubes
    obstacles = join_tubes([vessels.select(vessels.radii[:, 1] > 2.0), trees.airways])
    for depth_mm in np.linspace(RADIUS_LIMITS[1] * radius + 2, 1.0, 6):
        points = lung_points(rng, torso, organs, float(depth_mm))
        points = points[np.abs(points[:, 2] - middle_mm) < NEAR_MIDDLE_MM]
        points = _away_from(nodules, points, RADIUS_LIMITS[1] * radius + 3.0)
        if len(points):
            points = points[:CANDIDATES]
            best = int(clearance(points, obstacles).min(axis=1).argmax())
            x, y, z = (round(float(value), 3) for value in points[best])
            return Lesion((x, y, z), traits, seed)
    raise SimulationError(
        f"{body.kind} {body.seed}: no room in the lungs for a lesion of {traits.diameter_mm:g} mm "
        f"within {NEAR_MIDDLE_MM:g} mm of the middle; plan a smaller one"
    )
