"""CT series on disk to volumes in HU; every refusal names the file and the reason.

`find_series` reads headers and groups files, `read_series` turns one group into a volume
(`io.stack` does it part by part), and `read_facts` says what one header tells of it. `read_tree`
goes on after a series it must refuse, `read_all` stops at the first.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cvsct.errors import CvsctError, SeriesError
from cvsct.io.header import SCAN_TAGS, is_dicom, is_uid, label, not_a_slice, read_dataset, text
from cvsct.io.stack import (
    MAX_VOXELS,
    SeriesFiles,
    acquisition_of,
    open_stack,
    patient_of,
    read_header,
)
from cvsct.volume import CTVolume, ScanFacts

__all__ = [
    "MAX_VOXELS",
    "Refusal",
    "SeriesFiles",
    "find_series",
    "read_all",
    "read_facts",
    "read_series",
    "read_tree",
]

logger = logging.getLogger(__name__)

_DICOM_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}


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
    return open_stack(series).read()


def read_facts(series: SeriesFiles) -> ScanFacts:
    """What one header tells of a series; whether its files belong together, only reading tells.

    Raises:
        SeriesError, GeometryError: if that header must be refused.
    """
    header, plane, encoding = read_header(series.files[0])
    stats = [(file.name, file.stat()) for file in series.files]
    stamp = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return ScanFacts(
        series_uid=series.series_uid,
        shape=(len(series.files), encoding.rows, encoding.columns),
        pixel_mm=plane.pixel_mm,
        thickness_mm=plane.thickness_mm,
        acquisition=acquisition_of(header),
        patient=patient_of(header),
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
