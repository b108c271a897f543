"""Census of the scans of a study: every series of a tree with its facts, and what was left out."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError, SeriesError, UsageError
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.text import did_you_mean
from cvsct.core.volume import Acquisition
from cvsct.evaluation.features.identity import without_repeats
from cvsct.io.catalog import Catalog, catalog
from cvsct.io.dicom.header import MAX_FILE_BYTES, MAX_MULTIFRAME_BYTES, read_dataset, text
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.left_out import BESIDE_DICOM
from cvsct.io.mask_files import MaskFile, find_mask_files, match_masks
from cvsct.io.nifti.header import is_nifti
from cvsct.io.scan_record import ScanGroup, ScanRecord, record_of
from cvsct.io.series import open_headers
from cvsct.methods.spectrum.patches import agent_given
from cvsct.study.measure import series_key

TABLE_COLUMNS = (
    "path", "patient", "site", "manufacturer", "model", "kernel", "kvp", "thickness_mm", "contrast",
)  # fmt: skip
"""Columns of a table of scanners; `path` is of the scan, relative to the scans' folder."""

MASK_KINDS = ("RT structure set", "DICOM segmentation", "NIfTI label map")
CONTRAST = {1.0: "yes", 0.0: "no"}


@dataclass(frozen=True)
class StudySeries:
    """A series of a study, as far as its headers and the table of scanners tell.

    Args:
        record: patient, site, scanner and identifiers.
        site: Institution Name, or the first folder under the scans if it holds several patients.
        study_date: `YYYYMMDD`; empty where it is not told.
        description: Series Description.
        n_slices: number of slices.
        thickness_mm, spacing_mm: slice thickness and distance between slices; 0 where unknown.
        pixel_mm: spacing between rows; 0 where unknown.
        contrast: `yes`, `no`, or empty where it is not told.
        masks: mask files that belong to it.
        refused: why it cannot be read; empty where it can.
    """

    record: ScanRecord
    site: str = ""
    study_date: str = ""
    description: str = field(default="", repr=False)
    n_slices: int = 0
    thickness_mm: float = 0.0
    spacing_mm: float = 0.0
    pixel_mm: float = 0.0
    contrast: str = ""
    masks: tuple[MaskFile, ...] = field(default=(), repr=False)
    refused: str = ""

    @property
    def files(self) -> SeriesFiles:
        """Its files."""
        assert isinstance(self.record.scan, SeriesFiles)
        return self.record.scan

    @property
    def acquisition(self) -> Acquisition:
        """Scanner, kernel and tube voltage."""
        return self.record.acquisition

    @property
    def patient(self) -> str:
        """Patient ID, or the name of a NIfTI file."""
        return self.record.patient_id

    @property
    def is_nifti(self) -> bool:
        """Whether it is a NIfTI file."""
        return is_nifti(self.files.files[0])

    @property
    def key(self) -> str:
        """Name of the series in the study's folders."""
        return series_key(self.files)


@dataclass(frozen=True)
class StudyCensus:
    """All series under a path.

    Args:
        series: in the order of their paths.
        left_out: files that are no scan, with the reason of each.
    """

    series: tuple[StudySeries, ...]
    left_out: tuple[tuple[Path, str], ...]


def take_census(
    scans: Path,
    masks: Sequence[Path] = (),
    *,
    mask_pattern: str = "",
    table: Path | None = None,
    note: Note = log_note,
    progress: Progress = silent,
) -> StudyCensus:
    """Find all series under a path, with their masks; only headers are read.

    NIfTI files are scans where the table names them, or where their folder (the first under
    `scans`) holds no DICOM.

    Args:
        scans: folder of scans of all scanners.
        masks: files or folders of masks; empty for the masks among the scans.
        mask_pattern: as in `extract_features`.
        table: CSV file with `TABLE_COLUMNS`, of which `path` is needed; what it tells goes before
            the headers.
        note: called with each remark.
        progress: called with `(task, done, total)`.

    Raises:
        UsageError: if a path does not exist, or the table has other columns or names other files.
        SeriesError: if there is no series.
    """
    told = _read_table(table, scans, note) if table is not None else {}
    contents = catalog(scans)
    for remark in contents.notes:
        note(remark)
    found = list(contents.series)
    for path in _nifti_beside_dicom(contents, scans, told):
        with contextlib.suppress(SeriesError):  # a mask, or another image that is no CT
            found += catalog(path).series
    admitted = {file for files in found for file in files.files}
    left_out = [
        (file, group.why.one)
        for group in contents.left_out
        for file in group.files
        if file not in admitted
    ]
    records = []
    for number, files in enumerate(found):
        progress("headers", number, len(found))
        records.append(record_of(files, scans))
    progress("headers", len(found), len(found))
    _refuse_unknown(table, told, records, scans)
    records = without_repeats(records, note)
    shared = _shared_folders(records)
    series = [_described(record, told.get(record.path, {}), shared) for record in records]
    among = [
        file
        for group in contents.left_out
        if group.why.one in MASK_KINDS or group.why == BESIDE_DICOM
        for file in group.files
        if file not in admitted
    ]
    series = _with_masks(series, list(masks) or among, mask_pattern, note)
    ordered = sorted(series, key=lambda each: (each.record.path, each.record.own_uid))
    return StudyCensus(tuple(ordered), tuple(sorted(left_out)))


def _nifti_beside_dicom(contents: Catalog, scans: Path, told: Mapping[str, Any]) -> list[Path]:
    """NIfTI scans among the files that a tree with DICOM leaves out."""
    with_dicom = {_first_folder(file, scans) for series in contents.series for file in series.files}
    return [
        file
        for group in contents.left_out
        if group.why == BESIDE_DICOM
        for file in group.files
        if _relative(file, scans) in told
        or (_first_folder(file, scans) and _first_folder(file, scans) not in with_dicom)
    ]


def _relative(file: Path, scans: Path) -> str:
    root = scans if scans.is_dir() else scans.parent
    return file.absolute().relative_to(root.absolute()).as_posix()


def _first_folder(file: Path, scans: Path) -> str:
    parts = Path(_relative(file, scans)).parts
    return parts[0] if len(parts) > 1 else ""


def _read_table(path: Path, scans: Path, note: Note) -> dict[str, dict[str, str]]:
    """Rows of a table of scanners by the path of the scan; files that are not there are noted.

    Raises:
        UsageError: naming the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV ({error})") from None
    unknown = [name for name in names if name not in TABLE_COLUMNS]
    if "path" not in names or unknown:
        wrong = f"column {unknown[0]!r}" if unknown else "no column path"
        near = did_you_mean(unknown[0], TABLE_COLUMNS) if unknown else ""
        raise UsageError(f"{path}: {wrong}; {near}it may have {', '.join(TABLE_COLUMNS)}")
    by_path: dict[str, dict[str, str]] = {}
    absent: list[str] = []
    for line, row in rows:
        values = {name: (row.get(name) or "").strip() for name in names}
        where = f"{path}, line {line}"
        for name in ("kvp", "thickness_mm"):
            if values.get(name):
                _positive(values[name], f"{where}: {name}")
        if values.get("contrast", "") not in ("", "yes", "no"):
            raise UsageError(f"{where}: contrast {values['contrast']!r}, expected yes, no or empty")
        if not values["path"] or ".." in Path(values["path"]).parts:
            raise UsageError(f"{where}: {values['path']!r} is no path under {scans}")
        name = Path(values["path"]).as_posix()
        if name in by_path:
            raise UsageError(f"{where}: {name!r} again; remove one of the two lines")
        if (scans / name).exists():
            by_path[name] = values
        else:
            absent.append(f"{name} (line {line})")
    if rows and not by_path:
        raise UsageError(f"{path}: none of its files is under {scans}, the first is {absent[0]}")
    if absent:
        note(
            f"{path.name}: {len(absent)} of its files are not there: {', '.join(absent[:3])}"
            f"{', ...' if len(absent) > 3 else ''}"
        )
    return by_path


def _positive(value: str, what: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < 1000:
        raise UsageError(f"{what} {value!r}, expected a number above 0")
    return number


def _refuse_unknown(
    table: Path | None, told: Mapping[str, Any], records: Sequence[ScanRecord], scans: Path
) -> None:
    unused = sorted(set(told) - {record.path for record in records})
    if unused:
        raise UsageError(
            f"{table}: {unused[0]!r} is no scan; name a NIfTI file, or the folder of one DICOM "
            f"series, under {scans}"
        )


def _shared_folders(records: Sequence[ScanRecord]) -> frozenset[str]:
    """Folders under the scans that hold several patients; any other is a patient's, and no site."""
    patients: dict[str, set[str]] = {}
    for record in records:
        patients.setdefault(record.folder, set()).add(record.patient_id)
    return frozenset(folder for folder, names in patients.items() if len(names) > 1)


def _described(record: ScanRecord, told: Mapping[str, str], shared: frozenset[str]) -> StudySeries:
    """A series by its headers, and what the table tells of it.

    Args:
        shared: folders of several patients.
    """
    acquisition = record.acquisition
    acquisition = Acquisition(
        told.get("manufacturer") or acquisition.manufacturer,
        told.get("model") or acquisition.model,
        told.get("kernel") or acquisition.kernel,
        float(told.get("kvp") or acquisition.kvp),
    )
    record = replace(record, acquisition=acquisition)
    if told.get("patient"):
        record = replace(record, patient_id=told["patient"])
    series = StudySeries(
        record,
        site=told.get("site")
        or record.institution
        or (record.folder if record.folder in shared else ""),
        contrast=told.get("contrast", ""),
        refused=record.error,
    )
    assert isinstance(record.scan, SeriesFiles)
    if record.error:
        return series
    try:
        opened = open_headers(record.scan)
    except CvsctError as error:
        return replace(series, refused=str(error), n_slices=record.scan.n_slices)
    geometry = opened.geometry
    described = replace(
        series,
        n_slices=len(opened),
        thickness_mm=geometry.thickness_mm,
        spacing_mm=round(geometry.spacing_mm, 4) if len(opened) > 1 else 0.0,
        pixel_mm=geometry.pixel_mm[0],
    )
    if is_nifti(record.scan.files[0]):  # which tells no thickness
        own_mm = float(told.get("thickness_mm") or described.spacing_mm)
        return replace(described, thickness_mm=own_mm)
    return _with_header(described)


def _with_header(series: StudySeries) -> StudySeries:
    """With what one DICOM header tells beside geometry and scanner."""
    limit = MAX_MULTIFRAME_BYTES if series.files.frames else MAX_FILE_BYTES
    try:
        header = read_dataset(series.files.files[0], pixels=False, limit_bytes=limit)
    except SeriesError:
        return series
    return replace(
        series,
        study_date=text(header, "StudyDate")[:8],
        description=text(header, "SeriesDescription")[:64],
        contrast=series.contrast or CONTRAST.get(agent_given(header), ""),
    )


def _with_masks(
    series: Sequence[StudySeries], masks: Sequence[Path], pattern: str, note: Note
) -> list[StudySeries]:
    """The series with their mask files."""
    if not masks:
        return list(series)
    files = find_mask_files(masks, note)
    groups = [ScanGroup((each.record,)) for each in series]
    sites = {each.record.own_uid: each.site for each in series}
    matched = match_masks(files, groups, sites, pattern, note)
    return [replace(each, masks=own) for each, own in zip(series, matched, strict=True)]
