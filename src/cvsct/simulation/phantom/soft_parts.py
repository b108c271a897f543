"""Small parts within fat: vessels under the skin and in the mediastinum, glandular tissue.

They are short trees that grow from points of the fat into the fat around them, since a long branch
would leave its curved layer. All are painted right after the fat and before what it surrounds, so
that muscles and organs cover what reaches into them. Numbers and sizes are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.organs import Organs
from cvsct.simulation.phantom.shapes import Tubes, join_tubes
from cvsct.simulation.phantom.torso import Torso
from cvsct.simulation.phantom.vessels import AXIAL, grow

Points = Float[np.ndarray, "points 3"]

SKIN_TREES_PER_LITRE = 90.0
CHEST_TREES_PER_LITRE = 420.0
HEART_TREES = 14
NIPPLE = (86.0, -110.0, -48.0)
"""Place of the left nipple in body coordinates, less the height of the breast (`torso`)."""


@dataclass(frozen=True)
class SoftParts:
    """Small parts of soft tissue, by the fat they lie in.

    Args:
        skin: vessels under the skin, glandular tissue of the breasts.
        chest: vessels between the organs of the mediastinum.
        heart: coronary vessels and others in the fat around the heart.
    """

    skin: Tubes
    chest: Tubes
    heart: Tubes


def build_soft_parts(body: Body, torso: Torso, organs: Organs) -> SoftParts:
    """Grow the small parts of a body; none in the paper's phantom, which has no fat."""
    nothing = organs.tubes["veins"].select(np.zeros(0, dtype=np.int64))
    if not body.is_patient:
        return SoftParts(nothing, nothing, nothing)
    rng = body.stream("soft parts")
    lattice = torso.lattice
    skin, fascia, cavity = torso.skin.nodes, torso.fascia.nodes, torso.cavity.nodes
    fields = {name: organs.fields[name].nodes for name in ("mediastinum", "sac", "heart")}
    under_skin = lattice.random_points(rng, (skin < -4.5) & (fascia > 2.0))
    between = (fields["mediastinum"] < -1.5) & (cavity < -2.0) & (torso.diaphragm.nodes > 3.0)
    chest = lattice.random_points(rng, between & (fields["sac"] > 1.0))
    heart = lattice.random_points(rng, (fields["sac"] < -1.5) & (fields["heart"] > 0.5))
    litre = 1e6 / float(np.prod(lattice.step_mm))
    skin_trees = round(SKIN_TREES_PER_LITRE * len(under_skin) / litre)
    chest_trees = round(CHEST_TREES_PER_LITRE * len(chest) / litre)
    parts = [
        _local_trees(rng, under_skin, skin_trees, 32.0, (0.6, 1.5), nothing),
        *_glands(rng, body, torso, under_skin),
    ]
    return SoftParts(
        join_tubes(parts),
        _local_trees(rng, chest, chest_trees, 22.0, (0.7, 1.8), nothing),
        _local_trees(rng, heart, HEART_TREES, 34.0, (1.2, 2.0), nothing),
    )


def _local_trees(
    rng: np.random.Generator,
    points: Points,
    count: int,
    reach_mm: float,
    root_mm: tuple[float, float],
    nothing: Tubes,
) -> Tubes:
    """Trees from some of the points, each into a few of the others within reach."""
    trees = [nothing]
    neighbors = cKDTree(points)
    for root in points[:count]:
        within = np.sort(neighbors.query_ball_point(root, reach_mm, p=np.inf))
        near = points[within[: int(rng.integers(5, 16))]]
        radius = float(rng.uniform(*root_mm))
        if len(near) > 1:
            trees.append(grow(rng, root, near, radius, 0.3, AXIAL).tubes)
    return join_tubes(trees)


def _glands(rng: np.random.Generator, body: Body, torso: Torso, under_skin: Points) -> list[Tubes]:
    """Ducts and lobules of the breasts, from the nipple into the fat behind it."""
    glands: list[Tubes] = []
    if body.gland_twigs == 0:
        return glands
    for side in (-1.0, 1.0):
        x, y, z = side * NIPPLE[0], NIPPLE[1] - body.breast_mm, NIPPLE[2]
        nipple, middle = body.posture.to_scanner(np.array([[x, y, z], [x, y + 16.0, z]]))
        gap = (under_skin - middle) / np.array([42.0, 26.0, 38.0])
        deep = (torso.skin.at(under_skin) < -6.0) & (torso.fascia.at(under_skin) > 4.0)
        cloud = under_skin[deep & ((gap * gap).sum(axis=1) < 1.0)][: body.gland_twigs]
        if len(cloud) > 1:
            glands.append(grow(rng, nipple, cloud, 4.0, 1.0, AXIAL).tubes)
    return glands
