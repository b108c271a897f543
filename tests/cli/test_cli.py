"""The command line as a contract: words, files, exit codes, one clear line for every error.

What every method keeps is in `test_contract.py`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvsct.io.read import read_all
from cvsct.model.bundle import Bundle
from tests.support.commands import Run, options, train

CLASSES = {"firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"}


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
    none = {"learned_slices": 0, "learned_series": 0, "series": 1}
    assert metrics["independence"] == {"source": none, "target": none}
    assert metrics["verdict"]["kind"] == "better"
    identity = metrics["identity"]
    harmonized = json.loads((tmp_path / "h" / "manifest.json").read_text())
    assert identity["model"]["sha256"] == harmonized["model_sha256"]
    assert (identity["model"]["method"], identity["model"]["name"]) == ("spectrum", "model")
    assert [side.split(":")[0] for side in identity["model"]["trained_on"]] == ["source", "target"]
    assert set(identity["sides"]) == {"source", "harmonized", "target"}
    assert len({tuple(side["patients"]) for side in identity["sides"].values()}) == 1
    assert identity["command"].endswith("--rois 8 --out OUT")
    page = (tmp_path / "e" / "report.html").read_text()
    assert identity["model"]["sha256"] in page
    assert identity["created"][:10] in page


def test_training_scans_are_recognized_and_are_no_test(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    pair = ("--source", scans / "pair/sharp", "--target", scans / "pair/soft")
    code, _, err = run("train", "spectrum", *pair, "--out", tmp_path / "model")
    assert code == 0, err
    code, _, err = run(
        "harmonize", scans / "pair/sharp", "--model", tmp_path / "model", "--out", tmp_path / "h"
    )
    assert code == 0, err
    guard = json.loads((tmp_path / "h" / "manifest.json").read_text())["figures"]["series"][0]
    assert guard["guard"]["scan"]["learned_slices"] > 0
    code, _, err = run(
        "evaluate", "--harmonized", tmp_path / "h", "--target", scans / "pair/soft",
        "--source", scans / "pair/sharp", "--out", tmp_path / "e", "--rois", 8, "--workers", 1,
    )  # fmt: skip
    assert code == 0, err
    assert "the model learned from the scans it is tested on" in err
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["independence"]["target"]["learned_series"] == 1
    assert metrics["verdict"]["kind"] == "unclear"


def test_input_may_be_one_file_of_a_series(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    """One file of a series is a volume of one slice, at its own place."""
    file = sorted((scans / "sharp").iterdir())[2]
    code, _, err = run("harmonize", file, "--model", model, "--out", tmp_path / "one")
    assert code == 0, err
    (volume,) = read_all(tmp_path / "one")
    whole = read_all(scans / "sharp")[0]
    (index,) = np.flatnonzero(whole.geometry.z_mm == volume.geometry.z_mm[0])
    assert np.array_equal(volume.hu[0], whole.hu[index])


def test_options_that_mean_nothing_to_a_method_are_noted(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    code, _, err = run(
        "train", "spectrum", "--source", scans / "sharp", "--target", scans / "soft",
        "--out", tmp_path / "m", "--max-steps", 5, "--preset", "paper", "--seed", 3,
    )  # fmt: skip
    assert code == 0
    for option in ("--max-steps", "--preset", "--seed"):
        assert f"note: {option} means nothing to spectrum" in err


@pytest.mark.usefixtures("small_sample", "without_graphs")
def test_an_unfinished_training_is_resumed_by_its_word(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    train(run, "cvsct", scans, tmp_path / "m")
    words = [
        "train", "cvsct", "--source", scans / "sharp", "--target", scans / "soft", "--out",
        tmp_path / "m", *options("cvsct"),
    ]  # fmt: skip
    code, _, err = run(*words)
    assert code == 2
    assert "exists already" in err
    (tmp_path / "m" / "SHA256SUMS").unlink()
    code, _, err = run(*words)
    assert code == 2
    assert "unfinished training; go on with --resume" in err
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
    spent = [float("inf")]
    while len(spent) <= 8 and min(spent) >= 0.5:  # the clock of a shared processor wanders
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
