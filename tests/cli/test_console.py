"""What every command shares: JSON, quiet, verbose, log file, TOML options, dry run, exit codes."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom import Dataset

from cvsct.cli import app, console
from cvsct.cli.guards import report_guards
from cvsct.cli.progress import PlainProgress, Rate, duration
from cvsct.inference.streaming import Outcome
from tests.support.commands import Run
from tests.support.dicom_files import stored_values, write_series

COMMANDS = sorted(each.callback.__name__ for each in app.registered_commands if each.callback)
WRITING = [
    "benchmark", "demo", "evaluate", "features", "groups", "harmonize", "profile", "simulate",
    "train",
]  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six sound series and four that are refused, in two ways."""

    def gap(ds: Dataset, i: int) -> None:
        if i == 2:
            ds.ImagePositionPatient = [-100, -120, 40]

    def cut(ds: Dataset, i: int) -> None:
        if i == 1:
            ds.PixelData = ds.PixelData[:100]

    folder = tmp_path / "tree"
    for i in range(10):
        change = gap if i in (2, 5, 7) else cut if i == 8 else None
        write_series(
            folder / f"Doe-Jane-{i}", stored=stored_values(3), series=f"1.2.8.{i}",
            **({"change": change} if change else {}),
        )  # fmt: skip
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_lists_the_common_options(run: Run, command: str) -> None:
    code, text, _ = run(command, "--help")
    assert code == 0
    for option in ("--json", "--quiet", "--verbose", "--log-file", "--config"):
        assert option in text
    assert ("--dry-run" in text) == (command in WRITING)


def test_results_are_json_on_stdout_wherever_the_option_stands(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    words = ["harmonize", scans / "sharp", "--model", model, "--out"]
    results = []
    for i, (before, after) in enumerate(((["--json"], []), ([], ["--json"]))):
        code, printed, err = run(*before, *words, tmp_path / str(i), *after)
        assert code == 0, err
        results.append(json.loads(printed))
    assert [each["n_done"] for each in results] == [1, 1]
    assert results[0]["series"] == results[1]["series"]
    assert results[0]["series"][0]["n_slices"] == 6
    for words in (["doctor"], ["methods"], ["methods", "spectrum"], ["models"]):
        code, printed, _ = run(*words, "--json")
        assert json.loads(printed), words


def test_quiet_prints_errors_alone(run: Run, scans: Path, model: Path, tmp_path: Path) -> None:
    words = ["harmonize", scans / "sharp", "--model", model, "--out", tmp_path / "out", "--quiet"]
    assert run(*words) == (0, "", "")
    code, printed, err = run(*words)
    assert (code, printed) == (2, "")
    assert err.startswith("cvsct: error: ")
    assert len(err.splitlines()) == 1
    code, _, err = run(*words, "--verbose")
    assert (code, "exclude each other" in err) == (2, True)


def test_a_log_file_holds_what_was_done_with_the_time(
    run: Run, tree: Path, model: Path, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "cvsct.log"
    words = ["harmonize", tree, "--model", model, "--log-file", log]
    assert run(*words, "--out", tmp_path / "out", "--quiet")[0] == 3
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines[:3])
    text = "\n".join(lines)
    assert len(re.findall(r"series [0-9a-f]{16}: 3 slices in", text)) == 6
    assert text.count("gap of") >= 3
    assert "harmonize: harmonizing took" in text
    before = len(lines)
    assert run(*words, "--out", tmp_path / "out" / "inside" / "..")[0] == 3
    assert len(log.read_text(encoding="utf-8").splitlines()) > before, "appended"


def test_verbose_logs_to_the_terminal(run: Run, scans: Path, model: Path, tmp_path: Path) -> None:
    words = ["harmonize", scans / "sharp", "--model", model, "--out", tmp_path / "out"]
    code, _, err = run("--verbose", *words)
    assert code == 0
    assert re.search(r"^\d\d:\d\d:\d\d .*harmonizing took", err, re.M)


def test_options_come_from_a_file_and_the_command_line_wins(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "options.toml"
    config.write_text(
        f"[harmonize]\nmodel = {str(model)!r}\nout = {str(tmp_path / 'a')!r}\n"
        "keep-equipment = true\n[train]\nseed = 3\n"
    )
    code, printed, err = run("harmonize", scans / "sharp", "--config", config, "--json")
    assert code == 0, err
    assert json.loads(printed)["out"] == str(tmp_path / "a")
    code, printed, err = run(
        "--config", config, "harmonize", scans / "sharp", "--out", tmp_path / "b"
    )
    assert code == 0, err
    assert (tmp_path / "b" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[harmonise]\n", "did you mean 'harmonize'?"),
        ("[harmonize]\nkeep-equipmnt = true\n", "did you mean 'keep_equipment'?"),
        ("model = 3\n", "options stand in the table of their command"),
        ("[harmonize\n", "cannot be read as TOML"),
        (None, "no such file"),
    ],
)
def test_a_wrong_file_of_options_is_told(
    run: Run, tmp_path: Path, text: str | None, said: str
) -> None:
    config = tmp_path / "options.toml"
    if text is not None:
        config.write_text(text)
    code, _, err = run("harmonize", tmp_path, "--config", config, "--out", tmp_path / "out")
    assert code == 2
    assert said in err


def test_a_dry_run_tells_and_writes_nothing(
    run: Run, tree: Path, scans: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sides = ["--source", scans / "sharp", "--target", scans / "soft"]
    before = sorted(tmp_path.rglob("*"))
    code, printed, err = run("harmonize", tree, "--model", model, "--out", out, "--dry-run")
    assert (code, "6 series, 18 slices" in printed) == (3, True), err
    assert "gap of" in err
    code, printed, err = run("train", "spectrum", *sides, "--out", out, "--dry-run")
    assert (code, "nothing was written" in printed) == (0, True), err
    assert "mean" in err or "kernel" in err, "the census"
    code, printed, err = run(
        "evaluate", "--harmonized", scans / "sharp", "--target", scans / "soft", "--out", out,
        "--dry-run", "--json",
    )  # fmt: skip
    assert (code, json.loads(printed)["slices"]) == (0, {"harmonized": 6, "target": 6}), err
    code, printed, err = run("simulate", "--scale", "tiny", "--out", out, "--dry-run", "--json")
    assert (code, json.loads(printed)["n_images"]) == (0, 42), err
    assert run("demo", "--out", out, "--dry-run")[0] == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "NONE"],
        ["harmonize", "NONE", "--model", "NONE", "--out", "OUT"],
        ["harmonize", "SCANS", "--model", "NONE", "--out", "OUT"],
        ["train", "spectrum", "--source", "SCANS", "--target", "NONE", "--out", "OUT"],
        ["evaluate", "--harmonized", "SCANS", "--target", "NONE", "--out", "OUT"],
        ["evaluate", "--harmonized", "SCANS", "--target", "SCANS", "--masks", "NONE",
         "--out", "OUT"],
        ["evaluate", "--harmonized", "SCANS", "--target", "SCANS", "--nodules", "NONE",
         "--out", "OUT"],
        ["benchmark", "--data", "NONE", "--methods", "input", "--out", "OUT"],
    ],
)  # fmt: skip
def test_a_path_that_does_not_exist_is_a_bad_argument(
    run: Run, scans: Path, tmp_path: Path, words: list[str]
) -> None:
    places = {"NONE": tmp_path / "nowhere", "OUT": tmp_path / "out", "SCANS": scans / "sharp"}
    code, _, err = run(*(places.get(word, word) for word in words))
    assert code == 2
    assert "nowhere: no such" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_what_is_nearest_is_asked(run: Run, scans: Path, tmp_path: Path) -> None:
    sides = ["--source", scans / "sharp", "--target", scans / "soft", "--out", tmp_path / "out"]
    for words, near in (
        (["train", "spectrun", *sides], "spectrum"),
        (["train", "spectrum", *sides, "--set", "max_gian=3"], "max_gain"),
        (["harmonize", scans, "--model", "siemens-bl64-br40-spectrun", "--out", tmp_path / "o"],
         "siemens-bl64-br40-spectrum"),
        (["methods", "histogran"], "histogram"),
    ):  # fmt: skip
        code, _, err = run(*words)
        assert (code, f"did you mean {near!r}?" in err) == (2, True), err
    assert "harmonize" in run("harmonise")[2]
    assert "--engine" in run("harmonize", scans, "--enginee", "x")[2]


def test_a_method_and_a_model_show_their_settings(run: Run) -> None:
    code, text, _ = run("methods", "spectrum")
    assert code == 0
    assert re.search(r"^max_gain +16.0", text, re.M)
    settings = json.loads(run("methods", "cvsct", "--json")[1])["settings"]
    assert "generator.width" in {setting["key"] for setting in settings}
    code, card, _ = run("models", "siemens-bl64-br40-spectrum")
    assert (code, "research" in card.lower()) == (0, True)
    about = json.loads(run("models", "siemens-bl64-br40-spectrum", "--json")[1])
    assert about["settings"]["max_gain"] > 1


def test_failures_of_a_cohort_are_grouped_and_stand_in_a_table(
    run: Run, tree: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, printed, err = run("harmonize", tree, "--model", model, "--out", out)
    assert code == 3
    assert "6 series, 18 slices" in printed
    assert "4 failed" in printed
    errors = [line for line in err.splitlines() if line.startswith("cvsct: error: ")]
    assert len(errors) == 2
    assert "gap of" in errors[0]
    assert "(and 2 more like it)" in errors[0]
    assert re.search(r"^harmonizing 18/18", err, re.M), "slices of refused series do not count"
    with (out / "series.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["path"] for row in rows) == [f"Doe-Jane-{i}" for i in range(10)]
    status = {row["path"][-1]: row["status"] for row in rows}
    assert [i for i in sorted(status) if status[i] == "failed"] == ["2", "5", "7", "8"]
    assert all((out / row["folder"]).is_dir() for row in rows if row["status"] == "done")
    assert (out / "series.csv").stat().st_mode & 0o777 == 0o600
    assert "Doe" not in printed + err


def test_a_table_is_kept_when_all_fail(run: Run, tree: Path, model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for i in (2, 5):
        (tree / f"Doe-Jane-{i}").rename(bad / str(i))
    code, printed, err = run(
        "harmonize", bad, "--model", model, "--out", tmp_path / "out", "--json"
    )
    assert code == 1, err
    assert json.loads(printed)["n_failed"] == 2
    with (tmp_path / "out" / "series.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == ["failed", "failed"]
    assert (tmp_path / "out" / "manifest.json").exists()


def test_ctrl_c_ends_with_130_and_keeps_what_is_done(model: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for i in range(30):
        write_series(tree / str(i), stored=stored_values(3), series=f"1.2.9.{i}")
    out = tmp_path / "out"
    begin = (  # a shell that runs this in the background has Ctrl-C ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cvsct.cli import main; main()"
    )
    words = ["harmonize", tree, "--model", model, "--out", out]
    command = [sys.executable, "-c", begin, *words]
    process = subprocess.Popen(
        [*map(str, command)], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(out.glob("*/*.dcm")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert re.search(r"stopped; \d+ of 30 series are kept, the same command goes on", err)
    assert "Traceback" not in err
    assert subprocess.run([*map(str, command)], check=False).returncode == 0
    assert len(list(out.glob("*/*.dcm"))) == 90


@pytest.mark.parametrize(
    ("reverse", "remedy"),
    [(False, "did you mean --reverse, or"), (True, "did you mean to leave --reverse away, or")],
)
def test_scans_of_the_wrong_side_are_answered_with_the_remedy(
    capsys: pytest.CaptureFixture[str], reverse: bool, remedy: str
) -> None:
    at_target, inside = (
        Outcome("1.2", guard={"scan": {"kind": kind}}) for kind in ("at_target", "in_domain")
    )
    console.start()
    report_guards([at_target, at_target, inside], reverse)
    assert f"{remedy} the folder of the other scanner?" in capsys.readouterr().err
    report_guards([at_target, inside, inside], reverse)
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "work"),
    [
        (["train", "input", "--source", "a", "--target", "b"], "cvsct.api.train.train"),
        (["evaluate", "--harmonized", "a", "--target", "b"], "cvsct.api.evaluate.evaluate"),
        (["profile", "SCANS"], "cvsct.api.profile.fit_profile"),
    ],
)
def test_every_command_says_that_it_was_stopped(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str], work: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, interrupted)
    given = [str(tmp_path) if word == "SCANS" else word for word in command]
    code, _, err = run(*given, "--out", tmp_path / "x.profile")
    assert code == 130
    assert err.splitlines() == ["cvsct: error: stopped; what was whole is kept"]


def test_ctrl_c_waits_for_no_thread(scans: Path, tmp_path: Path) -> None:
    begin = (
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cvsct.evaluation import evaluate; "
        "evaluate.TissueMap.of = lambda _: print('works', flush=True) or time.sleep(60); "
        "from cvsct.cli import main; main()"
    )
    words = ["evaluate", "--harmonized", scans / "pair" / "sharp", "--target",
             scans / "pair" / "soft", "--out", tmp_path / "out", "--workers", 2]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", begin, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "works\n"
    process.send_signal(signal.SIGINT)
    stopped = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.monotonic() - stopped < 20
    assert err.splitlines()[-1] == "cvsct: error: stopped; what was whole is kept"


def test_rates_and_durations() -> None:
    rate = Rate(done=10, now_s=0.0)
    assert rate.words(10, 100, 5.0) == ""
    assert rate.words(30, 100, 10.0) == ", 2/s, 35 s left"
    assert rate.words(11, 20, 60.0) == ", 1/min, 9 min 0 s left"
    assert rate.words(100, 100, 10.0) == ", 9/s"
    assert [duration(s) for s in (59.4, 61.0, 7260.0)] == ["59 s", "1 min 1 s", "2 h 1 min"]


def test_plain_progress_begins_at_once_and_goes_on_by_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = PlainProgress(every_s=0.2)
    show("harmonizing", 0, 50)
    show("harmonizing", 1, 50)
    assert capsys.readouterr().err == "harmonizing 0/50\n"
    time.sleep(1)
    assert 1 <= capsys.readouterr().err.count("harmonizing 1/50") <= 5
    show("harmonizing", 50, 50)
    time.sleep(0.5)
    assert capsys.readouterr().err.count("\n") == 1
    show("checking", 0, 3)
    show.close()
    time.sleep(0.5)
    assert capsys.readouterr().err == "checking 0/3\n"


def test_failures_of_one_reason_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    console.start()
    console.report_failures(
        [("IM1: gap of 45.0 mm", []), ("IM2: gap of 5.1 mm", []), ("IM3: no pixels", [])]
    )
    assert capsys.readouterr().err.splitlines() == [
        "cvsct: error: IM1: gap of 45.0 mm (and 1 more like it)",
        "cvsct: error: IM3: no pixels",
    ]
