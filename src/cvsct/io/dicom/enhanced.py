"""Enhanced multi-frame CT: one file, many slices (DICOM PS3.3 A.38 and A.70).

What classic CT says in a slice's header, enhanced CT says in functional groups, shared by all
frames or each frame's own. Each frame is given the header of a classic slice, which all that
reads and writes slices understands; what makes a series irregular is refused alike.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydicom import Dataset, FileDataset, Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cvsct.core.errors import SeriesError
from cvsct.core.volume import Acquisition, CTVolume, Geometry
from cvsct.io.dicom.assembly import volume_between
from cvsct.io.dicom.codec_process import syntax_of
from cvsct.io.dicom.geometry import arrange, plane_of
from cvsct.io.dicom.header import (
    CT_IMAGE,
    MAX_MULTIFRAME_BYTES,
    label,
    not_a_slice,
    number,
    quiet,
    read_dataset,
    text,
    whole,
)
from cvsct.io.dicom.one_scan import OneScan
from cvsct.io.dicom.pixels import Encoding, FrameReader, Slice, encoding_of
from cvsct.io.dicom.stack import acquisition_of, notes_of, patient_of, refuse_mixed, refuse_odd_uid
from cvsct.io.dicom.uids import uid_of
from cvsct.io.dicom.units import UNSPECIFIED, unit_of

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_GROUPS = (
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"),
    *("PixelValueTransformationSequence", "FrameVOILUTSequence", "FrameAnatomySequence"),
    *("CTAcquisitionTypeSequence", "CTAcquisitionDetailsSequence", "CTTableDynamicsSequence"),
    *("CTGeometrySequence", "CTReconstructionSequence", "CTExposureSequence"),
    *("CTXRayDetailsSequence", "IrradiationEventIdentificationSequence"),
    *("UnassignedSharedConvertedAttributesSequence",),
    *("UnassignedPerFrameConvertedAttributesSequence",),
)
"""Functional groups whose attributes are those of a classic slice (PS3.3 C.7.6.16, C.8.15.3)."""
_ROUNDED = {
    "ExposureTimeInms": "ExposureTime",
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
    "ExposureInmAs": "Exposure",
}
"""Attributes of enhanced CT that classic CT has as whole numbers."""
_EMPTY_ALLOWED = ("KVP", "AcquisitionNumber", "PositionReferenceIndicator")
_OF_MULTIFRAME = frozenset(
    Tag(keyword)
    for keyword in (
        *(_SHARED, _PER_FRAME, "NumberOfFrames"),
        *("DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType"),
        *("ConcatenationUID", "SOPInstanceUIDOfConcatenationSource", "InConcatenationNumber"),
        *("InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber"),
        *("PixelPresentation", "VolumetricProperties", "VolumeBasedCalculationTechnique"),
        *("AcquisitionContextSequence", "ReferencedRawDataSequence", "ContentQualification"),
    )
)
_PALETTE = range(0x00281101, 0x00281204)


@dataclass(frozen=True)
class FrameStack:
    """A multi-frame file whose header was checked, in slice order.

    Args:
        order: the frame, from 0, of each slice.
        encodings: how each slice's frame stores its values; all have the same size.
        unspecified, notes: as in `Stack`.
    """

    series_uid: str
    path: Path
    order: tuple[int, ...]
    encodings: tuple[Encoding, ...] = field(repr=False)
    geometry: Geometry
    acquisition: Acquisition
    patient: str = field(repr=False)
    unspecified: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.order), self.encodings[0].rows, self.encodings[0].columns

    @cached_property
    def _frames(self) -> tuple[Dataset, FrameReader]:
        """The file, compressed as it is, in memory from the first read on."""
        name = label(self.path)
        dataset = read_dataset(self.path, pixels=True, limit_bytes=MAX_MULTIFRAME_BYTES)
        if len(_per_frame(name, dataset)) != len(self.order):
            raise SeriesError(
                f"{name}: changed while it was being read; "
                "let what writes to the folder finish, then run it again"
            )
        _, rows, columns = self.shape
        return dataset, FrameReader(name, dataset, rows, columns, len(self.order))

    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """The slices from `start` to before `stop`, or to the last, as a volume of their own.

        Raises:
            SeriesError: if pixels cannot be decoded, are too many, or the file has changed.
        """
        index = range(len(self))[start:stop]
        return volume_between(self, label(self.path), map(self._slice, index), index)

    def _slice(self, i: int) -> tuple[Slice, Dataset]:
        dataset, frames = self._frames
        with quiet():
            header = classic_header(dataset, self.order[i])
            return frames.read(self.order[i], header, self.encodings[i]), header


def open_enhanced(path: Path) -> FrameStack:
    """Read and check a multi-frame file's header; no pixel is decoded.

    Raises:
        SeriesError: if it is no sound CT in HU, or its frames do not belong together.
        GeometryError: if the frames do not form one regular stack.
    """
    name = label(path)
    dataset = read_dataset(path, pixels=False, limit_bytes=MAX_MULTIFRAME_BYTES)
    reason = not_a_slice(dataset)
    if reason:
        raise SeriesError(f"{name}: {reason}, expected CT slices; name an axial CT series")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        refuse_odd_uid(name, dataset, keyword)
    count = len(_per_frame(name, dataset))
    with quiet():
        first = classic_header(dataset, 0)
    _refuse_short(name, path, dataset, count)
    first_name = f"{name}: frame 1"
    encodings = [encoding_of(first_name, first)]
    planes, scan = [plane_of(first_name, first)], OneScan()
    scan.add(first_name, first, _marks_of(dataset, 0))
    notes, unspecified = {*notes_of(dataset), *notes_of(first)}, unit_of(first) == UNSPECIFIED
    for i in range(1, count):
        where = f"{name}: frame {i + 1}"
        with quiet():
            header = classic_header(dataset, i)
        encoding = encoding_of(where, header)
        refuse_mixed(where, header, encoding, first_name, first, encodings[0])
        scan.add(where, header, _marks_of(dataset, i))
        notes.update(notes_of(header))
        unspecified |= unit_of(header) == UNSPECIFIED
        planes.append(plane_of(where, header))
        encodings.append(encodings[0] if encoding == encodings[0] else encoding)
    geometry, order, odd = arrange(planes, scan.slice_acquisitions)
    return FrameStack(
        series_uid=text(dataset, "SeriesInstanceUID"),
        path=path,
        order=tuple(order),
        encodings=tuple(encodings[i] for i in order),
        geometry=geometry,
        acquisition=acquisition_of(first),
        patient=patient_of(first),
        unspecified=unspecified,
        notes=tuple(sorted({*notes, *odd})),
    )


def _marks_of(dataset: Dataset, frame: int) -> dict[str, str]:
    """Values that distinguish a frame's acquisition and have no attribute in a classic header."""
    marks = {}
    for content in _items(_items(dataset, _PER_FRAME)[frame], "FrameContentSequence")[:1]:
        marks["Stack ID"] = text(content, "StackID")
        marks["Temporal Position Index"] = text(content, "TemporalPositionIndex")
    return {attribute: mark for attribute, mark in marks.items() if mark}


def _refuse_short(name: str, path: Path, dataset: FileDataset, frames: int) -> None:
    """Refuse more frames than the file can hold before each of their headers is made."""
    pixels = (whole(dataset, "Rows") or 0) * (whole(dataset, "Columns") or 0)
    syntax = syntax_of(dataset)
    plain = syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
    least = 2 * pixels if plain else 0
    if path.stat().st_size < least * frames:
        raise SeriesError(
            f"{name}: pixel data cut short, {frames} frames need {least * frames} bytes; "
            "copy the file again"
        )


def classic_header(dataset: Dataset, frame: int) -> Dataset:
    """The header of a classic CT slice for one frame, counted from 0.

    Its SOP Instance UID follows from the file's and the frame's number; the file itself is named
    in Conversion Source Attributes Sequence.
    """
    header = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 - items would be parsed, keys are not
        if tag not in _OF_MULTIFRAME and tag not in _PALETTE:
            _take(header, tag, dataset)
    for group in (*_items(dataset, _SHARED)[:1], _items(dataset, _PER_FRAME)[frame]):
        _take_group(header, group)
    for precise, rounded in _ROUNDED.items():
        value = number(header, precise)
        if value is not None:
            setattr(header, rounded, round(value))
    for keyword in _EMPTY_ALLOWED:
        if keyword not in header:
            setattr(header, keyword, None)
    source = Dataset()
    source.ReferencedSOPClassUID = text(dataset, "SOPClassUID")
    source.ReferencedSOPInstanceUID = text(dataset, "SOPInstanceUID")
    source.ReferencedFrameNumber = frame + 1
    header.ConversionSourceAttributesSequence = Sequence([source])
    header.SOPClassUID = CT_IMAGE
    header.SOPInstanceUID = uid_of("frame", text(dataset, "SOPInstanceUID"), frame + 1)
    header.InstanceNumber = frame + 1
    if isinstance(dataset, FileDataset):
        header.file_meta = dataset.file_meta
    return header


def _take(header: Dataset, tag: BaseTag, source: Dataset) -> None:
    element = source.get_item(tag)
    if element is not None:
        header[tag] = copy(element)  # setting an attribute changes a parsed element in place


def _take_group(header: Dataset, group: Dataset) -> None:
    """Copy the attributes of functional groups to those of a classic slice."""
    for keyword in _GROUPS:
        for item in _items(group, keyword)[:1]:
            for tag in item.keys():  # noqa: SIM118
                _take(header, tag, item)
    for item in _items(group, "CTImageFrameTypeSequence")[:1]:
        if text(item, "FrameType"):
            header.ImageType = item.FrameType
    for item in _items(group, "FrameContentSequence")[:1]:
        if whole(item, "FrameAcquisitionNumber") is not None:
            header.AcquisitionNumber = whole(item, "FrameAcquisitionNumber")
        if text(item, "FrameAcquisitionDateTime"):
            header.AcquisitionDateTime = text(item, "FrameAcquisitionDateTime")


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """A sequence's items; none where it is absent or no sequence."""
    try:
        value: Any = dataset.get(keyword)
        return list(value) if isinstance(value, Sequence) else []
    except Exception:  # a damaged value is an absent value; callers say what they miss
        return []


def _per_frame(name: str, dataset: Dataset) -> list[Dataset]:
    """The frames' own functional groups, one a frame.

    Raises:
        SeriesError: if there are none, or not as many as frames.
    """
    with quiet():
        groups = _items(dataset, _PER_FRAME)
    declared = whole(dataset, "NumberOfFrames")
    if not groups or len(groups) != declared:
        raise SeriesError(
            f"{name}: {len(groups)} functional groups for {declared or 'unknown'} frames, expected "
            "one a frame; export it as classic CT, one file a slice"
        )
    return groups
