"""CT on disk, DICOM or NIfTI, to volumes in HU; every refusal names the file and the reason.

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
from cvsct.io.assembly import MAX_VOXELS
from cvsct.io.header import (
    ENHANCED_CT,
    MAX_MULTIFRAME_BYTES,
    SCAN_TAGS,
    is_dicom,
    is_uid,
    label,
    not_a_slice,
    read_dataset,
    text,
    whole,
)
from cvsct.io.nifti import open_nifti
from cvsct.io.nifti_header import is_nifti, not_a_scan, read_nifti_header
from cvsct.io.nifti_write import named_alone
from cvsct.io.repeated import mark_repeated
from cvsct.io.series import open_series
from cvsct.io.stack import SeriesFiles, acquisition_of, patient_of, read_header
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
    """The CT series in a DICOM or NIfTI file, a series folder, or a tree that holds many.

    Headers only. Hidden files and folders are ignored; files of other kinds, and DICOM that is no
    CT slice (scouts, dose pages, other modalities), are left out and counted in the log. So is
    NIfTI where there is DICOM too: masks and conversions lie beside the scans they belong to.

    Raises:
        SeriesError: if nothing is there, or nothing of it is a CT slice.
    """
    if not path.is_file() and not path.is_dir():
        raise SeriesError(f"{path}: no such file or folder; name a CT series or a folder of them")
    files = list(_files(path))
    scans = [file for file in files if is_nifti(file)]
    left_out: Counter[str] = Counter()
    uids: Counter[str] = Counter()
    dicom = [file for file in files if not is_nifti(file)]
    found, damaged = _dicom_series(path, dicom, left_out, uids)
    if found and scans:
        left_out["NIfTI beside DICOM"] += len(scans)
    elif scans:
        found = _nifti_series(path, scans, left_out)
    counts = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    if not found and not damaged:
        raise SeriesError(_nothing_found(path, counts))
    if counts:
        logger.info("left out while looking for CT series: %s", counts)
    repeated = (uid for uid, count in uids.items() if count > 1)
    return named_alone(mark_repeated(found + damaged, repeated))


def read_series(series: SeriesFiles) -> CTVolume:
    """Read one series as a volume, its slices ordered by position.

    Raises:
        SeriesError: if a file is not a sound CT slice, or the files do not belong together.
        GeometryError: if the slices do not form one regular stack.
    """
    return open_series(series).read()


def read_facts(series: SeriesFiles) -> ScanFacts:
    """What one header tells of a series; whether its files belong together, only reading tells.

    Raises:
        SeriesError, GeometryError: if that header must be refused.
    """
    if series.refused:
        raise SeriesError(series.refused)
    stats = [(file.name, file.stat()) for file in series.files]
    stamp = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    if series.frames:  # one file tells it all
        stack = open_series(series)
        shape, where = stack.shape, stack.geometry
        pixel_mm, thickness_mm = where.pixel_mm, where.thickness_mm
        acquisition, patient = stack.acquisition, stack.patient
    else:
        header, plane, encoding = read_header(series.files[0])
        shape = len(series.files), encoding.rows, encoding.columns
        pixel_mm, thickness_mm = plane.pixel_mm, plane.thickness_mm
        acquisition, patient = acquisition_of(header), patient_of(header)
    return ScanFacts(
        series_uid=series.series_uid,
        shape=shape,
        pixel_mm=pixel_mm,
        thickness_mm=thickness_mm,
        acquisition=acquisition,
        patient=patient,
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


def _dicom_series(
    path: Path, files: list[Path], left_out: Counter[str], uids: Counter[str]
) -> tuple[list[SeriesFiles], list[SeriesFiles]]:
    """DICOM files as series, and those that are damaged, each alone."""
    groups: dict[str, list[Path]] = defaultdict(list)
    frames: dict[Path, int] = {}
    damaged: list[SeriesFiles] = []
    for file in files:
        if path.is_dir() and not is_dicom(file) and file.suffix.lower() not in _DICOM_SUFFIXES:
            left_out["not DICOM"] += 1
            continue
        try:
            header = read_dataset(
                file, pixels=False, tags=SCAN_TAGS, limit_bytes=MAX_MULTIFRAME_BYTES
            )
        except SeriesError:
            if path.is_file():
                raise
            damaged.append(SeriesFiles("", (file,)))
            continue
        reason = not_a_slice(header)
        if reason:
            left_out[reason] += 1
        elif is_uid(text(header, "SeriesInstanceUID")):
            groups[text(header, "SeriesInstanceUID")].append(file)
            uids[text(header, "SOPInstanceUID")] += 1
            if text(header, "SOPClassUID") in ENHANCED_CT:
                frames[file] = max(whole(header, "NumberOfFrames") or 1, 1)
        else:
            damaged.append(SeriesFiles("", (file,)))
    found = [
        SeriesFiles(uid, tuple(sorted(group)), frames.get(group[0], 0) if len(group) == 1 else 0)
        for uid, group in sorted(groups.items())
    ]
    return found, damaged


def _nifti_series(path: Path, scans: list[Path], left_out: Counter[str]) -> list[SeriesFiles]:
    """NIfTI files as series of one file; what cannot be opened stands alone, to be refused."""
    found: dict[str, SeriesFiles] = {}
    for file in scans:
        try:
            reason = not_a_scan(read_nifti_header(file)[0]) if path.is_dir() else ""
            if reason:
                left_out[reason] += 1
                continue
            stack = open_nifti(file)
        except CvsctError:
            if path.is_file():
                raise
            found[str(file)] = SeriesFiles("", (file,), frames=1)
            continue
        if stack.series_uid in found:
            left_out["copy of another NIfTI"] += 1
        found.setdefault(stack.series_uid, SeriesFiles(stack.series_uid, (file,), len(stack)))
    return list(found.values())


def _nothing_found(path: Path, counts: str) -> str:
    if path.is_file():
        reason = counts.removeprefix("1 ")
        return f"{label(path)}: {reason}, expected a CT slice; name an axial CT series"
    return (
        f"{path}: no CT series here ({counts or 'the folder is empty'}); "
        "name a folder that holds CT as DICOM or NIfTI files"
    )
