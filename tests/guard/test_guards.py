"""Guards at work: refusals, flags and overrides, from the command line to manifest and images."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from cvsct.core.errors import ModelError
from cvsct.evaluation.guards import guards_of
from cvsct.guard import calibrate as calibration
from cvsct.guard.apply import Guard
from cvsct.inference.cohort.journal import Entry, Journal
from cvsct.io.read import find_series, read_all
from cvsct.model.bundle import Bundle
from tests.conftest import phantom_hu
from tests.io.test_derived import _errors
from tests.support.commands import Run, options, sides, train
from tests.support.dicom_files import write_series
from tests.support.nifti_files import write_scan

ALL_FLAGGED = ("--guard", "tissue_shift_hu=0", "--guard", "mottle_hu=0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guards") / "model"


@pytest.fixture(autouse=True)
def _trained(run: Run, scans: Path, model: Path) -> None:
    if not model.exists():
        train(run, "histogram", scans, model)


def write(folder: Path, hu: np.ndarray, series: str, change: Any = None) -> Path:
    stored = (np.clip(hu, -1024, 3071) + 1024).astype("<u2")
    return write_series(folder, stored=stored, series=series, change=change)


def guard_of(out: Path, index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())["figures"]["series"]
    return found[index]["guard"]


def images(out: Path) -> list[Dataset]:
    return sorted(map(dcmread, out.rglob("*.dcm")), key=lambda ds: ds.InstanceNumber)


def test_what_is_calibrated_stands_in_model_and_card(model: Path) -> None:
    bundle = Bundle.read(model)
    assert list(bundle.guard["limits"]) == ["source", "target", "a2b", "b2a"]
    assert bundle.guard["calibrated_on"]["source"] == "4 blocks of 1 series, each left out"
    assert bundle.guard["calibrated_on"]["a2b"] == "6 slices of the scans it learned from"
    card = (model / "card.md").read_text()
    for of, limits in bundle.guard["limits"].items():
        for name, limit in limits.items():
            assert f"| {of} | {name} | {limit:g} | " in card
    guard = Guard.of(bundle)
    assert guard.source is not None
    assert guard.slices is not None
    assert vars(guard.source.limits) == bundle.guard["limits"]["source"]
    back = Guard.of(bundle, reverse=True)
    assert back.target is not None
    assert back.target.headers == guard.source.headers
    assert json.loads((model / "manifest.json").read_text())["timings_s"]["guard"] > 0


def test_training_twice_calibrates_to_the_same_bytes(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    train(run, "histogram", scans, tmp_path / "again")
    for name in ("model.json", "card.md", "SHA256SUMS"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()


def test_a_model_that_shifts_its_own_scans_is_written_with_a_warning(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    """Histogram matching of bodies of another shape: limits do not follow what it does."""
    out = tmp_path / "m"
    code, _, err = run("train", "histogram", *sides("histogram", scans), "--out", out)
    assert code == 0, err
    told = " ".join(err.split())
    assert "this model changes even scans it learned from too much, a2b: soft tissue sh" in told
    guard = Bundle.read(out).guard
    assert guard["limits"]["a2b"]["tissue_shift_hu"] == 6.0
    assert "CT numbers of tissue cannot be used" in guard["beyond_highest"]["a2b"][0]
    assert "**Warning, a2b**" in (out / "card.md").read_text()
    train(run, "spectrum", scans, tmp_path / "spectrum")
    assert "beyond_highest" not in Bundle.read(tmp_path / "spectrum").guard


@pytest.mark.parametrize("method", ["histogram", pytest.param("cvsct", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("small_sample", "without_graphs")
def test_an_interrupted_calibration_leaves_no_finished_model(
    run: Run, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What checkpoints goes on from there; the other has to begin again."""

    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    out = tmp_path / "m"
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "learn_slice_limits", stopped)
        code, *_ = run("train", method, *sides(method, scans), "--out", out, *options(method))
    assert code != 0
    assert not (out / "SHA256SUMS").exists()
    assert out.exists() == (method == "cvsct")
    more = ["--resume"] if method == "cvsct" else []
    words = ["train", method, *sides(method, scans), "--out", out, *options(method), *more]
    code, _, err = run(*words)
    assert code == 0, err
    assert list(Bundle.read(out).guard["limits"]) == ["source", "target", "a2b", "b2a"]


def test_a_scan_of_another_kind_is_refused_with_the_words_that_let_it_pass(
    run: Run, model: Path, tmp_path: Path
) -> None:
    def other_kernel(ds: Dataset, _: int) -> None:
        ds.ConvolutionKernel = "K9"

    bad = write(tmp_path / "bad", phantom_hu(4, 0.0, 2) + 1000, "1.2.77", other_kernel)
    words = ["harmonize", bad, "--model", model, "--out"]
    code, _, err = run(*words, tmp_path / "out")
    assert code == 1
    assert "unlike the scans this model learned from: kernel K9, known K1; " in err
    assert not (tmp_path / "out").exists()
    given = err.partition("let it pass with ")[2].split()
    assert given[:2] == ["--guard", "kernel=off"]
    code, _, err = run(*words, tmp_path / "out", *given)
    assert code == 0, err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["guard"] == given[1::2]
    code, _, err = run(*words, tmp_path / "noted", "--guard", "scan=note")
    assert code == 0, err
    assert "note: 1 series unlike the scans the model learned from" in err
    assert guard_of(tmp_path / "noted")["scan"]["kind"] == "out_of_domain"
    assert "kernel" in guard_of(tmp_path / "noted")["scan"]["exceeded"]
    code, _, err = run(*words, tmp_path / "off", "--guard", "off")
    assert code == 0, err
    assert (
        "guard"
        not in json.loads((tmp_path / "off/manifest.json").read_text())["figures"]["series"][0]
    )


def test_of_many_series_only_the_bad_one_is_refused(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    """By workers of a cohort; what guards said outlives the journal, and a rerun adds nothing."""
    tree = tmp_path / "tree"
    shutil.copytree(scans / "pair/sharp", tree / "good")
    write(tree / "bad", phantom_hu(4, 0.0, 2) - 1000, "1.2.77")
    words = ["harmonize", tree, "--model", model, "--out", tmp_path / "out"]
    for _ in range(2):
        code, printed, err = run(*words)
        assert code == 3, err
        assert "1 series, 6 slices" in printed
        assert "hardly any tissue is there: no patient, or no Hounsfield units" in err
        assert "--guard body=off" in err
    rows = json.loads((tmp_path / "out" / "manifest.json").read_text())["figures"]["series"]
    (done,) = (row for row in rows if "error" not in row)
    assert done["guard"]["scan"]["kind"] == "in_domain"
    assert done["guard"]["slices"]["judged"] == 6
    code, _, err = run(*words, "--guard", "body=off")
    assert code == 2
    assert "holds another cohort" in err


def test_flagged_slices_are_written_and_say_so(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    words = ["harmonize", scans / "pair/sharp", "--model", model, "--out"]
    code, _, err = run(*words, tmp_path / "plain")
    assert code == 0, err
    code, _, err = run(*words, tmp_path / "out", *ALL_FLAGGED)
    assert code == 0, err
    assert "warning: 6 of 6 slices in 1 series were changed too much" in err
    slices = guard_of(tmp_path / "out")["slices"]
    assert [each["slice"] for each in slices["flagged"]] == [1, 2, 3, 4, 5, 6]
    assert [each["z_mm"] for each in slices["flagged"]] == [0, 5, 10, 15, 20, 25]
    assert slices["judged"] == 6
    plain = guard_of(tmp_path / "plain")["slices"]
    assert slices["worst"] == plain["worst"]
    name, value = "mottle_hu", slices["flagged"][0]["exceeded"]["mottle_hu"]
    assert abs(value) > slices["limits"][name] == 0
    marked, unmarked = images(tmp_path / "out"), images(tmp_path / "plain")
    assert all(ds.ImageComments.startswith("cvsct guard: ") for ds in marked)
    n_flagged = len(plain["flagged"])
    assert sum("ImageComments" in ds for ds in unmarked) == n_flagged
    for one, other in zip(marked, unmarked, strict=True):
        assert one.SOPInstanceUID == other.SOPInstanceUID  # the pixels are the same
        assert one.PixelData == other.PixelData
    assert run(*words, tmp_path / "twice", *ALL_FLAGGED)[0] == 0
    for file in (tmp_path / "out").rglob("*.dcm"):
        again = tmp_path / "twice" / file.relative_to(tmp_path / "out")
        assert file.read_bytes() == again.read_bytes()


def test_comments_of_the_source_follow_in_their_own_characters(
    run: Run, model: Path, tmp_path: Path
) -> None:
    def commented(ds: Dataset, _: int) -> None:
        ds.ImageComments = "Lagerung schräg"

    source = write(tmp_path / "in", phantom_hu(4, 0.0, 2), "1.2.78", commented)
    out = tmp_path / "out"
    assert run("harmonize", source, "--model", model, "--out", out, *ALL_FLAGGED)[0] == 0
    for ds in images(out):
        first, second = ds.ImageComments.splitlines()
        assert first.startswith("cvsct guard: ")
        assert second == "Lagerung schräg"


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dicom3tools is not installed")
def test_flagged_images_are_valid(run: Run, scans: Path, model: Path, tmp_path: Path) -> None:
    source, out = scans / "pair/sharp", tmp_path / "out"
    assert run("harmonize", source, "--model", model, "--out", out, *ALL_FLAGGED)[0] == 0
    old, new = sorted(source.glob("*.dcm"))[0], sorted(out.rglob("*.dcm"))[0]
    assert b"cvsct guard" in new.read_bytes()
    assert _errors("dciodvfy", "-new", new) <= _errors("dciodvfy", "-new", old)


def test_slices_may_be_refused_instead_with_the_options_that_accept_them(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    words = [
        "harmonize", scans / "pair/sharp", "--model", model, "--out", tmp_path / "out",
        *ALL_FLAGGED, "--guard", "slices=refuse",
    ]  # fmt: skip
    code, _, err = run(*words)
    assert code == 1
    assert "slice 1 (z 0.0 mm) was changed too much: " in err
    assert "--guard slices=flag" in err
    assert not (tmp_path / "out").exists()
    for _ in range(6):  # a later slice may exceed the limit that the one before needed
        accepted = " ".join(err.partition("accept this change with ")[2].split())
        words += accepted.partition(", or have")[0].split()
        code, _, err = run(*words)
        if code == 0:
            break
        assert "slice 1 (" not in err
    assert code == 0, err


@pytest.mark.parametrize("damage", ["missing", "negative"])
def test_a_guard_that_cannot_be_read_is_refused_and_can_be_switched_off(
    model: Path, damage: str
) -> None:
    bundle = Bundle.read(model)
    limits = dict(bundle.guard["limits"]["a2b"])
    if damage == "missing":
        del limits["mottle_hu"]
    else:
        limits["mottle_hu"] = -1.0
    section = {**bundle.guard, "limits": {**bundle.guard["limits"], "a2b": limits}}
    damaged = replace(bundle, guard=section)
    with pytest.raises(ModelError, match="--guard off"):
        Guard.of(damaged)
    off = Guard.of(damaged, options=["off"])
    assert not off.checks_scans
    assert off.watch().limits is None


def test_nifti_is_told_in_the_manifest_alone(run: Run, model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", hu=phantom_hu(4, 0.0, 3))
    code, _, err = run(
        "harmonize", scan, "--model", model, "--out", tmp_path / "out", *ALL_FLAGGED,
        "--guard", "scan=note",
    )  # fmt: skip
    assert code == 0, err
    found = guard_of(tmp_path / "out")
    assert len(found["slices"]["flagged"]) == 3
    assert {"manufacturer", "kernel", "kvp_kv"} <= set(found["scan"]["unknown"])


def test_a_model_without_a_guard_works_and_says_so_once(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    bundle = Bundle.read(model)
    plain = Bundle(
        bundle.method, bundle.settings, bundle.weights, bundle.source, bundle.target,
        bundle.training,
    ).write(tmp_path / "plain")  # fmt: skip
    assert "Guards" not in (tmp_path / "plain" / "card.md").read_text()
    assert "guard" not in json.loads((tmp_path / "plain" / "model.json").read_text())
    assert plain.sha256 != bundle.sha256
    words = ["--model", tmp_path / "plain", "--out", tmp_path / "out"]
    code, _, err = run("harmonize", scans / "pair", *words)
    assert code == 0, err
    assert err.count("note: this model holds no guard") == 1


def test_the_report_shows_what_guards_said(
    run: Run, scans: Path, model: Path, tmp_path: Path
) -> None:
    """From the manifest; without it, from the images."""
    out = tmp_path / "out"
    words = ["harmonize", scans / "pair/sharp", "--model", model, "--out", out]
    assert run(*words, *ALL_FLAGGED)[0] == 0
    report = tmp_path / "report"
    code, _, err = run(
        "evaluate", "--harmonized", out, "--target", scans / "pair/soft", "--out", report,
        "--rois", 3, "--workers", 1,
    )  # fmt: skip
    assert code == 0, err
    (found,) = json.loads((report / "metrics.json").read_text())["guards"]
    assert (found["scan"], found["n_flagged"]) == ("in_domain", 6)
    page = (report / "report.html").read_text()
    assert "Findings of the guards" in page
    assert "6 of 6 flagged slices" in page
    (from_images,) = guards_of({}, read_all(out))
    assert [each.slice for each in from_images.flagged] == [1, 2, 3, 4, 5, 6]
    assert "shifted by" in from_images.flagged[0].why
    (unflagged,) = read_all(scans / "pair/sharp")
    assert guards_of({}, [unflagged]) == ()


def test_a_journal_begun_without_guards_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("ALTER TABLE series DROP COLUMN guard")
    db.close()
    journal = Journal(tmp_path / "journal.sqlite")
    journal.begin(["00"])
    assert journal.lease() is not None
    journal.done("00", Entry("ab", "1.2", 1, 0.0, 0.1, '{"scan":{}}'))
    (row,) = journal.rows()
    journal.close()
    assert row.entry.guard == '{"scan":{}}'


def test_few_files_are_read_of_many_series(tmp_path: Path) -> None:
    """Of five series of nine files, three slices each, whichever files those are."""
    for k in range(5):
        write(tmp_path / str(k), phantom_hu(k, 0.0, 9, 32), f"1.2.9.{k}")
    groups = calibration.SliceGroups.spread_over(find_series(tmp_path))
    assert [len(group) for group in groups.groups] == [3] * 5
    assert all(len(slice_ref.series.files) == 1 for group in groups.groups for slice_ref in group)
    assert len(groups.slices_to_map) == calibration.MAX_MAPPED_SLICES
