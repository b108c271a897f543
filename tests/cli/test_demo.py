"""`cvsct demo`: the whole way on virtual scans, small for every run and in full when asked."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.io.read import read_all
from cvsct.simulation import plan
from cvsct.simulation.benchmark import GE, REPEAT, SIEMENS, TEST, Scan
from tests.support.commands import Run


def measured(out: Path) -> dict[str, object]:
    assert (out / "report" / "report.html").stat().st_size > 10_000
    found = json.loads((out / "report" / "metrics.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_small_demo_goes_all_the_way(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan.plan

    def small(*about: object) -> tuple[Scan, ...]:
        kept = [scan for scan in whole(*about) if scan.part in (TEST, REPEAT)]
        return tuple(replace(scan, slices=2) for scan in kept)

    monkeypatch.setattr("cvsct.api.simulate.plan", small)
    monkeypatch.setattr("cvsct.simulation.run.cores", lambda: 1)  # one process compiles
    code, printed, err = run("demo", "--out", tmp_path / "demo")
    assert code == 0, err
    assert "open " in printed
    found = measured(tmp_path / "demo")
    assert found["n_slices"] == 2
    assert found["retest"] is not None
    assert_pair(tmp_path / "demo" / "scans")
    assert run("demo", "--out", tmp_path / "demo")[0] == 2


def assert_pair(scans: Path) -> None:
    """The real physics: one unseen body on both scanners."""
    (ge,), (siemens,) = (read_all(scans / TEST / name) for name in (GE, SIEMENS))
    assert (ge.acquisition.kernel, siemens.acquisition.kernel) == ("Lung", "Bl64")
    assert np.array_equal(ge.geometry.positions_mm, siemens.geometry.positions_mm)
    corner, both = np.s_[0, :8, :8], np.stack([ge.hu[0], siemens.hu[0]])
    assert ge.hu[corner].mean() == pytest.approx(-1000, abs=15)
    tissue = (both > -100).all(axis=0) & (both < 150).all(axis=0)
    assert tissue.mean() > 0.15
    assert ge.hu[0][tissue].mean() == pytest.approx(siemens.hu[0][tissue].mean(), abs=15)
    assert np.corrcoef(both.reshape(2, -1))[0, 1] > 0.95
    bodies = json.loads((scans / "manifest.json").read_text())["figures"]["bodies"]
    assert len(bodies) == 1
    assert bodies[0]["nodules"]


@pytest.mark.slow
def test_the_demo_brings_the_scanners_together_in_two_minutes(run: Run, tmp_path: Path) -> None:
    started = time.monotonic()
    assert run("demo", "--out", tmp_path / "demo")[0] == 0
    assert time.monotonic() - started < 120
    found = measured(tmp_path / "demo")
    before = found["input"]
    assert isinstance(before, dict)
    assert found["ccc_across_mean"] > before["ccc_across_mean"] + 0.2  # type: ignore[operator]
    assert found["psnr_db"] > before["psnr_db"] + 3  # type: ignore[operator]
