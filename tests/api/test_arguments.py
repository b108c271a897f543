"""Numbers outside their range are refused in the words of an argument, by every public function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvsct
from cvsct.core.errors import UsageError
from tests.conftest import make_volume
from tests.support.feature_tables import cohort

SCAN = make_volume(np.zeros((3, 32, 32)))

Call = Callable[[Path], Any]
CALLS: dict[str, tuple[Call, str]] = {
    "train": (
        lambda here: cvsct.train("spectrum", here, here, here / "out", max_steps=0),
        "max_steps=0: must be 1 or more",
    ),
    "train-seed": (
        lambda here: cvsct.train("spectrum", here, here, here / "out", seed=-1),
        "seed=-1: must be 0 or more",
    ),
    "harmonize": (
        lambda here: cvsct.harmonize(here, here / "out", model="m", workers=-2),
        "workers=-2: must be 0 or more",
    ),
    "extract_features": (
        lambda _: cvsct.extract_features([SCAN], rois=-1),
        "rois=-1: must be 0 or more",
    ),
    "extract_features-roi": (
        lambda _: cvsct.extract_features([SCAN], roi_px=4),
        "roi_px=4: must be 8 or more",
    ),
    "evaluate": (
        lambda here: cvsct.evaluate(here, here, rois=0),
        "rois=0: must be greater than or equal to 1",
    ),
    "evaluate_groups": (
        lambda _: cvsct.evaluate_groups(cohort(), min_patients=3, permutations=0),
        "min_patients=3: must be greater than or equal to 5; "
        "permutations=0: must be greater than or equal to 19",
    ),
    "fit_profile": (
        lambda here: cvsct.fit_profile(here, max_slices=0),
        "max_slices=0: must be 1 or more",
    ),
    "simulate": (
        lambda here: cvsct.simulate(here / "out", mas=float("nan")),
        "mas=nan: must be from 1 to 1000",
    ),
    "benchmark": (
        lambda here: cvsct.benchmark(here, "input", here / "out", seeds=0),
        "seeds=0: must be 1 or more",
    ),
    "run_study": (
        lambda here: cvsct.run_study(here, workers=-1),
        "workers=-1: must be 0 or more",
    ),
    "report_study": (
        lambda here: cvsct.report_study(here, permutations=1),
        "permutations=1: must be 19 or more",
    ),
    "plan_study": (
        lambda here: cvsct.plan_study(here, here.parent / "out", thickness_mm=-1.0),
        "thickness_mm: must be greater than or equal to 0",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_number_outside_its_range_is_refused(tmp_path: Path, name: str) -> None:
    call, message = CALLS[name]
    (tmp_path / "here").mkdir()
    with pytest.raises(UsageError) as refused:
        call(tmp_path / "here")
    assert str(refused.value) == message
    assert not (tmp_path / "here" / "out").exists()
