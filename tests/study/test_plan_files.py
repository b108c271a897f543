"""plan.csv and plan.toml: what is written is read again, and an edit without sense is named."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cvsct.core.errors import UsageError
from cvsct.study.choice import ChoiceRules
from cvsct.study.groups import GroupRules
from cvsct.study.options import FeatureOptions, StudyOptions, read_toml, write_toml
from cvsct.study.plan import COLUMNS, PlanRow, StudyPlan, groups_of, read_plan

ROWS = (
    PlanRow("yes", "the only series on this scanner", "siemens", "P 1, Süd", "Klinik",
            "SIEMENS", "Force", "Br40", 120.0, 3.0, 2.5, 0.7031, 60, "yes", "20200101",
            'Thorax "venös"', ("a/m 1.nii.gz", "b/m 1.nii.gz"), "a/p 1", "1.2.3", 60),
    PlanRow("yes", "x", "ge", "007", "", "GE", "Rev", "STANDARD", 100.0, 1.25, 1.25, 0.9, 40,
            path="b", series_uid="1.2.4", files=40),
    PlanRow("no", "text file", path="b/readme.txt"),
)  # fmt: skip
OPTIONS = StudyOptions(
    scans="/data/süd und nord", masks=("/m 1", "/m\\2"), reference="ge", thickness_mm=1.25,
    settings={"refine": False, "patch_mm": 40.5}, choice=ChoiceRules(kernel="any"),
    grouping=GroupRules(noise=0.2),
    features=FeatureOptions(structures=("GTV*", 'a"b'), label_names={"1": "GTV"}),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plan of two groups, written."""
    StudyPlan(tmp_path, OPTIONS, ROWS, tuple(groups_of(ROWS, {}))).write()
    return tmp_path


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_bytes(change(path.read_bytes().decode("utf-8")).encode("utf-8"))


def cell(line: int, column: str, value: str) -> Callable[[str], str]:
    """An edit of one cell."""

    def change(text: str) -> str:
        rows = list(csv.reader(io.StringIO(text)))
        rows[line - 1][COLUMNS.index(column)] = value
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue()

    return change


def test_what_is_written_is_read_again(folder: Path) -> None:
    plan = read_plan(folder)
    assert plan.rows == ROWS
    assert plan.options == OPTIONS
    assert [group.name for group in plan.groups] == ["ge", "siemens"]


def test_the_files_are_for_their_owner_alone(folder: Path) -> None:
    for name in ("plan.csv", "plan.toml"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name


def test_what_a_spreadsheet_does_to_a_table_is_read(folder: Path) -> None:
    """A mark of byte order, CRLF, TRUE for yes, quotes everywhere, an empty last line."""

    def change(text: str) -> str:
        rows = list(csv.reader(io.StringIO(text)))
        rows[1][0], rows[3][0] = "TRUE", " No "
        out = io.StringIO()
        csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(rows)
        return "\ufeff" + out.getvalue() + "\r\n"

    edit(folder / "plan.csv", change)
    assert read_plan(folder).rows == ROWS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cell(2, "use", "maybe"), r"plan\.csv, line 2: use 'maybe', expected yes or no"),
        (cell(4, "use", ""), r"line 4: use '', expected yes or no"),
        (cell(3, "thickness_mm", "1,25"), r"line 3: thickness_mm '1,25', expected a number"),
        (cell(3, "kvp", "nan"), r"line 3: kvp 'nan', expected a number"),
        (cell(3, "slices", "-1"), r"line 3: slices '-1', expected a number"),
        (cell(4, "use", "yes"), r"line 4: is no scan, so it cannot be used"),
        (cell(3, "group", ""), r"line 3: has no group"),
        (cell(3, "patient", " "), r"line 3: names no patient"),
        (cell(3, "series_uid", "1.2.3"), r"line 3: the series of line 2 again; remove one"),
        (lambda text: cell(3, "path", "b.nii")(cell(3, "group", "siemens")(text)),
         r"line 3: group 'siemens' has DICOM and NIfTI"),
        (lambda text: text.replace("pixel_mm,", ""), r"plan\.csv: no column 'pixel_mm'"),
        (lambda text: text.replace(",", ";"), r"no column 'use'.*another separator"),
        (lambda text: "", r"no column 'use'"),
        (lambda text: text.replace("\nyes", "\nno"), r"no series is used"),
    ],
)  # fmt: skip
def test_an_edit_of_the_table_that_makes_no_sense_is_named(
    folder: Path, change: Callable[[str], str], message: str
) -> None:
    edit(folder / "plan.csv", change)
    with pytest.raises(UsageError, match=message):
        read_plan(folder)


def line_of(folder: Path, key: str) -> int:
    lines = (folder / "plan.toml").read_text(encoding="utf-8").splitlines()
    return 1 + next(i for i, line in enumerate(lines) if line.startswith(key))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("reference", ('"ge"', '"gee"'), r"reference 'gee' is no group.*did you mean 'ge'\?"),
        ("min_patients", ("min_patients = 3", "min_pateints = 3"),
         r"line LINE: grouping\.min_pateints does not exist; did you mean 'min_patients'\?"),
        ("seed", ("seed = 0", "sed = 0"), r"line LINE: sed does not exist; did you mean 'seed'\?"),
        ("kernel", ('kernel = "any"', 'kernel = "soffft"'), r"line LINE: choice\.kernel"),
        ("noise", ("noise = 0.2", 'noise = "much"'), r"line LINE: grouping\.noise: must"),
        ("thickness_mm", ("thickness_mm = 1.25", "thickness_mm = -3"), r"line LINE: thickness_mm"),
        ("rois", ("[features]", "[featuers]"), r"featuers does not exist; did you mean 'features'"),
        ("scans", ("scans = ", "scans "), r"cannot be read as TOML \(.*line"),
        ("format", ("format = 1", "format = 2"), r"format 2, this version reads 1"),
        ("format", ("format = 1", ""), r"format None, this version reads 1"),
    ],
)  # fmt: skip
def test_an_edit_of_the_options_that_makes_no_sense_is_named(
    folder: Path, key: str, change: tuple[str, str], message: str
) -> None:
    line = line_of(folder, key)
    edit(folder / "plan.toml", lambda text: text.replace(*change, 1))
    with pytest.raises(UsageError, match=message.replace("LINE", str(line))) as caught:
        read_plan(folder)
    assert "plan.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_spreadsheets_and_editors_write_are_read(folder: Path) -> None:
    edit(folder / "plan.toml", lambda text: "\ufeff" + text.replace("\n", "\r\n"))
    assert read_toml(folder / "plan.toml") == OPTIONS


def test_every_group_is_told_beside_the_reference(folder: Path) -> None:
    plan = read_plan(folder)
    text = write_toml(OPTIONS, {group.name: "5 patients" for group in plan.groups})
    assert re.search(r'reference = "ge"\n#   ge: 5 patients\n#   siemens: 5 patients\n', text)


def test_a_group_may_be_named_anew_in_the_table(folder: Path) -> None:
    edit(folder / "plan.csv", cell(2, "group", "my own"))
    assert [group.name for group in read_plan(folder).groups] == ["ge", "my own"]


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden", "a\\b", "..", "nul\x00"])
def test_a_group_whose_name_is_no_name_of_a_folder_is_refused(folder: Path, name: str) -> None:
    edit(folder / "plan.csv", cell(2, "group", name))
    with pytest.raises(UsageError, match=r"line 2"):
        read_plan(folder)


def test_a_folder_without_a_plan_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make a plan with `cvsct study plan`"):
        read_plan(tmp_path)


def test_a_row_of_a_newer_line_break_stays_one_line(folder: Path) -> None:
    rows = (replace(ROWS[0], description="a\r\nb\x1b[31m"), *ROWS[1:])
    StudyPlan(folder, OPTIONS, rows, ()).write()
    text = (folder / "plan.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 4
    assert "\x1b" not in text
