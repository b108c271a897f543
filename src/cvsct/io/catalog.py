"""Catalog of a path: its CT series, and the files that are left out, with the reasons.

Only headers are read. A file that may be a lost slice of a scan is always reported.
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
    quiet,
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
    """The CT series under a path, and the other files there.

    Args:
        series: all of them, also those that must be refused.
        left_out: files that are not read, by reason.
        repeated: SOP Instance UIDs that several CT files share.
        notes: further remarks for the user, one line each.
    """

    series: tuple[SeriesFiles, ...]
    left_out: tuple[LeftOut, ...] = ()
    repeated: frozenset[str] = field(default=frozenset(), repr=False)
    notes: tuple[str, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Whether a scan may lack slices, or be missing altogether."""
        return any(files.incomplete for files in self.left_out)


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
    dicom = _DicomFiles(path, tally)
    with quiet():  # once for all attributes of all files
        for file in files:
            if not is_nifti(file):
                dicom.add(file)
        dicom.count_foreign()
    series = dicom.series()
    if series and scans:
        tally.add(BESIDE_DICOM, *scans)
    elif scans:
        series = _nifti_series(path, scans, tally)
    everything = tally.all()
    left_out = tuple(files for files in everything if not files.why.silent)
    if not series and not dicom.damaged:
        raise SeriesError(_nothing_found(path, everything))
    repeated = frozenset(uid for uid, count in dicom.uids.items() if count > 1)
    for excluded in left_out:
        logger.info("left out while looking for CT series: %s", excluded)
    marked = named_alone(mark_repeated([*series, *dicom.damaged], repeated))
    return Catalog(tuple(marked), left_out, repeated, dicom.notes(marked))


def find_series(path: Path) -> list[SeriesFiles]:
    """The CT series under a path, as `catalog` finds them; what was left out goes into the log.

    Raises:
        UsageError: if there is no such file or folder.
        SeriesError: if nothing of it is a CT slice.
    """
    return list(catalog(path).series)


class _DicomFiles:
    """DICOM files of one path, sorted into series, objects of other kinds, and damaged files.

    Args:
        path: folder of the files, or a single file, any fault of which is an error.
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
        """Sort one file into its series, or count it as left out.

        Raises:
            SeriesError: if the path is this single file, and it is not sound.
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
        """Count the files that are not DICOM, once the names of all slices are known."""
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
        """A note on series whose headers declare more images than there are files."""
        short = [
            (number, len(files.files), declared)
            for number, files in enumerate(series, 1)
            if not files.frames
            and (declared := _n_declared(self._counted.get(files.series_uid, set())))
            > len(files.files)
        ]
        if not short:
            return ()
        number, n_files, declared = short[0]
        remark = f"series {number} holds {n_files} images of the {declared} that its headers count"
        more = f" ({len(short) - 1} more like it)" if len(short) > 1 else ""
        return (f"{remark}{more}; it may have been exported in part",)


def _n_declared(counts: set[tuple[int, ...]]) -> int:
    """Number of images that the headers of a series declare; 0 if they do not or disagree.

    Images in Acquisition is the number of a series only if it has one acquisition.
    """
    if len(counts) != 1:
        return 0
    _, of_acquisition, of_series = next(iter(counts))
    return of_series or of_acquisition


def _refuse_cut(file: Path, header: Dataset) -> None:
    """Refuse a header that ends before its SOP Class or Modality, which every object has.

    Raises:
        SeriesError: naming what is missing.
    """
    sop_class = text(header, "SOPClassUID")
    if sop_class != CT_IMAGE and CT_IMAGE.startswith(sop_class):
        sop_class = media_class_of(header)  # absent, or cut within it
    cut = sop_class != CT_IMAGE and CT_IMAGE.startswith(sop_class)
    if cut and "DirectoryRecordSequence" not in header:
        missing = "SOP Class UID"
    elif sop_class in (CT_IMAGE, *ENHANCED_CT) and text(header, "Modality") in ("", "C"):
        missing = "Modality"
    else:
        return
    raise SeriesError(
        f"{label(file)}: header cut short (no {missing}); copy the file again from its source"
    )


def _nifti_series(path: Path, scans: list[Path], tally: Tally) -> list[SeriesFiles]:
    """NIfTI files as series of one file each, with a refusal for those that cannot be opened.

    Files that hold the same bytes are refused too, for no two scans do.
    """
    series: list[SeriesFiles] = []
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
            series.append(SeriesFiles("", (file,), frames=1, refused=str(error)))
            continue
        series.append(SeriesFiles(stack.series_uid, (file,), len(stack)))
    return list(_refuse_copies(series))


def _nifti_reason(objection: str) -> Reason:
    """The reason why a NIfTI file is left out, from the text that `not_a_scan` gives for it."""
    kind = objection.removeprefix("a ").removeprefix("an ")
    if kind == "label map":
        return Reason("NIfTI label map", "NIfTI label maps")
    return Reason(f"NIfTI {kind}", f"NIfTI {kind.replace('image', 'images', 1)}")


def _refuse_copies(series: Sequence[SeriesFiles]) -> Iterator[SeriesFiles]:
    """The series, with a refusal for those that hold the same bytes as another."""
    copies: dict[str, list[Path]] = defaultdict(list)
    for files in series:
        if files.series_uid:
            copies[files.series_uid].append(files.files[0])
    for files in series:
        file = files.files[0]
        others = [other for other in copies[files.series_uid] if other != file]
        if not files.series_uid or not others:
            yield files
            continue
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield replace(
            files,
            series_uid="",
            refused=f"{label(file)}: holds the same bytes as {label(others[0])}{more}, and no two "
            "scans do; remove all but one, or copy each patient's scan again",
        )


def _nothing_found(path: Path, left_out: Sequence[LeftOut]) -> str:
    return (
        f"{path}: no CT series here ({in_words(left_out) or 'the folder is empty'}); "
        "name a folder that holds CT as DICOM or NIfTI files"
    )
