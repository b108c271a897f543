"""The benchmark of `cvsct features` against PyRadiomics' batch command runs, and both agree."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.features import main


def test_a_small_run_agrees_with_pyradiomics(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    main(["--scans", "1", "--regions", "2", "--size", "48", "--jobs", "1", "--out", str(out)])
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["regions"] == 2
    assert record["largest_relative_difference"] < 1e-12
    assert record["ratio"] > 0
