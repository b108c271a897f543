"""`cvsct evaluate` with a scorecard: exit codes, tolerances of one's own, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Run

ENOUGH = ("--rois", 3, "--workers", 1)


@pytest.fixture
def sides(scans: Path) -> tuple[object, ...]:
    """A sharp scan that nobody harmonized, against the soft one."""
    return ("--harmonized", scans / "pair/sharp", "--target", scans / "pair/soft")


def test_a_scorecard_that_fails_ends_with_code_1_if_asked(
    run: Run, sides: tuple[object, ...], tmp_path: Path
) -> None:
    code, out, _ = run("evaluate", *sides, *ENOUGH, "--out", tmp_path / "r", "--fail-on", "fail")
    record = json.loads((tmp_path / "r/metrics.json").read_text())
    assert record["scorecard"]["status"] == "fail"
    assert record["scorecard"]["headline"] in out.replace("\n", " ")
    assert (code, (tmp_path / "r/report.html").exists()) == (1, True)


def test_it_ends_with_code_0_if_nobody_asks(
    run: Run, sides: tuple[object, ...], tmp_path: Path
) -> None:
    code, _, _ = run("evaluate", *sides, *ENOUGH, "--out", tmp_path / "r")
    assert code == 0


def test_tolerances_of_ones_own_decide_and_are_recorded(
    run: Run, sides: tuple[object, ...], tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[noise_level]\npasses = 9.0\nfails = 9.0\n", encoding="utf-8")
    out = tmp_path / "r"
    run("evaluate", *sides, *ENOUGH, "--out", out, "--tolerances", own)
    record = json.loads((out / "metrics.json").read_text())
    (tile,) = [t for t in record["scorecard"]["tiles"] if t["key"] == "noise_level"]
    assert tile["status"] == "pass"
    assert "±900\N{NO-BREAK SPACE}%" in tile["tolerance"]
    assert record["settings"]["tolerances"]["noise_level"]["passes"] == 9.0


@pytest.mark.parametrize("text", ["[noise_levels]\npasses = 1\n", "noise_level"])
def test_tolerances_that_make_no_sense_are_refused_before_work(
    run: Run, sides: tuple[object, ...], tmp_path: Path, text: str
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text, encoding="utf-8")
    for words in ((), ("--dry-run",)):
        code, _, err = run("evaluate", *sides, "--out", tmp_path / "r", "--tolerances", own, *words)
        assert code == 2
        assert "own.toml" in err.replace("\n", "")
        assert not (tmp_path / "r").exists()


def test_a_dry_run_judges_nothing(run: Run, sides: tuple[object, ...], tmp_path: Path) -> None:
    words = ("--out", tmp_path / "r", "--fail-on", "attention", "--dry-run")
    code, _, _ = run("evaluate", *sides, *words)
    assert (code, (tmp_path / "r").exists()) == (0, False)
