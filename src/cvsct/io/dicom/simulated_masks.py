"""Masks of simulated series as the files that users bring: DICOM SEG, RT structure sets, NIfTI.

All three state the true region of a simulated lesion, drawn on one series: SEG and NIfTI as voxels
whose centres lie inside, RTSTRUCT as contours on the true surface. The same region gives the same
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset, dcmread

from cvsct import __version__
from cvsct.core.errors import GeometryError, import_extra
from cvsct.core.files import write_atomic
from cvsct.core.volume import INSTITUTION
from cvsct.io.dicom.header import number
from cvsct.io.dicom.rewrite import file_bytes
from cvsct.io.dicom.simulated import DATE, TIME
from cvsct.io.dicom.structure_set import RTSTRUCT
from cvsct.io.dicom.uids import file_meta, uid_of

_NEOPLASM = "108369006", "SCT", "Neoplasm"
_ABNORMAL = "49755003", "SCT", "Morphologically abnormal structure"
_OUTLINE_RGB = [255, 60, 60]


def write_segmentation(
    folder: Path, mask: Bool[np.ndarray, "slices rows columns"], label: str, path: Path
) -> None:
    """Write a mask as a DICOM Segmentation (PS3.3 A.51), binary, of one segment.

    Args:
        folder: the series that it is drawn on; its files are in slice order by name.
        mask: on the grid of that series.
        label: Segment Label.

    Raises:
        GeometryError: if the mask has another number of slices than the series, or is empty.
        MissingExtraError: if highdicom is not installed (extra `evaluate`).
    """
    images = _images(folder)
    if len(mask) != len(images) or not mask.any():
        raise GeometryError(
            f"{folder}: a mask of {len(mask)} slices and {int(mask.sum())} voxels for "
            f"{len(images)} slices; expected as many slices, and at least one voxel"
        )
    highdicom = import_extra("highdicom", "writing this mask", "evaluate")
    series_uid = str(images[0].SeriesInstanceUID)
    code = highdicom.sr.CodedConcept
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=label,
        segmented_property_category=code(*_ABNORMAL),
        segmented_property_type=code(*_NEOPLASM),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        tracking_uid=uid_of("tracking", series_uid, label),
        tracking_id=label,
    )
    segmentation: Dataset = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=mask.astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=uid_of("segmentation series", series_uid),
        series_number=_series_number(images[0], 50),
        sop_instance_uid=uid_of("segmentation", series_uid),
        instance_number=1,
        manufacturer=INSTITUTION,
        manufacturer_model_name="cvsct",
        software_versions=__version__,
        device_serial_number="VIRTUAL",
        series_description="Simulated truth, research use only",
        dimension_organization_type=None,
    )
    organization_uid = uid_of("dimension organization", series_uid)
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization_uid
    for item in segmentation.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = DATE + TIME
    _write(segmentation, path)


def write_structure_set(
    folder: Path,
    contours: Mapping[int, Float[np.ndarray, "vertices 2"]],
    label: str,
    path: Path,
) -> None:
    """Write contours as an RT Structure Set (PS3.3 A.19) of one structure.

    Args:
        folder: the series that they are drawn on; its files are in slice order by name.
        contours: x and y of the vertices, in mm in the patient's coordinates, by slice index.
        label: ROI Name.

    Raises:
        GeometryError: if there is no contour, or one for a slice that the series does not have.
    """
    images = _images(folder)
    if not contours or not set(contours) <= set(range(len(images))):
        raise GeometryError(
            f"{folder}: contours on slices {sorted(contours)} of a series of {len(images)}; "
            "expected at least one, each on a slice of the series"
        )
    first = images[0]
    series_uid = str(first.SeriesInstanceUID)
    ds = _patient_and_study(first)
    ds.SOPClassUID, ds.SOPInstanceUID = RTSTRUCT, uid_of("structure set", series_uid)
    ds.Modality = "RTSTRUCT"
    ds.SeriesInstanceUID = uid_of("structure set series", series_uid)
    ds.SeriesNumber = _series_number(first, 60)
    ds.SeriesDescription = "Simulated truth, research use only"
    ds.OperatorsName = ""
    ds.Manufacturer, ds.ManufacturerModelName = INSTITUTION, "cvsct"
    ds.SoftwareVersions, ds.DeviceSerialNumber = __version__, "VIRTUAL"
    ds.InstanceNumber = 1
    ds.StructureSetLabel = "TRUTH"
    ds.StructureSetDate, ds.StructureSetTime = DATE, TIME
    ds.ApprovalStatus = "UNAPPROVED"
    frame_uid = str(first.FrameOfReferenceUID)
    ds.ReferencedFrameOfReferenceSequence = [_frame(images, frame_uid)]
    ds.StructureSetROISequence = [
        _item(
            ROINumber=1, ReferencedFrameOfReferenceUID=frame_uid, ROIName=label,
            ROIGenerationAlgorithm="MANUAL",
        )
    ]  # fmt: skip
    drawn = [_contour(images[i], vertices) for i, vertices in sorted(contours.items())]
    ds.ROIContourSequence = [
        _item(ROIDisplayColor=_OUTLINE_RGB, ReferencedROINumber=1, ContourSequence=drawn)
    ]
    ds.RTROIObservationsSequence = [
        _item(
            ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="GTV",
            ROIInterpreter="",
        )
    ]  # fmt: skip
    _write(ds, path)


def _images(folder: Path) -> list[Dataset]:
    files = sorted(folder.glob("*.dcm"))
    if not files:
        raise GeometryError(f"{folder}: holds no .dcm; expected the slices of one series")
    return [dcmread(file, stop_before_pixels=True) for file in files]


def _series_number(image: Dataset, offset: int) -> int:
    return int(number(image, "SeriesNumber") or 0) + offset


def _patient_and_study(image: Dataset) -> Dataset:
    """Patient and General Study of an image (PS3.3 C.7.1.1, C.7.2.1)."""
    ds = Dataset()
    for keyword in (
        "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
        "ReferringPhysicianName", "StudyDescription", "FrameOfReferenceUID",
        "PositionReferenceIndicator",
    ):  # fmt: skip
        ds[keyword] = image[keyword]
    return ds


def _frame(images: Sequence[Dataset], frame_uid: str) -> Dataset:
    """Item of Referenced Frame of Reference Sequence (PS3.3 C.8.8.5)."""
    first = images[0]
    series = _item(
        SeriesInstanceUID=first.SeriesInstanceUID,
        ContourImageSequence=[_reference(image) for image in images],
    )
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # Detached Study Management, retired
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=frame_uid, RTReferencedStudySequence=[study])


def _contour(image: Dataset, vertices: Float[np.ndarray, "vertices 2"]) -> Dataset:
    """Item of Contour Sequence (PS3.3 C.8.8.6)."""
    z_mm = float(image.ImagePositionPatient[2])
    points = np.column_stack((vertices, np.full(len(vertices), z_mm)))
    return _item(
        ContourImageSequence=[_reference(image)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(vertices),
        ContourData=[f"{value:.3f}" for value in points.ravel()],
    )


def _reference(image: Dataset) -> Dataset:
    return _item(
        ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID
    )


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _write(ds: Dataset, path: Path) -> None:
    """Write an object with fixed dates, so that nothing depends on the time."""
    ds.InstanceCreationDate, ds.InstanceCreationTime = DATE, TIME
    ds.SeriesDate, ds.SeriesTime = DATE, TIME
    if "ContentDate" in ds:
        ds.ContentDate, ds.ContentTime = DATE, TIME
    ds.SyntheticData = "YES"
    if "PixelData" in ds:
        ds["PixelData"].VR = "OB"  # bits, one a pixel (PS3.5 section 8.1.1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, file_bytes(ds, file_meta(ds.SOPInstanceUID, ds.SOPClassUID)))
