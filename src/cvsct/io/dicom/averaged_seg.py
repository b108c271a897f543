"""A segmentation's frames made anew on thicker slices: voxels, geometry and dimensions.

Sources: PS3.3 C.8.20.2 (Segmentation Image), C.7.6.16 (functional groups), C.7.6.17 (dimensions).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from pydicom import Dataset, Sequence
from pydicom.tag import Tag

from cvsct.core.errors import GeometryError
from cvsct.core.mask_average import HALF, mask_fraction
from cvsct.core.progress import Note
from cvsct.core.slice_average import SliceAverage
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.derive import coded
from cvsct.io.dicom.header import whole
from cvsct.io.dicom.references import items
from cvsct.io.dicom.rewrite import copied, decimal
from cvsct.io.dicom.segmentation import Segments
from cvsct.io.dicom.successors import Successors
from cvsct.io.dicom.uids import uid_of

FRAMES = "PerFrameFunctionalGroupsSequence"
SHARED = "SharedFunctionalGroupsSequence"
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


@dataclass(frozen=True)
class _Frame:
    """A frame that is to be written: thick slice, segment (0 in a label map), stored voxels."""

    slice_index: int
    segment: int
    stored: UInt8[np.ndarray, " bytes"]


def average_frames(
    name: str,
    ds: Dataset,
    segments: Segments,
    derived: CTVolume,
    average: SliceAverage,
    successors: Successors,
    note: Note,
) -> bytes:
    """Set frames, geometry and dimensions of a segmentation anew; returns the pixels.

    Borders lie between those of the averaged slices (`core.mask_average`); of a label map's
    segments that have half each, the first one gets the voxel.

    Args:
        ds: the new object, without frames.
        segments: of the predecessor, on the source.
        note: told which segments are empty now.

    Raises:
        GeometryError: if all are.
    """
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
    setattr(ds, FRAMES, Sequence(groups))
    ds.NumberOfFrames = len(frames)
    size = ds.Rows * ds.Columns * (whole(ds, "BitsAllocated") or 1)
    return packed(np.unpackbits(frame.stored, bitorder="little")[:size] for frame in frames)


def _thick_planes(
    mask: Bool[np.ndarray, "slices rows columns"], average: SliceAverage
) -> Iterator[tuple[int, Bool[np.ndarray, "rows columns"]]]:
    """Thick slices that a mask reaches, and its voxels on them."""
    filled: Bool[np.ndarray, " slices"] = np.asarray(mask.any(axis=(1, 2)))
    for i in range(len(average)):
        sources = average.sources(i)
        if filled[sources.start : sources.stop].any():
            inside = mask_fraction(mask, average, i) > HALF
            if inside.any():
                yield i, inside


def _label_frames(
    ds: Dataset, segments: Segments, average: SliceAverage
) -> tuple[list[_Frame], set[int]]:
    """Frames of a label map, whose segments exclude each other."""
    background = whole(ds, "PixelPaddingValue") or 0
    dtype = "u1" if is_bytes(ds) else "<u2"
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
    kept = items(ds, SHARED)
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
    setattr(ds, SHARED, Sequence([shared]))


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
    group.DerivationImageSequence = [derivation_of(successors, i)]
    group.FrameContentSequence = [content]
    group.PlanePositionSequence = [position]
    if frame.segment:
        segment = Dataset()
        segment.ReferencedSegmentNumber = frame.segment
        group.SegmentIdentificationSequence = [segment]
    return group


def packed(pieces: Iterable[UInt8[np.ndarray, " bits"]]) -> bytes:
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


def derivation_of(successors: Successors, index: int) -> Dataset:
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


def is_bytes(ds: Dataset) -> bool:
    """Whether pixels are stored as bytes, or bits, and not as words."""
    return (whole(ds, "BitsAllocated") or 1) <= 8
