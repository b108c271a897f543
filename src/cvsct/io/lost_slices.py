"""Recognition of lost slices: files that are empty, cut short, packed or half copied.

A download that breaks off leaves them beside the complete slices, under names of the same kind.
A scan with such files must not pass for complete.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cvsct.io.file_kinds import EMPTY, UNKNOWN, FileKind
from cvsct.io.left_out import EMPTY_SLICE, NO_SLICE, PACKED_SLICE, UNFINISHED, Reason

_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,9}$")
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart", ".incomplete", ".tmp")
_PACKED = (".gz", ".bz2", ".xz", ".zip", ".z", ".zst", ".7z")


@dataclass
class Neighbors:
    """Names of the DICOM files in a tree, to recognize other files that are named alike.

    Args:
        slices: shapes of the names of CT slices, by folder.
        dicom: folders that hold any DICOM.
    """

    slices: dict[Path, set[str]] = field(default_factory=lambda: defaultdict(set))
    dicom: set[Path] = field(default_factory=set)

    def add(self, path: Path, is_slice: bool) -> None:
        """Add the name of a DICOM file."""
        self.dicom.add(path.parent)
        if is_slice:
            self.slices[path.parent].add(shape_of(path.name))


def lost_slices(
    files: Mapping[Path, FileKind], neighbors: Neighbors
) -> Iterable[tuple[Path, Reason | None]]:
    """Files that are no DICOM, each with the reason if it seems to be a slice that was lost.

    Args:
        files: with their kinds, by their first bytes.
    """
    everywhere = set().union(*neighbors.slices.values())
    for path, kind in files.items():
        here = neighbors.slices.get(path.parent, set())
        # a folder all of whose files were lost has no slices to compare with
        shapes = here if path.parent in neighbors.dicom else everywhere
        yield path, _reason(path.name, kind, here, shapes)


def shape_of(name: str) -> str:
    """Pattern that names of one kind share: `im#` of `IM12`; all UIDs share one, so do hashes.

    Example:
        >>> shape_of("IM0012"), shape_of("1.2.840.113619.2.55"), shape_of("9f86d081884c7d65.dcm")
        ('im#', 'uid', 'hash.dcm')
    """
    name = name.lower()
    if re.fullmatch(r"\d+(\.\d+){3,}", name):
        return "uid"
    suffix = _suffix(name)
    stem = name.removesuffix(suffix)
    if re.fullmatch(r"\d+(\.\d+){3,}", stem):
        return f"uid{suffix}"
    if re.fullmatch(r"(?=.*[a-f])(?=.*\d)[0-9a-f-]{8,}", stem):
        return f"hash{suffix}"
    return re.sub(r"\d+", "#", stem) + suffix


def _suffix(name: str) -> str:
    suffix = _SUFFIX.search(name.lower())
    return suffix.group() if suffix else ""


def _reason(name: str, kind: FileKind, here: set[str], shapes: set[str]) -> Reason | None:
    suffix = _suffix(name)
    stem = name[: len(name) - len(suffix)]
    if suffix in (*_UNFINISHED, *_PACKED) and shape_of(stem) in shapes:
        return UNFINISHED if suffix in _UNFINISHED else PACKED_SLICE
    if not (shape_of(name) in shapes or _might_be(stem, suffix, kind, here)):
        return None
    return EMPTY_SLICE if kind == EMPTY else NO_SLICE


def _might_be(stem: str, suffix: str, kind: FileKind, here: set[str]) -> bool:
    """Whether a file beside slices whose name is of another shape might have been one all the same.

    Its suffix is theirs, its name counts something, and it holds nothing that one could read.
    """
    alike = any(_suffix(shape) == suffix for shape in here)
    return alike and any(map(str.isdigit, stem)) and kind in (EMPTY, UNKNOWN)
