"""Words of 0.1.0 for the sides of an evaluation, in options and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvsct.core.sides import SIDES, Side, with_new_keys, with_old_keys
from cvsct.evaluation.features.table_file import PLACE_COLUMNS, read_features
from tests.support.commands import Run

WORDS = ("evaluate", "--harmonized", "gone", "--target", "gone", "--out", "out")


def test_keys_of_both_versions_stand_side_by_side_at_any_depth() -> None:
    figures = {"ccc": 0.9, "parts": [{"retest": None}]}
    both = with_old_keys({"retest": figures, "way_to_retest": 0.5, "input": {"retest": 1}})
    assert both["repeat"] == both["retest"]
    assert both["repeat"]["parts"] == [{"retest": None, "repeat": None}]
    assert both["way_to_ceiling"] == 0.5
    assert both["input"] == {"retest": 1, "repeat": 1}
    assert with_old_keys(both) == both
    old = {"repeat": {"repeat": 2}, "way_to_ceiling": 0.5}
    assert with_new_keys(old)["retest"]["retest"] == 2
    assert with_new_keys(both) == both


def test_features_of_0_1_0_are_read_by_todays_name(tmp_path: Path) -> None:
    path = tmp_path / "features.csv"
    rows = [(*PLACE_COLUMNS, "a"), *((side, *"1" * 8, "0.5") for side in ("target", "repeat"))]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    assert list(read_features(path).features) == ["target", "retest"]


@pytest.mark.parametrize("side", [side for side in SIDES.values() if side.old_name])
def test_an_old_option_still_works_and_says_so(run: Run, side: Side) -> None:
    option, old = side.option, side.old_option
    code, _, err = run(*WORDS, old, "gone")
    told = f"{old} is now {option}; removed in 0.3.0"
    assert err.count(told) == 1
    assert "unexpected" not in err
    assert code
    code, _, err = run(*WORDS, old, "gone", option, "gone")
    assert code == 2
    assert f"give {option} alone" in err
    assert old not in run("evaluate", "--help")[1]
