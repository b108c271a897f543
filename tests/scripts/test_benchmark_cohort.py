"""The benchmark of cohorts runs; its ratios are of what it says they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import cohort
from benchmarks.cohort import compare, grow, tables

WALLS = {"1": [8.0, 10.0, 30.0], "2": [4.0, 8.0, 10.0], "tcp://x": [5.0, 8.0, 12.0]}


def row(wall_s: float, cpu_s: float = 1.0) -> dict[str, Any]:
    return {
        **{"wall_s": wall_s, "cpu_s": cpu_s, "slices_per_s": 1.0},
        **{"parent_peak_gb": 0.1, "worker_peak_gb": 0.2},
    }


def test_ratios_are_the_medians_of_the_rounds_own(tmp_path: Path) -> None:
    left = {key: list(walls) for key, walls in WALLS.items()}

    def go(out: Path, _: str, value: str) -> dict[str, Any]:
        (out / "a").mkdir(parents=True)
        (out / "a" / "1.dcm").write_bytes(b"same")
        return row(left[value].pop(0))

    one, two, dask = compare(go, "tcp://x", 3, tmp_path)
    assert (one["wall_s"], two["wall_s"], dask["wall_s"]) == (10.0, 8.0, 8.0)
    assert two["times_one_worker"] == 2.0  # of 2, 1.25, 3
    assert dask["times_two_workers"] == 0.83  # of 0.8, 1, 0.83
    assert "| 2 workers | 8.0 | 1.0 | 1.0 | 2.00 |" in tables(
        {"ways": [one, two, dask], "growth": []}
    )


def test_other_bytes_end_it(tmp_path: Path) -> None:
    def go(out: Path, _: str, value: str) -> dict[str, Any]:
        (out / "a").mkdir(parents=True)
        (out / "a" / "1.dcm").write_text(value)
        return row(1.0)

    with pytest.raises(SystemExit, match="2 workers: other bytes than 1 worker"):
        compare(go, "tcp://x", 1, tmp_path)


def test_growth_is_what_a_further_series_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "body_slices", lambda n, px: cohort.np.zeros((n, px, px)))

    def go(out: Path, *_: str, tree: Path) -> dict[str, Any]:
        out.mkdir(exist_ok=True)
        count = len(list(tree.iterdir()))
        assert len(list(tree.rglob("*.dcm"))) == 2 * count
        return row(3.0 + 0.5 * count, 2.0 + 0.25 * count)

    first, second = grow(go, tmp_path, [2, 6], 2, 32)
    assert first["wall_s_a_series"] is None
    assert (second["wall_s_a_series"], second["cpu_s_a_series"]) == (0.5, 0.25)
