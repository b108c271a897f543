"""Sums of products in strata, against regressions and means of the items themselves."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.moments import Moments, centered, lowest, mean_value, numbered

ITEMS, STRATA, N = 400, 5, 3
RNG = np.random.default_rng(0)
COVARIATES = {"size": RNG.normal(3, 1, ITEMS), "hu": RNG.normal(-1, 2, ITEMS)}
STRATUM = RNG.integers(0, STRATA - 1, ITEMS)  # the last holds nothing
PATIENT = RNG.integers(0, 12, ITEMS)
VALUES = RNG.normal(0.5 * COVARIATES["size"] - COVARIATES["hu"] + STRATUM, 1.0, (N, ITEMS)).T
VALUES[RNG.random(VALUES.shape) < 0.2] = np.nan


def moments(which: np.ndarray | slice = slice(None), n: int = N) -> Moments:
    """Sums over some of the items, at the first n frequencies."""
    covariates = {name: column[which] for name, column in COVARIATES.items()}
    return Moments.of(covariates, VALUES[which, :n], STRATUM[which], STRATA, PATIENT[which])


def assert_equal(a: Moments, b: Moments) -> None:
    assert a.names == b.names
    np.testing.assert_allclose(a.sums, b.sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(a.patients, b.patients)


@pytest.mark.parametrize("index", range(N))
def test_a_regression_on_sums_is_that_on_the_items(index: int) -> None:
    known = np.isfinite(VALUES[:, index])
    x = np.column_stack([np.ones(ITEMS), *COVARIATES.values()])[known]
    y = VALUES[known, index]
    sums = moments().total[index]
    direct, rest, *_ = np.linalg.lstsq(x, y, rcond=None)
    coefficients = np.linalg.solve(sums[:-1, :-1], sums[:-1, -1])
    assert coefficients == pytest.approx(direct, rel=1e-9)
    assert sums[-1, -1] - coefficients @ sums[:-1, -1] == pytest.approx(rest[0], rel=1e-9)


def test_a_regression_within_strata_is_that_with_a_mean_for_each() -> None:
    known = np.isfinite(VALUES[:, 0])
    x = np.column_stack([*COVARIATES.values(), STRATUM[:, None] == np.arange(STRATA)])[known]
    direct = np.linalg.lstsq(x, VALUES[known, 0], rcond=None)[0][: len(COVARIATES)]
    apart = centered(moments().sums)[:, 0].sum(axis=0)
    assert np.linalg.solve(apart[1:-1, 1:-1], apart[1:-1, -1]) == pytest.approx(direct, rel=1e-9)


def test_means_and_scatter_of_a_weighted_choice_of_strata_are_those_of_its_items() -> None:
    sums = moments()
    weight = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    form = sums.form(one=2.0, hu=-3.0, value=1.0)
    for index in range(N):
        used = np.isfinite(VALUES[:, index]) & np.isin(STRATUM, [0, 2])
        items = 2.0 - 3.0 * COVARIATES["hu"][used] + VALUES[used, index]
        chosen = sums.weighted(weight)
        assert mean_value(chosen, form)[index] == pytest.approx(items.mean(), rel=1e-9)
        scatter = form @ centered(chosen)[index] @ form
        assert scatter == pytest.approx(np.sum((items - items.mean()) ** 2), rel=1e-9)


def test_sums_of_two_groups_of_patients_add_up() -> None:
    """One of the groups reaches fewer frequencies."""
    first = PATIENT < 7
    assert_equal(moments(first) + moments(~first), moments())
    short = moments(first, n=2) + moments(~first)
    assert_equal(short.to(2), moments().to(2))
    np.testing.assert_array_equal(short.sums[:, 2], moments(~first).sums[:, 2])


def test_nothing_adds_nothing() -> None:
    nothing = Moments.nothing(tuple(COVARIATES), STRATA, 1)
    assert_equal(moments() + nothing, moments())
    assert not moments().patches[-1]
    assert np.isnan(mean_value(nothing.total, nothing.form(value=1.0))).all()
    assert np.all(centered(nothing.sums) == 0)


def test_unknown_values_are_not_counted() -> None:
    sums = moments()
    for index in range(N):
        known = np.isfinite(VALUES[:, index])
        without = moments(known)
        np.testing.assert_allclose(sums.sums[:, index], without.sums[:, index], rtol=1e-9)
        assert sums.counts[:, index].sum() == known.sum() < ITEMS
    assert np.isfinite(sums.sums).all()


def test_patients_are_counted_once() -> None:
    """In the strata and at the frequencies at which one of their items is known."""
    values = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 4.0], [5.0, np.nan]])
    sums = Moments.of(
        {}, values, np.array([0, 0, 0, 1]), n_strata=3, patient=np.array([7, 7, 2, 7])
    )
    np.testing.assert_array_equal(sums.patients, [[2, 1], [1, 0], [0, 0]])
    np.testing.assert_array_equal(sums.counts, [[3, 1], [1, 0], [0, 0]])


def test_an_end_that_cuts_a_stratum_takes_a_part_of_it() -> None:
    patches = np.array([10.0, 0.0, 20.0, 5.0])
    np.testing.assert_allclose(lowest(patches, 5.0, 20.0), [0.5, 0, 0.5, 0])
    np.testing.assert_allclose(lowest(patches, 12.0, 16.0), [0, 0, 0.2, 0])
    np.testing.assert_allclose(lowest(patches, 0.0, 1e9), [1, 0, 1, 1])
    for first, last in ((0.0, 0.0), (0.0, 3.5), (9.0, 31.0), (30.0, 35.0)):
        assert lowest(patches, first, last) @ patches == pytest.approx(last - first)


def test_keys_are_numbered_as_they_first_come() -> None:
    np.testing.assert_array_equal(numbered(["b", "a", "b", "c", "a"]), [0, 1, 0, 2, 1])
