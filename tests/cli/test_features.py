"""`cvsct features`: masks of three kinds, harmonized scans, failures, and a killed run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.commands import Run
from tests.support.dicom_files import DERIVATION
from tests.support.feature_scans import (
    harmonize_series,
    lesion,
    volume_in,
    write_nifti_mask,
    write_patient,
    write_rtstruct,
    write_seg,
)

MEAN = "original_firstorder_Mean"
SETTINGS = "setting:\n  binWidth: 25\nfeatureClass:\n  firstorder: ['Mean', 'Energy']\n"
ALWAYS = ("--no-cache", "--workers", "1")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(SETTINGS, encoding="utf-8")
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three patients of two sites, each with a mask of another kind; the first is harmonized."""
    scans, masks = tmp_path / "scans", tmp_path / "masks"
    first = write_patient(scans / "a" / "p1", "P1", 1, "Clinic A", "K1")
    second = write_patient(scans / "b" / "p2", "P2", 2, "Clinic B", "K2")
    third = write_patient(scans / "b" / "p3", "P3", 3, "Clinic B", "K2")
    masks.mkdir()
    write_seg(masks / "s.dcm", first)
    write_rtstruct(masks / "r.dcm", second)
    write_nifti_mask(masks / "P3_gtv.nii.gz", third)
    harmonize_series(first, tmp_path / "harmonized" / "x", shift_hu=5)
    return tmp_path


def wide(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "features_wide.csv", keep_default_na=False, na_values={MEAN: [""]})


def test_a_row_is_a_patient_a_region_and_a_stage(cohort: Path, settings: Path, run: Run) -> None:
    out = cohort / "out"
    code, printed, error = run(
        "features", cohort / "scans", cohort / "harmonized", "--masks", cohort / "masks",
        "--label", "1=lesion", "--settings", settings, "--out", out, *ALWAYS,
    )  # fmt: skip
    assert code == 0, error
    assert "4 rows of 2 features" in printed
    table = wide(out).set_index(["patient", "stage"])
    assert list(table.index) == [
        ("P1", "source"), ("P1", "harmonized"), ("P2", "source"), ("P3", "source")
    ]  # fmt: skip
    assert set(table["region"]) == {"lesion"}
    source, derived = table.loc[("P1", "source")], table.loc[("P1", "harmonized")]
    truth = volume_in(cohort / "scans" / "a" / "p1").hu[lesion()].astype(np.float64)
    assert source[MEAN] == pytest.approx(truth.mean(), rel=1e-12)
    assert derived[MEAN] - source[MEAN] == pytest.approx(5.0)
    for column in ("scanner", "kernel", "kvp", "batch", "site", "series_uid", "study_uid",
                   "voxels", "volume_mm3", "settings_sha256"):  # fmt: skip
        assert derived[column] == source[column]
    assert source["scanner"] == "Maker Scanner"
    assert (source["derived_uid"], source["model_sha256"]) == ("", "")
    assert derived["derived_uid"] not in ("", derived["series_uid"])
    assert derived["harmonized_to"] == DERIVATION.target
    assert derived["model_sha256"] == DERIVATION.model_sha256
    assert source["voxels"] == lesion().sum()
    assert source["volume_mm3"] == pytest.approx(lesion().sum() * 5.0 * 0.7**2)
    assert table.loc[("P3", "source")]["site"] == "Clinic B"
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["figures"]["n_rows"] == 4
    assert "P1" not in json.dumps(manifest)
    assert (out / "settings.yaml").read_text(encoding="utf-8").startswith("# PyRadiomics")
    assert len((out / "series.csv").read_text(encoding="utf-8").splitlines()) == 5


def test_harmonized_scans_alone_keep_masks_and_scanner(
    cohort: Path, settings: Path, run: Run
) -> None:
    code, _, error = run(
        "features", cohort / "harmonized", "--masks", cohort / "masks", "--structures", "les*",
        "--settings", settings, "--out", cohort / "out", *ALWAYS,
    )  # fmt: skip
    assert code == 0, error
    (row,) = wide(cohort / "out").to_dict("records")
    assert (row["stage"], row["scanner"], row["kernel"]) == ("harmonized", "Maker Scanner", "K1")
    assert row["series_uid"] == "1.2.826.1.3"


def test_what_fails_has_a_row_with_its_reason(cohort: Path, settings: Path, run: Run) -> None:
    masks, scans = cohort / "masks", cohort / "scans"
    one_voxel = np.zeros_like(lesion())
    one_voxel[2, 3, 4] = True
    fourth = write_patient(scans / "b" / "p4", "P4", 4)
    write_seg(masks / "one.dcm", fourth, one_voxel)
    fifth = write_patient(scans / "b" / "p5", "P5", 5)
    write_rtstruct(masks / "named.dcm", fifth, "heart")
    sixth = write_patient(scans / "b" / "p6", "P6", 6)
    crop = volume_in(sixth).select([0, 1])
    other_grid = crop.from_array(crop.hu, (5.0, 0.9, 0.9))
    write_nifti_of(masks / "P6_x.nii.gz", other_grid)
    write_patient(scans / "b" / "p7", "P7", 7)  # without a mask
    eighth = write_patient(scans / "b" / "p8", "P8", 8)
    for file in sorted(eighth.iterdir())[2:4]:
        file.unlink()  # slices that lack make the spacing uneven
    out = cohort / "out"
    code, printed, error = run(
        "features", scans, "--masks", masks, "--label", "1=lesion", "--structures", "lesion",
        "--settings", settings, "--out", out, "--json", *ALWAYS,
    )  # fmt: skip
    assert code == 3
    assert len(json.loads(printed)["failed"]) == 5
    table = wide(out).set_index("patient")
    assert len(table) == 8
    assert list(table["error"][:3]) == ["", "", ""]
    for patient, words in {
        "P4": "one voxel", "P5": "no label 'lesion'", "P6": "another grid",
        "P7": "no mask belongs to this scan",
    }.items():  # fmt: skip
        assert words in table["error"][patient]
        assert table["region"][patient] == "lesion"
        assert np.isnan(table[MEAN][patient])
        assert table["settings_sha256"][patient]
    assert table["error"]["P8"]
    assert all(line.count("\n") == 0 for line in table["error"])
    assert "cvsct: error: " in error
    assert "series.csv each path; repair or remove what cannot be read" in error


def write_nifti_of(path: Path, volume) -> None:  # type: ignore[no-untyped-def]
    from cvsct.io.nifti.write import write_label_map

    write_label_map(volume.geometry, np.ones(volume.shape, dtype=np.uint8), path)


def test_an_empty_mask_is_a_row(cohort: Path, settings: Path, run: Run) -> None:
    third = cohort / "scans" / "b" / "p3"
    write_nifti_mask(cohort / "masks" / "P3_gtv.nii.gz", third, np.zeros_like(lesion()))
    code, printed, _ = run(
        "features", third, "--masks", cohort / "masks" / "P3_gtv.nii.gz", "--label", "1=lesion",
        "--settings", settings, "--out", cohort / "out", *ALWAYS,
    )  # fmt: skip
    assert code == 1  # the only row
    assert printed.startswith("1 row of 0 features, 1 failed")
    (row,) = wide(cohort / "out").to_dict("records")
    assert "empty" in row["error"]


def test_one_id_at_two_sites_is_told_and_can_be_two_patients(
    tmp_path: Path, settings: Path, run: Run
) -> None:
    write_patient(tmp_path / "scans" / "x", "P1", 1, "Clinic A")
    write_patient(tmp_path / "scans" / "y", "P1", 2, "Clinic B")
    words = ("features", tmp_path / "scans", "--settings", settings, "--rois", "1", *ALWAYS)
    code, _, error = run(*words, "--out", tmp_path / "one")
    assert code == 0
    assert "1 Patient ID occurs at two sites" in error
    assert list(wide(tmp_path / "one")["patient"]) == ["P1", "P1"]  # two studies, two rows
    code, _, error = run(*words, "--separate-sites", "--out", tmp_path / "two")
    assert "two sites" not in error
    assert list(wide(tmp_path / "two")["patient"]) == ["Clinic A/P1", "Clinic B/P1"]


def test_pseudonyms_hide_the_id_and_stay_the_same(tmp_path: Path, settings: Path, run: Run) -> None:
    for number, patient in ((1, "P1"), (2, "P1"), (3, "P2")):
        write_patient(tmp_path / "scans" / str(number), patient, number)
    words = ("features", tmp_path / "scans", "--settings", settings, "--rois", "1", *ALWAYS)
    salt = tmp_path / "salt"
    run(*words, "--pseudonyms", salt, "--out", tmp_path / "one")
    run(*words, "--pseudonyms", salt, "--out", tmp_path / "two")
    run(*words, "--pseudonyms", tmp_path / "other", "--out", tmp_path / "three")
    first, second, third = (list(wide(tmp_path / n)["patient"]) for n in ("one", "two", "three"))
    assert first == second != third
    assert first[0] == first[1] != first[2]
    assert "P1" not in first


def test_a_killed_run_goes_on_and_measures_only_what_is_left(
    cohort: Path, settings: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = cohort / "out"
    words = (
        "features", cohort / "scans", "--masks", cohort / "masks", "--label", "1=lesion",
        "--settings", settings, "--out", out, *ALWAYS,
    )  # fmt: skip
    assert run(*words)[0] == 0
    expected = (out / "features_wide.csv").read_bytes()
    journal = out / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:200], encoding="utf-8")  # cut by the kill
    for name in ("features_wide.csv", "features_long.csv", "manifest.json"):
        (out / name).unlink()
    measured: list[str] = []
    from cvsct.io.scan_record import ScanRecord

    read = ScanRecord.read
    monkeypatch.setattr(ScanRecord, "read", lambda r: (measured.append(r.patient_id), read(r))[1])
    assert run(*words)[0] == 0
    assert measured == ["P3"]
    assert (out / "features_wide.csv").read_bytes() == expected
    code, _, error = run(*words, "--dimensions", "2")
    assert code == 2
    assert "holds another feature extraction" in error


def test_rows_of_scans_or_masks_that_are_not_given_again_are_not_lost(
    cohort: Path, settings: Path, run: Run
) -> None:
    out, masks = cohort / "out", cohort / "masks"
    scans, harmonized = cohort / "scans" / "a", cohort / "harmonized"
    words = ("--settings", settings, "--label", "1=lesion", "--out", out, *ALWAYS)
    assert run("features", scans, harmonized, "--masks", masks, *words)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    code, _, error = run("features", scans, "--masks", masks, *words)
    assert code == 2
    assert "holds rows of 1 scan not given now, which would be lost; name a new folder" in error
    others = cohort / "others"
    others.mkdir()
    (masks / "s.dcm").rename(others / "s.dcm")
    code, _, error = run("features", scans, harmonized, "--masks", others, *words)
    assert code == 2
    assert "holds rows of 1 mask not given now" in error
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    (others / "s.dcm").rename(masks / "s.dcm")
    assert run("features", cohort / "scans", harmonized, "--masks", masks, *words)[0] == 0
    assert len(wide(out)) == 4  # scans may be added


def test_what_has_no_region_is_told_once(tmp_path: Path, settings: Path, run: Run) -> None:
    for number in (1, 2):
        write_patient(tmp_path / "scans" / str(number), f"P{number}", number)
    words = ("features", tmp_path / "scans", "--settings", settings, *ALWAYS)
    for _ in range(2):  # also of scans that an earlier run has measured
        code, printed, error = run(*words, "--out", tmp_path / "out")
        assert code == 0
        assert "note: 2 of 2 scans: room for 1 of 4 blocks of soft tissue, 32 pixels wide" in error
        assert "note: 2 of 2 scans: no row 'lung': 0 cm² of lung" in error
        assert "2 rows of 2 features" in printed


def test_a_dry_run_counts_and_writes_nothing(cohort: Path, settings: Path, run: Run) -> None:
    code, printed, _ = run(
        "features", cohort / "scans", cohort / "harmonized", "--masks", cohort / "masks",
        "--settings", settings, "--out", cohort / "out", "--dry-run", "--json",
        "--pseudonyms", cohort / "salt",
    )  # fmt: skip
    assert code == 0
    result = json.loads(printed)
    assert (result["series"], result["harmonized"], result["patients"]) == (4, 1, 3)
    assert (result["with_masks"], result["without_masks"]) == (3, 0)
    assert not (cohort / "out").exists()
    assert not (cohort / "salt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--structures", "x"), "give --masks too"),
        (("--label", "lesion"), "NUMBER=NAME"),
        (("--settings", "nowhere.yaml"), "no such file"),
        (("--masks", "nowhere"), "no such file"),
        (("--dimensions", "4"), "dimensions"),
    ],
)
def test_bad_arguments_are_one_line(
    words: tuple[str, ...], message: str, tmp_path: Path, run: Run
) -> None:
    write_patient(tmp_path / "scans" / "x", "P1", 1)
    code, _, error = run("features", tmp_path / "scans", "--out", tmp_path / "out", *words)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_an_unreadable_parameter_file_names_the_line(tmp_path: Path, run: Run) -> None:
    write_patient(tmp_path / "scans" / "x", "P1", 1)
    (tmp_path / "params.yaml").write_text("setting:\n  binWitdh: 3\n", encoding="utf-8")
    code, _, error = run(
        "features", tmp_path / "scans", "--out", tmp_path / "out",
        "--settings", tmp_path / "params.yaml",
    )  # fmt: skip
    assert code == 2
    assert "params.yaml line 2" in error
    assert not (tmp_path / "out").exists()
