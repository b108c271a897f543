"""What lies under a path: the CT series, and the files that were left out, with the reason.

Headers only. Links to files and folders are followed, each real folder and file once. Hidden files
and folders are passed over; everything else is a series, part of one, or among what is left out.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cvsct.core.errors import CvsctError, SeriesError
from cvsct.io.dicom.header import (
    CT_IMAGE,
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
from cvsct.io.dicom.repeated import mark_repeated
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.file_kinds import EMPTY, UNKNOWN, FileKind, kind_of
from cvsct.io.nifti.header import is_nifti, not_a_scan, read_nifti_header
from cvsct.io.nifti.read import open_nifti
from cvsct.io.nifti.write import named_alone

_DICOM_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
_MOST_NAMED = 4

_BESIDE = FileKind(
    "NIfTI beside DICOM", "NIfTI beside DICOM", "name it, or a folder without DICOM, to use it"
)
_LOST_SLICE = FileKind("file among a scan's slices that is empty or cut short",
                       "files among a scan's slices that are empty or cut short")  # fmt: skip
_BROKEN_LINK = FileKind("link that leads nowhere", "links that lead nowhere")
_LOOP = FileKind("linked folder that leads back", "linked folders that lead back")
_SECOND_NAME = FileKind(
    "second name of a file or folder that is here already",
    "second names of files or folders that are here already",
)
_CLOSED = FileKind("folder that cannot be opened", "folders that cannot be opened")
_OBJECTS = {
    "RT Structure Set Storage": FileKind("RT structure set", "RT structure sets"),
    "Segmentation Storage": FileKind("DICOM segmentation", "DICOM segmentations"),
    "Label Map Segmentation Storage": FileKind("DICOM segmentation", "DICOM segmentations"),
    "a scout (localizer)": FileKind("scout", "scouts"),
    "a dose page": FileKind("dose page", "dose pages"),
    "a screen save": FileKind("screen save", "screen saves"),
    "a protocol page": FileKind("protocol page", "protocol pages"),
    "an intensity projection": FileKind("intensity projection", "intensity projections"),
    "secondary capture (a dose page or screen save)": FileKind(
        "secondary capture", "secondary captures"
    ),
    "a label map": FileKind("NIfTI label map", "NIfTI label maps"),
}


@dataclass(frozen=True)
class LeftOut:
    """Files that are no part of any series, for one reason.

    Args:
        incomplete: whether they may be slices that a scan now lacks.
    """

    kind: FileKind
    files: tuple[Path, ...] = field(repr=False)
    incomplete: bool = False

    def __str__(self) -> str:
        count = len(self.files)
        what = f"{count} {self.kind.one if count == 1 else self.kind.many}"
        if self.incomplete:
            named = ", ".join(label(file) for file in self.files[:_MOST_NAMED])
            more = f" and {count - _MOST_NAMED} more" if count > _MOST_NAMED else ""
            return f"{what}: {named}{more}"
        return f"{what} ({self.kind.remedy})" if self.kind.remedy else what


@dataclass(frozen=True)
class Catalog:
    """Everything under a path.

    Args:
        series: each may still be refused when it is read.
        left_out: grouped by reason, those first by which a scan may be incomplete.
    """

    series: tuple[SeriesFiles, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Whether a scan may lack slices that were left out."""
        return any(each.incomplete for each in self.left_out)

    def lines(self, of: str = "") -> list[str]:
        """One line for what was left out and one for what a scan may lack, where there is any.

        Args:
            of: which scans are meant, where a command has several.
        """
        return left_out_lines(self.left_out, of)


def left_out_lines(left_out: Iterable[LeftOut], of: str = "") -> list[str]:
    """What `Catalog.lines` tells."""
    harmless = "; ".join(str(each) for each in left_out if not each.incomplete)
    lost = "; ".join(str(each) for each in left_out if each.incomplete)
    where = f" of the {of}" if of else ""
    return [
        *([f"left out{where}: {harmless}"] if harmless else []),
        *([f"warning: a scan may be incomplete, left out{where}: {lost}"] if lost else []),
    ]


@dataclass
class _Found:
    """What a look through a tree has come to so far."""

    groups: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    frames: dict[Path, int] = field(default_factory=dict)
    uids: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    damaged: list[SeriesFiles] = field(default_factory=list)
    left_out: dict[tuple[FileKind, bool], list[Path]] = field(
        default_factory=lambda: defaultdict(list)
    )
    foreign: list[tuple[Path, FileKind]] = field(default_factory=list)

    def leave_out(self, kind: FileKind, path: Path, *, incomplete: bool = False) -> None:
        self.left_out[kind, incomplete].append(path)


def catalog(path: Path) -> Catalog:
    """The CT series in a DICOM or NIfTI file, a series folder, or a tree that holds many.

    Where a tree holds DICOM, NIfTI in it is taken for masks and conversions and left out.

    Raises:
        SeriesError: if nothing is there, or nothing of it is a CT slice.
    """
    if not path.is_file() and not path.is_dir():
        raise SeriesError(f"{path}: no such file or folder; name a CT series or a folder of them")
    found = _Found()
    files = list(_files(path, found)) if path.is_dir() else [path]
    scans = [file for file in files if is_nifti(file)]
    for file in files:
        if not is_nifti(file):
            _take_dicom(file, found, alone=path.is_file())
    _tell_lost_slices(found)
    series = [
        SeriesFiles(
            uid if is_uid(uid) else "",  # it may hold anything, and is refused by `open_series`
            tuple(sorted(group)),
            found.frames.get(group[0], 0) if len(group) == 1 else 0,
        )
        for uid, group in sorted(found.groups.items())
    ]
    if series:
        for file in scans:
            found.leave_out(_BESIDE, file)
    else:
        series = list(_nifti_series(scans, found, alone=path.is_file()))
    left_out = tuple(
        LeftOut(kind, tuple(sorted(group)), incomplete)
        for (kind, incomplete), group in sorted(
            found.left_out.items(), key=lambda item: (not item[0][1], -len(item[1]))
        )
    )
    if not series and not found.damaged:
        raise SeriesError(_nothing_found(path, left_out))
    repeated = (uid for uid, count in found.uids.items() if count > 1)
    return Catalog(tuple(named_alone(mark_repeated([*series, *found.damaged], repeated))), left_out)


def find_series(path: Path) -> list[SeriesFiles]:
    """The CT series under a path (`catalog` also tells what was left out).

    Raises:
        SeriesError: if nothing is there, or nothing of it is a CT slice.
    """
    return list(catalog(path).series)


def _files(root: Path, found: _Found) -> Iterator[Path]:
    """Files under a folder in a fixed order; real folders are entered before links to folders."""
    folders: set[tuple[int, int]] = set()
    files: set[tuple[int, int]] = set()

    def enter(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            found.leave_out(_CLOSED, folder, incomplete=True)
            return
        here, there = _identity(folder), []
        folders.add(here)
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if not path.exists():
                found.leave_out(_BROKEN_LINK, path, incomplete=True)
            elif path.is_dir():
                there.append(path)
            elif path.is_file():
                known = _identity(path)
                if known in files:
                    found.leave_out(_SECOND_NAME, path)
                    continue
                files.add(known)
                yield path
        for path in sorted(there, key=lambda each: (each.is_symlink(), each.name)):
            known = _identity(path)
            if known in (*above, here):
                found.leave_out(_LOOP, path)
            elif known in folders:
                found.leave_out(_SECOND_NAME, path)
            else:
                yield from enter(path, (*above, here))

    yield from enter(root, ())


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _take_dicom(file: Path, found: _Found, *, alone: bool) -> None:
    """Put a file that is no NIfTI where it belongs.

    Args:
        alone: the user named this file, so that it is refused by its own reason.
    """
    if not alone and not is_dicom(file) and file.suffix.lower() not in _DICOM_SUFFIXES:
        try:
            found.foreign.append((file, kind_of(file)))
        except OSError:
            found.damaged.append(SeriesFiles("", (file,)))
        return
    try:
        header = read_dataset(file, pixels=False, tags=SCAN_TAGS, limit_bytes=MAX_MULTIFRAME_BYTES)
    except SeriesError:
        if alone:
            raise
        found.damaged.append(SeriesFiles("", (file,)))
        return
    sop_class = text(header, "SOPClassUID") or text(header.file_meta, "MediaStorageSOPClassUID")
    cut = not sop_class or (sop_class in (CT_IMAGE, *ENHANCED_CT) and "Modality" not in header)
    reason = not_a_slice(header)
    uid = text(header, "SeriesInstanceUID")
    if reason and alone:
        raise SeriesError(f"{label(file)}: {reason}, expected a CT slice; name an axial CT series")
    if reason and not (cut and not header.get("DirectoryRecordSequence")):
        name = reason.removeprefix("another kind of object (").removesuffix(")")
        known = _OBJECTS.get(name) or _OBJECTS.get(reason)
        found.leave_out(known or FileKind(reason, reason), file)
    elif reason or not uid:
        found.damaged.append(SeriesFiles("", (file,)))
    else:
        found.groups[uid].append(file)
        found.uids[text(header, "SOPInstanceUID")] += 1
        if text(header, "SOPClassUID") in ENHANCED_CT:
            found.frames[file] = max(whole(header, "NumberOfFrames") or 1, 1)


def _tell_lost_slices(found: _Found) -> None:
    """Files of no known kind that are named as slices beside them are: a download broke off."""
    suffixes: dict[Path, set[str]] = defaultdict(set)
    for group in found.groups.values():
        for file in group:
            suffixes[file.parent].add(_suffix(file))
    for file, kind in found.foreign:
        lost = kind in (EMPTY, UNKNOWN) and _suffix(file) in suffixes[file.parent]
        if lost:
            found.leave_out(_LOST_SLICE, file, incomplete=True)
        else:
            found.leave_out(kind, file)


def _suffix(file: Path) -> str:
    """Of a name; none where it only ends a UID or a number."""
    suffix = file.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix


def _nifti_series(scans: list[Path], found: _Found, *, alone: bool) -> Iterator[SeriesFiles]:
    """NIfTI files as series of one file; what cannot be opened stands alone, to be refused."""
    opened: dict[str, list[SeriesFiles]] = defaultdict(list)
    for file in scans:
        try:
            reason = "" if alone else not_a_scan(read_nifti_header(file)[0])
            if reason:
                kind = _OBJECTS.get(reason, FileKind(reason, reason))
                found.leave_out(kind, file)
                continue
            stack = open_nifti(file)
        except CvsctError:
            if alone:
                raise
            opened[str(file)].append(SeriesFiles("", (file,), frames=1))
            continue
        opened[stack.series_uid].append(SeriesFiles(stack.series_uid, (file,), len(stack)))
    for group in opened.values():
        yield from group if len(group) == 1 else _copies(group)


def _copies(group: list[SeriesFiles]) -> Iterator[SeriesFiles]:
    """Files of the same bytes: no two scans are, so that at least one is not what its name says."""
    for number, each in enumerate(group):
        other = group[1 if number == 0 else 0]
        yield SeriesFiles(
            "",
            each.files,
            each.frames,
            refused=(
                f"{label(each.files[0])}: holds the same bytes as {label(other.files[0])}, so the "
                "two cannot be scans of their own; remove the copy, or put the right scan there"
            ),
        )


def _nothing_found(path: Path, left_out: Iterable[LeftOut]) -> str:
    reasons = [str(each) for each in left_out]
    return (
        f"{path}: no CT series here ({'; '.join(reasons) or 'the folder is empty'}); "
        "name a folder that holds CT as DICOM or NIfTI files"
    )
