"""What lies under a path: the CT series, and whatever was left out, with the reason.

Headers only. A scan that may be incomplete because a file was lost is told as such: nothing that
could be a part of a scan is passed over without a word.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom import Dataset

from cvsct.core.errors import CvsctError, SeriesError, UsageError
from cvsct.io.dicom.header import (
    CT_IMAGE,
    ENHANCED_CT,
    MAX_MULTIFRAME_BYTES,
    SCAN_TAGS,
    is_dicom,
    is_uid,
    label,
    media_class_of,
    not_a_slice,
    read_dataset,
    text,
    whole,
)
from cvsct.io.dicom.repeated import mark_repeated
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.file_kinds import FileKind, kind_of
from cvsct.io.left_out import (
    BESIDE_DICOM,
    UNREADABLE,
    LeftOut,
    Reason,
    Tally,
    in_words,
    kind_reason,
    object_reason,
)
from cvsct.io.lost_slices import Neighbors, lost_slices
from cvsct.io.nifti.header import is_nifti, not_a_scan, read_nifti_header
from cvsct.io.nifti.read import open_nifti
from cvsct.io.nifti.write import named_alone
from cvsct.io.walk import walk

logger = logging.getLogger(__name__)

_DICOM_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}


@dataclass(frozen=True)
class Catalog:
    """The CT series under a path, and what else is there.

    Args:
        series: those that must be refused among them.
        left_out: files that are not read, by reason.
        repeated: SOP Instance UIDs that more than one CT file has.
        notes: what else a user should know, one line each.
    """

    series: tuple[SeriesFiles, ...]
    left_out: tuple[LeftOut, ...] = ()
    repeated: frozenset[str] = field(default=frozenset(), repr=False)
    notes: tuple[str, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Whether some scan may lack slices, or is lacking altogether."""
        return any(each.incomplete for each in self.left_out)


def catalog(path: Path) -> Catalog:
    """Find the CT series in a DICOM or NIfTI file, a series folder, or a tree that holds many.

    Linked folders are followed, hidden files and folders are not looked at. Files of other kinds,
    and DICOM that is no CT slice (scouts, dose pages, other modalities), are left out; so is NIfTI
    where there is DICOM too: masks and conversions lie beside the scans they belong to.

    Raises:
        UsageError: if there is no such file or folder.
        SeriesError: if nothing of it is a CT slice.
    """
    if not path.is_file() and not path.is_dir():
        raise UsageError(f"{path}: no such file or folder; name a CT series or a folder of them")
    tally = Tally()
    files = walk(path, tally)
    scans = [file for file in files if is_nifti(file)]
    found = _Dicom(path, tally)
    for file in files:
        if not is_nifti(file):
            found.add(file)
    found.count_foreign()
    series = found.series()
    if series and scans:
        tally.add(BESIDE_DICOM, *scans)
    elif scans:
        series = _nifti_series(path, scans, tally)
    everything = tally.all()
    left_out = tuple(each for each in everything if not each.why.silent)
    if not series and not found.damaged:
        raise SeriesError(_nothing_found(path, everything))
    repeated = frozenset(uid for uid, count in found.uids.items() if count > 1)
    for each in left_out:
        logger.info("left out while looking for CT series: %s", each)
    marked = named_alone(mark_repeated([*series, *found.damaged], repeated))
    return Catalog(tuple(marked), left_out, repeated, found.notes(marked))


def find_series(path: Path) -> list[SeriesFiles]:
    """The CT series under a path, as `catalog` finds them; what was left out goes into the log.

    Raises:
        UsageError: if there is no such file or folder.
        SeriesError: if nothing of it is a CT slice.
    """
    return list(catalog(path).series)


class _Dicom:
    """DICOM files of one path, sorted into series, objects of other kinds, and what is damaged.

    Args:
        path: where they lie; of a single file every fault is an error.
    """

    def __init__(self, path: Path, tally: Tally) -> None:
        self.damaged: list[SeriesFiles] = []
        self.uids: Counter[str] = Counter()
        self._path, self._tally = path, tally
        self._groups: dict[str, list[Path]] = defaultdict(list)
        self._frames: dict[Path, int] = {}
        self._counted: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        self._neighbors = Neighbors()
        self._foreign: dict[Path, FileKind] = {}

    def add(self, file: Path) -> None:
        """Sort a file in.

        Raises:
            SeriesError: if it is the path itself, and is not sound.
        """
        alone = self._path.is_file()
        if not alone and not is_dicom(file) and file.suffix.lower() not in _DICOM_SUFFIXES:
            try:
                self._foreign[file] = kind_of(file)
            except OSError:
                self._tally.add(UNREADABLE, file)
            return
        try:
            header = read_dataset(
                file, pixels=False, tags=SCAN_TAGS, limit_bytes=MAX_MULTIFRAME_BYTES
            )
            _refuse_cut(file, header)
        except SeriesError as error:
            if alone:
                raise
            self.damaged.append(SeriesFiles("", (file,), refused=str(error)))
            return
        reason = object_reason(header)
        if reason and alone:
            raise SeriesError(
                f"{label(file)}: {not_a_slice(header)}, expected a CT slice; name an axial CT "
                "series"
            )
        self._neighbors.add(file, is_slice=reason is None)
        if reason:
            self._tally.add(reason, file)
        else:
            self._take(file, header)

    def _take(self, file: Path, header: Dataset) -> None:
        uid = text(header, "SeriesInstanceUID")
        if not uid:
            self.damaged.append(SeriesFiles("", (file,)))
            return
        self._groups[uid].append(file)
        self.uids[text(header, "SOPInstanceUID")] += 1
        if text(header, "SOPClassUID") in ENHANCED_CT:
            self._frames[file] = max(whole(header, "NumberOfFrames") or 1, 1)
        self._counted[uid].add(
            tuple(
                whole(header, keyword) or 0
                for keyword in (
                    "AcquisitionNumber", "ImagesInAcquisition", "NumberOfSeriesRelatedInstances"
                )
            )
        )  # fmt: skip

    def count_foreign(self) -> None:
        """Count what is no DICOM, once it is known how slices are named here."""
        for file, reason in lost_slices(self._foreign, self._neighbors):
            self._tally.add(reason or kind_reason(self._foreign[file]), file)

    def series(self) -> list[SeriesFiles]:
        """The series, in the order of their UIDs."""
        return [
            SeriesFiles(
                uid if is_uid(uid) else "",  # it may hold anything, and is refused when opened
                tuple(sorted(group)),
                self._frames.get(group[0], 0) if len(group) == 1 else 0,
            )
            for uid, group in sorted(self._groups.items())
        ]

    def notes(self, series: Sequence[SeriesFiles]) -> tuple[str, ...]:
        """One line on series whose headers count more images than there are files."""
        short = [
            (number, len(each.files), declared)
            for number, each in enumerate(series, 1)
            if not each.frames
            and (declared := _declared(self._counted.get(each.series_uid, set()))) > len(each.files)
        ]
        if not short:
            return ()
        number, there, declared = short[0]
        which = f"series {number} holds {there} images of the {declared} that its headers count"
        more = f" ({len(short) - 1} more like it)" if len(short) > 1 else ""
        return (f"{which}{more}; it may have been exported in part",)


def _declared(counts: set[tuple[int, ...]]) -> int:
    """How many images a series has by its headers; 0 where they do not say or do not agree.

    Images in Acquisition counts those of a series only where there is one acquisition.
    """
    if len(counts) != 1:
        return 0
    _, of_acquisition, of_series = next(iter(counts))
    return of_series or of_acquisition


def _refuse_cut(file: Path, header: Dataset) -> None:
    """Refuse a header that ends before it says what the object is: every object must.

    Raises:
        SeriesError: naming what is missing.
    """
    said = text(header, "SOPClassUID")
    if said != CT_IMAGE and CT_IMAGE.startswith(said):
        said = media_class_of(header)  # absent, or cut within it
    cut = said != CT_IMAGE and CT_IMAGE.startswith(said)
    if cut and "DirectoryRecordSequence" not in header:
        missing = "SOP Class UID"
    elif said in (CT_IMAGE, *ENHANCED_CT) and text(header, "Modality") in ("", "C"):
        missing = "Modality"
    else:
        return
    raise SeriesError(
        f"{label(file)}: header cut short (no {missing}); copy the file again from its source"
    )


def _nifti_series(path: Path, scans: list[Path], tally: Tally) -> list[SeriesFiles]:
    """NIfTI files as series of one file; what cannot be opened stands alone, to be refused.

    So do files that hold the same bytes, for no two scans do.
    """
    found: list[SeriesFiles] = []
    for file in scans:
        try:
            reason = not_a_scan(read_nifti_header(file)[0]) if path.is_dir() else ""
            if reason:
                tally.add(_nifti_reason(reason), file)
                continue
            stack = open_nifti(file)
        except CvsctError as error:
            if path.is_file():
                raise
            found.append(SeriesFiles("", (file,), frames=1, refused=str(error)))
            continue
        found.append(SeriesFiles(stack.series_uid, (file,), len(stack)))
    return list(_refuse_copies(found))


def _nifti_reason(said: str) -> Reason:
    """Why a NIfTI file is no scan, from what `not_a_scan` says of one."""
    kind = said.removeprefix("a ").removeprefix("an ")
    if kind == "label map":
        return Reason("NIfTI label map", "NIfTI label maps")
    return Reason(f"NIfTI {kind}", f"NIfTI {kind.replace('image', 'images', 1)}")


def _refuse_copies(series: Sequence[SeriesFiles]) -> Iterator[SeriesFiles]:
    """The series, those refused that hold the same bytes as another."""
    copies: dict[str, list[Path]] = defaultdict(list)
    for each in series:
        if each.series_uid:
            copies[each.series_uid].append(each.files[0])
    for each in series:
        file = each.files[0]
        others = [other for other in copies[each.series_uid] if other != file]
        if not each.series_uid or not others:
            yield each
            continue
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield replace(
            each,
            series_uid="",
            refused=f"{label(file)}: holds the same bytes as {label(others[0])}{more}, and no two "
            "scans do; remove all but one, or copy each patient's scan again",
        )


def _nothing_found(path: Path, left_out: Sequence[LeftOut]) -> str:
    return (
        f"{path}: no CT series here ({in_words(left_out) or 'the folder is empty'}); "
        "name a folder that holds CT as DICOM or NIfTI files"
    )
