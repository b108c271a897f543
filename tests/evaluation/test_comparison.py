"""Shares, the way to the retest, what got worse, and tests between methods, worked by hand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.agreement.comparison import changes, reproducible_shares, way_to_retest
from cvsct.evaluation.agreement.concordance import (
    AcrossRegions,
    Agreement,
    ClassAgreement,
    across_regions,
    lin_ccc,
)
from cvsct.evaluation.agreement.paired_tests import holm, paired_tests
from cvsct.evaluation.features.radiomics import (
    CLASSES,
    MissingValue,
    Patch,
    RegionFeatures,
    extract,
)

COLUMNS = len(CLASSES) * 2


def table(values: np.ndarray) -> RegionFeatures:
    per_class = values.shape[1] // len(CLASSES)
    names = tuple(f"{name}_F{i}" for name in CLASSES for i in range(per_class))
    missing = tuple(
        MissingValue(int(r), names[c], "test") for r, c in np.argwhere(np.isnan(values))
    )
    return RegionFeatures(names, values, missing)


def noisy(target: RegionFeatures, sd: float, seed: int) -> RegionFeatures:
    rng = np.random.default_rng(seed)
    return table(target.values + sd * rng.normal(size=target.values.shape))


@pytest.fixture(scope="module")
def target() -> RegionFeatures:
    return table(np.random.default_rng(0).normal(size=(30, COLUMNS)))


def result(values: list[float | None], samples: np.ndarray | None = None) -> AcrossRegions:
    """A comparison with these concordances, one feature a class."""
    drawn = np.zeros((4, len(values))) if samples is None else samples
    features = tuple(
        Agreement(f"{name}_F", ccc, None, None, 9)
        for name, ccc in zip(CLASSES, values, strict=True)
    )
    defined = [value for value in values if value is not None]
    mean = ClassAgreement(float(np.mean(defined)) if defined else None, None, None, 6, 0)
    classes = {
        name: ClassAgreement(ccc, None, None, 1, 0)
        for name, ccc in zip(CLASSES, values, strict=True)
    }
    return AcrossRegions(features, classes, mean, drawn.mean(axis=1), drawn)


def test_shares_by_hand() -> None:
    agreement = result([0.85, 0.8499, 0.90, 0.95, None, -0.2])
    low, high = reproducible_shares(agreement)
    assert (low.threshold, low.count, low.n, low.undefined) == (0.85, 3, 5, 1)
    assert low.share == pytest.approx(3 / 5)
    assert (high.count, high.share) == (2, pytest.approx(2 / 5))
    assert reproducible_shares(agreement, feature_class="glcm")[0].count == 0
    (empty, _) = reproducible_shares(result([None] * 6))
    assert (empty.share, empty.n, empty.undefined) == (None, 0, 6)
    json.dumps([share.to_json() for share in (low, empty)], allow_nan=False)


def test_the_way_to_the_retest_by_hand() -> None:
    source, method, retest = (result([value] * 6) for value in (0.4, 0.7, 0.9))
    source_draws, method_draws, retest_draws = (
        np.tile(np.array([[low], [middle], [high]]), (1, 6))
        for low, middle, high in ((0.3, 0.4, 0.5), (0.5, 0.7, 0.75), (0.8, 0.9, 1.0))
    )
    way = way_to_retest(
        result([0.7] * 6, method_draws),
        result([0.4] * 6, source_draws),
        result([0.9] * 6, retest_draws),
    )
    assert way.share == pytest.approx(0.3 / 0.5)
    assert (way.gained, way.room, way.lost_share) == (pytest.approx(0.3), pytest.approx(0.5), 0.0)
    assert way.low is not None
    assert way.high is not None
    # the ways of the three resamples: 0.2/0.5, 0.3/0.5, 0.25/0.5
    assert 0.4 - 1e-9 <= way.low < way.high <= 0.6 + 1e-9
    assert way_to_retest(source, source, retest).share == 0.0
    assert way_to_retest(retest, source, retest).share == pytest.approx(1.0)
    for none in (way_to_retest(method, retest, source), way_to_retest(method, source, source)):
        assert none.share is None
        assert none.low is None
    by_class = way_to_retest(method, source, retest, "ngtdm")
    assert by_class.share == pytest.approx(0.6)
    undefined = result([None] * 6)
    assert way_to_retest(undefined, source, retest).share is None
    json.dumps([share.to_json() for share in (way, none, by_class)], allow_nan=False)


def test_a_gap_that_is_not_clearly_open_has_no_interval() -> None:
    flips = np.where(np.arange(40)[:, None] < 3, -0.1, 0.1) * np.ones((1, 6))
    source, retest = result([0.4] * 6, np.zeros((40, 6))), result([0.5] * 6, flips)
    way = way_to_retest(result([0.45] * 6, np.zeros((40, 6))), source, retest)
    assert way.share == pytest.approx(0.5)
    assert way.lost_share == pytest.approx(3 / 40)
    assert way.low is None
    assert way.high is None


def test_the_way_of_real_resamples_holds_the_truth(target: RegionFeatures) -> None:
    rng = np.random.default_rng(5)
    far = rng.normal(size=target.values.shape)
    source, method = table(target.values + far), table(target.values + 0.5 * far)
    retest = noisy(target, 0.1, 9)
    sides = [across_regions(side, target, 300) for side in (method, source, retest)]
    way = way_to_retest(*sides)
    assert way.share is not None
    assert way.low is not None
    assert way.high is not None
    assert way.low < way.share < way.high
    assert way.low > 0.4
    assert way.high < 0.95


def test_what_got_worse_and_what_clearly_did(target: RegionFeatures) -> None:
    source = noisy(target, 0.5, 1)
    values = noisy(target, 0.3, 2).values
    values[:, 3] = target.values[:, 3] + 3.0 * np.random.default_rng(7).normal(size=30)
    values[:, 5] = source.values[:, 5] + 1e-3 * np.random.default_rng(8).normal(size=30)
    method = table(values)
    all_changes = changes(across_regions(method, target, 400), across_regions(source, target, 400))
    assert all_changes.features[0].feature == method.names[3]
    assert all_changes.features[0].clear
    assert [feature.feature for feature in all_changes.clearly_worse] == [method.names[3]]
    assert all(feature.change < 0 for feature in all_changes.worse)
    assert all_changes.by_chance == pytest.approx(0.025 * COLUMNS)
    feature = all_changes.features[0]
    assert feature.change == pytest.approx(feature.after - feature.before)
    assert feature.before == pytest.approx(lin_ccc(source.values[:, 3], target.values[:, 3]))
    assert all_changes.to_json()["clearly_worse"] == 1
    json.dumps(all_changes.to_json(), allow_nan=False)


def test_undefined_features_are_counted_not_compared(target: RegionFeatures) -> None:
    constant = target.values.copy()
    constant[:, 2] = 1.0
    flat_target, flat = table(constant), table(constant + np.eye(1, COLUMNS, 4)[0])
    all_changes = changes(
        across_regions(flat, flat_target, 50), across_regions(flat, flat_target, 50)
    )
    assert all_changes.undefined == 1
    assert len(all_changes.features) == COLUMNS - 1


def test_resamples_that_do_not_pair_are_refused(target: RegionFeatures) -> None:
    long, short = across_regions(target, target, 20), across_regions(target, target, 10)
    with pytest.raises(EvaluationError, match="one seed and one number of resamples"):
        changes(long, short)
    with pytest.raises(EvaluationError, match="one seed and one number of resamples"):
        way_to_retest(long, short, long)


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, never falling: .04 .06 .06 .06
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    for raw, adjusted in zip(p, holm(p), strict=True):
        assert raw - 1e-12 <= adjusted <= min(1.0, raw * len(p)) + 1e-12


def test_corrections_of_the_tests(target: RegionFeatures) -> None:
    methods = {"a": noisy(target, 0.2, 1), "b": noisy(target, 0.8, 2), "c": noisy(target, 0.8, 4)}
    tests = paired_tests(methods, target, permutations=500)
    assert len(tests.of("mean")) == 3
    assert len(tests.of("class")) == 3 * 6
    assert len(tests.of("feature")) == 3 * COLUMNS
    classes = tests.of("class")
    assert [test.p_adjusted for test in classes] == pytest.approx(
        holm([test.p for test in classes])
    )
    # Benjamini-Hochberg written out: p times m over rank, made monotone from the largest down
    p = np.array([test.p for test in tests.of("feature")])
    order = np.argsort(p)
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    assert [test.p_adjusted for test in tests.of("feature")] == pytest.approx(adjusted)
    by_pair = {(test.first, test.second): test for test in tests.of("mean")}
    assert by_pair["a", "b"].p == pytest.approx(1 / 501)
    assert by_pair["a", "b"].difference > 0.1
    assert by_pair["b", "c"].p > 0.05
    json.dumps(tests.to_json(), allow_nan=False)


def test_every_permutation_counted_one_by_one() -> None:
    rng = np.random.default_rng(4)
    goal = table(rng.normal(size=(6, len(CLASSES))))
    first, second = noisy(goal, 0.4, 5), noisy(goal, 0.9, 6)

    def ccc(values: np.ndarray, column: int) -> float:
        value = lin_ccc(values[:, column], goal.values[:, column])
        assert value is not None
        return value

    column = 2
    observed = ccc(first.values, column) - ccc(second.values, column)
    extreme = 0
    for swap in itertools.product([False, True], repeat=6):
        swapped = np.array(swap)[:, None]
        first_swapped = np.where(swapped, second.values, first.values)
        second_swapped = np.where(swapped, first.values, second.values)
        difference = ccc(first_swapped, column) - ccc(second_swapped, column)
        extreme += abs(difference) >= abs(observed) - 1e-12
    tests = paired_tests({"x": first, "y": second}, goal, permutations=20_000)
    test = next(t for t in tests.of("feature") if t.name == goal.names[column])
    assert test.difference == pytest.approx(observed)
    assert test.p == pytest.approx(extreme / 64, abs=0.015)


def test_false_alarms_are_as_rare_as_they_should_be() -> None:
    rng = np.random.default_rng(0)
    goal = table(rng.normal(size=(20, len(CLASSES) * 40)))
    first, second = noisy(goal, 0.6, 1), noisy(goal, 0.6, 2)
    tests = paired_tests({"x": first, "y": second}, goal, permutations=400)
    p = np.array([test.p for test in tests.of("feature")])
    assert 0.01 < np.mean(p < 0.05) < 0.10
    assert min(test.p_adjusted for test in tests.of("feature")) > 0.05


def test_groups_are_exchanged_and_resampled_whole(target: RegionFeatures) -> None:
    groups = np.repeat(np.arange(3), 10)
    methods = {"a": noisy(target, 0.2, 1), "b": noisy(target, 0.8, 2)}
    tests = paired_tests(methods, target, permutations=400, groups=groups)
    assert tests.units == 3
    assert min(test.p for test in tests.tests) > 0.2  # 2 / 2**3 at best
    plain = across_regions(methods["b"], target, 300)
    grouped = across_regions(methods["b"], target, 300, groups=groups)
    assert grouped.ccc == pytest.approx(plain.ccc)
    assert not np.array_equal(grouped.samples, plain.samples)
    copies = table(np.repeat(methods["b"].values, 4, axis=0))
    goal = table(np.repeat(target.values, 4, axis=0))
    honest = across_regions(copies, goal, 600, groups=np.repeat(np.arange(30), 4))
    naive = across_regions(copies, goal, 600)
    assert honest.samples.std() == pytest.approx(plain.samples.std(), rel=0.15)
    assert naive.samples.std() < 0.7 * honest.samples.std()  # copies are no new patients
    with pytest.raises(EvaluationError, match="all regions are in one group"):
        across_regions(methods["b"], target, 10, groups=np.zeros(30))
    with pytest.raises(EvaluationError, match="2 groups for 30 regions"):
        across_regions(methods["b"], target, 10, groups=np.arange(2))


def test_missing_values_leave_their_region_out_of_that_feature(target: RegionFeatures) -> None:
    holed = noisy(target, 0.3, 1).values
    holed[:4, 0] = np.nan
    holed[:, 1] = np.nan
    methods = {"a": table(holed), "b": noisy(target, 0.3, 2)}
    tests = paired_tests(methods, target, permutations=50)
    by_name = {test.name: test for test in tests.of("feature")}
    assert by_name[target.names[0]].n == 26
    assert target.names[1] not in by_name
    assert by_name[target.names[0]].second_ccc == pytest.approx(
        lin_ccc(methods["b"].values[4:, 0], target.values[4:, 0])
    )


def test_one_against_all_and_what_cannot_be_tested(target: RegionFeatures) -> None:
    methods = {name: noisy(target, 0.5, i) for i, name in enumerate("abc")}
    tests = paired_tests(methods, target, against="a", permutations=20)
    assert {(test.first, test.second) for test in tests.tests} == {("b", "a"), ("c", "a")}
    with pytest.raises(EvaluationError, match="nothing to test"):
        paired_tests({"a": target}, target)
    with pytest.raises(EvaluationError, match="none called 'z'"):
        paired_tests(methods, target, against="z")
    with pytest.raises(EvaluationError, match="same regions"):
        paired_tests(methods | {"d": replace(target, values=target.values[:9])}, target)


def test_constant_regions_reach_no_mean_and_no_test() -> None:
    rng = np.random.default_rng(3)
    goal = [Patch(np.rint(rng.normal(40, 60, (8, 8)))) for _ in range(6)]
    flat = [Patch(np.full((8, 8), 40.0)) for _ in range(6)]
    goal_features, half_flat, mixed = (
        extract(patches) for patches in (goal, [*goal[:3], *flat[:3]], [*flat[:3], *goal[3:]])
    )
    result = across_regions(half_flat, goal_features, 50)
    skewness = next(
        feature for feature in result.features if feature.feature == "firstorder_Skewness"
    )
    assert skewness.n == 3
    nothing = across_regions(extract(flat), goal_features, 50)
    skewness = next(
        feature for feature in nothing.features if feature.feature == "firstorder_Skewness"
    )
    assert (skewness.n, skewness.ccc) == (0, None)
    assert reproducible_shares(nothing)[0].undefined >= 9
    tests = paired_tests({"a": half_flat, "b": mixed}, goal_features, permutations=20)
    assert "firstorder_Skewness" not in {feature.name for feature in tests.of("feature")}
    records = (tests, *reproducible_shares(nothing), changes(nothing, result))
    for record in (*records, way_to_retest(nothing, result, result)):
        json.dumps(record.to_json(), allow_nan=False)
