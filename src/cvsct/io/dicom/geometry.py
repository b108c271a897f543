"""Geometry of slices, and the check that they form one regular volume (DICOM PS3.3 C.7.6.2).

Slices are ordered by their position along the common normal, never by file name or Instance
Number. Whatever would make distances wrong is refused with the file and the figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from pydicom import Dataset

from cvsct.core.errors import GeometryError
from cvsct.core.volume import Geometry
from cvsct.io.dicom.header import number, numbers, text
from cvsct.io.dicom.interleaved import refuse_interleaved
from cvsct.io.dicom.one_scan import SEPARATE_REMEDY, SliceAcquisition
from cvsct.io.dicom.spacing import SAME_POSITION_MM, refuse_uneven, tolerance_mm

SAME_DIRECTION = 1e-3
SAME_PIXEL_MM = 1e-4
AXIAL_LIMIT_DEGREES = 45.0
MAX_DISTANCE_MM = 1e5
"""Largest coordinate; no scanner's table is 100 m long, and squares of it stay finite."""
WIDEST_PIXEL_MM = 100.0


@dataclass(frozen=True)
class Plane:
    """Position and orientation of one slice in the patient, from its header."""

    name: str
    position_mm: Float[np.ndarray, "3"]
    row: Float[np.ndarray, "3"]
    column: Float[np.ndarray, "3"]
    pixel_mm: tuple[float, float]
    thickness_mm: float
    frame_of_reference: str

    @property
    def normal(self) -> Float[np.ndarray, "3"]:
        """Unit vector at right angles to the slice."""
        return np.cross(self.row, self.column)


def plane_of(name: str, dataset: Dataset) -> Plane:
    """Read a slice's geometry.

    Raises:
        GeometryError: if an attribute is missing or impossible, or the slice is not axial.
    """
    position = _required(name, dataset, "ImagePositionPatient", 3)
    orientation = np.array(_required(name, dataset, "ImageOrientationPatient", 6))
    pixel = _required(name, dataset, "PixelSpacing", 2)
    if max(map(abs, (*position, number(dataset, "SliceThickness") or 0.0))) > MAX_DISTANCE_MM:
        raise GeometryError(
            f"{name}: a position or thickness beyond any scanner's reach ({MAX_DISTANCE_MM:g} mm); "
            "re-export the series"
        )
    orientation = orientation.clip(-2, 2)  # lengths of more than 1 are refused, whatever they are
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > SAME_DIRECTION:
        raise GeometryError(
            f"{name}: Image Orientation is not two unit vectors at right angles; "
            "re-export the series"
        )
    if not 0 < min(pixel) <= max(pixel) <= WIDEST_PIXEL_MM:
        raise GeometryError(
            f"{name}: Pixel Spacing {pixel[0]:g} x {pixel[1]:g} mm, expected more than 0 and at "
            f"most {WIDEST_PIXEL_MM:g}; re-export the series"
        )
    plane = Plane(
        name=name,
        position_mm=np.array(position),
        row=row / lengths[0],
        column=column / lengths[1],
        pixel_mm=(pixel[0], pixel[1]),
        thickness_mm=max(number(dataset, "SliceThickness") or 0.0, 0.0),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
    )
    angle = math.degrees(math.acos(min(1.0, abs(float(plane.normal[2])))))
    if angle > AXIAL_LIMIT_DEGREES:
        raise GeometryError(
            f"{name}: a sagittal or coronal slice (normal {angle:.0f} degrees from the patient's "
            "axis), expected axial; name the axial series"
        )
    return plane


def arrange(
    planes: Sequence[Plane], slice_acquisitions: Sequence[SliceAcquisition] = ()
) -> tuple[Geometry, list[int], tuple[str, ...]]:
    """Order slices along their normal.

    Args:
        slice_acquisitions: when and in which acquisition each was made; acquisitions that alternate
            along the normal are refused.

    Returns:
        The volume's geometry, for each of its slices the index into `planes`, and what is odd.

    Raises:
        GeometryError: if the slices do not form one regular stack.
        SeriesError: if they are of several acquisitions that lie between each other.
    """
    first = planes[0]
    for plane in planes[1:]:
        _refuse_mixed(first, plane)
    along = np.array([plane.position_mm @ first.normal for plane in planes])
    order = [int(i) for i in np.argsort(along, kind="stable")]
    ordered = [planes[i] for i in order]
    _refuse_duplicates(
        ordered, along[order], [slice_acquisitions[i] for i in order] if slice_acquisitions else ()
    )
    notes = refuse_interleaved([slice_acquisitions[i] for i in order]) if slice_acquisitions else ()
    if len(planes) > 1:
        refuse_uneven([plane.name for plane in ordered], along[order])
        _refuse_sheared(ordered, along[order])
    geometry = Geometry(
        positions_mm=np.array([planes[i].position_mm for i in order]),
        row_direction=(float(first.row[0]), float(first.row[1]), float(first.row[2])),
        column_direction=(float(first.column[0]), float(first.column[1]), float(first.column[2])),
        pixel_mm=first.pixel_mm,
        thickness_mm=first.thickness_mm,
        frame_of_reference=first.frame_of_reference,
    )
    return geometry, order, notes


def _required(name: str, dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    values = numbers(dataset, keyword)
    if len(values) != count:
        raise GeometryError(
            f"{name}: no usable {keyword} ({len(values)} numbers, expected {count}); a volume "
            "needs CT geometry, re-export the series from the scanner or archive"
        )
    return values


def _refuse_mixed(first: Plane, plane: Plane) -> None:
    turned = max(np.abs(plane.row - first.row).max(), np.abs(plane.column - first.column).max())
    if turned > SAME_DIRECTION:
        angle = math.degrees(math.acos(np.clip(plane.normal @ first.normal, -1, 1)))
        raise GeometryError(
            f"{plane.name}: mixed orientation (normal turned by {angle:.1f} degrees against "
            f"{first.name}); {SEPARATE_REMEDY}"
        )
    if max(abs(a - b) for a, b in zip(plane.pixel_mm, first.pixel_mm, strict=True)) > SAME_PIXEL_MM:
        raise GeometryError(
            f"{plane.name}: mixed pixel spacing ({plane.pixel_mm[0]:g} x {plane.pixel_mm[1]:g} mm, "
            f"{first.name} has {first.pixel_mm[0]:g} x {first.pixel_mm[1]:g} mm); "
            f"{SEPARATE_REMEDY}"
        )
    if abs(plane.thickness_mm - first.thickness_mm) > SAME_POSITION_MM:
        raise GeometryError(
            f"{plane.name}: mixed slice thickness ({plane.thickness_mm:g} mm, {first.name} has "
            f"{first.thickness_mm:g} mm); {SEPARATE_REMEDY}"
        )
    if plane.frame_of_reference != first.frame_of_reference:
        raise GeometryError(
            f"{plane.name}: mixed frame of reference (another one than {first.name}), so positions "
            f"do not compare; {SEPARATE_REMEDY}"
        )


def _refuse_duplicates(
    planes: Sequence[Plane],
    along_mm: Float[np.ndarray, " slices"],
    slice_acquisitions: Sequence[SliceAcquisition],
) -> None:
    for i, step in enumerate(np.diff(along_mm)):
        if step >= SAME_POSITION_MM:
            continue
        differs = (
            slice_acquisitions[i + 1].differs(slice_acquisitions[i]) if slice_acquisitions else ""
        )
        cause = f"two acquisitions, {differs} differs" if differs else "of the same acquisition"
        raise GeometryError(
            f"{planes[i + 1].name}: duplicate position, {step:.3f} mm from {planes[i].name} "
            f"({cause}); {SEPARATE_REMEDY if differs else 'remove the copy'}"
        )


def _refuse_sheared(planes: Sequence[Plane], along_mm: Float[np.ndarray, " slices"]) -> None:
    """Refuse slices that do not lie straight above each other, as a tilted gantry makes them."""
    steps = np.diff(along_mm)
    for i, step in enumerate(steps):
        moved = planes[i + 1].position_mm - planes[i].position_mm
        aside = float(np.linalg.norm(moved - step * planes[i].normal))
        if aside > tolerance_mm(float(np.median(steps))):
            angle = math.degrees(math.atan2(aside, step))
            raise GeometryError(
                f"{planes[i + 1].name}: slices shift sideways by {aside:.1f} mm in {step:.1f} mm "
                f"(gantry tilt of {angle:.1f} degrees), expected a stack at right angles; resample "
                "the series to straight slices first, as dcm2niix does, and give the NIfTI file"
            )
