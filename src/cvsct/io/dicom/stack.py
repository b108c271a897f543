"""One CT series whose headers are read at once and whose pixels are read when asked for.

The whole of a series is checked before any of its pixels is decoded, and no header is kept: what
a stack holds grows by about a kilobyte a slice. `read` gives some slices, or all, as a volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pydicom.tag import Tag

from cvsct.core.errors import GeometryError, SeriesError, one_line
from cvsct.core.volume import UNNAMED, Acquisition, CTVolume, Geometry
from cvsct.io.dicom.assembly import volume_between
from cvsct.io.dicom.geometry import Plane, arrange, plane_of
from cvsct.io.dicom.header import (
    ENHANCED_CT,
    UID_CHARACTERS,
    label,
    not_a_slice,
    number,
    odd_uid,
    quiet,
    read_dataset,
    text,
)
from cvsct.io.dicom.one_scan import SEPARATE_REMEDY, OneScan
from cvsct.io.dicom.pixels import Encoding, Slice, encoding_of, read_pixels
from cvsct.io.dicom.units import UNSPECIFIED, unit_of, without_material

_PIXELS_BEGIN = Tag("FloatPixelData")
"""First tag (7FE0,0008) of pixels and what follows them; the header ends before it."""

MAX_ACQUISITION_CHARS = 256
"""Most characters of a manufacturer, model or kernel; a kernel may have several values of 64."""

_SAME_IN_SERIES = {
    "StudyInstanceUID": "study",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "scanner model",
    "ConvolutionKernel": "convolution kernel",
}


@dataclass(frozen=True)
class SeriesFiles:
    """The files that share a Series Instance UID, sorted by path; or one NIfTI file.

    `series_uid` is empty for a file whose header names none or cannot be parsed; it stands alone,
    and `read_series` refuses it by name, so that damage is reported and never silently left out.
    `frames` is how many slices a file of many declares, else 0.

    Args:
        repeated: SOP Instance UIDs of its images that others under the same path have too.
        refused: why it is not to be read, where that was found out by comparing it with others.
        name: of a NIfTI file without its suffix, another one for each under the same path.
    """

    series_uid: str
    files: tuple[Path, ...]
    frames: int = 0
    repeated: frozenset[str] = field(default=frozenset(), repr=False)
    refused: str = ""
    name: str = field(default="", repr=False)

    @property
    def n_slices(self) -> int:
        """Number of slices: frames of a multi-frame or NIfTI file, else files."""
        return self.frames or len(self.files)


@dataclass(frozen=True)
class Stack:
    """A DICOM series whose headers were checked, in slice order.

    Args:
        series_uid: Series Instance UID of the source.
        files: one a slice.
        instance_uids: SOP Instance UID of each.
        encodings: how each stores its values; all have the same size, and each its own rescale.
        geometry: where the slices lie.
        acquisition: what made them.
        patient: as in `CTVolume`.
        unspecified: whether a header leaves the unit of the values open.
        notes: as in `CTVolume`.
    """

    series_uid: str
    files: tuple[Path, ...]
    instance_uids: tuple[str, ...] = field(repr=False)
    encodings: tuple[Encoding, ...] = field(repr=False)
    geometry: Geometry
    acquisition: Acquisition
    patient: str = field(repr=False)
    unspecified: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.files), self.encodings[0].rows, self.encodings[0].columns

    def read(self, start: int = 0, stop: int | None = None) -> CTVolume:
        """The slices from `start` to before `stop`, or to the last, as a volume of their own.

        Raises:
            SeriesError: if pixels cannot be decoded, are more than `MAX_VOXELS`, or a file is not
                what it was when the stack was opened.
        """
        index = range(len(self))[start:stop]
        name = f"{label(self.files[start])} and {len(index) - 1} more"
        with quiet():  # once for all slices
            return volume_between(self, name, map(self._slice, index), index)

    def _slice(self, i: int) -> tuple[Slice, Dataset]:
        name = label(self.files[i])
        dataset = read_dataset(self.files[i], pixels=True)
        with quiet():
            self._refuse_changed(i, dataset)
            return read_pixels(name, dataset, self.encodings[i]), _header_of(dataset)

    def _refuse_changed(self, i: int, dataset: Dataset) -> None:
        name = label(self.files[i])
        same = text(dataset, "SOPInstanceUID") == self.instance_uids[i]
        if not same or encoding_of(name, dataset) != self.encodings[i]:
            raise SeriesError(
                f"{name}: changed while the series was being read; "
                "let what writes to the folder finish, then run it again"
            )


def open_stack(series: SeriesFiles) -> Stack:
    """Read and check every header of a series; no pixel is decoded.

    Raises:
        SeriesError: if a file is not a sound CT slice, or the files do not belong together.
        GeometryError: if the slices do not form one regular stack.
    """
    if not series.files:
        raise SeriesError("a series without files; name a folder that holds CT slices")
    with quiet():  # once for all headers; each time costs a millisecond
        first, first_plane, first_encoding = read_header(series.files[0])
        planes, encodings, scan = [first_plane], [first_encoding], OneScan()
        scan.add(first_plane.name, first)
        notes, unspecified = set(notes_of(first)), unit_of(first) == UNSPECIFIED
        uids = [text(first, "SOPInstanceUID")]
        for path in series.files[1:]:
            header, plane, encoding = read_header(path)
            refuse_mixed(plane.name, header, encoding, first_plane.name, first, first_encoding)
            scan.add(plane.name, header)
            notes.update(notes_of(header))
            unspecified |= unit_of(header) == UNSPECIFIED
            planes.append(plane)
            encodings.append(first_encoding if encoding == first_encoding else encoding)
            uids.append(text(header, "SOPInstanceUID"))
    geometry, order, odd = arrange(planes, scan.slice_acquisitions)
    return Stack(
        series_uid=series.series_uid,
        files=tuple(series.files[i] for i in order),
        instance_uids=tuple(uids[i] for i in order),
        encodings=tuple(encodings[i] for i in order),
        geometry=geometry,
        acquisition=acquisition_of(first),
        patient=patient_of(first),
        unspecified=unspecified,
        notes=tuple(sorted({*notes, *odd})),
    )


def read_header(path: Path) -> tuple[Dataset, Plane, Encoding]:
    """One slice's header, refused unless it is a CT slice with geometry and a rescale to HU."""
    name = label(path)
    header = read_dataset(path, pixels=False)
    reason = not_a_slice(header)
    if reason:
        raise SeriesError(f"{name}: {reason}, expected a CT slice; name an axial CT series")
    if text(header, "SOPClassUID") in ENHANCED_CT:
        raise SeriesError(
            f"{name}: multi-frame enhanced CT among other files of its series (several scans, or "
            "one in parts); put each file into a series of its own"
        )
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        refuse_odd_uid(name, header, keyword)
    encoding = encoding_of(name, header)
    return header, plane_of(name, header), encoding


def _header_of(dataset: Dataset) -> Dataset:
    """The data set without its pixels, as a file read up to them gives it."""
    for tag in [tag for tag in dataset.keys() if tag >= _PIXELS_BEGIN]:  # noqa: SIM118
        del dataset[tag]
    return dataset


def refuse_mixed(
    name: str,
    header: Dataset,
    encoding: Encoding,
    first_name: str,
    first: Dataset,
    first_encoding: Encoding,
) -> None:
    """Refuse a slice that differs from the first in what a series has in common.

    Raises:
        SeriesError, GeometryError: naming what differs.
    """
    if text(header, "SeriesInstanceUID") != text(first, "SeriesInstanceUID"):
        raise SeriesError(
            f"{name}: mixed series (another Series Instance UID than {first_name}); "
            "read one series at a time"
        )
    size, first_size = (
        (encoding.rows, encoding.columns),
        (first_encoding.rows, first_encoding.columns),
    )
    if size != first_size:
        raise GeometryError(
            f"{name}: mixed size ({size[0]} x {size[1]} voxels, {first_name} has {first_size[0]} x "
            f"{first_size[1]}); {SEPARATE_REMEDY}"
        )
    for keyword, what in _SAME_IN_SERIES.items():
        if text(header, keyword) != text(first, keyword):
            raise SeriesError(
                f"{name}: mixed {what} (another one than {first_name}); {SEPARATE_REMEDY}"
            )
    if number(header, "KVP") != number(first, "KVP"):
        raise SeriesError(
            f"{name}: mixed tube voltage (another KVP than {first_name}); {SEPARATE_REMEDY}"
        )


def refuse_odd_uid(name: str, header: Dataset, keyword: str) -> None:
    """Refuse a text that cannot be a UID; it is never printed, for it may hold anything."""
    reason = odd_uid(text(header, keyword))
    if reason:
        raise SeriesError(
            f"{name}: no usable {keyword} ({reason}); have the software that wrote it, often one "
            "that removes identities, give UIDs of digits and dots"
        )


def notes_of(header: Dataset) -> Iterator[str]:
    """Notes on a slice's header that is unusual and can still be read."""
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        length = len(text(header, keyword))
        if length > UID_CHARACTERS:
            yield f"{keyword} of {length} characters, at most {UID_CHARACTERS} are allowed"
    if without_material(header):
        yield "virtual images as if a material were absent (Image Type), in HU"


def acquisition_of(header: Dataset) -> Acquisition:
    """Scanner, kernel and kVp from a header, made safe for reports and terminals."""
    return Acquisition(
        manufacturer=one_line(text(header, "Manufacturer"))[:MAX_ACQUISITION_CHARS],
        model=one_line(text(header, "ManufacturerModelName"))[:MAX_ACQUISITION_CHARS],
        kernel=one_line(text(header, "ConvolutionKernel"))[:MAX_ACQUISITION_CHARS],
        kvp=number(header, "KVP") or 0.0,
    )


def patient_of(header: Dataset) -> str:
    """Hash of the Patient ID; where there is none, of the study, which shows one patient."""
    named = text(header, "PatientID")
    shown = named or text(header, "StudyInstanceUID")
    digest = hashlib.sha256(f"cvsct patient {shown}".encode()).hexdigest()[:16]
    return (digest if named else UNNAMED + digest) if shown else ""
