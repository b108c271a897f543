"""Lin's concordance against hand-worked figures and its own definition."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.agreement.concordance import (
    across_regions,
    difference_interval,
    lin_ccc,
    within_regions,
)
from cvsct.evaluation.features.radiomics import CLASSES, MissingValue, RegionFeatures

VALUES = arrays(np.float64, 12, elements=st.floats(-1e3, 1e3, allow_nan=False, width=32))


def table(values: np.ndarray, per_class: int = 2) -> RegionFeatures:
    names = tuple(f"{name}_F{i}" for name in CLASSES for i in range(per_class))
    missing = tuple(
        MissingValue(int(r), names[c], "test") for r, c in np.argwhere(np.isnan(values))
    )
    return RegionFeatures(names, values, missing)


def random_table(regions: int = 10, per_class: int = 2, seed: int = 0) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    return table(rng.normal(5.0, 1.0, (regions, len(CLASSES) * per_class)), per_class)


def test_by_hand() -> None:
    # x: mean 2.5, deviations -1.5 -.5 .5 1.5, variance 5/4. y: mean 3, deviations -2 -1 1 2,
    # variance 10/4. Covariance (3 + .5 + .5 + 3)/4 = 7/4.
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 4.0, 5.0])
    assert lin_ccc(x, y) == pytest.approx(2 * 1.75 / (1.25 + 2.5 + 0.25))


def test_a_shift_and_a_scale_cost_agreement_that_correlation_does_not_see() -> None:
    x = np.array([0.0, 1.0, 2.0])
    assert lin_ccc(x, x + 1.0) == pytest.approx(2 * (2 / 3) / (4 / 3 + 1))
    assert lin_ccc(x, 2.0 * x) == pytest.approx(2 * (4 / 3) / (2 / 3 + 8 / 3 + 1))
    assert lin_ccc(x, -x) == pytest.approx(-2 * (2 / 3) / (4 / 3 + 4))


def test_constants() -> None:
    x = np.array([0.0, 1.0, 2.0])
    assert lin_ccc(np.ones(3), np.ones(3)) is None
    assert lin_ccc(np.ones(3), np.full(3, 2.0)) is None
    assert lin_ccc(x, np.ones(3)) == 0.0  # one side varies and is not followed
    rounding = 1e6 * (1.0 + np.array([0.0, 1e-15, 0.0]))
    assert lin_ccc(rounding, rounding) is None


def test_sizes_must_agree() -> None:
    with pytest.raises(EvaluationError, match="3 values cannot be compared with 4"):
        lin_ccc(np.zeros(3), np.zeros(4))


@given(VALUES, VALUES)
@settings(max_examples=60, deadline=None)
def test_bounds_and_symmetry(x: np.ndarray, y: np.ndarray) -> None:
    ccc = lin_ccc(x, y)
    if ccc is None:
        return
    assert -1 - 1e-9 <= ccc <= 1 + 1e-9
    assert lin_ccc(y, x) == pytest.approx(ccc, abs=1e-9)
    if x.std() > 1e-3 and y.std() > 1e-3:
        assert abs(ccc) <= abs(np.corrcoef(x, y)[0, 1]) + 1e-6


@given(VALUES, st.floats(0.1, 10), st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_a_common_change_of_units_changes_nothing(x: np.ndarray, scale: float, to: float) -> None:
    y = x[::-1].copy()
    before, after = lin_ccc(x, y), lin_ccc(scale * x + to, scale * y + to)
    if before is not None and after is not None and np.ptp(x) > 1e-2:
        assert after == pytest.approx(before, abs=1e-6)


def test_identical_tables_agree_fully() -> None:
    features = random_table()
    result = across_regions(features, features, bootstrap=50)
    for summary in (*result.classes.values(), result.mean):
        assert summary.ccc == pytest.approx(1.0)
        assert summary.low == pytest.approx(1.0)
        assert summary.high == pytest.approx(1.0)
        assert summary.undefined == 0
    spreads = within_regions(features, features)
    assert all(
        spread is not None and spread.mean == pytest.approx(1) for spread in spreads.values()
    )


def test_across_is_the_mean_of_each_features_concordance() -> None:
    x, y = random_table(), random_table(seed=1)
    result = across_regions(x, y, bootstrap=10)
    expected = [lin_ccc(a, b) for a, b in zip(x.values.T, y.values.T, strict=True)]
    assert [feature.ccc for feature in result.features] == pytest.approx(expected)
    assert result.classes["glcm"].ccc == pytest.approx(np.mean(expected[2:4]))
    assert result.mean.ccc == pytest.approx(np.mean(expected))
    assert result.features[0].n == 10


def test_within_is_over_the_features_of_each_region() -> None:
    x, y = random_table(per_class=4), random_table(per_class=4, seed=1)
    expected = [lin_ccc(a[:4], b[:4]) for a, b in zip(x.values, y.values, strict=True)]
    spread = within_regions(x, y)["firstorder"]
    assert spread is not None
    assert (spread.mean, spread.sd, spread.n) == pytest.approx(
        (np.mean(expected), np.std(expected), 10)
    )


def test_bootstrap_matches_resampling_one_by_one() -> None:
    x, y = random_table(), random_table(seed=1)
    y = table(x.values + 0.5 * y.values)
    result = across_regions(x, y, bootstrap=4000, seed=3)
    rng = np.random.default_rng(9)
    draws = rng.integers(0, 10, (4000, 10))
    samples = [
        np.mean([lin_ccc(a[i], b[i]) for a, b in zip(x.values.T, y.values.T, strict=True)])
        for i in draws[:1500]
    ]
    assert np.mean(result.samples) == pytest.approx(np.mean(samples), abs=0.01)
    assert np.std(result.samples) == pytest.approx(np.std(samples), rel=0.1)


def test_intervals_are_seeded_and_hold_the_estimate() -> None:
    x, y = random_table(), random_table(seed=1)
    y = table(x.values + 0.3 * y.values)
    first, again = across_regions(x, y, 200, seed=1), across_regions(x, y, 200, seed=1)
    assert first.features == again.features
    assert across_regions(x, y, 200, seed=2).features != first.features
    assert first.mean.low is not None
    assert first.mean.ccc is not None
    assert first.mean.high is not None
    assert first.mean.low < first.mean.ccc < first.mean.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    columns = len(CLASSES) * 20
    x = rng.normal(size=(24, columns))
    y = 0.5 + 1.2 * (0.9 * x + np.sqrt(1 - 0.81) * rng.normal(size=x.shape))
    truth = 2 * 0.9 * 1.2 / (1 + 1.44 + 0.25)
    result = across_regions(table(x, 20), table(y, 20), bootstrap=400)
    covered = [
        feature.low is not None
        and feature.high is not None
        and feature.low <= truth <= feature.high
        for feature in result.features
    ]
    assert 0.83 <= np.mean(covered) <= 0.99


def test_a_feature_constant_on_both_sides_is_left_out_and_counted() -> None:
    x, y = random_table(), random_table(seed=1)
    x.values[:, 0] = y.values[:, 0] = 1e6
    result = across_regions(x, y, bootstrap=20)
    assert result.features[0].ccc is None
    assert result.features[0].low is None
    assert (result.classes["firstorder"].features, result.classes["firstorder"].undefined) == (1, 1)
    assert result.classes["firstorder"].ccc == pytest.approx(result.features[1].ccc)


def test_a_feature_constant_on_one_side_counts_nothing_agreed() -> None:
    x, y = random_table(), random_table(seed=1)
    x.values[:, 0] = 5.0
    result = across_regions(x, y, bootstrap=20)
    assert result.features[0].ccc == pytest.approx(0.0)
    assert result.classes["firstorder"].features == 2


def test_missing_values_reach_no_mean() -> None:
    x, y = random_table(), random_table(seed=1)
    holed = x.values.copy()
    holed[[1, 4], 0] = np.nan
    result = across_regions(table(holed), y, bootstrap=50)
    keep = [0, 2, 3, 5, 6, 7, 8, 9]
    assert result.features[0].n == 8
    assert result.features[0].ccc == pytest.approx(lin_ccc(x.values[keep, 0], y.values[keep, 0]))
    holed[:, 0] = np.nan
    assert across_regions(table(holed), y, bootstrap=50).features[0].n == 0
    json.dumps([f.to_json() for f in result.features], allow_nan=False)


def test_too_few_regions_say_nothing() -> None:
    x, y = random_table(regions=2), random_table(regions=2, seed=1)
    result = across_regions(x, y, bootstrap=20)
    assert result.mean.ccc is None
    assert result.mean.undefined == len(CLASSES)
    assert difference_interval(result, result) is None


def test_the_change_between_two_comparisons_has_an_interval() -> None:
    target = random_table(regions=20)
    near = table(target.values + 0.1 * random_table(20, seed=1).values)
    far = table(target.values + 2.0 * random_table(20, seed=2).values)
    interval = difference_interval(
        across_regions(near, target, 200), across_regions(far, target, 200)
    )
    assert interval is not None
    assert 0 < interval[0] < interval[1]


def test_other_regions_are_refused() -> None:
    with pytest.raises(EvaluationError, match="same features in the same regions"):
        across_regions(random_table(10), random_table(9))
