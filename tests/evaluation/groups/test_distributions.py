"""Standardized differences, Kolmogorov-Smirnov and Benjamini-Hochberg against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ks_2samp

from cvsct.evaluation.groups.distributions import (
    benjamini_hochberg,
    contrasts,
    ks_p_values,
    standardized_differences,
)


def test_p_values_are_scipys_with_ties_and_undefined_values() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 6)).round(1)
    values[:20] += 0.7
    values[3:9, 2] = np.nan
    values[:18, 4] = np.nan
    first = np.arange(50) < 20
    p_values = ks_p_values(values, first, ~first)
    for column, p_value in zip(values.T, p_values, strict=True):
        a, b = (column[side & np.isfinite(column)] for side in (first, ~first))
        if len(a) < 5:
            assert np.isnan(p_value)
        else:
            assert p_value == pytest.approx(ks_2samp(a, b, method="exact").pvalue)


def test_findings_are_those_of_adjusted_p_values() -> None:
    rng = np.random.default_rng(1)
    p_values = np.concatenate([rng.uniform(size=80), rng.uniform(0, 2e-3, 20)])
    assert (
        benjamini_hochberg(p_values).tolist()
        == (false_discovery_control(p_values) <= 0.05).tolist()
    )
    assert not benjamini_hochberg(np.array([np.nan, 0.2])).any()
    assert benjamini_hochberg(np.array([np.nan, 0.01])).tolist() == [False, True]


def test_a_difference_of_known_size() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0, 7, (4000, 1)) + 100
    first = np.arange(4000) < 1000
    values[first] += 7 * 0.8
    assert standardized_differences(values, first, ~first)[0] == pytest.approx(0.8, abs=0.07)
    constant = np.ones((20, 1))
    assert np.isnan(standardized_differences(constant, first[:20], ~first[:20])).all()


def test_two_groups_are_compared_once_and_more_with_all_others_or_the_reference() -> None:
    groups = [*"AABBCCC", "small"]
    assert [c.name for c in contrasts(groups, ["A", "B"])] == ["B / A"]
    others = contrasts(groups, ["A", "B", "C"])
    assert [c.name for c in others] == ["A / others", "B / others", "C / others"]
    assert [int(c.second.sum()) for c in others] == [5, 5, 4]  # never the small group
    to_b = contrasts(groups, ["A", "B", "C"], "B")
    assert [(c.name, int(c.second.sum())) for c in to_b] == [("A / B", 2), ("C / B", 2)]
