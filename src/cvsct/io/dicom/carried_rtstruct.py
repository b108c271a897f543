"""RT structure sets carried to a derived series: re-pointed, or drawn anew on thicker slices.

Sources: PS3.3 C.8.8.5 (Structure Set), C.8.8.6 (ROI Contour), C.8.8.6.3 (inner and outer contours).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset, Sequence

from cvsct.core.errors import CvsctError, GeometryError, SeriesError
from cvsct.core.mask_average import HALF, mask_fraction
from cvsct.core.progress import Note
from cvsct.core.slice_average import SliceAverage
from cvsct.core.volume import CTVolume
from cvsct.io.affine import is_other_frame
from cvsct.io.dicom.carried import (
    add_equipment,
    new_object,
    object_bytes,
    predecessor_reference,
    research_label,
)
from cvsct.io.dicom.header import text
from cvsct.io.dicom.outlines import outlines
from cvsct.io.dicom.references import images_named, items
from cvsct.io.dicom.structure_set import contour_masks, structure_titles
from cvsct.io.dicom.successors import Successors

XOR = "CLOSEDPLANAR_XOR"
_LISTS = ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence")
_STUDY = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, retired; what structure sets name as the class of a study."""


def carried_structures(
    name: str,
    dataset: Dataset,
    source: CTVolume,
    derived: CTVolume,
    average: SliceAverage | None,
    note: Note,
) -> tuple[str, bytes]:
    """A structure set of a source as one of a series derived from it.

    Without an average, contours stay point for point. With one, they are drawn anew, between those
    of the averaged slices (`core.mask_average`). Structures that were drawn on other images
    are left out.

    Returns:
        Its SOP Instance UID and its file's content.

    Raises:
        SeriesError: if it names only images of other series, or all that it holds is damaged.
        GeometryError: if nothing that it holds lies on the source.
    """
    successors = Successors.of(source, derived, average)
    _drop_foreign(name, dataset, source, successors, note)
    titles = structure_titles(dataset)
    drawn: dict[str, list[Dataset]] = {}
    remarks: dict[str, None] = {}
    measured = 0
    for roi, title in titles.items():
        if average is None and measured:
            break  # contours are not looked at one by one: drawing them takes long
        mask = _mask(name, dataset, source, title, remarks if average is not None else {})
        measured += mask is not None
        if average is not None:
            drawn[roi] = _draw(dataset, roi, mask, derived, average, successors)
    if not measured:
        contour_masks(name, dataset, source, (), note)  # refuses with the reason
        raise GeometryError(f"{name}: the mask is empty; check that it was saved")
    if average is not None and not any(drawn.values()):
        raise GeometryError(
            f"{name}: no structure fills half of a voxel of slices of {average.thickness_mm:g} mm, "
            "so that none is left; keep the thinner slices"
        )
    ds = new_object(dataset, successors, frozenset())
    if average is not None:
        _redraw(ds, drawn)
        gone = [titles[roi] for roi, contours in drawn.items() if not contours]
        for remark in remarks:
            note(remark)
        if gone:
            note(f"{name}: without contours on the thicker slices: {', '.join(map(repr, gone))}")
    successors.repoint(ds)
    _reference_series(ds, derived, successors)
    _rename(ds, dataset, successors)
    add_equipment(ds, _about(average))
    return str(ds.SOPInstanceUID), object_bytes(ds)


def _about(average: SliceAverage | None) -> str:
    if average is None:
        return "References point at the derived images; contours are the predecessor's"
    return (
        f"Structures drawn anew on slices of {average.thickness_mm:g} mm, between the borders on "
        "the averaged slices"
    )


def _drop_foreign(
    name: str, dataset: Dataset, source: CTVolume, successors: Successors, note: Note
) -> None:
    """Remove contours that name other images alone, and structures that have no others.

    Raises:
        SeriesError: if all contours name other images, or none names any and no series is ours.
    """
    frames = {
        text(roi, "ROINumber"): text(roi, "ReferencedFrameOfReferenceUID")
        for roi in items(dataset, "StructureSetROISequence")
    }
    gone: set[str] = set()
    kept_contours = dropped_contours = 0
    named = False
    for roi in items(dataset, "ROIContourSequence"):
        contours = items(roi, "ContourSequence")
        own = [contour for contour in contours if not _is_foreign(contour, successors)]
        kept_contours += len(own)
        named = named or any(map(successors.knows_any, own))
        dropped_contours += len(contours) - len(own)
        if len(own) < len(contours):
            roi.ContourSequence = Sequence(own)
            if not own:
                gone.add(text(roi, "ReferencedROINumber"))
    series = [
        item
        for frame in items(dataset, "ReferencedFrameOfReferenceSequence")
        for study in items(frame, "RTReferencedStudySequence")
        for item in items(study, "RTReferencedSeriesSequence")
    ]
    others_alone = bool(series) and not any(map(successors.is_ours, series))
    if (dropped_contours and not kept_contours) or (others_alone and not named):
        raise SeriesError(
            f"{name}: it names images of another series than the source; "
            "give the mask that was drawn on this series"
        )
    drawn = {
        text(roi, "ReferencedROINumber")
        for roi in items(dataset, "ROIContourSequence")
        if items(roi, "ContourSequence")
    }
    gone |= {
        roi for roi, frame in frames.items() if roi not in drawn and is_other_frame(frame, source)
    }
    titles = structure_titles(dataset)
    left_out = [titles[roi] for roi in titles if roi in gone]
    for keyword in _LISTS:
        if keyword in dataset:
            number = "ROINumber" if keyword == _LISTS[0] else "ReferencedROINumber"
            kept = [item for item in items(dataset, keyword) if text(item, number) not in gone]
            setattr(dataset, keyword, Sequence(kept))
    used = {frames[roi] for roi in frames if roi not in gone}
    used.add(source.geometry.frame_of_reference)
    others = successors.drop_foreign(dataset)
    if "ReferencedFrameOfReferenceSequence" in dataset:
        others += _drop_frames(dataset, successors, used)
    if left_out:
        note(
            f"{name}: left out structures that were drawn on other images: "
            f"{', '.join(map(repr, left_out))}"
        )
    elif dropped_contours:
        note(f"{name}: left out {dropped_contours} contours that name other images")
    if others:
        note(f"{name}: left out references to {others} other series")


def _drop_frames(dataset: Dataset, successors: Successors, used: set[str]) -> int:
    """Remove frames of reference, studies and series that are not the source's; counts series."""
    frames = items(dataset, "ReferencedFrameOfReferenceSequence")
    dropped = 0
    for frame in frames:
        studies = items(frame, "RTReferencedStudySequence")
        dropped += sum(successors.drop_foreign(study) for study in studies)
        kept = [study for study in studies if items(study, "RTReferencedSeriesSequence")]
        if studies:
            frame.RTReferencedStudySequence = Sequence(kept)
        if studies and not kept:
            del frame.RTReferencedStudySequence
    dataset.ReferencedFrameOfReferenceSequence = Sequence(
        frame
        for frame in frames
        if text(frame, "FrameOfReferenceUID") in used or "RTReferencedStudySequence" in frame
    )
    return dropped


def _is_foreign(contour: Dataset, successors: Successors) -> bool:
    named = images_named(contour, "ContourImageSequence")
    return bool(named) and not any(image in successors.by_name for image in named)


def _mask(
    name: str, dataset: Dataset, source: CTVolume, title: str, remarks: dict[str, None]
) -> Bool[np.ndarray, "slices rows columns"] | None:
    """Mask of one structure on the source; None where it has no voxel there."""
    told: list[str] = []
    try:
        mask = contour_masks(name, dataset, source, [title], told.append).masks.get(title)
    except CvsctError as error:
        if not isinstance(error, GeometryError | SeriesError):
            raise
        return None
    remarks.update(dict.fromkeys(told))
    return mask


def _draw(
    dataset: Dataset,
    roi: str,
    mask: Bool[np.ndarray, "slices rows columns"] | None,
    derived: CTVolume,
    average: SliceAverage,
    successors: Successors,
) -> list[Dataset]:
    """Contours of a structure on the thick slices, of the geometric type that it had."""
    if mask is None:
        return []
    kinds = {
        text(contour, "ContourGeometricType")
        for item in items(dataset, "ROIContourSequence")
        if text(item, "ReferencedROINumber") == roi
        for contour in items(item, "ContourSequence")
    }
    exclusive = bool(kinds) and any(kind.endswith("XOR") for kind in kinds)
    drawn = []
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    for i in range(len(average)):
        sources = average.sources(i)
        if not ((filled >= sources.start) & (filled < sources.stop)).any():
            continue
        fraction = mask_fraction(mask, average, i)
        drawn += [
            _contour(corners, i, derived, successors, XOR if exclusive else "CLOSED_PLANAR")
            for corners in outlines(fraction, np.nextafter(HALF, 1), keyholes=not exclusive)
        ]
    return drawn


def _contour(
    corners: Float[np.ndarray, "_ 2"],
    i: int,
    derived: CTVolume,
    successors: Successors,
    kind: str,
) -> Dataset:
    """Item of Contour Sequence from rows and columns of a slice."""
    affine = derived.affine
    mm = derived.geometry.positions_mm[i] + corners @ affine[:3, 1:3].T
    contour = Dataset()
    contour.ContourImageSequence = [successors.reference(i)]
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(mm)
    contour.ContourData = [f"{value + 0.0:.4f}" for value in mm.ravel()]
    return contour


def _redraw(ds: Dataset, drawn: dict[str, list[Dataset]]) -> None:
    for roi in items(ds, "StructureSetROISequence"):
        if "ROIVolume" in roi:
            del roi.ROIVolume
    for item in items(ds, "ROIContourSequence"):
        if "ContourSequence" in item:
            del item.ContourSequence
        contours = drawn.get(text(item, "ReferencedROINumber"))
        if contours:
            item.ContourSequence = Sequence(contours)


def _reference_series(ds: Dataset, derived: CTVolume, successors: Successors) -> None:
    """Name the derived series in a structure set that named no series, or none of its frame."""
    frames = items(ds, "ReferencedFrameOfReferenceSequence")
    if any(
        text(series, "SeriesInstanceUID") == successors.series_uid
        for frame in frames
        for study in items(frame, "RTReferencedStudySequence")
        for series in items(study, "RTReferencedSeriesSequence")
    ):
        return
    uid = derived.geometry.frame_of_reference
    frame = next((item for item in frames if text(item, "FrameOfReferenceUID") == uid), None)
    if frame is None:
        frame = Dataset()
        frame.FrameOfReferenceUID = uid
        frames = [*frames, frame]
    series = Dataset()
    series.SeriesInstanceUID = successors.series_uid
    series.ContourImageSequence = successors.references()
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY
    study.ReferencedSOPInstanceUID = successors.study_uid
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [*items(frame, "RTReferencedStudySequence"), study]
    ds.ReferencedFrameOfReferenceSequence = Sequence(frames)


def _rename(ds: Dataset, predecessor: Dataset, successors: Successors) -> None:
    """Set label, approval, dates and the reference to the predecessor."""
    ds.StructureSetLabel = research_label(text(predecessor, "StructureSetLabel"))
    ds.StructureSetDate = successors.created.get("Date", "")
    ds.StructureSetTime = successors.created.get("Time", "")
    ds.ApprovalStatus = "UNAPPROVED"
    ds.PredecessorStructureSetSequence = [predecessor_reference(predecessor)]
