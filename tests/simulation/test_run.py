"""Simulation runs: the same bytes whatever interrupts them, and one clear error."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydicom import dcmread

from cvsct.core.errors import SimulationError, UsageError
from cvsct.core.resumable import PLAN
from cvsct.io.read import read_all
from cvsct.simulation.benchmark import SimulationOptions
from tests.support.fake_scanner import (
    FAILING,
    FAKE,
    KILLING,
    simulate,
    tiny,
    write_to_a_full_disk,
)

CONFIG = {"seed": 0}


def content(out: Path) -> dict[str, bytes]:
    """Contents of all files but the manifest, which holds times."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny benchmark, simulated in one process without interruption."""
    out = tmp_path_factory.mktemp("simulation") / "whole"
    simulate(tiny(), CONFIG, out, workers=1, builders=FAKE)
    return out


def test_every_planned_image_is_there_and_reads_as_ct(whole: Path) -> None:
    planned = {series.folder: scan for scan in tiny() for series in scan.series()}
    for folder, scan in planned.items():
        (volume,) = read_all(whole / folder)
        assert len(volume.hu) == scan.slices
        assert volume.geometry.spacing_mm == pytest.approx(scan.thickness_mm)
    assert len(list(whole.rglob("*.dcm"))) == sum(scan.n_images for scan in tiny())
    assert not [path for path in whole.rglob("*") if path.name.startswith(".")]


def test_the_manifest_holds_everything_needed_to_repeat_it(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["config"]["seed"] == 0
    assert len(manifest["config"]["scans"]) == len(tiny())
    scanner = manifest["config"]["scanners"]["ge-revolution-evo"]
    assert scanner["geometry"]["source_isocentre_mm"] == 541
    figures = manifest["figures"]
    assert figures["n_images"] == figures["n_new"] == sum(scan.n_images for scan in tiny())
    assert figures["images_per_s"] > 0
    assert set(figures["series_sha256"]) == {s.folder for scan in tiny() for s in scan.series()}
    assert set(manifest["timings_s"]) == {"simulating", "checking"}
    assert json.loads((whole / PLAN).read_text()) == manifest["config"]


def test_the_ground_truth_is_written_in_patient_coordinates(whole: Path) -> None:
    with (whole / "nodules.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    bodies = {scan.body for scan in tiny()}
    assert len(rows) == sum(body.seed % 3 for body in bodies) > 3
    assert {row["body"] for row in rows} <= {body.name for body in bodies}
    row = rows[0]
    assert [float(row[axis]) for axis in ("x_mm", "y_mm", "z_mm")] == [80, -20.5, -60]
    assert (float(row["diameter_mm"]), float(row["hu"])) == (8, -630)
    assert row["shape"] == "spherical"
    recorded = json.loads((whole / "manifest.json").read_text())["figures"]["bodies"]
    assert {(body["kind"], body["seed"]) for body in recorded} == {(b.kind, b.seed) for b in bodies}
    assert sum(len(body["nodules"]) for body in recorded) == len(rows)


def test_two_workers_make_the_same_bytes_as_one(whole: Path, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    simulate(
        tiny(), CONFIG, tmp_path / "two", workers=2, builders=FAKE,
        progress=lambda *report: reports.append(report),
    )  # fmt: skip
    assert content(tmp_path / "two") == content(whole)
    images = [done for task, done, _ in reports if task == "images"]
    assert images == sorted(images)
    assert images[-1] == sum(scan.n_images for scan in tiny())
    assert len(images) > 10


def test_noise_and_bodies_follow_the_seed(whole: Path, tmp_path: Path) -> None:
    simulate(tiny(1), {"seed": 1}, tmp_path / "other", workers=1, builders=FAKE)
    ours, theirs = (
        {path.name: path.read_bytes() for path in out.glob("test/*/*/0001.dcm")}
        for out in (whole, tmp_path / "other")
    )
    assert not set(ours.values()) & set(theirs.values())
    ge, siemens = (read_all(path)[0] for path in sorted((whole / "test").glob("*/*")))
    assert ge.geometry.frame_of_reference == siemens.geometry.frame_of_reference
    assert abs(ge.hu - siemens.hu).std() > 5, "the pair's noise is not the same"


@pytest.mark.parametrize(("workers", "moments"), [(1, (8, 24)), (2, (15,))])
def test_killed_at_any_time_and_resumed_it_has_the_same_bytes(
    whole: Path, tmp_path: Path, workers: int, moments: tuple[int, ...]
) -> None:
    out = tmp_path / "killed"
    kills = 0
    for images in moments:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_scanner", str(out), str(workers)],
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        while process.poll() is None and len(list(out.rglob("[0-9]*.dcm"))) < images:
            time.sleep(0.005)
        kills += process.poll() is None
        process.kill()
        process.wait()
        _wait_for_the_end_of_all(process.pid)
        for folder in out.rglob("*mm_*"):
            if not folder.name.startswith("."):
                assert len(list(folder.glob("*.dcm"))) in (2, 3), "a series is whole or hidden"
    assert kills == len(moments)
    assert not (out / "manifest.json").exists()
    notes: list[str] = []
    result = simulate(tiny(), CONFIG, out, workers=1, builders=FAKE, note=notes.append)
    assert 0 < result.n_new < result.n_images - 10
    assert "of them there already" in notes[0]
    assert content(out) == content(whole)


def _wait_for_the_end_of_all(group: int) -> None:
    deadline = time.monotonic() + 20
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(group, 0)
            assert time.monotonic() < deadline, "the workers outlive what they work for"
            time.sleep(0.01)


def test_ctrl_c_stops_cleanly_and_keeps_what_is_there(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_scanner", str(out), "2"],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(out.rglob("[0-9]*.dcm"))) < 5:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = process.communicate(timeout=20)
    _wait_for_the_end_of_all(process.pid)
    assert re.search(r"stopped; \d+ of 42 images are kept, the same command goes on", err)
    assert err.count("Traceback") == 1, err
    simulate(tiny(), CONFIG, out, workers=1, builders=FAKE)
    assert content(out) == content(whole)


def test_one_acquisition_in_several_reconstructions(whole: Path, tmp_path: Path) -> None:
    several = tiny(0, SimulationOptions(reconstructions=("fbp", "iterative-3")))
    result = simulate(several, CONFIG, tmp_path / "several", workers=2, builders=FAKE)
    assert result.n_images == 2 * sum(scan.n_images for scan in tiny())
    folders = {path.parent for path in (tmp_path / "several" / "test").rglob("*.dcm")}
    for folder in folders:
        if folder.name.endswith("_iterative-3"):
            beside = folder.with_name(folder.name.removesuffix("_iterative-3"))
            (fbp,), (other,) = read_all(beside), read_all(folder)
            assert other.acquisition.kernel != fbp.acquisition.kernel
            same = whole / beside.relative_to(tmp_path / "several")
            pixels = [dcmread(path / "0001.dcm").PixelData for path in (beside, same)]
            assert pixels[0] == pixels[1]
    assert sum(folder.name.endswith("_iterative-3") for folder in folders) == len(folders) / 2
    with pytest.raises(UsageError, match="no reconstruction 'iterative-7'"):
        tiny(0, SimulationOptions(reconstructions=("iterative-7",)))
    with pytest.raises(UsageError, match="each once"):
        tiny(0, SimulationOptions(reconstructions=("fbp", "fbp")))


def test_nothing_is_made_twice(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(whole, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    result = simulate(tiny(), CONFIG, out, workers=1, builders=FAKE)
    assert result.n_new == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")} == before


def test_another_plan_in_the_same_folder_is_refused(whole: Path) -> None:
    before = content(whole)
    with pytest.raises(UsageError, match="other scans; seed 0 there, 1 now"):
        simulate(tiny(1), {"seed": 1}, whole, workers=1, builders=FAKE)
    louder = tiny(0, SimulationOptions(mas=200.0))
    with pytest.raises(UsageError, match=r"holds another simulation \(other scans\)"):
        simulate(louder, CONFIG, whole, workers=1, builders=FAKE)
    assert content(whole) == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        simulate(tiny(), CONFIG, tmp_path, workers=1, builders=FAKE)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_series_that_lost_a_file_is_named(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "lost"
    shutil.copytree(whole, out)
    folder = next(iter(tiny()[0].series())).folder
    (out / folder / "0002.dcm").unlink()
    with pytest.raises(SimulationError, match=f"{folder}: 1 of 3 slices are missing"):
        simulate(tiny(), CONFIG, out, workers=1, builders=FAKE)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_too_small_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(SimulationError, match="42 images, needs 2 MB, 1 MB free; free some"):
        simulate(tiny(), CONFIG, tmp_path / "out", workers=1, builders=FAKE)
    assert not list(tmp_path.rglob("*.dcm"))


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "full"
    with pytest.raises(SimulationError, match="No space left on device; free some space"):
        simulate(tiny(), CONFIG, out, write=write_to_a_full_disk, workers=1, builders=FAKE)
    simulate(tiny(), CONFIG, out, workers=1, builders=FAKE)
    assert content(out) == content(whole)


@pytest.mark.parametrize(
    ("builders", "workers", "reason"),
    [
        (FAILING, 1, "ValueError: no bones"),
        (KILLING, 2, "its process was killed by signal 9"),
    ],
)
def test_a_failing_scan_is_named_and_the_others_are_kept(
    whole: Path, tmp_path: Path, builders: Any, workers: int, reason: str
) -> None:
    out = tmp_path / "some"
    result = simulate(tiny(), CONFIG, out, workers=workers, builders=builders)
    (bad,) = (str(scan) for scan in tiny() if scan.body.seed == 5)
    assert set(result.failed) == {bad}
    assert reason in result.failed[bad]
    figures = json.loads((out / "manifest.json").read_text())["figures"]
    assert set(figures["failed"]) == {bad}
    written = {name: data for name, data in content(out).items() if name != "nodules.csv"}
    assert written == {name: data for name, data in content(whole).items() if name in written}
    assert len(list(out.rglob("*.dcm"))) > 20
    simulate(tiny(), CONFIG, out, workers=1, builders=FAKE)
    assert content(out) == content(whole)


def test_a_second_run_in_the_same_folder_is_refused(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "busy"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_scanner", str(out), "1"],
        cwd=Path(__file__).parents[2],
    )
    while not list(out.rglob("*.dcm")):
        time.sleep(0.005)
    with pytest.raises(UsageError, match="another simulation is at work"):
        simulate(tiny(), CONFIG, out, workers=1, builders=FAKE)
    process.terminate()
    process.wait()
    assert os.path.exists(out / PLAN)  # noqa: PTH110
