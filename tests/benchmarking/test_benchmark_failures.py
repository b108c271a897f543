"""`cvsct benchmark` where things fail: one method's failure stops no other, and can be redone."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvsct.benchmarking import train_and_evaluate
from cvsct.core.errors import TerminatedError
from cvsct.methods.registry import METHODS, find_method
from tests.conftest import phantom_hu
from tests.support.commands import Run
from tests.support.dicom_files import Change, write_series


def body(folder: Path, seed: int, blur_px: float, frame: str, change: Change | None = None) -> None:
    """A series of a trunk in a frame of reference."""

    def placed(dataset: Any, index: int) -> None:
        dataset.FrameOfReferenceUID = frame
        dataset.PatientID = frame
        if change is not None:
            change(dataset, index)

    stored = (phantom_hu(seed, blur_px, 4) + 1024).astype("<u2")
    series = f"1.4.{seed}.{int(blur_px * 10)}"
    write_series(folder, stored=stored, series=series, change=placed)


def laid_out(root: Path, one_body: bool) -> Path:
    """Two kernels to train on and to test on, of one body or of two that do not pair."""
    for part, seed in (("train", 1), ("test", 3)):
        for side, (name, blur_px) in enumerate((("A", 0.0), ("B", 0.8))):
            who = seed + (0 if one_body and part == "test" else side)
            body(root / part / name, who, blur_px, f"1.9.{who}")
    return root


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid_out(tmp_path_factory.mktemp("unpaired"), one_body=False)


def words(data: Path, out: Path, methods: str, *more: object) -> list[object]:
    return [
        *("benchmark", "--data", data, "--methods", methods, "--out", out),
        *("--rois", 6, "--workers", 1, *more),
    ]


def table(path: Path) -> dict[str, dict[str, str]]:
    """Rows by method."""
    with path.open(encoding="utf-8") as stream:
        return {row["Method"]: row for row in csv.DictReader(stream)}


def test_what_needs_no_pairs_is_tabled_and_the_reason_given(
    run: Run, unpaired: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, printed, err = run(*words(unpaired, out, "input,spectrum"))
    assert code == 0, err
    note = "test/A and test/B do not pair: A and B series share no frame of reference"
    assert err.index(note) < err.index("[1/4]"), "before anything is trained"
    for number in (1, 2):
        rows = table(out / f"unpaired{number}.csv")
        assert set(rows) == {"input", "spectrum", "target"}
        distance = {name: row["texture distance (dB)"] for name, row in rows.items()}
        assert float(distance["spectrum"]) < float(distance["input"])
        assert distance["target"] == "–"
        assert all(float(row["noise (HU)"]) > 0 for row in rows.values())
        assert all(-100 < float(row["soft tissue (HU)"]) < 100 for row in rows.values())
        ranking = table(out / f"ranking{number}.csv")
        assert ranking["spectrum"]["PSNR (dB)"] == ranking["spectrum"]["CCC across"] == "–"
        assert float(ranking["spectrum"]["fit (s)"]) >= 0
    assert "There are no figures of pairs: source and target show different patients" in printed
    assert "texture of spectrum comes closest" in (out / "tables.md").read_text()
    assert "do not pair" not in (out / "benchmark.html").read_text()
    written = [path.stat().st_mtime_ns for path in (out / "results").rglob("*") if path.is_file()]
    code, again, err = run(*words(unpaired, out, "input,spectrum"))
    assert code == 0, err
    assert printed.endswith(again), "the tables once more, and nothing was done again"
    assert written == [
        path.stat().st_mtime_ns for path in (out / "results").rglob("*") if path.is_file()
    ]


@pytest.mark.usefixtures("no_evaluation")
def test_a_paired_method_without_pairs_is_told_before_and_trains_nothing(
    run: Run, unpaired: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, err = run(*words(unpaired, out, "input,cgan"))
    assert code == 3
    note = "train/ holds no pairs for cgan to learn from"
    assert err.index(note) < err.index("[1/4]")
    assert {path.name for path in (out / "models").iterdir()} == {"input-0"}
    assert table(out / "ranking1.csv")["cgan"]["CCC across"] == "failed"
    record = json.loads((out / "results.json").read_text())
    assert set(record["failed"]) == {"cgan, seed 0, A to B", "cgan, seed 0, B to A"}


@pytest.mark.usefixtures("no_evaluation")
def test_series_at_one_place_of_different_patients_do_not_pair(run: Run, tmp_path: Path) -> None:
    data = laid_out(tmp_path / "data", one_body=False)
    for part in ("train", "test"):
        for side in ("A", "B"):
            for file in (data / part / side).iterdir():
                file.unlink()
    for part, seed in (("train", 1), ("test", 3)):
        for side, (name, blur_px) in enumerate((("A", 0.0), ("B", 0.8))):
            who = seed + side

            def nameless(dataset: Any, _: int, who: int = who) -> None:
                del dataset.FrameOfReferenceUID
                dataset.PatientID = f"P{who}"

            body(data / part / name, who, blur_px, "1.9.7", nameless)
    code, _, err = run(*words(data, tmp_path / "out", "input"))
    assert "do not pair: series at the same place are of different patients" in err
    assert "[1/2]" in err
    assert code in (0, 1)


def test_refused_test_scans_are_told_before_anything_is_trained(run: Run, tmp_path: Path) -> None:
    data = laid_out(tmp_path / "data", one_body=True)
    sorted((data / "test" / "A").iterdir())[1].unlink()
    code, _, err = run(*words(data, tmp_path / "out", "input"))
    assert code == 1
    assert "test/A, series 1: " in err
    assert not (tmp_path / "out").exists()


def crash(*_: object) -> None:
    raise ValueError("Doe^Jane")


def no_memory(*_: object) -> None:
    raise MemoryError


def disk_error(*_: object) -> None:
    raise OSError(5, "Input/output error", "/data/Doe^Jane.dcm")


def leave(*_: object) -> None:
    sys.exit(3)


FAILURES = {
    "crash": (crash, "unexpected ValueError in test_benchmark_failures.py line"),
    "memory": (no_memory, "not enough memory"),
    "disk": (disk_error, "Input/output error"),
    "exit": (leave, "exit code 3"),
}


@pytest.mark.usefixtures("no_evaluation")
@pytest.mark.parametrize(
    ("step", "failure"),
    [
        ("evaluate", "disk"),
        pytest.param("train", "crash", marks=pytest.mark.slow),
        pytest.param("harmonize", "memory", marks=pytest.mark.slow),
        pytest.param("train", "exit", marks=pytest.mark.slow),
        pytest.param("harmonize", "exit", marks=pytest.mark.slow),
        pytest.param("evaluate", "crash", marks=pytest.mark.slow),
    ],
)
def test_a_method_that_fails_in_any_way_is_named_and_redone_on_the_next_run(
    run: Run, unpaired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    step: str, failure: str,
) -> None:  # fmt: skip
    fail, reason_text = FAILURES[failure]
    whole: Callable[..., Any] = getattr(train_and_evaluate, step)
    out = tmp_path / "out"

    def failing(*about: Any, **more: Any) -> None:
        if "histogram" in f"{about} {more.get('model')}":
            fail()
        whole(*about, **more)

    monkeypatch.setattr(train_and_evaluate, step, failing)
    code, _, err = run(*words(unpaired, out, "histogram,input"))
    assert code == 3, err
    record = json.loads((out / "results.json").read_text())
    assert set(record["failed"]) == {"histogram, seed 0, A to B", "histogram, seed 0, B to A"}
    assert {result["method"] for result in record["results"]} >= {"input"}
    assert all(reason_text in reason for reason in record["failed"].values())
    assert "Failed: histogram" in (out / "tables.md").read_text()
    assert table(out / "ranking2.csv")["histogram"]["CCC across"] == "failed"
    assert "Jane" not in err
    assert "Jane" not in json.dumps(record)
    assert "Traceback" not in err
    monkeypatch.setattr(train_and_evaluate, step, whole)
    code, _, err = run(*words(unpaired, out, "histogram,input"))
    assert code == 0, err
    record = json.loads((out / "results.json").read_text())
    assert record["failed"] == {}
    assert "histogram" in {result["method"] for result in record["results"]}


@pytest.mark.usefixtures("no_evaluation")
def test_a_trainer_that_raises_anything_is_one_line(
    run: Run, unpaired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As spectrum did on coarse pixels: in the called command, not in the benchmark's own code."""
    from dataclasses import replace

    row = replace(find_method("histogram"), name="odd", train=crash)
    monkeypatch.setitem(METHODS, "odd", row)
    code, _, err = run(*words(unpaired, tmp_path / "out", "odd,input"))
    assert code == 3
    assert "unexpected ValueError" in err


def test_only_a_request_to_end_ends_it(
    run: Run, unpaired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_and_evaluate, "evaluate", interrupted)
    assert run(*words(unpaired, tmp_path / "out", "input"))[0] not in (0, 3)

    def asked(*_: object, **__: object) -> None:
        raise TerminatedError("asked to end")

    monkeypatch.setattr(train_and_evaluate, "evaluate", asked)
    assert run(*words(unpaired, tmp_path / "out", "input"))[0] == 1
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.usefixtures("no_evaluation")
def test_a_cohort_of_which_a_series_failed_is_no_result_and_tried_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = laid_out(tmp_path / "data", one_body=True)
    for side, blur_px in (("A", 0.0), ("B", 0.8)):
        files = list((data / "test" / side).iterdir())
        (data / "test" / side / "1").mkdir()
        for file in files:
            file.rename(data / "test" / side / "1" / file.name)
        body(data / "test" / side / "2", 5, blur_px, "1.9.5")
    good = [file.read_bytes() for file in sorted((data / "test" / "A" / "2").iterdir())]
    out = tmp_path / "out"
    whole = train_and_evaluate.harmonize

    def damaging(scans: Path, *about: Any, **more: Any) -> None:
        """A disk that cannot read some pixels for once."""
        file = sorted((data / "test" / "A" / "2").iterdir())[1]
        file.write_bytes(good[1][:-4000])
        try:
            whole(scans, *about, **more)
        finally:
            file.write_bytes(good[1])

    monkeypatch.setattr(train_and_evaluate, "harmonize", damaging)
    code, _, err = run(*words(data, out, "input"))
    assert code == 1, err
    assert "1 series of test/A could not be harmonized" in err
    monkeypatch.setattr(train_and_evaluate, "harmonize", whole)
    code, _, err = run(*words(data, out, "input"))
    assert code == 0, err
    images = json.loads((out / "results/input-0/a2b/images/manifest.json").read_text())
    assert images["figures"]["n_failed"] == 0


@pytest.mark.usefixtures("no_evaluation")
def test_a_report_that_is_not_whole_is_made_again(run: Run, unpaired: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(*words(unpaired, out, "input"))[0] == 0
    (out / "results/input-0/a2b/report/metrics.json").write_text("{")
    (out / "results/input-0/b2a/report/metrics.json").unlink()
    code, _, err = run(*words(unpaired, out, "input"))
    assert code == 0, err
    assert json.loads((out / "results.json").read_text())["failed"] == {}


@pytest.mark.usefixtures("no_evaluation")
def test_the_rest_of_a_training_that_never_got_anywhere_does_not_stand_in_the_way(
    run: Run, unpaired: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "models" / "input-0").mkdir(parents=True)
    (out / "models" / "input-0" / "train.jsonl").write_text("{}\n")
    code, _, err = run(*words(unpaired, out, "input"))
    assert code == 0, err
