"""The command line as a contract: words, files, exit codes, one clear line for every error."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvsct import cli
from cvsct.io.dicom import read_all
from cvsct.methods import METHODS
from cvsct.models.bundle import Bundle
from cvsct.training.vgg import WEIGHTS_VARIABLE
from tests.conftest import phantom_hu
from tests.dicom_files import write_series

TINY = (
    *("generator.width=8", "generator.reduction=4", "patch_px=24", "batch=2", "precision=fp32"),
    *("discriminator.widths=[8,8]", "discriminator.strides=[2,1]"),
)
CLASSES = {"firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in-process: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            cli.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of series: `sharp` and `soft` of two bodies, and the `pair` of a third."""
    root = tmp_path_factory.mktemp("scans")
    for name, seed, blur_px in (
        ("sharp", 1, 0.0),
        ("soft", 2, 0.8),
        ("pair/sharp", 3, 0.0),
        ("pair/soft", 3, 0.8),
    ):
        stored = (phantom_hu(seed, blur_px) + 1024).astype("<u2")
        write_series(root / name, stored=stored, series=f"1.2.{seed}.{int(blur_px * 10)}")
    return root


@pytest.fixture(autouse=True)
def _vgg(vgg_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(vgg_weights))


def options(method: str) -> list[str]:
    """Settings that make a training tiny."""
    if METHODS[method].kind == "classical":
        return []
    pairs = [*TINY, 'domain.layers=["relu2_1"]']
    return ["--max-steps", "2", *(word for pair in pairs for word in ("--set", pair))]


def train(run: Run, method: str, scans: Path, out: Path) -> Bundle:
    code, _, err = run(
        "train", method, "--source", scans / "sharp", "--target", scans / "soft", "--out", out,
        *options(method),
    )  # fmt: skip
    assert code == 0, err
    return Bundle.read(out)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_keeps_the_contract(
    run: Run, method: str, scans: Path, tmp_path: Path
) -> None:
    model = train(run, method, scans, tmp_path / "model")
    assert model.method == method
    source = read_all(scans / "pair/sharp")[0]
    for reverse in [[], ["--reverse"]] if METHODS[method].reversible else [[]]:
        out = tmp_path / f"out{len(reverse)}"
        code, printed, err = run(
            "harmonize", scans / "pair/sharp", "--model", tmp_path / "model", "--out", out, *reverse
        )
        assert code == 0, err
        assert "1 series, 6 slices" in printed
        (derived,) = read_all(out)
        assert np.array_equal(derived.geometry.positions_mm, source.geometry.positions_mm)
        assert derived.geometry.pixel_mm == source.geometry.pixel_mm
        assert derived.geometry.frame_of_reference == source.geometry.frame_of_reference
        assert derived.hu.shape == source.hu.shape
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["model_sha256"] == model.sha256
        assert manifest["inputs"]["series"] == [source.series_uid]
        if method == "input":
            assert np.array_equal(derived.hu, source.hu)


@pytest.mark.parametrize("method", ["histogram", "spectrum", "cvsct"])
def test_the_same_words_give_the_same_bytes(
    run: Run, method: str, scans: Path, tmp_path: Path
) -> None:
    first, second = (train(run, method, scans, tmp_path / name) for name in ("m1", "m2"))
    for name, array in first.weights.items():
        assert np.array_equal(array, second.weights[name])
    files = []
    for out in ("o1", "o2"):
        run("harmonize", scans / "pair", "--model", tmp_path / "m1", "--out", tmp_path / out)
        found = sorted((tmp_path / out).rglob("*.dcm"))
        files.append({path.relative_to(tmp_path / out): path.read_bytes() for path in found})
    assert len(files[0]) == 12
    assert files[0] == files[1]


def test_learning_from_other_bodies_brings_the_pair_together(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    """The whole chain on DICOM; metrics.json has the contract's keys, and the filter helps."""
    train(run, "spectrum", scans, tmp_path / "model")
    code, _, err = run(
        "harmonize", scans / "pair/sharp", "--model", tmp_path / "model", "--out", tmp_path / "h"
    )
    assert code == 0, err
    code, printed, err = run(
        "evaluate", "--harmonized", tmp_path / "h", "--target", scans / "pair/soft",
        "--source", scans / "pair/sharp", "--out", tmp_path / "e", "--rois", 8, "--workers", 1,
    )  # fmt: skip
    assert code == 0, err
    assert "PSNR" in printed
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    for figures in (metrics, metrics["input"]):
        for key in ("psnr_db", "ssim", "ncc", "hu_bias", "n_slices", "n_rois"):
            assert isinstance(figures[key], float | int), key
        assert figures["ccc_within"].keys() == figures["ccc_across"].keys() == CLASSES
    assert metrics["psnr_db"] > metrics["input"]["psnr_db"] + 3
    mean = {
        name: np.mean(list(each["ccc_across"].values()))
        for name, each in (("after", metrics), ("before", metrics["input"]))
    }
    assert mean["after"] > mean["before"] + 0.2
    assert {path.name for path in (tmp_path / "e").iterdir()} == {
        "metrics.json", "features.csv", "report.html", "manifest.json",
    }  # fmt: skip


def gap(dataset: Any, index: int) -> None:
    if index == 3:
        dataset.ImagePositionPatient = [-100, -120, 20.0]


@pytest.fixture
def bad(scans: Path, tmp_path: Path, run: Run) -> dict[str, Path]:
    """Everything a user might get wrong, by name."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    (tmp_path / "text.dcm").write_text("no DICOM at all")
    write_series(tmp_path / "gap", change=gap, series="1.9.1")
    train(run, "input", scans, tmp_path / "model")
    train(run, "input", scans, tmp_path / "altered")
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
        ([*TRAIN[:3], "{empty}/nothing", *TRAIN[4:]], 1, "no such file"),
        ([*TRAIN[:3], "{gap}", *TRAIN[4:]], 1, "gap of 10.0 mm"),
        ([*TRAIN[:5], "{scans}/sharp"], 2, "source and target are both"),
        ([*TRAIN[:5], "{scans}"], 2, "1 series lie in both"),
        ([*TRAIN, "--set", "max_gian=3"], 2, "max_gain"),
        ([*TRAIN, "--set", "max_gain"], 2, "key=value"),
        ([*TRAIN, "--preset", "gpu"], 2, "no preset 'gpu'"),
        ([*TRAIN, "--out", "{full}"], 2, "exists already"),
        (["harmonize", "{text.dcm}", *HARMONIZE[2:]], 1, "text.dcm"),
        (["harmonize", "{empty}", *HARMONIZE[2:]], 1, "empty"),
        (["harmonize", "{gap}", *HARMONIZE[2:]], 1, "gap of 10.0 mm"),
        ([*HARMONIZE[:3], "{empty}/no-model"], 1, "no such model folder"),
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
    if says != "rois":
        (line,) = (line for line in err.splitlines() if "error" in line)
        assert line.startswith("cvsct: error: ")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


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


def test_input_may_be_one_file_of_a_series(
    run: Run, bad: dict[str, Path], scans: Path, tmp_path: Path
) -> None:
    """One file of a series is a volume of one slice, at its own place."""
    file = sorted((scans / "sharp").iterdir())[2]
    code, _, err = run("harmonize", file, "--model", bad["model"], "--out", tmp_path / "one")
    assert code == 0, err
    (volume,) = read_all(tmp_path / "one")
    whole = read_all(scans / "sharp")[0]
    (index,) = np.flatnonzero(whole.geometry.z_mm == volume.geometry.z_mm[0])
    assert np.array_equal(volume.hu[0], whole.hu[index])


def test_options_that_mean_nothing_to_a_method_are_noted(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    code, _, err = run(
        *[word.format(scans=scans) for word in TRAIN], "--out", tmp_path / "m",
        "--max-steps", 5, "--preset", "paper", "--seed", 3,
    )  # fmt: skip
    assert code == 0
    for option in ("--max-steps", "--preset", "--seed"):
        assert f"note: {option} means nothing to spectrum" in err


def test_an_unfinished_training_is_resumed_by_its_word(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    train(run, "cvsct", scans, tmp_path / "m")
    words = [
        "train", "cvsct", "--source", scans / "sharp", "--target", scans / "soft", "--out",
        tmp_path / "m", *options("cvsct"),
    ]  # fmt: skip
    assert run(*words)[0] == 2
    longer = [word if word != "2" else "4" for word in words]
    code, _, err = run(*longer, "--resume")
    assert code == 0, err
    assert Bundle.read(tmp_path / "m").training["steps"] == 4


def test_methods_lists_the_table(run: Run) -> None:
    code, printed, _ = run("methods", "--json")
    rows = json.loads(printed)
    assert code == 0
    assert {"input", "histogram", "spectrum", "cvsct"} <= {row["name"] for row in rows}
    assert all({"name", "kind", "reversible", "recommended"} <= row.keys() for row in rows)
    assert [row["name"] for row in rows if row["recommended"]] == ["spectrum"]
    assert "spectrum" in run("methods")[1]


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, cvsct.cli; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert not {"torch", "numpy", "scipy", "pydicom", "pydantic"} & set(loaded)
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "cvsct.cli", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "harmonize" in done.stdout
    assert min(spent) < 0.5, "seconds of CPU for cvsct --help"
