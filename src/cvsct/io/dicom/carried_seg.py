"""DICOM segmentations carried to a derived series: re-pointed, or made anew on thicker slices.

Sources: PS3.3 A.51 (Segmentation), A.86 (Label Map Segmentation), C.8.20.2 (Segmentation Image),
C.7.6.16 and C.7.6.17 (functional groups and dimensions), C.12.4 (General Reference).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from pydicom import Dataset, Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from cvsct.core.errors import GeometryError, SeriesError
from cvsct.core.mask_average import HALF, mask_fraction
from cvsct.core.progress import Note
from cvsct.core.slice_average import SliceAverage
from cvsct.core.volume import CTVolume
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
from cvsct.io.dicom.rewrite import copied, decimal
from cvsct.io.dicom.segmentation import Segments, derived_from, little_endian, open_segments
from cvsct.io.dicom.successors import SERIES_SEQUENCES, Successors
from cvsct.io.dicom.uids import uid_of

_FRAMES = "PerFrameFunctionalGroupsSequence"
_SHARED = "SharedFunctionalGroupsSequence"
_OF_FRAMES = frozenset(
    int(Tag(keyword))
    for keyword in (
        "FrameContentSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "DerivationImageSequence",
        "SegmentIdentificationSequence",
    )
)
"""Functional groups that are set anew."""
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

    Without an average, frames and pixels stay as they are. With one, a voxel belongs to a segment
    if at least half of it does; of a label map's segments that have half each, the first one gets
    the voxel.

    Returns:
        Its SOP Instance UID and its file's content.

    Raises:
        SeriesError: if it names only images of other series, holds fractions, or is damaged.
        GeometryError: if it lies on another grid, or nothing of it is left.
    """
    successors = Successors.of(source, derived, average)
    predecessor = little_endian(dataset)
    _drop_foreign(name, predecessor, successors, note)
    leave_out = _PIXELS if average is None else _PIXELS | {int(Tag(_FRAMES))}
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
        successors.repoint(ds)
    else:
        content, syntax = _averaged(name, ds, segments, derived, average, successors, note), UID("")
        successors.repoint(ds)
    compressed = syntax.is_encapsulated if syntax else False
    ds.add_new("PixelData", "OB" if compressed or _is_bytes(ds) else "OW", content)
    ds["PixelData"].is_undefined_length = compressed
    _reference_series(ds, successors)
    ds.ContentLabel = research_code(label)
    if successors.created:
        ds.ContentDate, ds.ContentTime = (successors.created.get(k, "") for k in ("Date", "Time"))
    _reference_predecessor(ds, reference, own_series)
    add_equipment(ds, _about(average))
    return str(ds.SOPInstanceUID), object_bytes(
        ds, syntax if compressed else ExplicitVRLittleEndian
    )


def _about(average: SliceAverage | None) -> str:
    if average is None:
        return "References point at the derived images; voxels are the predecessor's"
    return (
        f"Segments averaged to slices of {average.thickness_mm:g} mm; voxels of which at least "
        "half lies in a segment"
    )


def _is_bytes(ds: Dataset) -> bool:
    return (whole(ds, "BitsAllocated") or 1) <= 8


def _drop_foreign(name: str, dataset: Dataset, successors: Successors, note: Note) -> None:
    """Remove frames that name other images alone, and references to other series.

    Raises:
        SeriesError: if all frames name other images, or its frames cannot be taken apart.
    """
    frames = items(dataset, _FRAMES)
    shared = [image for group in items(dataset, _SHARED) for image in derived_from(group)]
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
    frames = items(dataset, _FRAMES)
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
    dataset.PixelData = _packed(pieces)
    setattr(dataset, _FRAMES, Sequence(frames[i] for i in kept))
    dataset.NumberOfFrames = len(kept)


def _packed(pieces: Iterable[UInt8[np.ndarray, " bits"]]) -> bytes:
    """Bits of frame after frame, without gaps, of an even number of bytes (PS3.5 section 8.1.1)."""
    chunks: list[bytes] = []
    rest = np.zeros(0, np.uint8)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole_bytes = len(rest) // 8 * 8
        chunks.append(np.packbits(rest[:whole_bytes], bitorder="little").tobytes())
        rest = rest[whole_bytes:]
    chunks.append(np.packbits(rest, bitorder="little").tobytes())
    content = b"".join(chunks)
    return content + bytes(len(content) % 2)


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
    shared = items(ds, _SHARED)
    if any(derived_from(group) for group in shared):
        return
    to_index = np.linalg.inv(source.affine)
    for frame in items(ds, _FRAMES):
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
            frame.DerivationImageSequence = [_derivation(successors, index)]


def _derivation(successors: Successors, index: int) -> Dataset:
    """Item of Derivation Image Sequence that names a derived image (PS3.3 C.7.6.16.2.6)."""
    image = successors.reference(index)
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [
        coded("121322", "DCM", "Source image for image processing operation")
    ]
    derivation = Dataset()
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [coded("113076", "DCM", "Segmentation")]
    return derivation


@dataclass(frozen=True)
class _Frame:
    """A frame that is to be written: thick slice, segment (0 in a label map), stored voxels."""

    slice_index: int
    segment: int
    stored: UInt8[np.ndarray, " bytes"]


def _averaged(
    name: str,
    ds: Dataset,
    segments: Segments,
    derived: CTVolume,
    average: SliceAverage,
    successors: Successors,
    note: Note,
) -> bytes:
    """Set frames, geometry and dimensions anew; returns the pixels."""
    titles = segments.titles
    if segments.kind == "LABELMAP":
        frames, filled = _label_frames(ds, segments, average)
    else:
        value = 1
        if segments.kind == "FRACTIONAL":
            value = whole(ds, "MaximumFractionalValue") or 255
        frames, filled = [], set()
        for number in titles:
            mask = segments.mask(number)
            for i, inside in _thick_planes(mask, average):
                stored = inside.ravel() * np.uint8(value)
                if segments.kind == "BINARY":
                    stored = np.packbits(stored, bitorder="little")
                frames.append(_Frame(i, number, stored))
                filled.add(number)
    if not frames:
        raise GeometryError(
            f"{name}: no segment fills half of a voxel of slices of {average.thickness_mm:g} mm, "
            "so that none is left; keep the thinner slices"
        )
    empty = [title for number, title in titles.items() if number not in filled]
    if empty:
        note(f"{name}: empty on the thicker slices: {', '.join(map(repr, empty))}")
    _set_geometry(ds, derived)
    _set_dimensions(ds, successors, by_segment=segments.kind != "LABELMAP")
    ranks = {number: rank for rank, number in enumerate(titles, start=1)}
    groups = [_frame_groups(frame, ranks, derived, successors) for frame in frames]
    setattr(ds, _FRAMES, Sequence(groups))
    ds.NumberOfFrames = len(frames)
    size = ds.Rows * ds.Columns * (whole(ds, "BitsAllocated") or 1)
    return _packed(np.unpackbits(frame.stored, bitorder="little")[:size] for frame in frames)


def _thick_planes(
    mask: Bool[np.ndarray, "slices rows columns"], average: SliceAverage
) -> Iterator[tuple[int, Bool[np.ndarray, "rows columns"]]]:
    """Thick slices in which at least half of some voxel lies in a mask, and those voxels."""
    filled: Bool[np.ndarray, " slices"] = np.asarray(mask.any(axis=(1, 2)))
    for i in range(len(average)):
        sources = average.sources(i)
        if filled[sources.start : sources.stop].any():
            inside = mask_fraction(mask, average, i) >= HALF
            if inside.any():
                yield i, inside


def _label_frames(
    ds: Dataset, segments: Segments, average: SliceAverage
) -> tuple[list[_Frame], set[int]]:
    """Frames of a label map, whose segments exclude each other."""
    background = whole(ds, "PixelPaddingValue") or 0
    dtype = "u1" if _is_bytes(ds) else "<u2"
    rows, columns = segments.volume.shape[1:]
    labels: Integer[np.ndarray, "thick rows columns"] = np.full(
        (len(average), rows, columns), background, dtype
    )
    free: Bool[np.ndarray, "thick rows columns"] = np.ones(labels.shape, dtype=bool)
    for number in segments.titles:
        for i, inside in _thick_planes(segments.mask(number), average):
            labels[i][inside & free[i]] = number
            free[i] &= ~inside
    frames = [
        _Frame(i, 0, np.frombuffer(labels[i].tobytes(), np.uint8))
        for i in range(len(average))
        if not free[i].all()
    ]
    return frames, {int(number) for number in np.unique(labels[~free])}


def _set_geometry(ds: Dataset, derived: CTVolume) -> None:
    """Set matrix, spacing, thickness and orientation to the derived series'."""
    where = derived.geometry
    ds.Rows, ds.Columns = derived.shape[1:]
    kept = items(ds, _SHARED)
    shared = copied(kept[0], leave_out=_OF_FRAMES, signed=False) if kept else Dataset()
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = [decimal(mm) for mm in where.pixel_mm]
    measures.SliceThickness = decimal(where.thickness_mm or where.spacing_mm)
    measures.SpacingBetweenSlices = decimal(where.spacing_mm)
    orientation.ImageOrientationPatient = [
        decimal(value) for value in (*where.row_direction, *where.column_direction)
    ]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    setattr(ds, _SHARED, Sequence([shared]))


def _set_dimensions(ds: Dataset, successors: Successors, *, by_segment: bool) -> None:
    """Order frames by segment, where there is one a frame, and position (PS3.3 C.7.6.17)."""
    organization = uid_of("dimensions", str(ds.SOPInstanceUID), successors.series_uid)
    pairs = [("ImagePositionPatient", "PlanePositionSequence", "Image Position Patient")]
    if by_segment:
        pairs.insert(
            0, ("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment Number")
        )
    item = Dataset()
    item.DimensionOrganizationUID = organization
    ds.DimensionOrganizationSequence = [item]
    ds.DimensionIndexSequence = Sequence()
    for pointer, group, words in pairs:
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer = Tag(pointer)
        index.FunctionalGroupPointer = Tag(group)
        index.DimensionDescriptionLabel = words
        ds.DimensionIndexSequence.append(index)
    if "DimensionOrganizationType" in ds:
        del ds.DimensionOrganizationType


def _frame_groups(
    frame: _Frame, ranks: dict[int, int], derived: CTVolume, successors: Successors
) -> Dataset:
    """Functional groups of one frame."""
    i = frame.slice_index
    content, position, group = Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [ranks[frame.segment], i + 1] if frame.segment else i + 1
    position.ImagePositionPatient = [decimal(mm) for mm in derived.geometry.positions_mm[i]]
    group.DerivationImageSequence = [_derivation(successors, i)]
    group.FrameContentSequence = [content]
    group.PlanePositionSequence = [position]
    if frame.segment:
        segment = Dataset()
        segment.ReferencedSegmentNumber = frame.segment
        group.SegmentIdentificationSequence = [segment]
    return group


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
