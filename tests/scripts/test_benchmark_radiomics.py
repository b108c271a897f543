"""The benchmark of features runs, and its figures do not depend on how they were made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.radiomics import BLUR_PX, main, texture


def test_textures_are_seeded_and_differ_in_sharpness_alone() -> None:
    patches = texture(20, 1, seed=0)
    assert len(patches) == 20 * len(BLUR_PX)
    again = texture(20, 1, seed=0)
    assert all(np.array_equal(a.hu, b.hu) for a, b in zip(patches, again, strict=True))
    sharp, soft = patches[:20], patches[20:]
    sd = [np.mean([one.hu.std() for one in side]) for side in (sharp, soft)]
    step = [np.mean([np.diff(one.hu).std() for one in side]) for side in (sharp, soft)]
    assert sd[0] / sd[1] < 1.4
    assert step[0] / step[1] > 1.2 * sd[0] / sd[1]


def test_a_small_run(tmp_path: Path) -> None:
    main(["--pairs", "2", "--rois", "1", "--out", str(tmp_path / "out.json")])
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["regions"] == 4
    assert record["same_figures"]
    assert set(record["runs"]) == {
        "no cache, 1 process",
        "no cache, 2 processes",
        "cold cache, 1 process",
        "warm cache, 1 process",
    }
    assert all(run["peak_mib_main"] > 0 for run in record["runs"].values())
