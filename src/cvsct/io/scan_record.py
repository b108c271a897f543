"""Records of scans for tables of many patients: who was scanned, where, on which scanner.

A record comes from one header. A series that this program derived names its software as
Manufacturer; its record has the acquiring scanner (Contributing Equipment, purpose 109101) and the
series it was derived from. `group_by_source` puts each source series and all that was derived from
it into one `ScanGroup`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom import Dataset

from cvsct.core.errors import CvsctError, one_line
from cvsct.core.manifest import MANIFEST
from cvsct.core.volume import Acquisition, CTVolume
from cvsct.io.dicom.derive import is_derived_here
from cvsct.io.dicom.header import MAX_FILE_BYTES, MAX_MULTIFRAME_BYTES, read_dataset, text
from cvsct.io.dicom.references import source_images
from cvsct.io.dicom.stack import SeriesFiles, acquisition_of, patient_of
from cvsct.io.dicom.uids import uid_of
from cvsct.io.nifti.header import is_nifti
from cvsct.io.nifti.resampled import is_resampled
from cvsct.io.nifti.write import RESAMPLED
from cvsct.io.provenance import MADE_LIKE, acquired_by, read_uid_map
from cvsct.io.read import read_series
from cvsct.io.series import input_path, is_harmonized, open_headers

_MODEL = re.compile(r"Model .*?sha256 ([0-9a-f]{64}); configuration", re.DOTALL)
MAX_LABEL_CHARS = 128


@dataclass(frozen=True)
class ScanRecord:
    """One series: its patient, site, scanner and, where it was harmonized, its source.

    Args:
        scan: the files of the series, or a volume in memory.
        path: path of the series relative to the folder it was found under.
        folder: name of the first folder under that one, or of that one itself.
        patient_id: Patient ID, the name of a NIfTI file, or for an unnamed patient a hash.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID of the series, or of its source where it was derived; empty
            where the source is unknown.
        derived_uid: Series Instance UID of a derived series; empty for a source.
        institution: Institution Name.
        frame_of_reference: Frame of Reference UID.
        acquisition: scanner, kernel and tube voltage of the acquisition.
        harmonized_to: scanners that a derived series was made to look like.
        model_sha256: SHA-256 of the model that derived it.
        guard_verdict: verdict of the model's guard on its source, from the manifest beside it.
        source_image: SOP Instance UID of the first image that it was derived from.
        error: why its header could not be read; empty otherwise.
    """

    scan: SeriesFiles | CTVolume = field(repr=False)
    path: str = field(default="", repr=False)
    folder: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    study_uid: str = ""
    series_uid: str = ""
    derived_uid: str = ""
    institution: str = field(default="", repr=False)
    frame_of_reference: str = ""
    acquisition: Acquisition = field(default_factory=Acquisition)
    harmonized_to: str = ""
    model_sha256: str = ""
    guard_verdict: str = ""
    source_image: str = ""
    error: str = ""

    @property
    def own_uid(self) -> str:
        """Series Instance UID of the series itself, or the name of a volume that has none."""
        if isinstance(self.scan, CTVolume):
            return self.derived_uid or self.scan.series_uid or self.series_uid
        return self.scan.series_uid

    @property
    def is_derived(self) -> bool:
        """Whether this program harmonized the series; thicker slices are still a source."""
        return bool(self.derived_uid)

    @property
    def name(self) -> str:
        """Name of a NIfTI file without its suffix, or of the folder of a DICOM series."""
        if isinstance(self.scan, CTVolume):
            return ""
        return self.scan.name or self.scan.files[0].parent.name

    @property
    def stamp(self) -> str:
        """Text that changes when the files of the series, or the voxels in memory, change."""
        if isinstance(self.scan, CTVolume):
            return hashlib.sha256(np.ascontiguousarray(self.scan.hu).data).hexdigest()
        stats = [(file.name, file.stat()) for file in self.scan.files]
        return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])

    def read(self) -> CTVolume:
        """Read the series as a volume.

        Raises:
            CvsctError: if it cannot be read.
        """
        return self.scan if isinstance(self.scan, CTVolume) else read_series(self.scan)


@dataclass(frozen=True)
class ScanGroup:
    """A source series and the series that were derived from it.

    Args:
        records: the source first, where it is known; then what was derived from it.
    """

    records: tuple[ScanRecord, ...]

    @property
    def first(self) -> ScanRecord:
        """The source, or where it is not among the scans the first derived series."""
        return self.records[0]


def record_of(series: SeriesFiles, root: Path) -> ScanRecord:
    """The record of a series from one header; a header that cannot be read gives its error.

    Args:
        root: folder or file that the series was found under.
    """
    path = input_path(series, root.absolute())
    parts = Path(path).parts
    inner = root.is_dir() and len(parts) > 1
    record = ScanRecord(
        series, path, parts[0] if inner else root.absolute().name, series_uid=series.series_uid
    )
    try:
        if series.refused or is_nifti(series.files[0]):
            return _nifti_record(record, series)
        limit = MAX_MULTIFRAME_BYTES if series.frames else MAX_FILE_BYTES
        header = read_dataset(series.files[0], pixels=False, limit_bytes=limit)
        return _dicom_record(record, series, header)
    except CvsctError as error:
        return replace(record, error=str(error))


def record_of_volume(volume: CTVolume, number: int) -> ScanRecord:
    """The record of a volume in memory, a scan or what was harmonized from one.

    Args:
        number: number of the volume, from 1, which names a patient whose headers name none; of a
            harmonized volume that of its source.
    """
    record = _record_of_scan(volume, number)
    if volume.harmonization is None:
        return record
    by = volume.harmonization
    return replace(
        record,
        derived_uid=by.derived_uid
        if volume.series_uid
        else uid_of("series", record.series_uid, by.derived_uid),
        harmonized_to=by.target,
        model_sha256=by.model_sha256,
        guard_verdict=by.verdict,
    )


def _record_of_scan(volume: CTVolume, number: int) -> ScanRecord:
    if volume.headers:
        series = SeriesFiles(volume.series_uid, ())
        record = _dicom_record(ScanRecord(volume), series, volume.headers[0])
        return replace(record, path=f"volume-{number}")
    return ScanRecord(
        volume,
        f"volume-{number}",
        patient_id=volume.patient or f"volume-{number}",
        series_uid=volume.series_uid or f"volume-{number}",
        frame_of_reference=volume.geometry.frame_of_reference,
        acquisition=volume.acquisition,
    )


def group_by_source(records: Sequence[ScanRecord]) -> list[ScanGroup]:
    """Group each source series with the series that were derived from it, in the order given.

    A derived series knows its source by the UID map beside it, or else by the image that its
    header names; one whose source is not among the records is in a group without a source.
    """
    sources = {record.own_uid: record for record in records if not record.is_derived}
    members: dict[str, list[ScanRecord]] = {}
    for index, record in enumerate(records):
        if not record.is_derived:
            members.setdefault(record.own_uid or f"unnamed-{index}", []).insert(0, record)
            continue
        if record.series_uid not in sources:
            source = _source_by_image(record, list(sources.values()))
            source_uid = source.own_uid if source else record.series_uid
        else:
            source_uid = record.series_uid
        derived = replace(record, series_uid=source_uid)
        members.setdefault(source_uid or f"derived-{record.own_uid}", []).append(derived)
    return [
        ScanGroup(tuple(_completed(record, group[0]) for record in group))
        for group in members.values()
    ]


def _completed(record: ScanRecord, source: ScanRecord) -> ScanRecord:
    """A derived record with the facts that only its source's header may tell."""
    if source.is_derived or not record.is_derived:
        return record
    return replace(
        record,
        patient_id=source.patient_id,
        study_uid=source.study_uid,
        institution=source.institution,
        folder=source.folder,
        acquisition=source.acquisition,
    )


def _source_by_image(derived: ScanRecord, sources: Sequence[ScanRecord]) -> ScanRecord | None:
    """The source that holds the image which a derived series names."""
    if not derived.source_image:
        return None
    for source in sources:
        if source.study_uid != derived.study_uid or isinstance(source.scan, CTVolume):
            continue
        for file in source.scan.files:
            try:
                header = read_dataset(file, pixels=False, tags=["SOPInstanceUID"])
            except CvsctError:
                continue
            if text(header, "SOPInstanceUID") == derived.source_image:
                return source
    return None


def _dicom_record(record: ScanRecord, series: SeriesFiles, header: Dataset) -> ScanRecord:
    record = replace(
        record,
        patient_id=_text(header, "PatientID") or patient_of(header),
        study_uid=text(header, "StudyInstanceUID"),
        series_uid=record.own_uid,
        institution=_text(header, "InstitutionName"),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        acquisition=acquisition_of(header),
    )
    if not is_derived_here(header):
        if series.frames:
            opened = open_headers(series)
            record = replace(
                record,
                acquisition=opened.acquisition,
                frame_of_reference=opened.geometry.frame_of_reference,
            )
        return record
    derivation = text(header, "DerivationDescription")
    source_images_named = source_images(header)
    return replace(
        _with_source(record, series),
        acquisition=acquired_by(header),
        harmonized_to=_first(MADE_LIKE, derivation),
        model_sha256=_first(_MODEL, derivation),
        source_image=source_images_named[0][0] if source_images_named else "",
    )


def _nifti_record(record: ScanRecord, series: SeriesFiles) -> ScanRecord:
    name = series.name or record.name
    record = replace(record, patient_id=name, error=series.refused)
    if series.refused:
        return record
    if not is_harmonized(series):
        resampled = is_resampled(series.files[0])
        return replace(record, patient_id=name.removesuffix(RESAMPLED)) if resampled else record
    derivation = str(read_uid_map(series.files[0].parent).get("derivation", ""))
    return replace(
        _with_source(record, series),
        harmonized_to=_first(MADE_LIKE, derivation),
        model_sha256=_first(_MODEL, derivation),
    )


def _with_source(record: ScanRecord, series: SeriesFiles) -> ScanRecord:
    """The record of a derived series, with its source by the UID map and its guard's verdict."""
    record = replace(record, derived_uid=series.series_uid or "unknown", series_uid="")
    if not series.files:
        return record
    folder = series.files[0].parent
    series_map = read_uid_map(folder).get("series", {})
    sources = [
        str(source)
        for source, derived in (series_map.items() if isinstance(series_map, Mapping) else ())
        if derived == series.series_uid or is_nifti(series.files[0])
    ]
    return replace(
        record,
        series_uid=sources[0] if len(sources) == 1 else "",
        guard_verdict=_guard_verdict(folder, record.derived_uid, sources),
    )


def _guard_verdict(folder: Path, derived_uid: str, sources: Sequence[str]) -> str:
    """Verdict on a scan in the manifest of `harmonize` above a derived series; empty if unknown."""
    for place in (folder, folder.parent):
        try:
            manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
            rows = manifest["figures"]["series"]
            for row in rows:
                known_as = {row.get("derived_series_uid"), row.get("source_series_uid")}
                if known_as & {derived_uid, *sources}:
                    scan = row.get("guard", {}).get("scan", {})
                    return one_line(str(scan.get("kind", scan.get("verdict", ""))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return ""


def _text(header: Dataset, keyword: str) -> str:
    return one_line(text(header, keyword))[:MAX_LABEL_CHARS]


def _first(pattern: re.Pattern[str], value: str) -> str:
    found = pattern.search(value)
    return one_line(found[1]) if found else ""
