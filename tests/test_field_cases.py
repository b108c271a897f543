"""The field cases of `../shared`, each made by its script and given to the commands it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Run

pytestmark = pytest.mark.shared

MODEL = "siemens-bl64-br40-spectrum"


@pytest.fixture
def case(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> Path:
    """Where the case of a test's name lies, made anew."""
    name = request.node.name.removeprefix("test_").partition("[")[0].replace("_", "-")
    folder = shared / "field_cases" / name
    out = tmp_path / "case"
    subprocess.run(
        [sys.executable, "-B", "make.py", str(out)], cwd=folder, check=True, capture_output=True
    )
    return out


def harmonize(run: Run, scans: Path, out: Path, *words: object) -> tuple[int, str, str]:
    return run("harmonize", scans, "--model", MODEL, "--guard", "off", "--out", out, *words)


def slices(folder: Path) -> int:
    return len(list(folder.rglob("*.dcm")))


def test_coarse_pixels(run: Run, case: Path, tmp_path: Path) -> None:
    sides = ("--source", case / "A", "--target", case / "B")
    code, _, err = run("train", "spectrum", *sides, "--out", tmp_path / "model")
    assert code == 0, err
    assert "5.5 mm" in err


@pytest.mark.parametrize("mask", ["rs.dcm"])
def test_couch_outside(run: Run, case: Path, tmp_path: Path, mask: str) -> None:
    assert harmonize(run, case / "A", tmp_path / "H")[0] == 0
    code, _, err = run("evaluate", "--harmonized", tmp_path / "H", "--target", case / "B",
                       "--masks", case / mask, "--out", tmp_path / "E")  # fmt: skip
    assert code == 0, err
    assert "External" in err


def test_two_point_contour(run: Run, case: Path, tmp_path: Path) -> None:
    assert harmonize(run, case / "A", tmp_path / "H")[0] == 0
    for mask in ("rs", "one"):
        code, _, err = run("evaluate", "--harmonized", tmp_path / "H", "--target", case / "B",
                           "--masks", case / f"{mask}.dcm", "--out", tmp_path / mask)  # fmt: skip
        assert code == 0, err
        assert "enclose nothing" in err


def test_rt_utils_frame(run: Run, case: Path, shared: Path, tmp_path: Path) -> None:
    public = shared / "field_cases" / "rt-utils-frame" / "public"
    for name, source, target, mask in (
        ("own", case / "A", case / "B", case / "rs.dcm"),
        ("public", public / "ct", public / "ct", public / "rt.dcm"),
    ):
        assert harmonize(run, source, tmp_path / name)[0] == 0
        code, _, err = run("evaluate", "--harmonized", tmp_path / name, "--target", target,
                           "--masks", mask, "--out", tmp_path / f"E{name}")  # fmt: skip
        assert code == 0, err


@pytest.mark.slow
def test_derived_in_training(run: Run, case: Path, tmp_path: Path) -> None:
    assert harmonize(run, case / "A" / "scans", case / "A" / "harmonised")[0] == 0
    sides = ("--source", case / "A", "--target", case / "B")
    code, _, err = run("train", "spectrum", *sides, "--out", tmp_path / "M")
    assert code == 1
    assert "made by this program" in err
    code, _, err = run("train", "spectrum", *sides, "--out", tmp_path / "M", "--skip-refused")
    assert code == 0, err


@pytest.mark.parametrize("kind", ["z", "iodine"])
def test_effective_z(run: Run, case: Path, tmp_path: Path, kind: str) -> None:
    word = {"z": "EFF_ATOMIC_NUM", "iodine": "MAT_SPECIFIC"}[kind]
    for words in (
        ("inspect", case / kind),
        ("harmonize", case / kind, "--model", MODEL, "--out", tmp_path / "H"),
        ("train", "spectrum", "--source", case / kind, "--target", case / "ct",
         "--out", tmp_path / "M"),
    ):  # fmt: skip
        code, _, err = run(*words)
        assert (code, word in err) == (1, True), err


def test_intercept_per_slice(run: Run, case: Path, tmp_path: Path) -> None:
    code, out, err = harmonize(run, case, tmp_path / "H")
    assert code == 0, err
    assert "1 series, 3 slices" in out


@pytest.mark.parametrize("tree", ["mixed", "links"])
def test_linked_folders(run: Run, case: Path, tree: str) -> None:
    code, out, err = run("inspect", case / tree, "--json")
    assert code == 0, err
    assert len(json.loads(out)) == 3


def test_misnamed_files(run: Run, case: Path) -> None:
    expected = {
        "good.nii.gz": "", "plain_named.nii.gz": "", "gzip_named.nii": "", "flat.nii.gz": "",
        "scan.nrrd": "convert it to NIfTI", "scan.mha": "convert it to NIfTI",
        "scan.zip": "unpack it",
    }  # fmt: skip
    for name, remedy in expected.items():
        code, _, err = run("inspect", case / name)
        assert (code, remedy in err) == (1 if remedy else 0, True), err


def test_one_bad_series(run: Run, case: Path, tmp_path: Path) -> None:
    sides = ("--source", case / "A", "--target", case / "B")
    code, _, err = run("train", "spectrum", *sides, "--out", tmp_path / "M")
    assert code == 1
    assert err.count("gap of 10.0 mm") == 2
    code, _, err = run("train", "spectrum", *sides, "--out", tmp_path / "M", "--skip-refused")
    assert code == 0, err


def test_rescale_type_words(run: Run, case: Path) -> None:
    for folder in case.iterdir():
        assert run("inspect", folder)[0] == 0


@pytest.mark.parametrize("which", ["all", "two"])
def test_same_sop_uid(run: Run, case: Path, tmp_path: Path, which: str) -> None:
    code, out, err = harmonize(run, case / which, tmp_path / "H", "--nifti")
    assert code == 0, err
    assert "1 series, 4 slices" in out
    assert slices(tmp_path / "H") == 4


@pytest.mark.parametrize(
    ("domain", "told"), [("one", "slice"), ("mixed", "kernel"), ("water", "tissue")]
)
def test_thin_training(run: Run, case: Path, tmp_path: Path, domain: str, told: str) -> None:
    sides = ("--source", case / domain, "--target", case / "B")
    code, _, err = run("train", "spectrum", *sides, "--out", tmp_path / "M")
    assert code == (1 if domain == "water" else 0), err
    assert told in err


def test_two_patients_one_series(run: Run, case: Path, tmp_path: Path) -> None:
    for words in (
        ("inspect", case),
        ("harmonize", case, "--model", MODEL, "--out", tmp_path / "H"),
    ):
        code, _, err = run(*words)
        assert (code, "mixed patient" in err) == (1, True), err
    assert not (tmp_path / "H").exists()


def test_unlike_patients_paired(run: Run, case: Path, tmp_path: Path) -> None:
    assert harmonize(run, case / "A", tmp_path / "H")[0] == 0
    code, out, err = run("evaluate", "--harmonized", tmp_path / "H", "--target", case / "B",
                         "--source", case / "A", "--rois", 6,
                         "--out", tmp_path / "E")  # fmt: skip
    assert code == 0, err
    assert "different patients" in err + out
    metrics = json.loads((tmp_path / "E" / "metrics.json").read_text())
    assert (metrics["paired"], metrics["psnr_db"]) == (False, None)


@pytest.mark.slow
def test_unpaired_benchmark(run: Run, case: Path, tmp_path: Path) -> None:
    words = ("benchmark", "--data", case, "--methods", "input,histogram", "--rois", "6")
    code, _, err = run(*words, "--out", tmp_path / "T")
    assert code == 0, err
    assert (tmp_path / "T" / "tables.md").stat().st_size


def test_variable_spacing(run: Run, case: Path, tmp_path: Path) -> None:
    code, _, err = harmonize(run, case, tmp_path / "H")
    assert code == 1
    assert "slice distance changes from 2.5 to 7.5 mm" in err


@pytest.mark.parametrize("kind", ["empty", "cut"])
def test_zero_byte_tail(run: Run, case: Path, kind: str) -> None:
    code, _, err = run("inspect", case / kind)
    assert code == 3
    assert "IM5, IM6" in err
