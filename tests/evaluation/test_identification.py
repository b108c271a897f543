"""Telling scanners apart: chance where there is nothing to tell, certainty where there is."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.features.radiomics import MissingValue, RegionFeatures
from cvsct.evaluation.identification import identify

FEATURES = 60


def table(values: np.ndarray) -> RegionFeatures:
    names = tuple(f"glcm_F{index:02d}" for index in range(values.shape[1]))
    missing = tuple(
        MissingValue(int(row), names[column], "made undefined")
        for row, column in np.argwhere(np.isnan(values))
    )
    return RegionFeatures(names, values, missing)


def places(n: int, seed: int) -> np.ndarray:
    """Features of places: correlated, as radiomic features are, and of very different sizes."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(8, FEATURES))
    sizes = 10.0 ** np.linspace(-3, 6, FEATURES)
    return np.exp(0.3 * rng.normal(size=(n, 8)) @ mixing) * sizes


def measured(true: np.ndarray, seed: int, shift: float = 0.0) -> np.ndarray:
    """The same places with noise, and where asked a shift of a tenth of the features."""
    rng = np.random.default_rng(seed)
    moved = np.where(np.arange(FEATURES) % 10 == 0, 1 + shift, 1.0)
    return true * moved * np.exp(0.1 * rng.normal(size=true.shape))


def test_one_distribution_on_both_sides_is_chance_and_intervals_hold_it() -> None:
    results = []
    for seed in range(12):
        true = places(40, seed)
        first, second = measured(true, 100 + seed), measured(true, 200 + seed)
        results.append(identify(table(first), table(second), range(40), seed=seed))
    assert np.mean([result.accuracy for result in results]) == pytest.approx(0.5, abs=0.04)
    assert sum(result.low <= 0.5 <= result.high for result in results) >= 10
    assert {result.n for result in results} == {80}
    assert {result.groups for result in results} == {40}


def test_the_same_table_twice_is_exactly_chance() -> None:
    same = table(places(24, 1))
    result = identify(same, same, range(24))
    assert result.accuracy == pytest.approx(0.5)
    assert not result.above_chance


def test_a_clear_shift_is_found_and_named() -> None:
    true = places(40, 3)
    result = identify(table(measured(true, 1)), table(measured(true, 2, shift=1.0)), range(40))
    assert result.accuracy > 0.97
    assert result.low > 0.85
    assert result.above_chance
    shifted = {f"glcm_F{index:02d}" for index in range(0, FEATURES, 10)}
    assert {score.feature for score in result.telling} <= shifted
    assert all(score.auc < 0.5 for score in result.telling)  # the first side's values are lower


def test_a_small_shift_lies_between() -> None:
    true = places(60, 3)
    result = identify(table(measured(true, 1)), table(measured(true, 2, shift=0.12)), range(60))
    assert 0.55 < result.accuracy < 0.98


def test_rows_of_one_place_never_help_one_another() -> None:
    """Each place has one row on one side: knowing the place would tell the side at once."""
    true = np.repeat(places(10, 5), 6, axis=0)
    first, second = measured(true, 1), measured(np.repeat(places(10, 6), 6, axis=0), 2)
    own = [f"a{index // 6}" for index in range(60)]
    other = [f"b{index // 6}" for index in range(60)]
    grouped = identify(table(first), table(second), own, other)
    leaky = identify(table(first), table(second), range(60), range(60, 120))
    assert leaky.accuracy > 0.8
    assert grouped.accuracy < leaky.accuracy - 0.1
    assert grouped.high - grouped.low > leaky.high - leaky.low


def test_undefined_and_constant_features_are_left_out_or_neutral() -> None:
    true = places(30, 3)
    first, second = measured(true, 1), measured(true, 2)
    first[:, 1] = second[:, 1] = 7.0  # constant: says nothing
    first[:, 2] = np.nan  # undefined on one side: would say everything
    second[3, 5] = np.nan  # undefined once
    result = identify(table(first), table(second), range(30))
    assert result.left_out == 2
    assert result.features == FEATURES - 2
    assert not result.above_chance
    first[:, 1] = 6.0  # now the constants differ
    assert identify(table(first), table(second), range(30)).accuracy > 0.9


def test_what_cannot_be_told_is_refused_with_the_reason() -> None:
    values = places(6, 1)
    with pytest.raises(EvaluationError, match="5 groups for 6 regions"):
        identify(table(values), table(values), range(5))
    with pytest.raises(EvaluationError, match="all regions show one place"):
        identify(table(values), table(values), [0] * 6)
    with pytest.raises(EvaluationError, match="different features"):
        identify(table(values), table(values[:, :5]), range(6))
    flat = table(np.ones((6, 3)))
    with pytest.raises(EvaluationError, match="no feature varies"):
        identify(flat, flat, range(6))
