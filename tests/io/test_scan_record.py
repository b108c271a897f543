"""Records of scans: the acquiring scanner and the source of a derived series."""

from __future__ import annotations

import json
from pathlib import Path

from cvsct.io.read import find_series
from cvsct.io.scan_record import ScanRecord, group_by_source, record_of
from tests.support.dicom_files import DERIVATION
from tests.support.feature_scans import harmonize_series, write_patient


def record_in(folder: Path) -> ScanRecord:
    (series,) = find_series(folder)
    return record_of(series, folder.parent)


def test_a_derived_series_has_its_acquiring_scanner_and_its_source(tmp_path: Path) -> None:
    source = write_patient(tmp_path / "source", "P1", 1, "Clinic", "K7")
    derived = record_in(harmonize_series(source, tmp_path / "out" / "x"))
    original = record_in(source)
    assert derived.is_derived
    assert derived.acquisition == original.acquisition
    assert derived.acquisition.scanner == "Maker Scanner"
    assert derived.series_uid == original.series_uid
    assert derived.derived_uid == derived.own_uid != original.own_uid
    assert derived.harmonized_to == DERIVATION.target
    assert derived.model_sha256 == DERIVATION.model_sha256
    assert (derived.patient_id, derived.institution) == ("P1", "Clinic")


def test_the_source_is_found_by_its_images_where_the_uid_map_is_lost(tmp_path: Path) -> None:
    write_patient(tmp_path / "other", "P2", 2)
    source = write_patient(tmp_path / "source", "P1", 1)
    derived = harmonize_series(source, tmp_path / "pacs" / "x")
    (derived / "uid_map.json").unlink()
    records = [record_in(folder) for folder in (tmp_path / "other", derived, source)]
    assert records[1].series_uid == ""
    other, group = group_by_source(records)
    assert len(other.records) == 1
    assert [record.is_derived for record in group.records] == [False, True]
    assert {record.series_uid for record in group.records} == {"1.2.826.1.3"}


def test_the_verdict_of_the_guard_comes_from_the_manifest(tmp_path: Path) -> None:
    source = write_patient(tmp_path / "source", "P1", 1)
    derived = harmonize_series(source, tmp_path / "out" / "x")
    uid = record_in(derived).own_uid
    row = {"derived_series_uid": uid, "guard": {"scan": {"kind": "at_target"}}}
    manifest = {"command": "harmonize", "figures": {"series": [row]}}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert record_in(derived).guard_verdict == "at_target"
    assert record_in(source).guard_verdict == ""


def test_a_series_that_cannot_be_read_keeps_its_error(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "source", "P1", 1)
    for file in sorted(folder.iterdir())[1:]:
        file.unlink()
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:300])
    (series,) = find_series(folder)
    assert record_of(series, folder).error
