"""Identification of a patient's group: what it finds, what it must not, its permutations."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.evaluation.groups.identification import identify_groups

NAMES = ["A", "B", "C"]


def test_groups_that_differ_are_named_and_the_one_that_does_not_is_not() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), (40, 20, 20))
    values = rng.normal(size=(80, 30))
    values[group == 0, :10] += 2.0
    result = identify_groups(values, group, NAMES, [str(i) for i in range(80)], 39)
    assert result is not None
    assert result.recall["A"] > 0.95
    assert result.recall["B"] < 0.8
    assert result.above_chance
    assert result.chance_low < 1 / 3 < result.chance_high


def test_unequal_groups_without_a_difference_are_at_chance() -> None:
    """A classifier that always names the large group would be right in 70 % of patients."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(3), (70, 15, 15))
    accuracies = []
    for _ in range(6):
        values = rng.normal(size=(100, 20))
        result = identify_groups(values, group, NAMES, [str(i) for i in range(100)], 19)
        assert result is not None
        accuracies.append(result.accuracy)
    assert np.mean(accuracies) == pytest.approx(1 / 3, abs=0.06)


def test_a_patient_is_never_recognized_by_another_row_of_his() -> None:
    """Patients with rows of their own in two groups: only the patient could tell the group."""
    rng = np.random.default_rng(2)
    person = np.repeat(np.arange(30), 4)
    group = np.repeat(rng.permutation(np.repeat(np.arange(3), 10)), 4)
    values = rng.normal(size=(30, 12))[person] + 0.01 * rng.normal(size=(120, 12))
    result = identify_groups(values, group, NAMES, [str(i) for i in person], 19)
    assert result is not None
    assert result.patients == 30
    assert result.accuracy < 0.55


def test_nothing_to_learn_from() -> None:
    group = np.repeat(np.arange(2), 10)
    assert identify_groups(np.ones((20, 3)), group, NAMES[:2], list("abcdefghijklmnopqrst")) is None


def test_seeds_decide() -> None:
    rng = np.random.default_rng(3)
    group, values = np.repeat(np.arange(2), 12), rng.normal(size=(24, 5))
    names = [str(i) for i in range(24)]
    first, second, other = (
        identify_groups(values, group, NAMES[:2], names, 19, seed) for seed in (1, 1, 2)
    )
    assert first == second != other
