"""Census and plan of a study on disk: what is found, left out and why, and what is refused."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

import cvsct
from cvsct.core.errors import CvsctError, UsageError
from cvsct.study.plan import PlanRow, read_plan
from cvsct.study.series import take_census
from tests.support.dicom_files import write_series
from tests.support.studies import (
    COUNT,
    GE,
    PHILIPS,
    SIEMENS,
    TRAVELER,
    Places,
    Planned,
    copy_study,
    read_rows,
    write_nifti_scan,
    write_scan,
    write_table,
)


def rows_of(planned: Planned, word: str) -> list[PlanRow]:
    """Rows whose path holds a word."""
    return [row for row in planned.plan.rows if word in row.path]


def test_a_group_a_scanner_and_every_patient_in_it(planned: Planned) -> None:
    assert sorted((group.n_patients, group.n_slices) for group in planned.plan.groups) == [
        (COUNT, 30), (COUNT, 30), (COUNT, 60),
    ]  # fmt: skip
    assert Counter(row.group for row in planned.plan.used) == {
        group.name: COUNT for group in planned.plan.groups
    }
    assert all(len(row.masks) == 1 for row in planned.plan.used)
    assert any("1 Patient ID is in more than one group" in note for note in planned.notes)
    assert {row.group for row in planned.plan.used if row.patient == TRAVELER} == {
        group.name for group in planned.plan.groups if "philips" not in group.name
    }


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("scout", "scout"),
        ("SUED-002/sharp", "is the one that a mask names"),
        ("derived", "made by this program"),
        ("broken.dcm", "cannot be read"),
        ("readme.txt", "text file"),
    ],
)
def test_what_lies_about_is_left_out_with_its_reason(
    planned: Planned, word: str, reason: str
) -> None:
    (row,) = rows_of(planned, word)
    assert not row.used
    assert reason in row.reason
    assert row.group == ""


def test_masks_of_one_name_stay_with_their_patients(planned: Planned) -> None:
    for row in planned.plan.used:
        (mask,) = row.masks
        if row.group != "philips-ict-256-b-120kv-3mm":
            assert Path(mask).parts[:2] == Path(row.path).parts[:2]
        else:
            assert Path(mask).name.startswith(row.patient)


def test_the_table_tells_what_nifti_does_not(planned: Planned) -> None:
    rows = rows_of(planned, PHILIPS.site)
    assert len(rows) == COUNT
    assert {Path(row.path).suffix for row in rows} == {".gz", ".nii"}
    for row in rows:
        assert (row.manufacturer, row.model, row.kernel) == ("Philips", "iCT 256", "B")
        assert (row.kvp, row.thickness_mm, row.spacing_mm) == (120.0, 3.0, 3.0)


def test_a_plan_made_again_is_the_same(planned: Planned, places: Places, tmp_path: Path) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    cvsct.plan_study(places.scans, study, **places.plan_words)
    for name in ("plan.csv", "plan.toml", "plan.html"):
        assert (study / name).read_bytes() == (planned.folder / name).read_bytes()
    assert read_plan(study).rows == planned.plan.rows


def test_measurements_are_for_their_owner_alone(planned: Planned) -> None:
    files = list((planned.folder / "profiles" / "series").iterdir())
    assert len(files) == 3 * COUNT
    assert not [path for path in files if path.stat().st_mode & 0o077]


def table_with(places: Places, path: Path, change: Callable[[list[list[str]]], Any]) -> Path:
    """The table of scanners, changed."""
    with places.table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    change(rows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def set_cell(line: int, column: int, value: str) -> Callable[[list[list[str]]], None]:
    return lambda rows: rows[line - 1].__setitem__(column, value)


def nowhere(rows: list[list[str]]) -> None:
    for number, row in enumerate(rows[1:], start=1):
        row[0] = f"nowhere-{number}.nii"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_cell(1, 3, "kernal"), r"column 'kernal'; did you mean 'kernel'\?"),
        (set_cell(1, 0, "file"), r"column 'file'; .*it may have path"),
        (set_cell(3, 4, "high"), r"line 3: kvp 'high', expected a number above 0"),
        (set_cell(4, 5, "3,0"), r"line 4: thickness_mm '3,0', expected a number above 0"),
        (set_cell(4, 5, "nan"), r"line 4: thickness_mm 'nan'"),
        (nowhere, r"none of its files is under .*nowhere-1\.nii \(line 2\)"),
        (set_cell(2, 0, f"{SIEMENS.site}/SUED-002/readme.txt"), r"'.*readme\.txt' is no scan"),
        (set_cell(2, 0, "../outside.nii"), r"line 2: '\.\./outside\.nii' is no path under"),
        (lambda rows: rows.append(rows[1]), r"line 7: .*again"),
        (lambda rows: rows.insert(2, []) or set_cell(4, 4, "x")(rows), r"line 4: kvp 'x'"),
    ],
)  # fmt: skip
def test_a_table_that_makes_no_sense_is_named_by_its_line(
    places: Places, tmp_path: Path, change: Callable[[list[list[str]]], Any], message: str
) -> None:
    table = table_with(places, tmp_path / "scanners.csv", change)
    (places.root / "outside.nii").touch()
    with pytest.raises(UsageError, match=message) as caught:
        take_census(places.scans, table=table)
    assert "scanners.csv" in str(caught.value)


def test_files_of_the_table_that_are_not_there_are_noted(places: Places, tmp_path: Path) -> None:
    """Hospitals list more scans than they send."""
    lines = [["absent-1.nii.gz"], ["absent-2.nii.gz"]]
    table = table_with(
        places, tmp_path / "scanners.csv",
        lambda rows: rows.extend(line + [""] * (len(rows[0]) - 1) for line in lines),
    )  # fmt: skip
    notes: list[str] = []
    census = take_census(places.scans, table=table, note=notes.append)
    assert len(census.series) == len(take_census(places.scans, table=places.table).series)
    (note,) = (note for note in notes if "not there" in note)
    assert note.startswith("scanners.csv: 2 of its files are not there: absent-1.nii.gz (line")


def test_names_and_numbers_of_regions_are_noted(places: Places, tmp_path: Path) -> None:
    """A lesion that is `lesion` here and `1` there would be two regions."""
    words = dict(places.plan_words)
    rules = {**words["rules"]}
    rules["features"] = {**rules.get("features", {}), "label_names": {}}
    notes: list[str] = []
    cvsct.plan_study(places.scans, tmp_path / "study", note=notes.append, dry_run=True,
                     **{**words, "rules": rules})  # fmt: skip
    assert any("--label 1=NAME" in note for note in notes)


def test_a_table_of_patients_without_patients_is_refused_at_once(
    places: Places, tmp_path: Path
) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("PatientID,age\nA,3\n")
    with pytest.raises(UsageError, match=r"no column 'patient' .*rename 'PatientID' to it"):
        cvsct.plan_study(places.scans, tmp_path / "study", patients=table)


def test_one_path_of_masks_may_stand_alone(places: Places, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="masks-that-are-not-there"):
        cvsct.plan_study(places.scans, tmp_path / "study", masks="masks-that-are-not-there")


def small(folder: Path, number: int, patient: str = "", **scanner: Any) -> Path:
    return write_scan(folder, replace(SIEMENS, **scanner), patient or f"P{number}", number)


def test_patients_without_an_identifier_are_told_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        small(tmp_path / "a" / str(number), number, " ")
    census = take_census(tmp_path)
    patients = {series.patient for series in census.series}
    assert len(patients) == 2
    assert all(patients)


def test_series_without_a_uid_are_kept_apart(tmp_path: Path) -> None:
    """Files of one name in two folders: neither is used in place of the other."""

    def nameless(ds: Dataset, _: int) -> None:
        del ds.SeriesInstanceUID

    for number in (1, 2):
        write_scan(tmp_path / str(number), SIEMENS, f"P{number}", number, change=nameless)
    try:
        series = take_census(tmp_path).series
    except CvsctError:
        return
    readable = [each for each in series if not each.refused]
    assert len({each.key for each in readable}) == len(readable)
    assert len({each.record.own_uid for each in readable}) == len(readable)


def test_a_folder_of_one_patient_is_no_site(tmp_path: Path) -> None:
    """Where no institution is told, the first folder is the site, unless it is a patient's."""
    for number in range(1, 4):
        small(tmp_path / f"Doe^Jane{number}" / "ct", number, site="")
    for number in range(4, 7):
        small(tmp_path / "clinic" / f"Roe^{number}" / "ct", number, site="")
    sites = {series.patient: series.site for series in take_census(tmp_path).series}
    assert sites == {"P1": "", "P2": "", "P3": "", **dict.fromkeys(("P4", "P5", "P6"), "clinic")}


def test_thickness_of_nifti_is_its_spacing_where_nothing_tells_it(tmp_path: Path) -> None:
    write_nifti_scan(tmp_path / "scans" / "a.nii.gz", GE, 1, tmp_path / "work")
    (series,) = take_census(tmp_path / "scans").series
    assert (series.thickness_mm, series.spacing_mm) == (1.5, 1.5)


@pytest.fixture
def one_scanner(planned: Planned, places: Places, tmp_path: Path) -> dict[str, Any]:
    """Words to plan a study of one hospital alone, whose series are measured already."""
    copy_study(planned.folder, tmp_path / "study")
    scans = places.scans / SIEMENS.site
    return {"scans": scans, "out": tmp_path / "study", "workers": 1}


def test_one_scanner_is_no_study(one_scanner: dict[str, Any]) -> None:
    with pytest.raises(CvsctError, match=r"one group \(siemens-.*there is nothing to harmonize"):
        cvsct.plan_study(**one_scanner)


def test_groups_that_are_all_too_small_are_no_study(one_scanner: dict[str, Any]) -> None:
    rules = {"grouping": {"min_patients": 40}}
    with pytest.raises(CvsctError, match=r"no group is large enough.*5 patients, of 40 needed"):
        cvsct.plan_study(**one_scanner, rules=rules)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"reference": "siemens-somatom-forse-br40-120kv-3mm"}, UsageError,
         r"no such group; did you mean 'siemens-somatom-force-br40-120kv-3mm'\?"),
        ({"reference": "ge-revolution-ct-standard-120kv-1.5mm",
          "rules": {"reach": {"sharpening": 1.0, "quieting": 1.0, "noise": 1.0}}}, CvsctError,
         r"no group can be brought to ge-.* give another --reference"),
        ({"reference": "ge-revolution-ct-standard-120kv-1.5mm", "thickness_mm": 1.5}, CvsctError,
         r"no group can be brought to ge-.*thicker than the reference's 1\.5 mm"),
        ({"rules": {"method": "spectrun"}}, CvsctError, "spectrum"),
        ({"rules": {"choice": {"kernle": "soft"}}}, UsageError, r"did you mean 'kernel'\?"),
        ({"rules": {"chioce": {}}}, UsageError, r"did you mean 'choice'\?"),
        ({"rules": {"choice": {"kernel": "hard"}}}, UsageError, r"choice\.kernel"),
        ({"table": "nowhere.csv"}, UsageError, r"nowhere\.csv: no such file"),
        ({"masks": ["nowhere"]}, UsageError, r"nowhere: no such file"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_made_says_what_to_do(
    planned: Planned, places: Places, tmp_path: Path, words: dict[str, Any], error: type,
    message: str,
) -> None:  # fmt: skip
    study = copy_study(planned.folder, tmp_path / "study")
    before = (study / "plan.csv").read_bytes()
    given = {**places.plan_words, **words}
    with pytest.raises(error, match=message):
        cvsct.plan_study(places.scans, study, **given)
    assert (study / "plan.csv").read_bytes() == before


def test_a_reference_that_is_given_is_taken(
    planned: Planned, places: Places, tmp_path: Path
) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    name = "philips-ict-256-b-120kv-3mm"
    plan = cvsct.plan_study(
        places.scans, study, **{**places.plan_words, "reference": name}, dry_run=True
    )
    assert plan.reference == name
    assert (study / "plan.csv").read_bytes() == (planned.folder / "plan.csv").read_bytes()


def test_a_study_is_not_written_into_its_scans_or_over_other_files(
    places: Places, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="lies inside the scans"):
        cvsct.plan_study(places.scans, places.scans / "study")
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(UsageError, match=r"exists already|not empty"):
        cvsct.plan_study(places.scans, tmp_path)


def test_a_folder_without_scans_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(CvsctError):
        cvsct.plan_study(tmp_path / "scans", tmp_path / "study")


def test_series_of_which_none_can_be_used_name_the_reason(tmp_path: Path) -> None:
    write_series(tmp_path / "scans", 2)
    with pytest.raises(CvsctError, match=r"none of 1 series can be used: 2 slices, of 3 needed"):
        cvsct.plan_study(tmp_path / "scans", tmp_path / "study")


def test_the_page_of_the_plan_names_no_patient(
    planned: Planned, places: Places, tmp_path: Path
) -> None:
    page = (planned.folder / "plan.html").read_text(encoding="utf-8")
    for name in (*places.ids, "Planted", "readme"):
        assert name not in page
    for group in planned.plan.groups:
        assert group.name in page


def test_reasons_that_name_files_do_not_reach_the_page(tmp_path: Path) -> None:
    """A path often holds a patient's name: it stays in plan.csv."""
    from cvsct.study.plan_page import plan_html

    rows = (
        PlanRow("yes", "x", "a", "P1", path="x", series_uid="1.1"),
        PlanRow("no", "cannot be read: DOE_JANE.nii.gz: cut short", "", "P2", path="y",
                series_uid="1.2"),
        PlanRow("no", "cannot be measured: DOE_JANE/1.dcm: damaged", "", "P3", path="z",
                series_uid="1.3"),
        PlanRow("no", "another series of this patient on this scanner is later (DOE_JANE (2)/ct)",
                path="w", series_uid="1.4"),
    )  # fmt: skip
    from cvsct.study.options import StudyOptions
    from cvsct.study.plan import StudyPlan, groups_of

    plan = StudyPlan(tmp_path, StudyOptions(scans="s", reference="a"), rows,
                     tuple(groups_of(rows, {})))  # fmt: skip
    assert "DOE" not in plan_html(plan)
    assert "DOE" not in plan.summary()


def test_the_same_series_twice_is_one(planned: Planned, places: Places, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(places.scans / SIEMENS.site / "SUED-003" / "ct", scans / "a")
    shutil.copytree(scans / "a", scans / "b")
    (series,) = take_census(scans).series
    assert "remove the copy" in series.refused


def test_a_table_saved_by_a_spreadsheet_is_read(places: Places, tmp_path: Path) -> None:
    table = tmp_path / "scanners.csv"
    write_table(table, read_rows(places.table))
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    census = take_census(places.scans, table=table)
    assert sum(series.acquisition.manufacturer == "Philips" for series in census.series) == COUNT
