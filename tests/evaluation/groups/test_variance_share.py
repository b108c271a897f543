"""Omega squared against F tests and known variances; its null; intervals of changes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f_oneway

from cvsct.evaluation.groups.variance_share import change_of_share, omega_squared, variance_share

NAMES = ["A", "B", "C"]


def grouped(n: int = 30, shift: float = 0.0, seed: int = 0, features: int = 10) -> tuple:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(3), n)
    common = rng.normal(size=(3 * n, 1))
    values = 0.7 * common + 0.7 * rng.normal(size=(3 * n, features))
    return values + shift * group[:, None], group, rng


def test_without_covariates_it_follows_from_the_f_statistic() -> None:
    values, group, _ = grouped(shift=0.4)
    f = f_oneway(*(values[group == g] for g in range(3))).statistic
    expected = 2 * (f - 1) / (2 * (f - 1) + len(group))
    assert omega_squared(values, group) == pytest.approx(expected)


def test_with_covariates_it_follows_from_the_residuals_of_two_fits() -> None:
    values, group, rng = grouped(shift=0.4)
    age = rng.normal(60, 9, len(group)) + 5 * group
    reduced = np.column_stack([np.ones(len(group)), age])
    full = np.column_stack([reduced, group == 1, group == 2]).astype(float)
    rss = [
        ((values - x @ np.linalg.lstsq(x, values, rcond=None)[0]) ** 2).sum(axis=0)
        for x in (reduced, full)
    ]
    error = rss[1] / (len(group) - 4)
    effect = rss[0] - rss[1]
    expected = (effect - 2 * error) / (effect + (len(group) - 2) * error)
    assert omega_squared(values, group, age[:, None]) == pytest.approx(expected)


def test_a_share_of_known_size() -> None:
    """Shifts of -1, 0 and 1 have variance 2/3; that within groups is 1: a share of 0.4."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(3), 2000)
    values = (group - 1.0)[:, None] + rng.normal(size=(6000, 4))
    assert omega_squared(values, group) == pytest.approx(0.4, abs=0.03)


def false_positives(seeds: int, permutations: int) -> tuple[float, float]:
    """Share of identical populations that are called different, and the mean figure."""
    found, omega = [], []
    for seed in range(seeds):
        values, group, rng = grouped(15, seed=seed)
        age = rng.normal(60, 9, len(group)) + 8 * group
        values = values + 0.1 * age[:, None]  # groups differ by age alone
        share = variance_share(values, group, NAMES, age[:, None], permutations, seed=seed)
        assert share is not None
        found.append(share.above_chance)
        omega.append(share.omega)
    return float(np.mean(found)), float(np.mean(omega))


def test_identical_populations_are_rarely_called_different() -> None:
    found, omega = false_positives(60, 39)
    assert found <= 0.15  # 5 % expected; more than 9 of 60 by chance: 0.2 %
    assert abs(omega) < 0.03


@pytest.mark.slow
def test_identical_populations_are_called_different_in_five_of_a_hundred() -> None:
    found, omega = false_positives(600, 199)
    assert 0.03 < found < 0.07
    assert abs(omega) < 0.005


def test_halves_of_one_scanner_show_nothing() -> None:
    values, group, _ = grouped(40, shift=1.0)
    share = variance_share(values, group, NAMES, permutations=39)
    assert share is not None
    assert share.above_chance
    assert share.omega > 0.2
    assert abs(share.halves) < 0.02
    assert share.halves_high < 0.5 * share.omega
    small = variance_share(values, group, NAMES, permutations=39, min_patients=30)
    assert small is not None
    assert small.halves is None


def test_features_undefined_or_constant_are_left_out() -> None:
    values, group, _ = grouped()
    values[3, 1] = np.nan
    values[:, 2] = 7.0
    share = variance_share(values, group, NAMES, permutations=19)
    assert share is not None
    assert share.features == 8
    assert variance_share(values[:, [1, 2]], group, NAMES, permutations=19) is None


def test_the_interval_of_a_change_holds_the_truth() -> None:
    """Half of a shift between three groups is removed; the truth is known from many patients."""
    large, group, _ = grouped(4000, shift=1.0)
    truth = (
        omega_squared(large - 0.5 * group[:, None], group) - omega_squared(large, group)
    ).mean()
    inside = 0
    for seed in range(30):
        values, group, _ = grouped(30, shift=1.0, seed=seed)
        change = change_of_share(values, values - 0.5 * group[:, None], group)
        assert change is not None
        inside += change.low <= truth <= change.high
    assert inside >= 26
    same = change_of_share(values, 3 * values + 1, group)
    assert same is not None
    assert (same.low, same.high) == pytest.approx((0.0, 0.0), abs=1e-9)
