"""What lies among scans and is not read, by reason and with counts, in words for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from cvsct.io.dicom.header import known_name, label, not_a_slice, sop_class_of
from cvsct.io.file_kinds import FileKind

MAX_NAMED = 4
"""Files that a line on an incomplete scan names before it counts the others."""


@dataclass(frozen=True)
class Reason:
    """Why files are left out.

    Args:
        one: what one is called; no article.
        many: what several are called.
        remedy: what to do with `{it}`; may be empty.
        incomplete: whether a scan may be incomplete because of it.
        silent: what nobody need be told of, as hidden files and what this program wrote.
    """

    one: str
    many: str
    remedy: str = ""
    incomplete: bool = False
    silent: bool = False


@dataclass(frozen=True)
class LeftOut:
    """Files that were left out for one reason.

    Example:
        >>> archive = Reason("zip archive", "zip archives", "unpack {it}")
        >>> print(LeftOut(archive, (Path("a.zip"), Path("b.zip"))))
        2 zip archives (unpack them)
    """

    why: Reason
    files: tuple[Path, ...]

    @property
    def reason(self) -> str:
        """In words, of one or of several."""
        return self.why.one if len(self.files) == 1 else self.why.many

    @property
    def remedy(self) -> str:
        """What to do about it; may be empty."""
        return self.why.remedy.format(it="it" if len(self.files) == 1 else "them")

    @property
    def incomplete(self) -> bool:
        """Whether a scan may be incomplete because of these."""
        return self.why.incomplete

    def to_json(self) -> dict[str, Any]:
        """As plain values that name no file."""
        return {
            "reason": self.why.one,
            "files": len(self.files),
            "remedy": self.remedy,
            "incomplete": self.incomplete,
        }

    def __str__(self) -> str:
        """With count and remedy; the first files are named where a scan may be incomplete."""
        count = len(self.files)
        names = ", ".join(label(file) for file in self.files[:MAX_NAMED])
        more = f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""
        named = f": {names}{more}" if self.incomplete else ""
        return f"{count} {self.reason}{named}" + (f" ({self.remedy})" if self.remedy else "")


LEADS_BACK = Reason("linked folder that leads back", "linked folders that lead back")
SECOND_NAME = Reason(
    "second name of a file or folder that is here already",
    "second names of files or folders that are here already",
)
BROKEN_LINK = Reason(
    "link that leads nowhere", "links that lead nowhere", "mend or remove {it}", incomplete=True
)
UNREADABLE = Reason(
    *("file or folder that cannot be read", "files or folders that cannot be read"),
    *("check the permissions", True),
)
SPECIAL = Reason("special file", "special files")
HIDDEN = Reason("hidden file or folder", "hidden files or folders", silent=True)
OWN = Reason("file that cvsct wrote", "files that cvsct wrote", silent=True)
BESIDE_DICOM = Reason(
    *("NIfTI beside DICOM", "NIfTI beside DICOM"),
    "name {it}, or a folder without DICOM, to use {it}",
)
EMPTY_SLICE = Reason(
    "empty file named like a slice", "empty files named like slices", "copy {it} again",
    incomplete=True,
)  # fmt: skip
NO_SLICE = Reason(
    *("file named like a slice that is not DICOM", "files named like slices that are not DICOM"),
    *("copy {it} again", True),
)
UNFINISHED = Reason(
    "unfinished copy of a slice", "unfinished copies of slices", "copy {it} again", incomplete=True
)
PACKED_SLICE = Reason("compressed slice", "compressed slices", "unpack {it}", incomplete=True)

_CT_KINDS = {
    "a scout (localizer)": Reason("scout", "scouts"),
    "a screen save": Reason("screen save", "screen saves"),
    "a dose page": Reason("dose page", "dose pages"),
    "a protocol page": Reason("protocol page", "protocol pages"),
    "an intensity projection": Reason("intensity projection", "intensity projections"),
}
"""CT images that are no slices, by what `not_a_slice` says of one."""
_OBJECTS = {
    "1.2.840.10008.1.3.10": Reason("DICOMDIR", "DICOMDIR files"),
    "1.2.840.10008.5.1.4.1.1.481.3": Reason("RT structure set", "RT structure sets"),
    "1.2.840.10008.5.1.4.1.1.481.2": Reason("RT dose", "RT doses"),
    "1.2.840.10008.5.1.4.1.1.481.5": Reason("RT plan", "RT plans"),
    "1.2.840.10008.5.1.4.1.1.66.4": Reason("DICOM segmentation", "DICOM segmentations"),
    "1.2.840.10008.5.1.4.1.1.66.7": Reason("DICOM segmentation", "DICOM segmentations"),
    "1.2.840.10008.5.1.4.1.1.88": Reason("structured report", "structured reports"),
    "1.2.840.10008.5.1.4.1.1.11": Reason("presentation state", "presentation states"),
    "1.2.840.10008.5.1.4.1.1.104": Reason("document in DICOM", "documents in DICOM"),
    "1.2.840.10008.5.1.4.1.1.4": Reason("MR image", "MR images"),
    "1.2.840.10008.5.1.4.1.1.128": Reason("PET image", "PET images"),
    "1.2.840.10008.5.1.4.1.1.7": Reason("secondary capture", "secondary captures"),
}
"""Kinds of DICOM objects by the beginning of their SOP Class UIDs (PS3.4 annex B.5)."""


def object_reason(header: Dataset) -> Reason | None:
    """Why a DICOM object is left out; nothing where it is a CT slice.

    Args:
        header: of the object, or some of its attributes as in `SCAN_TAGS`.
    """
    said = not_a_slice(header)
    if not said:
        return None
    if said in _CT_KINDS:
        return _CT_KINDS[said]
    sop_class = sop_class_of(header)
    for beginning, reason in _OBJECTS.items():
        if sop_class == beginning or sop_class.startswith(f"{beginning}."):
            return reason
    if said.startswith("modality"):
        return Reason(f"CT image of {said}", f"CT images of {said}")
    name = known_name(sop_class).removesuffix(" Storage")
    kind = f"({name})" if name else "of a private or unknown kind"
    return Reason(f"other DICOM object {kind}", f"other DICOM objects {kind}")


def kind_reason(kind: FileKind) -> Reason:
    """Why a file that is neither DICOM nor NIfTI is left out."""
    return Reason(kind.one, kind.many, kind.remedy)


class Tally:
    """Files left out, counted by reason as they are found."""

    def __init__(self) -> None:
        self._files: dict[Reason, list[Path]] = defaultdict(list)

    def add(self, reason: Reason, *files: Path) -> None:
        """Count files."""
        self._files[reason] += files

    def all(self) -> tuple[LeftOut, ...]:
        """Every reason, those that make a scan incomplete first, then the most frequent."""
        found = [LeftOut(why, tuple(files)) for why, files in self._files.items() if files]
        return tuple(sorted(found, key=lambda o: (not o.incomplete, -len(o.files), o.why.one)))


def in_words(left_out: Iterable[LeftOut]) -> str:
    """All reasons with their counts; of silent ones only where there are no others.

    Example:
        >>> in_words([LeftOut(SECOND_NAME, (Path("a"),)), LeftOut(OWN, (Path("manifest.json"),))])
        '1 second name of a file or folder that is here already'
    """
    found = list(left_out)
    told = [each for each in found if not each.why.silent]
    return "; ".join(map(str, told or found))


INCOMPLETE = "warning: a scan may be incomplete, left out"


def lines(left_out: Iterable[LeftOut], of: str = "") -> list[str]:
    """One line for what was left out and one for what a scan may lack, where there is any.

    Args:
        of: which scans are meant, where a command has several.
    """
    told = [each for each in left_out if not each.why.silent]
    harmless = in_words(each for each in told if not each.incomplete)
    lost = in_words(each for each in told if each.incomplete)
    where = f" of the {of}" if of else ""
    return [
        *([f"left out{where}: {harmless}"] if harmless else []),
        *([f"{INCOMPLETE}{where}: {lost}"] if lost else []),
    ]
