"""Files among scans that are not read, counted by reason, and the lines that report them."""

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
"""Most files that a line on an incomplete scan names; it counts the others."""


@dataclass(frozen=True)
class Reason:
    """A reason why files are left out.

    Args:
        one: name of a single file, without article.
        many: name of several files.
        remedy: what to do with `{it}`; may be empty.
        incomplete: whether a scan may be incomplete because of it.
        silent: whether no line reports it, as for hidden files and files of this program.
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
        """The reason in words, in singular or plural."""
        return self.why.one if len(self.files) == 1 else self.why.many

    @property
    def remedy(self) -> str:
        """The remedy in words; may be empty."""
        return self.why.remedy.format(it="it" if len(self.files) == 1 else "them")

    @property
    def incomplete(self) -> bool:
        """Whether a scan may be incomplete because of these."""
        return self.why.incomplete

    def to_json(self) -> dict[str, Any]:
        """Reason, count and remedy as JSON values, which name no file."""
        return {
            "reason": self.why.one,
            "files": len(self.files),
            "remedy": self.remedy,
            "incomplete": self.incomplete,
        }

    def __str__(self) -> str:
        """Count, reason and remedy; the first files are named if a scan may be incomplete."""
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
"""CT images that are not slices, by the text that `not_a_slice` gives for them."""
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
    """The reason why a DICOM object is left out; None for a CT slice.

    Args:
        header: at least the attributes of `SCAN_TAGS`.
    """
    objection = not_a_slice(header)
    if not objection:
        return None
    if objection in _CT_KINDS:
        return _CT_KINDS[objection]
    sop_class = sop_class_of(header)
    for beginning, reason in _OBJECTS.items():
        if sop_class == beginning or sop_class.startswith(f"{beginning}."):
            return reason
    if objection.startswith("modality"):
        return Reason(f"CT image of {objection}", f"CT images of {objection}")
    name = known_name(sop_class).removesuffix(" Storage")
    kind = f"({name})" if name else "of a private or unknown kind"
    return Reason(f"other DICOM object {kind}", f"other DICOM objects {kind}")


def kind_reason(kind: FileKind) -> Reason:
    """The reason why a file that is neither DICOM nor NIfTI is left out."""
    return Reason(kind.one, kind.many, kind.remedy)


class Tally:
    """Files left out, counted by reason as they are found."""

    def __init__(self) -> None:
        self._files: dict[Reason, list[Path]] = defaultdict(list)

    def add(self, reason: Reason, *files: Path) -> None:
        """Count files."""
        self._files[reason] += files

    def all(self) -> tuple[LeftOut, ...]:
        """Files by reason: first those that make a scan incomplete, then the most frequent."""
        groups = [LeftOut(why, tuple(files)) for why, files in self._files.items() if files]
        return tuple(
            sorted(
                groups, key=lambda group: (not group.incomplete, -len(group.files), group.why.one)
            )
        )


def in_words(left_out: Iterable[LeftOut]) -> str:
    """All reasons with their counts; silent ones only if there are no others.

    Example:
        >>> in_words([LeftOut(SECOND_NAME, (Path("a"),)), LeftOut(OWN, (Path("manifest.json"),))])
        '1 second name of a file or folder that is here already'
    """
    groups = list(left_out)
    reported = [group for group in groups if not group.why.silent]
    return "; ".join(map(str, reported or groups))


INCOMPLETE = "warning: a scan may be incomplete, left out"


def lines(left_out: Iterable[LeftOut], of: str = "") -> list[str]:
    """A line on files that were left out, and one on files that a scan may lack, if there are any.

    Args:
        of: name of the scans, for a command that has several.
    """
    reported = [group for group in left_out if not group.why.silent]
    harmless = in_words(group for group in reported if not group.incomplete)
    lost = in_words(group for group in reported if group.incomplete)
    where = f" of the {of}" if of else ""
    return [
        *([f"left out{where}: {harmless}"] if harmless else []),
        *([f"{INCOMPLETE}{where}: {lost}"] if lost else []),
    ]
