"""A figure against its tolerance: only the whole interval passes, only a clear one fails."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.evaluation.resampled import RESAMPLES, Resampled, draw_weights
from cvsct.evaluation.scorecard.judge import judge, passing_range, reason_for
from cvsct.evaluation.scorecard.tile import Scorecard, Status, Tile
from cvsct.evaluation.scorecard.tolerances import Tolerance

TOLERANCE = Tolerance(passes=0.1, fails=0.2)


def spread(low: float, high: float) -> Resampled:
    """An estimate in the middle of an interval."""
    width = (high - low) / 0.95
    middle = (low + high) / 2
    samples = middle + width * (np.linspace(0, 1, 2001) - 0.5)
    return Resampled(middle, samples)


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (-0.05, 0.09, "pass"),
        (-0.09, -0.01, "pass"),
        (0.05, 0.15, "attention"),  # reaches beyond
        (0.12, 0.18, "attention"),  # clear of what passes, not beyond what fails
        (-0.18, -0.12, "attention"),
        (0.21, 0.29, "fail"),
        (-0.30, -0.15, "fail"),
        (0.15, 0.30, "fail"),
        (-0.15, 0.15, "not enough data"),  # wider than the tolerance
        (0.05, 0.60, "not enough data"),
    ],
)
def test_the_interval_decides(low: float, high: float, status: Status) -> None:
    assert judge(spread(low, high), TOLERANCE) == status


@pytest.mark.parametrize(
    "figure",
    [
        None,
        Resampled(float("nan"), np.zeros(10)),
        Resampled(0.0, np.empty(0)),
        Resampled(0.0, np.array([0.0] * 9 + [np.nan])),
    ],
)
def test_without_an_interval_nothing_passes(figure: Resampled | None) -> None:
    assert judge(figure, TOLERANCE) == "not enough data"
    reason = reason_for("not enough data", figure, (-0.1, 0.1), "bone", "")
    is_known = figure is not None and np.isfinite(figure.value)
    assert ("in too few places" if is_known else "could not be measured") in reason


@pytest.mark.parametrize(("n", "status"), [(1, "not enough data"), (2, "not enough data"),
                                           (3, "pass")])  # fmt: skip
def test_one_part_alone_has_no_interval(n: int, status: Status) -> None:
    """Resamples of one part are all alike, however wrong it is."""
    parts = np.full(n, 0.01)
    weights = draw_weights(n, 0, "noise regions")
    assert judge(Resampled(0.01, weights @ parts / n), TOLERANCE) == status


def test_a_retest_widens_what_passes_to_its_own_value() -> None:
    figure, retest = spread(0.08, 0.12), spread(0.10, 0.16)
    assert judge(figure, TOLERANCE) == "attention"
    assert passing_range(TOLERANCE, retest) == pytest.approx((-0.1, 0.13))
    assert judge(figure, TOLERANCE, retest) == "pass"
    assert judge(spread(0.3, 0.4), TOLERANCE, retest) == "fail"


def test_a_retest_that_is_none_widens_nothing_beyond_what_fails() -> None:
    other_kernel = spread(1.4, 1.5)
    assert passing_range(TOLERANCE, other_kernel) == (-TOLERANCE.passes, TOLERANCE.fails)
    assert judge(spread(0.3, 0.4), TOLERANCE, other_kernel) == "fail"


def test_resamples_of_one_name_are_the_same() -> None:
    weights = draw_weights(7, 3, "edges")
    assert weights.shape == (RESAMPLES, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == draw_weights(7, 3, "edges")).all()
    assert (weights != draw_weights(7, 3, "slices")).any()


def test_ratios_and_differences_are_resampled_pairwise() -> None:
    one, other = (
        Resampled(2.0, np.array([1.0, 2.0, 3.0])),
        Resampled(4.0, np.array([2.0, 4.0, 6.0])),
    )
    ratio = one.relative_to(other)
    assert ratio.value == -0.5
    assert ratio.samples.tolist() == [-0.5] * 3
    assert ratio.interval == (-0.5, -0.5)
    assert one.less(other).samples.tolist() == [-1.0, -2.0, -3.0]


def tile(status: Status, title: str = "Noise") -> Tile:
    return Tile(title.lower(), title, status, "", "", "", f"because of {title.lower()}")


def test_the_headline_is_the_worst_tile_with_its_reason() -> None:
    card = Scorecard((tile("pass"), tile("attention", "Bone"), tile("fail", "Edges"),
                      tile("fail", "Roles")))  # fmt: skip
    assert card.status == "fail"
    assert card.headline == "Fail: Edges: because of edges; also Roles"
    assert card.reaches("attention")
    assert card.reaches("fail")


def test_a_scorecard_without_enough_data_does_not_pass() -> None:
    card = Scorecard((tile("pass"), tile("not enough data", "Bone")))
    assert card.status == "not enough data"
    assert card.headline.startswith("Not enough data: Bone")
    assert not card.reaches("attention")
    assert Scorecard((tile("pass"),)).headline.startswith("Pass: all 1")
