"""`cvsct study`: exit codes, JSON, dry runs, and options from a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.studies import COUNT, Places, Planned, copy_study, edit_plan, set_option


def plan_words(places: Places, out: Path) -> list[object]:
    """The words that plan the study of the tests."""
    words: list[object] = ["study", "plan", places.scans, "--out", out, "--workers", 1]
    for masks in places.plan_words["masks"]:
        words += ["--masks", masks]
    return [*words, "--table", places.table, "--patients", places.patients, "--label", "1=lesion"]


def test_a_plan_is_printed_and_written(
    planned: Planned, places: Places, tmp_path: Path, run: Run
) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    (study / "plan.csv").unlink()
    code, said, err = run(*plan_words(places, study))
    assert code == 0, err
    for word in ("reference: siemens-somatom-force-br40-120kv-3mm", "left out: 1 x", "plan.html"):
        assert word in said
    assert (study / "plan.csv").read_bytes() == (planned.folder / "plan.csv").read_bytes()
    for name in places.ids:
        assert name not in said + err


def test_a_plan_as_json_and_a_dry_run_that_writes_measurements_alone(
    planned: Planned, places: Places, tmp_path: Path, run: Run
) -> None:
    study = tmp_path / "study"
    copy_study(planned.folder / "profiles", study / "profiles")
    code, said, _ = run(*plan_words(places, study), "--dry-run", "--json")
    assert code == 0
    told = json.loads(said)
    assert told["reference"] == "siemens-somatom-force-br40-120kv-3mm"
    assert {path.name for path in study.iterdir()} == {"profiles"}
    for name in places.ids:
        assert name not in said


def test_options_come_from_a_file(
    planned: Planned, places: Places, tmp_path: Path, run: Run
) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    config = tmp_path / "options.toml"
    config.write_text(
        '[study.plan]\nreference = "philips-ict-256-b-120kv-3mm"\nkernel = "any"\n',
        encoding="utf-8",
    )
    code, _, err = run(*plan_words(places, study), "--config", config)
    assert code == 0, err
    text = (study / "plan.toml").read_text(encoding="utf-8")
    assert 'reference = "philips-ict-256-b-120kv-3mm"' in text
    assert 'kernel = "any"' in text
    config.write_text("[study.plan]\nreferenc = 'x'\n", encoding="utf-8")
    code, _, err = run(*plan_words(places, study), "--config", config)
    assert code == 2
    assert "did you mean 'reference'?" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("plan", "SCANS"), "--out"),
        (("plan", "nowhere", "--out", "OUT"), "nowhere: no such file"),
        (("plan", "SCANS", "--out", "OUT", "--kernel", "hard"), "kernel"),
        (("plan", "SCANS", "--out", "OUT", "--label", "lesion"), "NUMBER=NAME"),
        (("plan", "SCANS", "--out", "OUT", "--thickness", "-1"), "--thickness"),
        (("run", "OUT"), "make a plan with `cvsct study plan`"),
        (("report", "OUT"), "make a plan with `cvsct study plan`"),
        (("rnu", "OUT"), "rnu"),
    ],
)
def test_bad_arguments_are_told_in_a_line(
    words: tuple[str, ...], expected: str, places: Places, tmp_path: Path, run: Run
) -> None:
    found = {"SCANS": places.scans, "OUT": tmp_path / "out"}
    code, _, err = run("study", *(found.get(word, word) for word in words))
    assert code == 2
    assert expected in err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_a_run_writes_nothing(planned: Planned, tmp_path: Path, run: Run) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    before = sorted(study.rglob("*"))
    code, said, err = run("study", "run", study, "--dry-run")
    assert code == 0, err
    assert "nothing was done (--dry-run)" in said
    assert "GB needed" in err
    assert sorted(study.rglob("*")) == before


def test_a_finished_study_is_run_again_and_told_as_json(
    quick_done: Path, tmp_path: Path, run: Run, places: Places
) -> None:
    study = copy_study(quick_done, tmp_path / "study")
    code, said, err = run("study", "run", study, "--workers", 1, "--json")
    assert code == 0, err
    told = json.loads(said)
    assert (told["n_harmonized"], told["n_reference"], told["n_failed"]) == (2 * COUNT, COUNT, 0)
    for name in places.ids:
        assert name not in said


def test_a_series_that_fails_is_exit_code_3(quick_done: Path, tmp_path: Path, run: Run) -> None:
    study = copy_study(quick_done, tmp_path / "study")
    edit_plan(study, lambda row: row.update(path="gone") if row["patient"] == "NORD-012" else None)
    code, said, err = run("study", "run", study, "--workers", 1)
    assert code == 3
    assert "1 failed" in said
    assert "gone" in err


def test_an_edit_that_makes_no_sense_is_exit_code_2(
    planned: Planned, tmp_path: Path, run: Run
) -> None:
    study = copy_study(planned.folder, tmp_path / "study")
    edit_plan(study, lambda row: row.update(use="perhaps"))
    for words in (("run", study), ("report", study)):
        code, _, err = run("study", *words)
        assert code == 2
        assert "plan.csv, line 2: use 'perhaps', expected yes or no" in err
    set_option(study, "seed = 0", "sead = 0")
    code, _, err = run("study", "run", study)
    assert code == 2
    assert "did you mean 'seed'?" in err


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_ctrl_c_is_exit_code_130_and_one_line(quick: Path, tmp_path: Path) -> None:
    study = copy_study(quick, tmp_path / "study")
    program = (  # a shell in the background has Ctrl-C ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cvsct.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "study", "run", str(study), "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        start_new_session=True,
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not list(study.glob("prepared/*/*")) and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command goes on" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_the_help_of_each_step_tells_its_options(run: Run) -> None:
    for step, option in (("plan", "--reference"), ("run", "--shard"), ("report", "--outcome")):
        code, said, _ = run("study", step, "--help")
        assert code == 0
        assert option in said
