"""`cvsct demo`: the whole way on virtual scans, small for every run and in full when asked."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cvsct.simulation import plan
from cvsct.simulation.benchmark import REPEAT, TEST, Scan
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
    code, printed, err = run("demo", "--out", tmp_path / "demo")
    assert code == 0, err
    assert "open " in printed
    found = measured(tmp_path / "demo")
    assert found["n_slices"] == 2
    assert found["retest"] is not None
    assert run("demo", "--out", tmp_path / "demo")[0] == 2


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
