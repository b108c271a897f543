"""DICOM segmentations carried to a derived series: re-pointed, or made anew on thicker slices.

Sources: PS3.3 A.51 (Segmentation), A.86 (Label Map Segmentation), C.8.20.2 (Segmentation Image),
C.7.6.16 and C.7.6.17 (functional groups and dimensions), C.12.4 (General Reference).
"""

from __future__ import annotations

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.core.progress import Note
from cvsct.core.slice_average import SliceAverage
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.averaged_seg import (
    FRAMES,
    SHARED,
    average_frames,
    derivation_of,
    is_bytes,
    packed,
)
from cvsct.io.dicom.carried import (
    add_equipment,
    new_object,
    object_bytes,
    predecessor_reference,
    research_code,
)
from cvsct.io.dicom.derive import coded
from cvsct.io.dicom.geometry import SAME_DIRECTION
from cvsct.io.dicom.header import numbers, text, whole
from cvsct.io.dicom.references import image_name, items
from cvsct.io.dicom.segmentation import Segments, derived_from, little_endian, open_segments
from cvsct.io.dicom.successors import SERIES_SEQUENCES, Successors

_PIXELS = frozenset({int(Tag("PixelData"))})


def carried_segmentation(
    name: str,
    dataset: Dataset,
    source: CTVolume,
    derived: CTVolume,
    average: SliceAverage | None,
    note: Note,
) -> tuple[str, bytes]:
    """A segmentation of a source as one of a series derived from it.

    Without an average, frames and pixels stay as they are. With one, the borders of segments lie
    between those of the averaged slices (`core.mask_average`); of a label map's segments that have
    half of a voxel each, the first one gets it.

    Returns:
        Its SOP Instance UID and its file's content.

    Raises:
        SeriesError: if it names only images of other series, holds fractions, or is damaged.
        GeometryError: if it lies on another grid, or nothing of it is left.
    """
    successors = Successors.of(source, derived, average)
    predecessor = little_endian(dataset)
    _drop_foreign(name, predecessor, successors, note)
    leave_out = _PIXELS if average is None else _PIXELS | {int(Tag(FRAMES))}
    ds = new_object(predecessor, successors, leave_out)
    reference = predecessor_reference(predecessor)
    own_series = text(predecessor, "SeriesInstanceUID")
    label = text(predecessor, "ContentLabel")
    syntax = UID(text(predecessor.file_meta, "TransferSyntaxUID"))
    pixels = predecessor.get_item("PixelData")
    content = bytes(pixels.value) if pixels is not None and pixels.value else b""
    segments = open_segments(name, predecessor, source, note)
    if average is None:
        _refuse_empty(name, segments, note)
        _name_images(ds, source, successors)
    else:
        content = average_frames(name, ds, segments, derived, average, successors, note)
        syntax = ExplicitVRLittleEndian
    successors.repoint(ds)
    ds.add_new("PixelData", "OB" if syntax.is_encapsulated or is_bytes(ds) else "OW", content)
    ds["PixelData"].is_undefined_length = syntax.is_encapsulated
    _reference_series(ds, successors)
    ds.ContentLabel = research_code(label)
    if successors.created:
        ds.ContentDate, ds.ContentTime = (successors.created.get(k, "") for k in ("Date", "Time"))
    _reference_predecessor(ds, reference, own_series)
    add_equipment(ds, _about(average))
    kept = syntax if syntax.is_encapsulated else ExplicitVRLittleEndian
    return str(ds.SOPInstanceUID), object_bytes(ds, kept)


def _about(average: SliceAverage | None) -> str:
    if average is None:
        return "References point at the derived images; voxels are the predecessor's"
    return (
        f"Segments averaged to slices of {average.thickness_mm:g} mm; borders lie between "
        "those of the averaged slices"
    )


def _drop_foreign(name: str, dataset: Dataset, successors: Successors, note: Note) -> None:
    """Remove frames that name other images alone, and references to other series.

    Raises:
        SeriesError: if all frames name other images, or its frames cannot be taken apart.
    """
    frames = items(dataset, FRAMES)
    shared = [image for group in items(dataset, SHARED) for image in derived_from(group)]
    foreign = []
    for frame in frames:
        named = derived_from(frame) + shared
        foreign.append(bool(named) and not any(image in successors.by_name for image in named))
        for derivation in items(frame, "DerivationImageSequence"):
            images = items(derivation, "SourceImageSequence")
            own = [image for image in images if image_name(image) in successors.by_name]
            if 0 < len(own) < len(images):
                derivation.SourceImageSequence = Sequence(own)
    series = [item for keyword in SERIES_SEQUENCES for item in items(dataset, keyword)]
    others_alone = bool(series) and not any(map(successors.is_ours, series))
    names_any = any(derived_from(frame) for frame in frames) or bool(shared)
    if (frames and all(foreign)) or (others_alone and not names_any):
        raise SeriesError(
            f"{name}: it names images of another series than the source; "
            "give the mask that was drawn on this series"
        )
    if any(foreign):
        _keep_frames(name, dataset, [i for i, other in enumerate(foreign) if not other])
        note(f"{name}: left out {sum(foreign)} frames that were drawn on other images")
    others = successors.drop_foreign(dataset)
    if others:
        note(f"{name}: left out references to {others} other series")


def _keep_frames(name: str, dataset: Dataset, kept: list[int]) -> None:
    frames = items(dataset, FRAMES)
    size = (whole(dataset, "Rows") or 0) * (whole(dataset, "Columns") or 0)
    bits = size * (whole(dataset, "BitsAllocated") or 1)
    syntax = UID(text(dataset.file_meta, "TransferSyntaxUID"))
    stored = dataset.get("PixelData") or b""
    if syntax.is_encapsulated or len(stored) * 8 < bits * len(frames):
        raise SeriesError(
            f"{name}: some of its frames were drawn on other images, and its pixels are compressed "
            "or cut short; save the segmentation of each series as a file of its own, uncompressed"
        )
    pieces = (
        np.unpackbits(
            np.frombuffer(stored[i * bits // 8 : ((i + 1) * bits + 7) // 8], np.uint8),
            bitorder="little",
        )[i * bits % 8 :][:bits]
        for i in kept
    )
    dataset.PixelData = packed(pieces)
    setattr(dataset, FRAMES, Sequence(frames[i] for i in kept))
    dataset.NumberOfFrames = len(kept)


def _refuse_empty(name: str, segments: Segments, note: Note) -> None:
    """Check all segments on the source's grid, and tell which are empty.

    Raises:
        SeriesError, GeometryError: if one cannot be read there, or all are empty.
    """
    empty = [title for number, title in segments.titles.items() if not segments.mask(number).any()]
    if len(empty) == len(segments.titles):
        raise GeometryError(f"{name}: the mask is empty; check that it was saved")
    if empty:
        note(f"{name}: empty segments: {', '.join(map(repr, empty))}")


def _name_images(ds: Dataset, source: CTVolume, successors: Successors) -> None:
    """Add the derived image to frames that name no image and lie on a slice."""
    shared = items(ds, SHARED)
    if any(derived_from(group) for group in shared):
        return
    to_index = np.linalg.inv(source.affine)
    for frame in items(ds, FRAMES):
        if derived_from(frame):
            continue
        groups = (frame, *shared)
        positions = [numbers(p, "ImagePositionPatient") for g in groups
                     for p in items(g, "PlanePositionSequence")]  # fmt: skip
        directions = [numbers(o, "ImageOrientationPatient") for g in groups
                      for o in items(g, "PlaneOrientationSequence")]  # fmt: skip
        if not (positions and directions and len(positions[0]) == 3 and len(directions[0]) == 6):
            continue
        normal = np.cross(directions[0][:3], directions[0][3:])
        index = round(float(to_index[0, :3] @ positions[0] + to_index[0, 3]))
        parallel = abs(abs(float(normal @ source.geometry.normal)) - 1) < SAME_DIRECTION
        if parallel and 0 <= index < len(source):
            frame.DerivationImageSequence = [derivation_of(successors, index)]


def _reference_series(ds: Dataset, successors: Successors) -> None:
    """Name the derived series in a segmentation that named no series (PS3.3 C.12.2)."""
    if any(
        text(item, "SeriesInstanceUID") == successors.series_uid
        for item in items(ds, "ReferencedSeriesSequence")
    ):
        return
    series = Dataset()
    series.SeriesInstanceUID = successors.series_uid
    series.ReferencedInstanceSequence = successors.references()
    ds.ReferencedSeriesSequence = [series, *items(ds, "ReferencedSeriesSequence")]


def _reference_predecessor(ds: Dataset, reference: Dataset, series_uid: str) -> None:
    """Name the segmentation that this one was made from as a related instance (C.12.4).

    It is not put among Source Images, which readers take for the images that were segmented.
    Instances that are referred to are also listed by series (C.12.2), after the derived series.
    """
    if not text(reference, "ReferencedSOPInstanceUID"):
        return
    image = Dataset()
    image.update(reference)
    image.PurposeOfReferenceCodeSequence = [
        coded("121322", "DCM", "Source image for image processing operation")
    ]
    ds.ReferencedInstanceSequence = [*items(ds, "ReferencedInstanceSequence"), image]
    if series_uid:
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedInstanceSequence = [reference]
        ds.ReferencedSeriesSequence = [*items(ds, "ReferencedSeriesSequence"), series]
