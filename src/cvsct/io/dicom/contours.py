"""One contour of an RT structure set drawn into a mask (DICOM PS3.3 C.8.8.6, ROI Contour).

A voxel belongs to a structure if its center lies inside. Contours of one structure in one slice
cut each other out (even-odd), which is how planning systems draw rings and holes. A contour that
cannot be drawn has an `Omission`, which is counted; the rest of the structure stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset

from cvsct.core.errors import import_extra
from cvsct.io.dicom.header import numbers, quiet, text, whole
from cvsct.io.dicom.references import ImageName, images_named

IN_PLANE_TOLERANCE = 0.1
"""Share of the slice distance by which a contour may lie off a slice."""

MAX_DISTANCE_MM = 1e5
"""Contours farther than 100 m from the origin of the patient's coordinates are damaged."""

MIN_AREA_PX = 1e-6
"""Smallest area of a contour; rounded corners on one line enclose less."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


class Omission(Enum):
    """Why a contour is left out, as the end of `contours that ...`."""

    NOTHING = "enclose nothing (points, open lines, fewer than 3 corners)"
    TINY = "enclose no voxel's center"
    DAMAGED = "are damaged (no coordinates in mm, or fewer points than declared)"
    COPY = "repeat another one"
    BETWEEN = "lie in no slice (between two, or across)"
    OUTSIDE = "lie outside the image"
    FOREIGN = "are drawn in another frame of reference and name no image of this series"
    ELSEWHERE = "lie elsewhere than the image they name"


@dataclass
class Structure:
    """The mask of one structure, with counts of contours drawn, cut and left out."""

    mask: Bool[np.ndarray, "slices rows columns"] | None = None
    contours: int = 0
    omissions: Counter[Omission] = field(default_factory=Counter)
    cut: int = 0
    named: int = 0
    taken_by_name: int = 0
    misnamed: int = 0
    seen: set[tuple[int, bytes]] = field(default_factory=set)

    @property
    def measured(self) -> bool:
        """Whether it holds any voxel."""
        return self.mask is not None and bool(self.mask.any())


@dataclass(frozen=True)
class Canvas:
    """The image on which contours are drawn.

    Args:
        to_index: from mm along left, posterior and superior to slice, row and column.
        names: its slices by the names of their images.
    """

    shape: tuple[int, int, int]
    to_index: Float[np.ndarray, "4 4"]
    names: Mapping[ImageName, int]


def add_contour(structure: Structure, contour: Dataset, canvas: Canvas, foreign: bool) -> None:
    """Draw one contour, or count why not."""
    structure.contours += 1
    named = images_named(contour, "ContourImageSequence")
    own = {canvas.names[image] for image in named if image in canvas.names}
    structure.named += bool(own)
    omission: Omission | None = Omission.FOREIGN if foreign and not own else None
    points = _points(contour)
    if omission is None:
        omission = points if isinstance(points, Omission) else None
    if omission is None and not isinstance(points, Omission):
        index = points @ canvas.to_index[:3, :3].T + canvas.to_index[:3, 3]
        omission = _fill(structure, index, canvas.shape, own, foreign, _may_repeat(contour))
    if omission is not None:
        structure.omissions[omission] += 1


def _fill(
    structure: Structure,
    index: Float[np.ndarray, "points 3"],
    shape: tuple[int, int, int],
    own: set[int],
    foreign: bool,
    may_repeat: bool,
) -> Omission | None:
    """Switch the voxels inside one contour; returns the reason if it is left out instead.

    Args:
        own: slices whose images the contour names.
        foreign: the contour is in another frame of reference; it must lie in a slice it names.
        may_repeat: a second equal contour removes the first one.
    """
    plane = _slice_of(index[:, 0], shape[0])
    if isinstance(plane, Omission):
        return plane
    if own and plane not in own:
        if foreign:
            return Omission.ELSEWHERE
        structure.misnamed += 1
    if _area_px(index[:, 1:]) < MIN_AREA_PX:
        return Omission.NOTHING
    corners = np.unique(np.round(index[:, 1:], 3), axis=0)
    key = plane, corners.tobytes()
    if key in structure.seen and not may_repeat:
        return Omission.COPY
    structure.seen.add(key)
    if structure.mask is None:
        structure.mask = np.zeros(shape, dtype=bool)
    polygon = import_extra("skimage.draw", "reading this mask", "evaluate").polygon
    rows, columns = polygon(index[:, 1], index[:, 2], shape[1:])
    beyond = bool((index[:, 1:] < -0.5).any() or (index[:, 1:] > np.array(shape[1:]) - 0.5).any())
    if not len(rows):
        return Omission.OUTSIDE if beyond else Omission.TINY
    structure.mask[plane, rows, columns] ^= True
    structure.cut += beyond
    structure.taken_by_name += foreign
    return None


def _slice_of(along: Float[np.ndarray, " points"], n_slices: int) -> int | Omission:
    """The slice in which corners lie, by their slice indices."""
    if not (along > -0.5).any() or not (along < n_slices - 0.5).any():
        return Omission.OUTSIDE
    plane = round(float(along.mean()))
    return plane if np.abs(along - plane).max() <= IN_PLANE_TOLERANCE else Omission.BETWEEN


def _points(contour: Dataset) -> Float[np.ndarray, "points 3"] | Omission:
    """Corners in mm, at least three different ones, or why there are none."""
    if text(contour, "ContourGeometricType") not in _CLOSED:
        return Omission.NOTHING
    values = numbers(contour, "ContourData")
    with quiet():
        element = contour.get_item("ContourData")
    if not values:
        return Omission.DAMAGED if element is not None and element.value else Omission.NOTHING
    declared = whole(contour, "NumberOfContourPoints") or 0
    short = len(values) < 3 * (declared - 1)  # some leave out the closing point, but count it
    if len(values) % 3 or short or max(map(abs, values)) > MAX_DISTANCE_MM:
        return Omission.DAMAGED
    points = np.array(values).reshape(-1, 3)
    return points if len(np.unique(points, axis=0)) >= 3 else Omission.NOTHING


def _may_repeat(contour: Dataset) -> bool:
    """Whether the contour says of itself that it is combined with others by exclusive or."""
    return text(contour, "ContourGeometricType") != "CLOSED_PLANAR"


def _area_px(corners: Float[np.ndarray, "points 2"]) -> float:
    """Sum of the areas of the triangles from the first corner; 0 only if all lie on a line."""
    edges = corners - corners[0]
    across = edges[:-1, 0] * edges[1:, 1] - edges[:-1, 1] * edges[1:, 0]
    return float(np.abs(across).sum() / 2)
