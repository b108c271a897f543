"""`cvsct benchmark` and the further inputs of `cvsct evaluate`, on tiny scans."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cvsct.benchmarking import results as benchmark_results
from cvsct.benchmarking import train_and_evaluate
from cvsct.benchmarking.folder import training_s
from cvsct.core.errors import TerminatedError
from cvsct.io.read import read_all
from cvsct.methods.registry import METHODS, Method, find_method
from tests.conftest import phantom_hu
from tests.support.commands import Run
from tests.support.dicom_files import write_series


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kernels: other bodies to train on, one body to test on, scanned twice."""
    root = tmp_path_factory.mktemp("benchmark")
    for part, kernel, seed, blur_px in (
        ("train", "sharp", 1, 0.0),
        ("train", "soft", 2, 0.8),
        ("test", "sharp", 3, 0.0),
        ("test", "soft", 3, 0.8),
    ):
        hu = phantom_hu(seed, blur_px)
        write_series(
            root / part / kernel,
            stored=(hu + 1024).astype("<u2"),
            series=f"1.3.{seed}.{int(blur_px * 10)}",
        )
        if part == "test":
            noise = np.rint(np.random.default_rng(9).normal(0, 0.7, hu.shape))
            again = np.maximum(hu + noise, -1024) + 1024
            write_series(
                root / "repeat" / kernel,
                stored=again.astype("<u2"),
                series=f"1.3.{seed}.{int(blur_px * 10)}.9",
            )
    return root


@pytest.fixture(scope="module")
def evaluated() -> dict[tuple[str, str], Path]:
    """Reports that were made of this module's scans, by the model and the target."""
    return {}


@pytest.fixture
def evaluated_once(evaluated: dict[tuple[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation of what was evaluated before copies the report: the images are the same."""
    whole = train_and_evaluate.evaluate

    def evaluate(harmonized: Path, target: Path, *, out: Path, **more: Any) -> None:
        key = (harmonized.parents[1].name, target.name)
        if key in evaluated:
            shutil.copytree(evaluated[key], out)
        else:
            whole(harmonized, target, out=out, **more)
            evaluated[key] = out

    monkeypatch.setattr(train_and_evaluate, "evaluate", evaluate)


def words(data: Path, out: Path, methods: str, *more: object) -> list[object]:
    return [
        *("benchmark", "--data", data, "--methods", methods, "--out", out),
        *("--rois", 8, "--workers", 1, *more),
    ]


@pytest.mark.usefixtures("evaluated_once")
def test_a_benchmark_goes_on_where_it_was_and_takes_more_methods(
    run: Run, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, printed, err = run(*words(data, out, "spectrum"))
    assert code == 0, err
    assert "sharp to soft" in printed
    written = {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*")}
    written |= {path: path.stat().st_mtime_ns for path in (out / "results").rglob("*")}
    code, _, err = run(*words(data, out, "input,spectrum"))
    assert code == 0, err
    assert all(path.stat().st_mtime_ns == time for path, time in written.items() if path.is_file())
    record = json.loads((out / "results.json").read_text())
    assert [(result["method"], result["direction"]) for result in record["results"]] == [
        ("input", 0), ("input", 1), ("spectrum", 0), ("spectrum", 1),
        (benchmark_results.COMBAT, 0), (benchmark_results.COMBAT, 1),
    ]  # fmt: skip
    there = record["results"][2]["metrics"]
    assert there["retest"]["ccc_across_mean"] > there["ccc_across_mean"]
    assert there["ccc_across_mean"] > there["input"]["ccc_across_mean"]
    assert 0.9 < there["way_to_retest"]["share"] < 1
    assert there["physics"]["idempotence"] is not None
    with (out / "table2.csv").open() as stream:
        names = [row[0] for row in csv.reader(stream)]
    assert names == [
        "Feature class",
        *(
            "sharp to soft conversion",
            benchmark_results.INPUT,
            "spectrum",
            benchmark_results.COMBAT,
            benchmark_results.RETEST,
        ),
        *(
            "soft to sharp conversion",
            benchmark_results.INPUT,
            "spectrum",
            benchmark_results.COMBAT,
            benchmark_results.RETEST,
        ),
    ]
    page = (out / "benchmark.html").read_text()
    for link in ("results/spectrum-0/a2b/report/report.html",):
        assert link in page
        assert (out / link).is_file()
    assert "spectrum comes closest" in (out / "tables.md").read_text()


@pytest.mark.usefixtures("evaluated_once")
def test_one_failing_method_does_not_stop_the_others(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, err = run(*words(data, out, "cyclegan,input", "--set", "patch_px=4000"))
    assert code == 3
    assert "cvsct: error:" in err
    record = json.loads((out / "results.json").read_text())
    assert set(record["failed"]) == {
        "cyclegan, seed 0, sharp to soft", "cyclegan, seed 0, soft to sharp",
    }  # fmt: skip
    assert {result["method"] for result in record["results"]} == {"input", benchmark_results.COMBAT}
    assert "Failed: cyclegan" in (out / "benchmark.html").read_text()


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Method:
    """A paired method of one way, as a row: what it learns is of no matter here."""
    row = replace(
        find_method("histogram"),
        name="twin",
        kind="paired",
        reversible=False,
        uses=("max_steps", "max_minutes"),
    )
    monkeypatch.setitem(METHODS, "twin", row)
    return row


def with_pairs(data: Path, root: Path) -> Path:
    """The same data with a body scanned on both, to learn pairs from."""
    root.mkdir()
    for part in data.iterdir():
        (root / part.name).symlink_to(part)
    for kernel, blur_px in (("sharp", 0.0), ("soft", 0.8)):
        stored = (phantom_hu(4, blur_px) + 1024).astype("<u2")
        write_series(root / "paired" / kernel, stored=stored, series=f"1.3.4.{int(blur_px * 10)}")
    return root


def learned_from(model: Path) -> list[str]:
    """Series on both sides."""
    inputs = json.loads((model / "manifest.json").read_text())["inputs"]
    return [*inputs["source"], *inputs["target"]]


@pytest.mark.usefixtures("no_evaluation")
def test_a_paired_method_learns_from_the_paired_scans_one_way_at_a_time(
    run: Run, data: Path, tmp_path: Path, twin: Method
) -> None:
    out = tmp_path / "out"
    code, printed, err = run(*words(with_pairs(data, tmp_path / "data"), out, "histogram,twin"))
    assert code == 0, err
    assert learned_from(out / "models" / "twin-0") == ["1.3.4.0", "1.3.4.8"]
    assert learned_from(out / "models" / "twin-0-b2a") == ["1.3.4.8", "1.3.4.0"]
    assert learned_from(out / "models" / "histogram-0") == ["1.3.1.0", "1.3.2.8"]
    record = json.loads((out / "results.json").read_text())
    results = {(result["method"], result["direction"]): result for result in record["results"]}
    for direction in (0, 1):
        about = results["twin", direction]
        assert (about["kind"], about["trained_on"], about["both_ways"]) == (
            "paired", "paired/", False,
        )  # fmt: skip
        assert results["histogram", direction]["trained_on"] == "train/"
    assert results["twin", 0]["fit_s"] > 0 < results["twin", 1]["fit_s"]
    assert "| twin | paired | paired/ |" in printed
    assert "| histogram | classical | train/ |" in printed


@pytest.mark.usefixtures("no_evaluation", "no_images")
def test_paired_scans_may_come_with_the_first_method_that_learns_from_them(
    run: Run, data: Path, tmp_path: Path, twin: Method
) -> None:
    out = tmp_path / "out"
    paired = with_pairs(data, tmp_path / "data")
    assert run(*words(data, out, "histogram"))[0] == 0
    assert run(*words(paired, out, "histogram,twin"))[0] == 0
    assert run(*words(paired, out, "histogram"))[0] == 0
    code, _, err = run(*words(data, out, "twin"))
    assert code == 2
    assert "holds another benchmark (other paired" in err
    shutil.rmtree(paired / "paired" / "soft")
    code, _, err = run(*words(paired, tmp_path / "other", "twin"))
    assert code == 2
    assert "paired: holds no soft; lay the paired scans out as paired/sharp and" in err


@pytest.mark.usefixtures("no_evaluation", "no_images")
def test_without_paired_scans_a_paired_method_learns_from_train(
    run: Run, data: Path, tmp_path: Path, twin: Method
) -> None:
    """Which a real kernel pair may be; scans that are not paired are its trainer's to refuse."""
    out = tmp_path / "out"
    assert run(*words(data, out, "twin"))[0] == 0
    assert learned_from(out / "models" / "twin-0") == ["1.3.1.0", "1.3.2.8"]
    assert json.loads((out / "results.json").read_text())["results"][0]["trained_on"] == "train/"


@pytest.mark.usefixtures("no_evaluation", "no_images")
def test_a_direction_has_equal_minutes_whichever_way_a_method_trains(
    run: Run, data: Path, tmp_path: Path, twin: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training of both ways has twice the minutes; a step of it is one of each way already."""
    both = replace(twin, name="both", kind="unpaired", reversible=True)
    monkeypatch.setitem(METHODS, "both", both)
    given: dict[str, list[tuple[float, int]]] = {}
    whole = train_and_evaluate.train

    def train(name: str, *about: object, max_minutes: float, max_steps: int, **more: Any) -> None:
        given.setdefault(name, []).append((max_minutes, max_steps))
        whole(name, *about, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(train_and_evaluate, "train", train)
    out = tmp_path / "out"
    budget = ("--max-minutes", 0.5, "--max-steps", 7)
    code, printed, err = run(*words(data, out, "twin,both", *budget))
    assert code == 0, err
    assert given == {"twin": [(0.5, 7)] * 2, "both": [(1.0, 7)]}
    assert "7 steps and 0.5 minutes a direction (1 where one training serves both)" in printed
    code, _, err = run(*words(data, out, "twin", "--max-minutes", 1, "--max-steps", 7))
    assert code == 2
    assert "minutes_a_direction 0.5 there, 1.0 now" in err


def test_an_interrupted_training_counts_all_its_minutes(tmp_path: Path) -> None:
    manifest = {"timings_s": {"training": 50.0}, "figures": {"minutes": 2.0}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert training_s(tmp_path) == 120.0
    manifest["figures"] = {}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert training_s(tmp_path) == 50.0


def test_a_benchmark_asked_to_end_begins_nothing_else(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def asked_to_end(method: str, *_: object, **__: object) -> None:
        begun.append(method)
        raise TerminatedError("asked to end")

    monkeypatch.setattr(train_and_evaluate, "train", asked_to_end)
    code, _, err = run(*words(data, tmp_path / "out", "input,histogram"))
    assert (code, begun) == (1, ["input"])
    assert "asked to end" in err
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.usefixtures("no_evaluation")
def test_what_a_benchmark_refuses(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(*words(data, out, "magic"))[0] == 2
    assert run(*words(data, out, ","))[0] == 2
    assert run(*words(data, out, "cyclegan:x"))[0] == 2
    code, _, err = run(*words(tmp_path, out, "input"))
    assert code == 2
    assert "the same two scanners under train/ and test/, found train/: none" in err
    assert not out.exists()
    assert run(*words(data, out, "input"))[0] == 0
    code, _, err = run(*words(data, out, "input", "--max-steps", 3))
    assert code == 2
    assert "holds another benchmark (max_steps None there, 3 now)" in err
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert run(*words(data, tmp_path / "used", "input"))[0] == 2


def evaluate_words(data: Path, out: Path, *more: object) -> list[object]:
    test = data / "test"
    return [
        *("evaluate", "--harmonized", test / "sharp", "--target", test / "soft", "--out", out),
        *("--workers", 1, *more),
    ]


def test_features_of_whole_slices(run: Run, data: Path, tmp_path: Path) -> None:
    code, _, err = run(*evaluate_words(data, tmp_path / "e", "--regions", "slices"))
    assert code == 0, err
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["n_rois"] == metrics["n_slices"] == 6
    code, _, err = run(*evaluate_words(data, tmp_path / "f", "--regions", "circles"))
    assert code == 2
    assert "'circles' is not one of" in err


def test_features_of_a_users_masks(run: Run, data: Path, tmp_path: Path) -> None:
    (target,) = read_all(data / "test" / "soft")
    label = np.zeros(target.hu.shape, np.uint8)
    for number, (row, column) in enumerate(((60, 100), (90, 60), (120, 130), (150, 100)), start=1):
        label[1:5, row : row + 20, column : column + 24] = number
    geometry = target.geometry
    affine = np.diag([-geometry.pixel_mm[1], -geometry.pixel_mm[0], geometry.spacing_mm, 1.0])
    affine[:3, 3] = geometry.positions_mm[0] * [-1, -1, 1]
    nib.save(nib.Nifti1Image(label.transpose(2, 1, 0), affine), tmp_path / "mask.nii.gz")
    code, _, err = run(*evaluate_words(data, tmp_path / "e", "--masks", tmp_path / "mask.nii.gz"))
    assert code == 0, err
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["n_rois"] == 4 * 4
    with (tmp_path / "e" / "features.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label"] for row in rows} == {"1", "2", "3", "4"}
    first = rows[0]
    assert (first["row"], first["column"], first["rows"], first["columns"]) == (
        "60", "100", "20", "24",
    )  # fmt: skip
    other = label.copy()
    other[:] = 0
    nib.save(nib.Nifti1Image(other.transpose(2, 1, 0), affine), tmp_path / "empty.nii.gz")
    code, _, err = run(*evaluate_words(data, tmp_path / "f", "--masks", tmp_path / "empty.nii.gz"))
    assert code == 1
    assert "mask is empty" in err
    assert not (tmp_path / "f").exists()


def test_features_are_measured_once(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for out in ("a", "b"):
        code, _, err = run(*evaluate_words(data, tmp_path / out, "--rois", 8))
        assert code == 0, err
        files.append((tmp_path / out / "features.csv").read_bytes())
        from cvsct.evaluation.features import radiomics

        def never(*_: object) -> None:
            raise AssertionError("measured again")

        monkeypatch.setattr(radiomics, "feature_values", never)
    assert files[0] == files[1]
    assert (tmp_path / "cache" / "cvsct" / "features" / "features.sqlite").is_file()


def test_a_target_that_was_not_put_through_is_refused(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    for file in sorted((data / "test" / "soft").iterdir())[:3]:
        shutil.copy(file, tmp_path / "part")
    code, _, err = run(
        *evaluate_words(data, tmp_path / "e", "--target-harmonized", tmp_path / "part")
    )
    assert code == 1
    assert "harmonize the target's folder" in err
