"""Contours of an RT structure set as masks (DICOM PS3.3 C.8.8.6, ROI Contour).

A voxel belongs to a structure if its centre lies inside. Contours of one structure in one slice
cut each other out (even-odd), which is how planning systems draw rings and holes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset

from cvsct.errors import GeometryError, SeriesError, import_extra
from cvsct.io.header import numbers, text
from cvsct.io.space import refuse_other_frame, volume_affine
from cvsct.volume import CTVolume

logger = logging.getLogger(__name__)

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"

IN_PLANE_TOLERANCE = 0.1
"""Share of the slice distance by which a contour may lie off a slice."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def contour_masks(
    name: str, dataset: Dataset, volume: CTVolume
) -> dict[str, Bool[np.ndarray, "_ _ _"]]:
    """Each structure that has closed contours, by its ROI name; points and lines are left out.

    Raises:
        SeriesError: if the structure set is damaged.
        GeometryError: if a contour lies in another frame of reference, between the slices, across
            them or outside the image.
    """
    titles: dict[str, str] = {}
    for roi in _items(dataset, "StructureSetROISequence"):
        number = text(roi, "ROINumber")
        refuse_other_frame(name, text(roi, "ReferencedFrameOfReferenceUID"), volume)
        title = "".join(c if c.isprintable() else "?" for c in text(roi, "ROIName"))[:64]
        titles[number] = title if title and title not in titles.values() else f"{title} {number}"
    masks: dict[str, Bool[np.ndarray, "_ _ _"]] = {}
    left_out = 0
    to_index = np.linalg.inv(volume_affine(volume))
    for drawn in _items(dataset, "ROIContourSequence"):
        number = text(drawn, "ReferencedROINumber")
        if number not in titles:
            raise SeriesError(f"{name}: contours of an ROI that it does not list; save it again")
        for contour in _items(drawn, "ContourSequence"):
            if text(contour, "ContourGeometricType") not in _CLOSED:
                left_out += 1
                continue
            mask = masks.setdefault(titles[number], np.zeros(volume.hu.shape, dtype=bool))
            points = _points(name, contour)
            index = points @ to_index[:3, :3].T + to_index[:3, 3]
            _fill(f"{name}: structure {titles[number]!r}", index, mask)
    if left_out:
        logger.info("%d contours that enclose nothing (points, lines) are left out", left_out)
    return masks


def _fill(
    name: str, index: Float[np.ndarray, "points 3"], mask: Bool[np.ndarray, "slices rows columns"]
) -> None:
    """Switch the voxels inside one contour."""
    along = float(index[:, 0].mean())
    plane = round(along)
    if np.abs(index[:, 0] - plane).max() > IN_PLANE_TOLERANCE:
        raise GeometryError(
            f"{name} has a contour that lies in no slice of the image (slice index "
            f"{index[:, 0].min():.2f} to {index[:, 0].max():.2f}); draw it on this series"
        )
    edge = np.array(mask.shape[1:]) - 0.5
    if not 0 <= plane < len(mask) or (index[:, 1:] < -0.5).any() or (index[:, 1:] > edge).any():
        raise GeometryError(
            f"{name} reaches outside the image; draw it on this series, or crop it to the image"
        )
    polygon = import_extra("skimage.draw", "reading this mask", "evaluate").polygon
    rows, columns = polygon(index[:, 1], index[:, 2], mask.shape[1:])
    mask[plane, rows, columns] ^= True


def _points(name: str, contour: Dataset) -> Float[np.ndarray, "points 3"]:
    values = numbers(contour, "ContourData")
    if len(values) < 9 or len(values) % 3:
        raise SeriesError(
            f"{name}: a closed contour of {len(values)} numbers, expected 3 for each of at least "
            "3 points; save it again"
        )
    return np.array(values).reshape(-1, 3)


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    value = dataset.get(keyword)
    return value if isinstance(value, Sequence) else ()
