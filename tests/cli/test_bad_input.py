"""What a user might get wrong: one clear line, the exit code of the contract, nothing left over."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cvsct.io.read import read_all
from tests.support.commands import Run
from tests.support.dicom_files import write_series


def gap(dataset: Any, index: int) -> None:
    if index == 3:
        dataset.ImagePositionPatient = [-100, -120, 20.0]


@pytest.fixture
def bad(scans: Path, model: Path, tmp_path: Path) -> dict[str, Path]:
    """Everything a user might get wrong, by name."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    (tmp_path / "text.dcm").write_text("no DICOM at all")
    write_series(tmp_path / "gap", change=gap, series="1.9.1")
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(model, tmp_path / "altered")
    card = tmp_path / "altered" / "card.md"
    card.write_text(card.read_text() + "more")
    return {"scans": scans, **{path.name: path for path in tmp_path.iterdir()}}


TRAIN = ["train", "spectrum", "--source", "{scans}/sharp", "--target", "{scans}/soft"]
HARMONIZE = ["harmonize", "{scans}/sharp", "--model", "{model}"]
EVALUATE = ["evaluate", "--harmonized", "{scans}/sharp", "--target", "{scans}/soft"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "spectrun", *TRAIN[2:]], 2, "no method 'spectrun'"),
        ([*TRAIN[:3], "{text.dcm}", *TRAIN[4:]], 1, "text.dcm"),
        ([*TRAIN[:3], "{empty}", *TRAIN[4:]], 1, "empty"),
        ([*TRAIN[:3], "{empty}/nothing", *TRAIN[4:]], 2, "no such file"),
        ([*TRAIN[:3], "{gap}", *TRAIN[4:]], 1, "gap of 10.0 mm"),
        ([*TRAIN[:5], "{scans}/sharp"], 2, "source and target are both"),
        ([*TRAIN[:5], "{scans}"], 2, "1 series lies in both"),
        ([*TRAIN, "--set", "max_gian=3"], 2, "max_gain"),
        ([*TRAIN, "--set", "max_gain"], 2, "key=value"),
        ([*TRAIN, "--preset", "gpu"], 2, "'gpu' is not one of"),
        ([*TRAIN, "--out", "{full}"], 2, "exists already"),
        (["harmonize", "{text.dcm}", *HARMONIZE[2:]], 1, "text.dcm"),
        (["harmonize", "{empty}", *HARMONIZE[2:]], 1, "empty"),
        (["harmonize", "{gap}", *HARMONIZE[2:]], 1, "gap of 10.0 mm"),
        ([*HARMONIZE[:3], "{empty}/no-model"], 2, "no such model folder"),
        ([*HARMONIZE[:3], "{empty}"], 1, "not a finished model"),
        ([*HARMONIZE[:3], "{altered}"], 1, "card.md does not match its hash"),
        ([*HARMONIZE, "--out", "{full}"], 2, "exists already"),
        ([*EVALUATE[:2], "{empty}", *EVALUATE[3:]], 1, "empty"),
        ([*EVALUATE, "--out", "{full}"], 2, "exists already"),
        ([*EVALUATE, "--rois", "0"], 2, "rois"),
    ],
)
def test_bad_input_gives_one_clear_line_and_leaves_nothing(
    run: Run, bad: dict[str, Path], tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    given = [word.format_map(bad)
             if "{text.dcm}" not in word else str(bad["text.dcm"]) for word in words]  # fmt: skip
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    before = sorted(tmp_path.iterdir())
    found, _, err = run(*given)
    assert found == code, err
    assert says in err
    assert "Traceback" not in err
    (line,) = (line for line in err.splitlines() if "error" in line)
    assert line.startswith("cvsct: error: ")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    "words",
    [
        TRAIN, HARMONIZE, EVALUATE, [*HARMONIZE, "--resume"],
        ["train", "cyclegan", *TRAIN[2:]],
        ["features", "{scans}/sharp"],
        ["groups", "{text.dcm}"],
        ["simulate"], ["demo"],
        ["benchmark", "--data", "{scans}", "--methods", "input"],
        ["study", "plan", "{scans}"],
        ["profile", "{scans}/sharp"],
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    run: Run, bad: dict[str, Path], tmp_path: Path, words: list[str]
) -> None:
    given = [str(bad["text.dcm"]) if word == "{text.dcm}" else word.format_map(bad)
             for word in words]  # fmt: skip
    out = tmp_path / "text.dcm" / "a" / "out.profile"
    code, _, err = run(*given, "--out", out)
    assert code == 2, err
    assert err.splitlines()[-1].startswith(f"cvsct: error: {out}: ")
    assert "text.dcm is a file, no folder; name another place" in err


def test_one_bad_series_does_not_stop_the_others(
    run: Run, scans: Path, bad: dict[str, Path], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copytree(scans / "sharp", tree / "good")
    write_series(tree / "bad", change=gap, series="1.9.1")
    write_series(tree / "other", series="1.9.2")
    code, _, err = run("harmonize", tree, "--model", bad["model"], "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())["figures"]["series"]
    assert code == 3
    assert "gap of 10.0 mm" in err
    failed = [each for each in found if "error" in each]
    assert [each["source_series_uid"] for each in failed] == ["1.9.1"]
    assert len(read_all(tmp_path / "out")) == len(found) - 1 >= 1


@pytest.mark.parametrize("words", [TRAIN, HARMONIZE])
def test_a_full_disk_gives_one_line_and_leaves_nothing(
    run: Run,
    bad: dict[str, Path],
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run(*[word.format_map(bad) for word in words], "--out", tmp_path / "out")
    assert code == 1
    assert "No space left on device; free some space" in err
    assert sorted(tmp_path.iterdir()) == before
