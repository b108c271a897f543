"""A virtual chest: slices of any position and thickness, computed when asked for.

A phantom gives, at any z, the amounts of the two basis materials in each pixel
(`materials.BASIS`): attenuation is the amount of soft material times its coefficient plus the
amount of bone material times its own. Air is (0, 0). Coordinates are DICOM's: x to the patient's
left, y to the back, z to the head, in mm from the isocentre; z = 0 is near the carina.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from cvsct.core.errors import UsageError
from cvsct.simulation.benchmark import LesionTraits
from cvsct.simulation.phantom.anatomy import Body, lungman_body, patient_body
from cvsct.simulation.phantom.layers import Anatomy, paint
from cvsct.simulation.phantom.lesion import Lesion
from cvsct.simulation.phantom.nodules import Nodule, place_lesion, place_nodules
from cvsct.simulation.phantom.organs import Organs, build_organs
from cvsct.simulation.phantom.painting import Canvas, RasterGrid
from cvsct.simulation.phantom.shapes import Tubes, join_tubes, noise_nodes
from cvsct.simulation.phantom.skeleton import build_skeleton
from cvsct.simulation.phantom.soft_parts import build_soft_parts
from cvsct.simulation.phantom.tissues import tissues_of
from cvsct.simulation.phantom.torso import Torso, build_torso
from cvsct.simulation.phantom.vessels import LungTrees, build_trees, grow, lung_distance

__all__ = ["Nodule", "Phantom", "RasterGrid", "lungman", "patient"]

SLAB_STEP_MM = 0.625
"""The thinnest slice of the paper's scanners; a slab is sampled at least as densely."""

Raster = Float32[np.ndarray, "2 rows columns"]


@dataclass(frozen=True)
class Phantom:
    """A body to be scanned.

    Args:
        kind: "lungman" or "patient".
        seed: source of its randomness; the same seed gives the same bytes.
        z_range_mm: where a chest scan would start and stop, from below the domes of the
            diaphragm to above the apices.
        nodules: the nodules in its lungs.
        lesion: the lesion in its lungs, if any.
    """

    kind: str
    seed: int
    z_range_mm: tuple[float, float]
    nodules: tuple[Nodule, ...]
    body: Body
    anatomy: Anatomy
    lesion: Lesion | None = None

    def raster(self, z_mm: float, grid: RasterGrid = RasterGrid()) -> Raster:  # noqa: B008
        """Amounts of the basis materials (soft, bone) in the plane at one z."""
        canvas = Canvas(z_mm, grid, self.anatomy.noise)
        paint(canvas, self.body, self.anatomy, self.nodules, self.lesion)
        return canvas.amounts

    def slab(
        self,
        z_mm: float,
        thickness_mm: float,
        grid: RasterGrid = RasterGrid(),  # noqa: B008
    ) -> Raster:
        """The mean of rasters over a thickness centred on z, at most 0.625 mm apart.

        Raises:
            UsageError: if the thickness is not positive.
        """
        if not thickness_mm > 0:
            raise UsageError(f"slab of {thickness_mm} mm asked for; expected more than 0")
        count = int(np.ceil(thickness_mm / SLAB_STEP_MM - 1e-6))
        step = thickness_mm / count
        total = np.zeros((2, grid.size_px, grid.size_px), np.float32)
        for index in range(count):
            total += self.raster(z_mm + (index + 0.5) * step - thickness_mm / 2, grid)
        return total / np.float32(count)


def lungman(seed: int, parenchyma: bool = False) -> Phantom:
    """The chest phantom: polyurethane, epoxy bone, vessels in lungs of air, nodules.

    Args:
        parenchyma: fill the lungs as in a patient; the real phantom holds air.
    """
    return _build(lungman_body(seed, parenchyma))


def patient(seed: int, lesion: LesionTraits | None = None, emphysema: float = 0.0) -> Phantom:
    """A patient-like body; no two are alike.

    Args:
        lesion: traits of a lesion to place in its lungs; the body is the same without it.
        emphysema: share of the parenchyma that emphysema has destroyed, in holes of a few mm at
            about -980 HU; 0 for the body's own, which thins the lung of some. The rest of the body
            is the same.

    Raises:
        UsageError: if the share is not below 0.9.
    """
    if not 0 <= emphysema < 0.9:
        raise UsageError(f"emphysema in {emphysema:g} of the lung; expected 0 or more, below 0.9")
    body = patient_body(seed)
    return _build(replace(body, destroyed=emphysema) if emphysema else body, lesion)


def _build(body: Body, traits: LesionTraits | None = None) -> Phantom:
    tall = body.posture.scale[2]
    torso = build_torso(body, -196.0 * tall, 116.0 * tall)
    organs = build_organs(body, torso)
    skeleton = build_skeleton(body, torso)
    trees = build_trees(body, torso, organs)
    nodules, vessels = place_nodules(body, torso, organs, trees.vessels, trees.airways)
    rng = body.stream("textures")
    n_noises = 5 if body.is_patient else 4 if body.parenchyma[0] > 0 else 0
    anatomy = Anatomy(
        torso=torso,
        organs=organs,
        skeleton=skeleton,
        trees=LungTrees(vessels, trees.airways),
        soft_parts=build_soft_parts(body, torso, organs),
        liver_veins=_liver_veins(body, torso, organs),
        plaques=_plaques(body, organs.tubes["aorta"]),
        oesophagus_air=_oesophagus_air(body, organs.tubes["oesophagus"]),
        stomach_level_mm=_stomach_level(body, organs),
        noise=tuple(noise_nodes(rng, 72) for _ in range(n_noises)),
        tissues=tissues_of(body),
    )
    lung = np.flatnonzero((lung_distance(torso, organs) < 0).any(axis=(1, 2)))
    apex = torso.lattice.origin_mm[2] + torso.lattice.step_mm[2] * float(lung[-1])
    z_range = (min(body.domes_mm) * tall - 40.0, apex + 6.0)
    lesion = None
    if traits is not None:
        lesion = place_lesion(body, torso, organs, anatomy.trees, nodules, traits, sum(z_range) / 2)
    return Phantom(body.kind, body.seed, z_range, nodules, body, anatomy, lesion)


def _liver_veins(body: Body, torso: Torso, organs: Organs) -> Tubes:
    if not body.is_patient:
        return organs.tubes["veins"].select(np.zeros(0, dtype=np.int64))
    rng = body.stream("liver veins")
    deep = organs.fields["liver"].nodes < -7
    cloud = torso.lattice.random_points(rng, deep, jitter=0.0)[:70]
    root = body.posture.to_scanner(np.array([[-26.0, -18.0, body.domes_mm[0] - 16.0]]))[0]
    return grow(rng, root, cloud, 6.0, 0.8).tubes


def _plaques(body: Body, aorta: Tubes) -> Tubes:
    """Calcified specks in the wall of the aorta."""
    rng = body.stream("plaques")
    index = rng.integers(0, 62, max(body.plaque, 1))
    specks = []
    for i in index:
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        centre = aorta.starts[i] + direction * (float(aorta.radii[i, 0]) - 0.8)
        half_length = rng.normal(0, 2.0, 3)
        half_length -= (half_length @ direction) * direction
        size = rng.uniform(0.5, 1.3)
        specks.append(
            Tubes(
                (centre - half_length)[None].astype(np.float32),
                (centre + half_length)[None].astype(np.float32),
                np.array([[size, 0.7 * size]], np.float32),
            )
        )
    plaques = join_tubes(specks)
    return plaques if body.plaque else plaques.select(np.zeros(len(plaques), dtype=bool))


def _oesophagus_air(body: Body, oesophagus: Tubes) -> Tubes:
    """Pockets of air in some stretches of the oesophagus."""
    rng = body.stream("oesophagus")
    wave = np.convolve(rng.standard_normal(len(oesophagus) + 8), np.ones(9) / 3, mode="valid")
    size = (1.2 + 0.9 * wave).astype(np.float32)
    with_air = np.flatnonzero((size > 0.6) & (oesophagus.radii[:, 0] < 7.8))
    radii = np.minimum(np.stack((size, size), axis=1), 3.0)[with_air]
    return Tubes(oesophagus.starts[with_air], oesophagus.ends[with_air], radii.astype(np.float32))


def _stomach_level(body: Body, organs: Organs) -> float:
    """Level (y) of the surface of the stomach's content: gas gathers in front of a supine body."""
    if not body.is_patient:
        return 0.0
    stomach = organs.fields["stomach"]
    rows = np.flatnonzero((stomach.nodes < -4).any(axis=(0, 2)))
    if len(rows) == 0:
        return -1e3
    low, high = (stomach.origin_mm[1] + stomach.step_mm[1] * float(rows[i]) for i in (0, -1))
    return low + body.stomach_air * (high - low)
