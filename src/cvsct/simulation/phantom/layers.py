"""The order in which a body's tissues are laid over one another in a slice.

Later layers cover earlier ones: skin, fat, muscle, abdominal organs, mediastinum, lungs with their
trees and nodules, bones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.phantom import compositing
from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.lesion import Lesion
from cvsct.simulation.phantom.nodules import Nodule
from cvsct.simulation.phantom.organs import Organs
from cvsct.simulation.phantom.painting import Canvas, Plane, Window
from cvsct.simulation.phantom.shapes import Nodes, Tubes, join_tubes
from cvsct.simulation.phantom.skeleton import Skeleton
from cvsct.simulation.phantom.soft_parts import SoftParts
from cvsct.simulation.phantom.tissues import Tissue, tissue
from cvsct.simulation.phantom.torso import Torso, spine_y
from cvsct.simulation.phantom.vessels import LungTrees, airway_walls

AIR = tissue((0.0, 0.0))
BODY_CORTEX_MM, ARCH_CORTEX_MM = 0.4, 1.3
"""Cortex of a patient's vertebral bodies and of their arches, which begin `ARCH_BEHIND_MM` behind
the middle of the body; chosen."""
ARCH_BEHIND_MM = 12.0
EMPHYSEMA_SD = 1.64**0.5
"""Standard deviation of the sum of the noises that emphysema follows, weighted by 1 and 0.8."""
CLEAR_MM = 2.2
"""How far the lungs stay off bones: pleura, fascia and the periosteum."""


@dataclass(frozen=True)
class Anatomy:
    """All shapes of a body, in scanner coordinates, and what they are made of."""

    torso: Torso
    organs: Organs
    skeleton: Skeleton
    trees: LungTrees
    soft_parts: SoftParts
    liver_veins: Tubes
    plaques: Tubes
    oesophagus_air: Tubes
    stomach_level_mm: float
    noise: tuple[Nodes, ...]
    tissues: dict[str, Tissue]


def paint(
    canvas: Canvas,
    body: Body,
    anatomy: Anatomy,
    nodules: Sequence[Nodule],
    lesion: Lesion | None = None,
) -> None:
    """Paint one slice."""
    tissues, torso = anatomy.tissues, anatomy.torso
    window = canvas.window(torso.skin)
    if window is None:
        return
    canvas.prepare_noise(window)
    skin = canvas.distance(torso.skin, window)
    canvas.paint(window, skin, tissues["skin"])
    if body.is_patient:
        fascia = canvas.distance(torso.fascia, window)
        canvas.paint_fat(window, skin, tissues["fat"], tissues["septa"], body.septa_mm, 1.8, fascia)
        canvas.paint_tubes(anatomy.soft_parts.skin, tissues["wall"])
        muscle = canvas.distance(torso.muscle, window)
        canvas.paint_muscle(
            window, muscle, fascia, tissues["muscle"], tissues["fat"], body.streaks_mm
        )
        _fat_planes(canvas, anatomy, fascia, window, -8.0)
    chest = canvas.window(torso.cavity, 12.0)
    if chest is not None:
        cavity = canvas.distance(torso.cavity, chest)
        under = canvas.distance(torso.diaphragm, chest)
        if body.is_patient:
            _fat_planes(canvas, anatomy, cavity, chest, 9.4)
            canvas.paint_fat(
                chest, cavity, tissues["mediastinal fat"], tissues["septa"], body.septa_mm, 0.5
            )
            canvas.paint_tubes(anatomy.soft_parts.chest, tissues["wall"])
            _abdomen(canvas, body, anatomy, chest, np.maximum(cavity + 1.0, under))
            _mediastinum(canvas, anatomy)
        _lungs(canvas, body, anatomy, nodules, chest, cavity, under)
        if lesion is not None:
            canvas.paint_lesion(lesion, tissues["nodule"])
    _bones(canvas, body, anatomy)


def _fat_planes(
    canvas: Canvas, anatomy: Anatomy, distance: Plane, window: Window, level_mm: float
) -> None:
    """Fat between two layers of muscle, of uneven thickness, where `distance` is `level_mm`."""
    uneven = canvas.noise(2, window)
    plane = np.abs(distance - np.float32(level_mm) - np.float32(1.5) * uneven)
    canvas.paint(
        window, plane - np.float32(0.35) * uneven - np.float32(0.45), anatomy.tissues["fat"]
    )


def _abdomen(canvas: Canvas, body: Body, anatomy: Anatomy, window: Window, under: Plane) -> None:
    """Diaphragm, fat, liver, spleen and stomach."""
    tissues, organs = anatomy.tissues, anatomy.organs.fields
    if not (under < 1.0).any():
        return
    canvas.paint(window, under, tissues["wall"])
    canvas.paint(window, under, tissues["mediastinal fat"], 3.0)
    canvas.paint_field(organs["spleen"], tissues["spleen"])
    stomach = canvas.window(organs["stomach"])
    if stomach is not None:
        distance = canvas.distance(organs["stomach"], stomach)
        canvas.paint(stomach, distance, tissues["wall"])
        canvas.paint(stomach, distance, tissues["stomach"], 3.0)
        level = np.float32(anatomy.stomach_level_mm)
        gas = np.maximum(distance + 3.0, (canvas.rows_mm(stomach) - level)[:, None])
        canvas.paint(stomach, gas.astype(np.float32), AIR)
    canvas.paint_field(organs["liver"], tissues["liver"])
    liver = canvas.window(organs["liver"])
    if liver is not None:
        veins = canvas.tubes(anatomy.liver_veins, liver)
        if veins is not None:
            compositing.carve(veins[1], -canvas.distance(organs["liver"], liver), np.float32(0.0))
            canvas.paint(*veins, tissues["blood"])


def _mediastinum(canvas: Canvas, anatomy: Anatomy) -> None:
    """Heart with its fat, great vessels, oesophagus, walls of the large airways."""
    tissues, organs = anatomy.tissues, anatomy.organs
    canvas.paint_field(organs.fields["sac"], tissues["wall"])
    canvas.paint_field(organs.fields["sac"], tissues["mediastinal fat"], offset_mm=0.9)
    canvas.paint_tubes(anatomy.soft_parts.heart, tissues["blood"])
    canvas.paint_field(organs.fields["heart"], tissues["myocardium"])
    canvas.paint_field(organs.fields["blood"], tissues["blood"])
    for name in ("veins", "pulmonary", "aorta"):
        canvas.paint_tubes(organs.tubes[name].grown(0.7), tissues["wall"])
        canvas.paint_tubes(organs.tubes[name].grown(-0.7), tissues["blood"])
    canvas.paint_tubes(anatomy.plaques, tissues["plaque"])
    canvas.paint_tubes(organs.tubes["nodes"], tissues["wall"])
    canvas.paint_tubes(organs.tubes["oesophagus"], tissues["wall"])
    canvas.paint_tubes(anatomy.oesophagus_air, AIR)
    canvas.paint_tubes(organs.tubes["airways"].grown(1.4), tissues["wall"])


def _lungs(
    canvas: Canvas,
    body: Body,
    anatomy: Anatomy,
    nodules: Sequence[Nodule],
    window: Window,
    cavity: Plane,
    under: Plane,
) -> None:
    """Parenchyma, vessels, airways, nodules."""
    tissues, organs, trees = anatomy.tissues, anatomy.organs, anatomy.trees
    lung = np.maximum(cavity + np.float32(1.0), np.float32(1.5) - under)
    compositing.carve(lung, canvas.distance(organs.fields["mediastinum"], window), np.float32(0.0))
    ribs = canvas.tubes(anatomy.skeleton.ribs, window, CLEAR_MM)
    if ribs is not None:
        compositing.carve(lung, ribs[1], np.float32(CLEAR_MM))
    spine = canvas.distance(anatomy.skeleton.spine, window)
    compositing.carve(lung, spine, np.float32(CLEAR_MM))
    front, back = body.parenchyma
    slope = (back - front) / 160.0
    gradient = (
        front + 80 * slope, slope, body.dependent, 5.0, body.fissure, *_emphysema(body),
    )  # fmt: skip
    fissure = canvas.distance(organs.fields["fissure"], window)
    share = canvas.paint_lung(window, lung, fissure, gradient, tissues["lung"])
    for tubes, tree_tissue in (
        (trees.vessels.tubes, tissues["blood"]),
        (airway_walls(trees.airways), tissues["wall"]),
    ):
        tree = canvas.tubes(tubes, window)
        if tree is not None:
            canvas.paint_within(window, tree[1], share, tree_tissue)
    canvas.paint_tubes(join_tubes([organs.tubes["airways"], trees.airways]), AIR)
    for nodule in nodules:
        region = canvas.tubes(nodule.tubes)
        if region is not None:
            nodule_window, distance = region
            nodule_share = _cut(share, window, nodule_window)
            if nodule_share is not None:
                nodule_tissue = tissues["nodule"].scaled((1000 + nodule.hu) / 1000)
                canvas.paint_within(nodule_window, distance, nodule_share, nodule_tissue)


def _cut(
    plane: Float32[np.ndarray, "outer_rows outer_columns"], window: Window, inner_window: Window
) -> Plane | None:
    """The part of a window's plane in an inner window; None where that reaches beyond it."""
    inside = all(
        outer.start <= inner.start and inner.stop <= outer.stop
        for outer, inner in zip(window, inner_window, strict=True)
    )
    if not inside:
        return None
    rows, columns = (
        slice(inner.start - outer.start, inner.stop - outer.start)
        for outer, inner in zip(window, inner_window, strict=True)
    )
    return plane[rows, columns]


def _bones(canvas: Canvas, body: Body, anatomy: Anatomy) -> None:
    """Cartilage, discs, canal, then the bones themselves."""
    tissues, bones = anatomy.tissues, anatomy.skeleton
    if body.is_patient:
        canvas.paint_tubes(bones.cartilage, tissues["cartilage"])
        canvas.paint_tubes(bones.discs, tissues["disc"])
        canvas.paint_tubes(bones.canal, tissues["canal"])
        canvas.paint_tubes(bones.cord, tissues["cord"])
    cortex, marrow = tissues["cortex"], tissues["marrow"]
    ribs = canvas.tubes(bones.ribs)
    if ribs is not None:
        canvas.paint_bone(*ribs, 1.1, cortex, marrow)
    for field, thickness in ((bones.spine, 0.9), (bones.sternum, 1.0), (bones.scapulae, 1.3)):
        window = canvas.window(field)
        if window is not None:
            cortex_mm: float | Float32[np.ndarray, " rows"] = thickness
            if body.is_patient and field is bones.spine:
                cortex_mm = _vertebral_cortex_mm(canvas, body, window)
            canvas.paint_bone(window, canvas.distance(field, window), cortex_mm, cortex, marrow)


def _emphysema(body: Body) -> tuple[float, float, float]:
    """Noise level from which lung is lost, share that is lost, and how abruptly it is lost."""
    if body.destroyed > 0:
        # the sum of the two noises is about normal, so that this share of it lies above the level
        level = EMPHYSEMA_SD * NormalDist().inv_cdf(1 - body.destroyed)
        return level, 1.0, 8.0
    return body.emphysema, 0.6 if body.emphysema > 0 else 0.0, 1.0


def _vertebral_cortex_mm(
    canvas: Canvas, body: Body, window: Window
) -> Float32[np.ndarray, " rows"]:
    """Thickness of the vertebrae's cortex by row: thin around the body, thick in the arch."""
    z = canvas.z_mm / body.posture.scale[2]
    middle = np.array([[0.0, float(spine_y(body, np.array([z]))[0]), z]])
    behind_mm = canvas.rows_mm(window) - np.float32(body.posture.to_scanner(middle)[0, 1])
    rise = np.clip((behind_mm - np.float32(ARCH_BEHIND_MM)) / np.float32(8.0), 0, 1)
    cortex_mm: Float32[np.ndarray, " rows"] = (
        np.float32(BODY_CORTEX_MM) + np.float32(ARCH_CORTEX_MM - BODY_CORTEX_MM) * rise
    )
    return cortex_mm
