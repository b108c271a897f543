"""The branching trees of the lungs: arteries with their airways, and veins.

A tree fills its lobe as in Tawhai, Pullan and Hunter (Ann Biomed Eng 28, 2000): a cloud of points
in the lobe is halved again and again, and each branch grows part of the way to the middle of its
share. Radii follow Murray's law in the form r^n = r1^n + r2^n; n = 2.7 agrees with the diameter
ratio 1.56 and the branching ratio 3.36 measured by Huang et al. (J Appl Physiol 81, 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.simulation.phantom import compiled_geometry
from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.organs import Organs, lobe_of
from cvsct.simulation.phantom.shapes import Tubes, join_tubes
from cvsct.simulation.phantom.torso import Torso

MURRAY = 2.7


@dataclass(frozen=True)
class Branching:
    """Rules by which a tree divides.

    Args:
        growth: share of the way to the middle of its cloud that a branch grows; 0.4 in Tawhai et
            al.
        hilar: by how much that is less, relatively, for the root, which so divides at the hilum.
        ahead: how far a branch keeps to its parent's direction, 0 to 1; chosen.
        least: smallest share of a branch's points that passes to a daughter.
        spread: how far that share may lie above; chosen.
        exponent: n of the radii.
    """

    growth: float = 0.42
    hilar: float = 0.0
    ahead: float = 0.35
    least: float = 0.32
    spread: float = 0.36
    exponent: float = MURRAY


EVEN = Branching()
"""Daughters of similar size, as the paper's phantom has them."""
AXIAL = Branching(growth=0.36, hilar=0.75, ahead=0.35, least=0.22, spread=0.56, exponent=2.4)
"""Daughters of unlike size that divide at the hilum already, and twigs that stay visible up to
the pleura. Chosen such that the share of vessels falls towards the pleura as in the real slices of
notebook/realism.md; even daughters are too thick midway and too thin in the periphery."""
PATIENT_ROOTS = 0.85
"""Width of a patient's lobar vessels relative to `ARTERY_MM` and `VEIN_MM`; chosen likewise."""
PATIENT_THINNEST_MM = 0.45
"""Radius of a patient's last branches, arteries and veins of a secondary lobule: about 1 mm wide
(Webb, Radiology 239, 2006)."""
PLEURA_MM = 1.5
"""Least distance from the pleura of the ends of a patient's vessels; chosen."""
AIRWAY_LEAST_MM = 0.5
"""Radius of the thinnest airways drawn; CT of 1 mm shows lumens of 1.5 to 2 mm."""

# where each lobe's artery, airway and vein enter it, mm in body coordinates, and their radius
ARTERY_ROOTS = (
    (-44.0, -12.0, -6.0), (-50.0, 0.0, -34.0), (-50.0, 8.0, -42.0), (52.0, -10.0, 4.0),
    (53.0, 20.0, -34.0),
)  # fmt: skip
ARTERY_MM = (5.0, 3.4, 5.8, 5.2, 5.8)
AIRWAY_STEMS = (
    ((-17.0, 23.0, -16.0), (-30.0, 20.0, -9.0), (-41.0, 14.0, -4.0)),
    ((-24.0, 23.0, -24.0), (-36.0, 12.0, -38.0), (-46.0, 4.0, -42.0)),
    ((-24.0, 23.0, -24.0), (-34.0, 24.0, -38.0), (-42.0, 26.0, -50.0)),
    ((44.0, 20.0, -32.0), (50.0, 10.0, -24.0), (55.0, 2.0, -10.0)),
    ((44.0, 20.0, -32.0), (45.0, 25.0, -42.0), (46.0, 29.0, -52.0)),
)
AIRWAY_MM = (3.4, 2.3, 3.6, 3.5, 3.6)
VEIN_ROOTS = (
    (-42.0, -10.0, -36.0),
    (-42.0, 10.0, -64.0),
    (42.0, -14.0, -28.0),
    (44.0, 12.0, -60.0),
)
VEIN_MM = (5.2, 5.2, 5.2, 5.2)
VEIN_LOBES = ((0, 1), (2,), (3,), (4,))


@dataclass(frozen=True)
class Tree:
    """Branches, each with the index of the one it springs from (-1 for a root)."""

    tubes: Tubes
    parent: Int[np.ndarray, " tubes"]

    def without(self, removed: Bool[np.ndarray, " tubes"]) -> Tree:
        """The tree without some branches and all that springs from them."""
        removed = removed.copy()
        above = np.maximum(self.parent, 0)
        while True:
            with_daughters = removed | (removed[above] & (self.parent >= 0))
            if (with_daughters == removed).all():
                break
            removed = with_daughters
        new_index = np.cumsum(~removed) - 1
        parents = self.parent[~removed]
        return Tree(
            self.tubes.select(~removed),
            np.where(parents >= 0, new_index[np.maximum(parents, 0)], -1),
        )


@dataclass(frozen=True)
class LungTrees:
    """All blood vessels of both lungs, and the airways by their lumen; see `airway_walls`."""

    vessels: Tree
    airways: Tubes


def join_trees(trees: list[Tree]) -> Tree:
    """Several trees as one set of branches."""
    offsets = np.cumsum([0] + [len(tree.parent) for tree in trees[:-1]])
    parents = [
        np.where(tree.parent >= 0, tree.parent + offset, -1)
        for tree, offset in zip(trees, offsets, strict=True)
    ]
    return Tree(join_tubes([tree.tubes for tree in trees]), np.concatenate(parents))


def grow(
    rng: np.random.Generator,
    root: Float[np.ndarray, " 3"],
    cloud: Float[np.ndarray, "points 3"],
    root_mm: float,
    thinnest_mm: float = 0.35,
    branching: Branching = EVEN,
) -> Tree:
    """A tree from a root into a cloud of points; every point becomes the end of one twig."""
    starts, ends, parents, twigs = compiled_geometry.grow_tree(
        root, cloud.copy(), rng.random(4 * len(cloud)), branching.growth,
        branching.hilar, branching.ahead, branching.least, branching.spread,
    )  # fmt: skip
    bend = rng.normal(0, 0.05, (len(starts), 3))
    radius = root_mm * (twigs / len(cloud)) ** (1 / branching.exponent)
    before = np.where(parents >= 0, radius[np.maximum(parents, 0)], radius)
    first = np.maximum(np.minimum(before, 1.25 * radius), thinnest_mm)
    last = np.maximum(np.where(twigs == 1, 0.65, 0.96) * radius, thinnest_mm)
    length = np.linalg.norm(ends - starts, axis=1, keepdims=True)
    middle = (starts + ends) / 2 + bend * length
    half = (first + last) / 2
    count = len(starts)
    tubes = Tubes(
        np.concatenate((starts, middle)).astype(np.float32),
        np.concatenate((middle, ends)).astype(np.float32),
        np.concatenate((np.stack((first, half), axis=1), np.stack((half, last), axis=1))).astype(
            np.float32
        ),
    )
    # a branch is two pieces: the first springs from its parent's second, the second from the first
    springs = np.where(parents >= 0, parents + count, -1)
    return Tree(tubes, np.concatenate((springs, np.arange(count))))


def lung_distance(torso: Torso, organs: Organs) -> Float[np.ndarray, "slices rows columns"]:
    """Distance from both lungs at the nodes of the torso's lattice."""
    distance: Float[np.ndarray, "slices rows columns"] = np.maximum(
        np.maximum(torso.cavity.nodes + 1.0, -organs.fields["mediastinum"].nodes),
        1.5 - torso.diaphragm.nodes,
    )
    return distance


def lung_points(
    rng: np.random.Generator, torso: Torso, organs: Organs, depth_mm: float
) -> Float[np.ndarray, "points 3"]:
    """Points spread at random at least so deep in the lungs, in scanner coordinates."""
    return torso.lattice.random_points(rng, lung_distance(torso, organs) < -depth_mm)


def build_trees(body: Body, torso: Torso, organs: Organs) -> LungTrees:
    """Grow arteries, airways and veins into all lobes."""
    rng = body.stream("trees")
    points = lung_points(rng, torso, organs, PLEURA_MM if body.is_patient else 4.5)
    litres = len(points) * float(np.prod(torso.lattice.step_mm)) * 1e-6
    lobes = lobe_of(*torso.lattice.posture.to_body(*points.T))
    per_lobe = body.twigs * litres / len(points)
    width, thinnest_mm, branching = body.vessel, 0.35, EVEN
    if body.is_patient:
        width, thinnest_mm, branching = width * PATIENT_ROOTS, PATIENT_THINNEST_MM, AXIAL
    trees: list[Tree] = []
    airways: list[Tubes] = []

    def cloud(members: tuple[int, ...], share: float) -> Float[np.ndarray, "points 3"]:
        inside = points[np.isin(lobes, members)]
        inside = inside[rng.permutation(len(inside))]
        return inside[: max(8, round(len(inside) * per_lobe * share))]

    posture = torso.lattice.posture
    for lobe, root in enumerate(ARTERY_ROOTS):
        place = posture.to_scanner(np.array([root]))[0]
        radius = ARTERY_MM[lobe] * width
        tree = grow(rng, place, cloud((lobe,), 1.0), radius, thinnest_mm, branching)
        trees.append(tree)
        airways.append(_airways(body, tree, lobe))
    for members, root, radius in zip(VEIN_LOBES, VEIN_ROOTS, VEIN_MM, strict=True):
        place = posture.to_scanner(np.array([root]))[0]
        trees.append(grow(rng, place, cloud(members, 0.8), radius * width, thinnest_mm, branching))
    return LungTrees(join_trees(trees), join_tubes(airways))


def airway_walls(airways: Tubes) -> Tubes:
    """Airways with their walls, a fifth of the lumen's radius and 0.35 mm thick.

    The lumen is then 0.59 (1 mm wide) to 0.77 (7 mm) of the outer diameter; 0.66 +- 0.06, 0.51 to
    0.86, in the subsegmental bronchi of 30 healthy people (PubMed 7790543).
    """
    return Tubes(airways.starts, airways.ends, airways.radii * np.float32(1.2) + np.float32(0.35))


def _airways(body: Body, arteries: Tree, lobe: int) -> Tubes:
    """Airways beside a lobe's arteries, as far as they can be seen; radii are of the lumen.

    A lumen is 0.5 to 0.66 times as wide as the artery beside it; 0.62 +- 0.13 in healthy people at
    sea level (PubMed 9071307).
    """
    stem = body.posture.to_scanner(np.array(AIRWAY_STEMS[lobe]))
    stem_mm = np.array([1.15, 1.0, 0.9]) * AIRWAY_MM[lobe]
    stems = Tubes(
        stem[:-1].astype(np.float32), stem[1:].astype(np.float32),
        np.stack((stem_mm[:-1], stem_mm[1:]), axis=1).astype(np.float32),
    )  # fmt: skip
    if not body.is_patient:
        return stems  # the phantom has no more
    tubes = arteries.tubes
    ratio = 0.9 * AIRWAY_MM[lobe] / float(tubes.radii[0, 0])
    beside = stem[-1] - tubes.starts[0].astype(float)
    beside /= np.linalg.norm(beside)
    along = (tubes.ends - tubes.starts).astype(float)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    across = beside - (along @ beside)[:, None] * along
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 0.2)
    outer_mm = airway_walls(Tubes(tubes.starts, tubes.ends, tubes.radii * np.float32(ratio))).radii
    apart = across * (tubes.radii[:, 1] + outer_mm[:, 1])[:, None]
    # an airway starts where the one before it ended, so that no joint is open
    apart_before = apart[np.maximum(arteries.parent, 0)]
    starts, ends = tubes.starts + apart_before, tubes.ends + apart
    starts[arteries.parent < 0] = stem[-1]
    seen = tubes.radii[:, 1] * ratio > AIRWAY_LEAST_MM
    return join_tubes([
        stems,
        Tubes(
            starts[seen].astype(np.float32), ends[seen].astype(np.float32),
            (tubes.radii[seen] * ratio).astype(np.float32),
        ),
    ])  # fmt: skip
