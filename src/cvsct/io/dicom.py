"""CT series on disk to volumes in HU; every refusal names the file and the reason.

`find_series` reads headers and groups files, `read_series` turns one group into a volume, and
`read_facts` says what one header tells of it. `read_tree` goes on after a series it must refuse,
`read_all` stops at the first.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from cvsct.errors import CvsctError, GeometryError, SeriesError
from cvsct.io.geometry import Plane, arrange, plane_of
from cvsct.io.header import (
    ENHANCED_CT,
    SCAN_TAGS,
    is_dicom,
    is_uid,
    label,
    not_a_slice,
    number,
    read_dataset,
    text,
)
from cvsct.io.pixels import Encoding, encoding_of, read_pixels
from cvsct.volume import Acquisition, CTVolume, ScanFacts

logger = logging.getLogger(__name__)

MAX_VOXELS = 2**31
"""8 GiB of float32: more than 8000 slices of 512 x 512."""

_DICOM_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
_SAME_IN_SERIES = {
    "StudyInstanceUID": "study",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "scanner model",
    "ConvolutionKernel": "convolution kernel",
}


@dataclass(frozen=True)
class SeriesFiles:
    """The files that share a Series Instance UID, sorted by path.

    `series_uid` is empty for a file whose header names none or cannot be parsed; it stands alone,
    and `read_series` refuses it by name, so that damage is reported and never silently left out.
    """

    series_uid: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Refusal:
    """A series that could not be read, and why."""

    series_uid: str
    reason: str


def find_series(path: Path) -> list[SeriesFiles]:
    """The CT series in a DICOM file, a series folder, or a tree that holds many.

    Headers only. Hidden files and folders are ignored; files that are not DICOM, and DICOM that
    is no CT slice (scouts, dose pages, other modalities), are left out and counted in the log.

    Raises:
        SeriesError: if nothing is there, or nothing of it is a CT slice.
    """
    if not path.is_file() and not path.is_dir():
        raise SeriesError(f"{path}: no such file or folder; name a CT series or a folder of them")
    groups: dict[str, list[Path]] = defaultdict(list)
    damaged: list[Path] = []
    left_out: Counter[str] = Counter()
    for file in _files(path):
        if not is_dicom(file) and path.is_dir() and file.suffix.lower() not in _DICOM_SUFFIXES:
            left_out["not DICOM"] += 1
            continue
        try:
            header = read_dataset(file, pixels=False, tags=SCAN_TAGS)
        except SeriesError:
            if path.is_file():
                raise
            damaged.append(file)
            continue
        reason = not_a_slice(header)
        if reason:
            left_out[reason] += 1
        elif is_uid(text(header, "SeriesInstanceUID")):
            groups[text(header, "SeriesInstanceUID")].append(file)
        else:
            damaged.append(file)
    counts = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    if not groups and not damaged:
        raise SeriesError(_nothing_found(path, counts))
    if counts:
        logger.info("left out while looking for CT series: %s", counts)
    found = [SeriesFiles(uid, tuple(sorted(files))) for uid, files in sorted(groups.items())]
    return found + [SeriesFiles("", (file,)) for file in damaged]


def read_series(series: SeriesFiles) -> CTVolume:
    """Read one series as a volume, its slices ordered by position.

    Raises:
        SeriesError: if a file is not a sound CT slice, or the files do not belong together.
        GeometryError: if the slices do not form one regular stack.
    """
    if not series.files:
        raise SeriesError("a series without files; name a folder that holds CT slices")
    headers: list[Dataset] = []
    planes: list[Plane] = []
    encodings: list[Encoding] = []
    for path in series.files:
        header, plane, encoding = _read_header(path)
        if headers:
            _refuse_mixed(plane.name, header, encoding, planes[0].name, headers[0], encodings[0])
        headers.append(header)
        planes.append(plane)
        encodings.append(encoding)
    geometry, order = arrange(planes)
    shape = (len(order), encodings[0].rows, encodings[0].columns)
    if int(np.prod(shape, dtype=np.int64)) > MAX_VOXELS:
        raise SeriesError(
            f"{planes[0].name} and {len(order) - 1} more: {shape[0]} slices of {shape[1]} x "
            f"{shape[2]} are more than {MAX_VOXELS} voxels; split the series"
        )
    hu = np.empty(shape, dtype=np.float32)
    padding = np.zeros(shape, dtype=bool)
    padding_stored = []
    for slot, i in enumerate(order):
        pixels = read_pixels(
            planes[i].name, read_dataset(series.files[i], pixels=True), encodings[i]
        )
        hu[slot], padding[slot] = pixels.hu, pixels.padding
        padding_stored.append(pixels.padding_stored)
    padded = bool(padding.any())
    return CTVolume(
        hu=hu,
        geometry=geometry,
        acquisition=_acquisition(headers[order[0]]),
        padding=padding if padded else None,
        padding_stored=tuple(padding_stored) if padded else (),
        series_uid=series.series_uid,
        patient=_patient(headers[0]),
        headers=tuple(headers[i] for i in order),
    )


def read_facts(series: SeriesFiles) -> ScanFacts:
    """What one header tells of a series; whether its files belong together, only reading tells.

    Raises:
        SeriesError, GeometryError: if that header must be refused.
    """
    header, plane, encoding = _read_header(series.files[0])
    stats = [(file.name, file.stat()) for file in series.files]
    stamp = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return ScanFacts(
        series_uid=series.series_uid,
        shape=(len(series.files), encoding.rows, encoding.columns),
        pixel_mm=plane.pixel_mm,
        thickness_mm=plane.thickness_mm,
        acquisition=_acquisition(header),
        patient=_patient(header),
        stamp=hashlib.sha256(stamp.encode()).hexdigest()[:16],
    )


def read_tree(path: Path) -> Iterator[CTVolume | Refusal]:
    """Read every series under a path one after the other, going on after those refused.

    Raises:
        SeriesError: if there is no CT series at all.
    """
    for series in find_series(path):
        try:
            yield read_series(series)
        except CvsctError as error:
            yield Refusal(series.series_uid, str(error))


def read_all(path: Path) -> list[CTVolume]:
    """Read every series under a path.

    Raises:
        SeriesError, GeometryError: at the first series that must be refused.
    """
    return [read_series(series) for series in find_series(path)]


def _files(path: Path) -> Iterator[Path]:
    """Regular files under a path (links to files included) in a fixed order, hidden ones not."""
    if not path.is_dir():
        yield path
        return
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield file


def _nothing_found(path: Path, counts: str) -> str:
    if path.is_file():
        reason = counts.removeprefix("1 ")
        return f"{label(path)}: {reason}, expected a CT slice; name an axial CT series"
    return (
        f"{path}: no CT series here ({counts or 'the folder is empty'}); "
        "name a folder that holds CT slices as DICOM files"
    )


def _read_header(path: Path) -> tuple[Dataset, Plane, Encoding]:
    """One slice's header, refused unless it is a CT slice with geometry and a rescale to HU."""
    name = label(path)
    header = read_dataset(path, pixels=False)
    reason = not_a_slice(header)
    if reason:
        raise SeriesError(f"{name}: {reason}, expected a CT slice; name an axial CT series")
    if text(header, "SOPClassUID") in ENHANCED_CT:
        raise SeriesError(
            f"{name}: multi-frame enhanced CT, which this version does not read; "
            "export it as classic CT, one file a slice"
        )
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not is_uid(text(header, keyword)):
            raise SeriesError(f"{name}: no usable {keyword}; re-export the series")
    encoding = encoding_of(name, header)
    return header, plane_of(name, header), encoding


def _refuse_mixed(
    name: str,
    header: Dataset,
    encoding: Encoding,
    first_name: str,
    first: Dataset,
    first_encoding: Encoding,
) -> None:
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
            f"{first_size[1]}); put each reconstruction into its own series"
        )
    rescale = encoding.slope, encoding.intercept
    first_rescale = first_encoding.slope, first_encoding.intercept
    if rescale != first_rescale:
        raise SeriesError(
            f"{name}: mixed rescale (slope {rescale[0]:g} intercept {rescale[1]:g}, {first_name} "
            f"has {first_rescale[0]:g} and {first_rescale[1]:g}); re-export the series with one"
        )
    for keyword, what in _SAME_IN_SERIES.items():
        if text(header, keyword) != text(first, keyword):
            raise SeriesError(
                f"{name}: mixed {what} (another one than {first_name}); "
                "put each acquisition and reconstruction into its own series"
            )
    if number(header, "KVP") != number(first, "KVP"):
        raise SeriesError(
            f"{name}: mixed tube voltage (another KVP than {first_name}); "
            "put each acquisition into its own series"
        )


def _acquisition(header: Dataset) -> Acquisition:
    return Acquisition(
        manufacturer=text(header, "Manufacturer"),
        model=text(header, "ManufacturerModelName"),
        kernel=text(header, "ConvolutionKernel"),
        kvp=number(header, "KVP") or 0.0,
    )


def _patient(header: Dataset) -> str:
    """Hash of the Patient ID; where there is none, of the study, which shows one patient."""
    shown = text(header, "PatientID") or text(header, "StudyInstanceUID")
    return hashlib.sha256(f"cvsct patient {shown}".encode()).hexdigest()[:16] if shown else ""
