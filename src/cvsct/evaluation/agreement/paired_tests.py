"""Whether one method agrees better with the target than another, with correction for many tests.

A paired permutation test: in each region (or group of regions, such as a patient) the two methods'
features change places or not, by a coin. If the methods do not differ, that changes nothing, so
the observed difference in concordance must be one of many like it. The bootstrap gives intervals;
it is no test, and its smallest p would not survive a correction over 93 features.

*Holm* corrects the few questions that decide (the mean, the six classes): the chance of even one
false claim stays below 5 %, however the classes depend on each other. *Benjamini-Hochberg*
corrects the 93 features, a search: of those it names 5 % are false on average. It holds for
positively dependent tests, which features of one region are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import false_discovery_control

from cvsct.core.errors import EvaluationError
from cvsct.core.seeding import random_stream
from cvsct.evaluation.agreement.concordance import MIN_REGIONS, lin_ccc, refuse_other_layout
from cvsct.evaluation.agreement.resampling import group_index
from cvsct.evaluation.features.radiomics import CLASSES, FeatureTable

Scope = Literal["mean", "class", "feature"]

_CORRECTIONS: dict[Scope, str] = {
    "mean": "Holm over the pairs of methods",
    "class": "Holm over the pairs of methods and the classes",
    "feature": "Benjamini-Hochberg over the pairs of methods and the features",
}
_CHUNK = 1000
_SAME = 1e-12
"""Differences closer than this are ties: rounding must not decide between them."""


@dataclass(frozen=True)
class PairedTest:
    """Two methods compared by one feature, by a class's mean or by the mean of the classes.

    Args:
        name: the feature or class; empty for the mean of the classes.
        first_ccc: concordance of the first method, over the regions that all sides have.
        difference: first_ccc - second_ccc.
        p: two-sided, from the permutations.
        p_adjusted: corrected within its scope.
        n: regions.
    """

    first: str
    second: str
    scope: Scope
    name: str
    first_ccc: float
    second_ccc: float
    difference: float
    p: float
    p_adjusted: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class PairedTests:
    """Every test, the corrections, and how many draws and exchangeable units there were.

    Args:
        units: groups of regions, or regions where they are not grouped. With few of them p cannot
            be small: 2 / 2**units at best.
    """

    tests: tuple[PairedTest, ...]
    permutations: int
    units: int

    def of(self, scope: Scope) -> tuple[PairedTest, ...]:
        """Those of one scope."""
        return tuple(one for one in self.tests if one.scope == scope)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "test": "paired permutation, two-sided",
            "permutations": self.permutations,
            "units": self.units,
            "corrections": dict(_CORRECTIONS),
            "tests": [one.to_json() for one in self.tests],
        }


def paired_tests(
    methods: Mapping[str, FeatureTable],
    target: FeatureTable,
    against: str = "",
    permutations: int = 10_000,
    seed: int = 0,
    groups: Shaped[np.ndarray, " regions"] | None = None,
) -> PairedTests:
    """Compare methods by their concordance with the target, two by two.

    Args:
        methods: features of the same regions by each method.
        against: compare each with this one only; empty for every pair.
        groups: what each region belongs to, such as its patient; whole groups are exchanged.

    Raises:
        EvaluationError: if there are not two methods, or their regions differ.
    """
    if len(methods) < 2 or (against and against not in methods):
        raise EvaluationError(
            f"nothing to test: {len(methods)} methods"
            + (f", and none called {against!r}" if against else "")
            + "; give two or more, measured in the same regions"
        )
    for table in methods.values():
        refuse_other_layout(table, target)
    pairs = (
        [(name, against) for name in methods if name != against]
        if against
        else list(itertools.combinations(methods, 2))
    )
    index, units = group_index(groups, len(target.values))
    found: list[PairedTest] = []
    for first, second in pairs:
        rng = random_stream(seed, "paired test", first, second)
        swaps = rng.integers(0, 2, (permutations, units))[:, index].astype(np.float64)
        found += _test_pair((first, second), methods[first], methods[second], target, swaps)
    return PairedTests(tuple(_corrected(found)), permutations, units)


def holm(p: Sequence[float]) -> list[float]:
    """Holm 1979: the smallest of m by m, the next by m - 1, never falling, at most 1."""
    order = np.argsort(p)
    steps = np.array(p)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def _corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Each test with its p corrected among all of its scope."""
    adjusted: dict[int, float] = {}
    for scope in _CORRECTIONS:
        index = [i for i, one in enumerate(tests) if one.scope == scope]
        p = [tests[i].p for i in index]
        if p:
            values = false_discovery_control(p) if scope == "feature" else holm(p)
            adjusted |= {i: float(value) for i, value in zip(index, values, strict=True)}
    return [replace(one, p_adjusted=adjusted[i]) for i, one in enumerate(tests)]


def _test_pair(
    names: tuple[str, str],
    first: FeatureTable,
    second: FeatureTable,
    target: FeatureTable,
    swaps: Float[np.ndarray, "permutations regions"],
) -> list[PairedTest]:
    every = first.defined & second.defined & target.defined
    counts = every.sum(axis=0)
    sides = [_ccc_by_feature(one.values, target.values, every) for one in (first, second)]
    usable = np.flatnonzero((counts >= MIN_REGIONS) & ~np.isnan(sides[0] + sides[1]))
    parts = [swaps[i : i + _CHUNK] for i in range(0, len(swaps), _CHUNK)]
    drawn = np.concatenate(
        [_swapped_difference(first, second, target, every, part) for part in parts]
    )
    # where a permutation leaves nothing to correlate, it shows no difference
    drawn = np.where(np.isnan(drawn), 0.0, drawn)
    tests = []

    def add(scope: Scope, name: str, columns: Sequence[Sequence[int]]) -> None:
        """A test of the mean over groups of features of each group's mean."""
        a, b = (float(np.mean([side[list(c)].mean() for c in columns])) for side in sides)
        null = np.mean([drawn[:, list(c)].mean(axis=1) for c in columns], axis=0)
        extreme = int((np.abs(null) >= abs(a - b) - _SAME).sum())
        p = (1 + extreme) / (1 + len(null))
        n = int(max(counts[list(c)].max() for c in columns))
        tests.append(PairedTest(*names, scope, name, a, b, a - b, p, p, n))

    by_class = {each: [i for i in first.columns(each) if i in set(usable)] for each in CLASSES}
    classes = {each: columns for each, columns in by_class.items() if columns}
    if classes:
        add("mean", "", list(classes.values()))
    for each, columns in classes.items():
        add("class", each, [columns])
    for i in usable:
        add("feature", first.names[i], [[int(i)]])
    return tests


def _ccc_by_feature(
    x: Float[np.ndarray, "regions features"],
    y: Float[np.ndarray, "regions features"],
    every: Bool[np.ndarray, "regions features"],
) -> Float[np.ndarray, " features"]:
    values = [lin_ccc(a[keep], b[keep]) for a, b, keep in zip(x.T, y.T, every.T, strict=True)]
    return np.array([np.nan if value is None else value for value in values])


def _swapped_difference(
    first: FeatureTable,
    second: FeatureTable,
    target: FeatureTable,
    every: Bool[np.ndarray, "regions features"],
    swaps: Float[np.ndarray, "permutations regions"],
) -> Float[np.ndarray, "permutations features"]:
    """Difference in concordance after exchanging the methods in some regions.

    A region's contribution to each moment is the one method's or the other's, so all moments of
    all permutations are matrix products. Values are centred and scaled first, against cancellation.
    """
    count = np.maximum(every.sum(axis=0), 1)
    a, b, t = (np.where(every, one.values, 0.0) for one in (first, second, target))
    centre = t.sum(axis=0) / count
    a, b, t = (np.where(every, one - centre, 0.0) for one in (a, b, t))
    scale = np.sqrt((a**2 + b**2 + t**2).sum(axis=0) / (3 * count))
    scale[scale == 0] = 1.0
    a, b, t = a / scale, b / scale, t / scale
    results = []
    for x, y in ((a, b), (b, a)):
        mean = (x.sum(axis=0) + swaps @ (y - x)) / count
        square = ((x**2).sum(axis=0) + swaps @ (y**2 - x**2)) / count
        product = ((x * t).sum(axis=0) + swaps @ ((y - x) * t)) / count
        mean_t = t.sum(axis=0) / count
        spread = square - mean**2 + (t**2).sum(axis=0) / count - mean_t**2 + (mean - mean_t) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            results.append(2 * (product - mean * mean_t) / np.where(spread > _SAME, spread, np.nan))
    difference: Float[np.ndarray, "permutations features"] = results[0] - results[1]
    return difference
