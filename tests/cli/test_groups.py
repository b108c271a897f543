"""`cvsct groups`: a table in, a report, ComBat's table and estimates out."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support.commands import Run
from tests.support.feature_tables import Effects, cohort

QUICK = ("--permutations", "19")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    cohort((15, 15), Effects(scanner=1.5)).to_csv(tmp_path / "features_wide.csv", index=False)
    return tmp_path / "features_wide.csv"


def test_combat_and_its_report(run: Run, table: Path, tmp_path: Path) -> None:
    patients = cohort((15, 15))[["patient", "age", "sex"]]
    patients.to_csv(tmp_path / "patients.csv", index=False)
    out = tmp_path / "out"
    code, printed, err = run(
        "groups", table, "--out", out, "--combat", "scanner", "--covariates", "age,sex",
        "--patients", tmp_path / "patients.csv", *QUICK,
    )  # fmt: skip
    assert code == 0, err
    assert "cannot tell" in printed
    assert str(out / "groups.html") in printed
    written = pd.read_csv(out / "features_wide.csv")
    assert set(written["stage"]) == {"source", "combat"}
    assert json.loads((out / "manifest.json").read_text())["command"] == "groups"
    again = tmp_path / "again"
    code, _, err = run(
        "groups", table, "--out", again, "--estimates", out / "combat.json",
        "--covariates", "age,sex", *QUICK,
    )  # fmt: skip
    assert code == 0, err
    assert (again / "features_wide.csv").read_text() == (out / "features_wide.csv").read_text()


def test_one_region_that_fails_is_exit_3_and_all_is_exit_1(run: Run, tmp_path: Path) -> None:
    few = cohort((15, 4), regions=("liver",))
    pd.concat([cohort((15, 15)), few]).to_csv(tmp_path / "t.csv", index=False)
    words = ("--combat", "scanner", "--json", *QUICK)
    code, printed, err = run("groups", tmp_path / "t.csv", "--out", tmp_path / "out", *words)
    assert code == 3
    assert "liver, combat: scanner 'scanner B' has 4 patients" in err
    assert list(json.loads(printed)["failed"]) == ["liver, combat"]
    few.to_csv(tmp_path / "few.csv", index=False)
    code, _, err = run("groups", tmp_path / "few.csv", "--out", tmp_path / "none", *words)
    assert code == 1
    assert not (tmp_path / "none").exists()


def test_bad_arguments(run: Run, table: Path, tmp_path: Path) -> None:
    for words, reason in (
        (("--outcome", "disease"), "--outcome, --train-on and --test-on go together"),
        (("--combat", "scanner", "--estimates", table), "give one"),
        (("--patients", tmp_path / "none.csv"), "none.csv"),
    ):
        code, _, err = run("groups", table, "--out", tmp_path / "out", *words)
        assert code == 2
        assert reason in err
        assert len(err.strip().splitlines()) == 1
    code, printed, _ = run("groups", table, "--out", tmp_path / "out", "--dry-run")
    assert code == 0
    assert "nothing was written" in printed
    assert not (tmp_path / "out").exists()
