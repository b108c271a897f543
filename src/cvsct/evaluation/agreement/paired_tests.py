"""Paired permutation tests of whether one method agrees better with the target than another.

In each region, or group of regions such as a patient, the features of the two methods are exchanged
or not, at random. If the methods do not differ, the exchange has no effect, and the observed
difference in concordance is a typical one of the permutations. The bootstrap gives intervals, not
tests; its smallest p would not survive a correction over 93 features.

*Holm* corrects the few tests that decide (the mean, the six classes): the chance of even one false
claim stays below 5 %, however the classes depend on each other. *Benjamini-Hochberg* corrects the
93 features, a search: of those it names 5 % are false on average. It holds for positively
dependent tests, as those of features of one region are.
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
from cvsct.evaluation.features.radiomics import CLASSES, RegionFeatures

Scope = Literal["mean", "class", "feature"]

_CORRECTIONS: dict[Scope, str] = {
    "mean": "Holm over the pairs of methods",
    "class": "Holm over the pairs of methods and the classes",
    "feature": "Benjamini-Hochberg over the pairs of methods and the features",
}
_CHUNK = 1000
"""Number of permutations that are computed at once."""

_TIE = 1e-12
"""Difference below which two values are a tie, so that rounding does not decide."""


@dataclass(frozen=True)
class PairedTest:
    """Test of two methods by one feature, by the mean of a class or by the mean of the classes.

    Args:
        first: name of the first method.
        second: name of the second method.
        scope: what is compared.
        name: the feature or class; empty for the mean of the classes.
        first_ccc: concordance of the first method, over the regions that all sides have.
        second_ccc: concordance of the second method, over the same regions.
        difference: first_ccc - second_ccc.
        p: two-sided p of the permutations.
        p_adjusted: p corrected for the tests of the same scope.
        n: number of regions.
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
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class PairedTests:
    """All tests of a set of methods.

    Args:
        tests: the tests, with p corrected within each scope.
        permutations: number of permutations.
        units: number of groups of regions that are exchanged, or of regions where they are not
            grouped. With few of them p cannot be small: 2 / 2**units at best.
    """

    tests: tuple[PairedTest, ...]
    permutations: int
    units: int

    def of(self, scope: Scope) -> tuple[PairedTest, ...]:
        """The tests of one scope."""
        return tuple(test for test in self.tests if test.scope == scope)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the names of the corrections."""
        return {
            "test": "paired permutation, two-sided",
            "permutations": self.permutations,
            "units": self.units,
            "corrections": dict(_CORRECTIONS),
            "tests": [test.to_json() for test in self.tests],
        }


def paired_tests(
    methods: Mapping[str, RegionFeatures],
    target: RegionFeatures,
    against: str = "",
    permutations: int = 10_000,
    seed: int = 0,
    groups: Shaped[np.ndarray, " regions"] | None = None,
) -> PairedTests:
    """Test the methods in pairs by their concordance with the target.

    Args:
        methods: features of the same regions, by method.
        target: features of these regions in the target.
        against: method that each other one is tested against; empty for every pair.
        permutations: number of permutations.
        seed: seed of the permutations.
        groups: group of each region, such as its patient; whole groups are exchanged.

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
    tests: list[PairedTest] = []
    for first, second in pairs:
        rng = random_stream(seed, "paired test", first, second)
        swaps = rng.integers(0, 2, (permutations, units))[:, index].astype(np.float64)
        tests += _test_pair((first, second), methods[first], methods[second], target, swaps)
    return PairedTests(tuple(_corrected(tests)), permutations, units)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1 and so on; corrected values never fall
    below those of smaller p, and are at most 1.
    """
    order = np.argsort(p)
    steps = np.array(p)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def _corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests, with p corrected for all tests of the same scope."""
    adjusted: dict[int, float] = {}
    for scope in _CORRECTIONS:
        index = [i for i, test in enumerate(tests) if test.scope == scope]
        p = [tests[i].p for i in index]
        if p:
            values = false_discovery_control(p) if scope == "feature" else holm(p)
            adjusted |= {i: float(value) for i, value in zip(index, values, strict=True)}
    return [replace(test, p_adjusted=adjusted[i]) for i, test in enumerate(tests)]


def _test_pair(
    names: tuple[str, str],
    first: RegionFeatures,
    second: RegionFeatures,
    target: RegionFeatures,
    swaps: Float[np.ndarray, "permutations regions"],
) -> list[PairedTest]:
    """All tests of two methods, with p uncorrected."""
    defined = first.defined & second.defined & target.defined
    counts = defined.sum(axis=0)
    sides = [_ccc_by_feature(table.values, target.values, defined) for table in (first, second)]
    usable = np.flatnonzero((counts >= MIN_REGIONS) & ~np.isnan(sides[0] + sides[1]))
    parts = [swaps[i : i + _CHUNK] for i in range(0, len(swaps), _CHUNK)]
    permuted = np.concatenate(
        [_swapped_difference(first, second, target, defined, part) for part in parts]
    )
    # a permutation in which a concordance is undefined shows no difference
    permuted = np.where(np.isnan(permuted), 0.0, permuted)
    tests = []

    def add(scope: Scope, name: str, columns: Sequence[Sequence[int]]) -> None:
        """Add a test of the mean, over groups of columns, of the mean concordance of a group."""
        a, b = (float(np.mean([side[list(c)].mean() for c in columns])) for side in sides)
        null = np.mean([permuted[:, list(c)].mean(axis=1) for c in columns], axis=0)
        extreme = int((np.abs(null) >= abs(a - b) - _TIE).sum())
        p = (1 + extreme) / (1 + len(null))
        n = int(max(counts[list(c)].max() for c in columns))
        tests.append(PairedTest(*names, scope, name, a, b, a - b, p, p, n))

    by_class = {name: [i for i in first.columns(name) if i in set(usable)] for name in CLASSES}
    classes = {name: columns for name, columns in by_class.items() if columns}
    if classes:
        add("mean", "", list(classes.values()))
    for name, columns in classes.items():
        add("class", name, [columns])
    for i in usable:
        add("feature", first.names[i], [[int(i)]])
    return tests


def _ccc_by_feature(
    x: Float[np.ndarray, "regions features"],
    y: Float[np.ndarray, "regions features"],
    defined: Bool[np.ndarray, "regions features"],
) -> Float[np.ndarray, " features"]:
    """Concordance of each feature over the regions where it is defined; NaN where undefined."""
    values = [lin_ccc(a[keep], b[keep]) for a, b, keep in zip(x.T, y.T, defined.T, strict=True)]
    return np.array([np.nan if value is None else value for value in values])


def _swapped_difference(
    first: RegionFeatures,
    second: RegionFeatures,
    target: RegionFeatures,
    defined: Bool[np.ndarray, "regions features"],
    swaps: Float[np.ndarray, "permutations regions"],
) -> Float[np.ndarray, "permutations features"]:
    """Differences in concordance after exchanging the methods in some regions.

    A region contributes to each moment the value of one method or of the other, so that the moments
    of all permutations are matrix products. Values are centred and scaled first, against
    cancellation.
    """
    count = np.maximum(defined.sum(axis=0), 1)
    a, b, t = (np.where(defined, table.values, 0.0) for table in (first, second, target))
    centre = t.sum(axis=0) / count
    a, b, t = (np.where(defined, values - centre, 0.0) for values in (a, b, t))
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
            results.append(2 * (product - mean * mean_t) / np.where(spread > _TIE, spread, np.nan))
    difference: Float[np.ndarray, "permutations features"] = results[0] - results[1]
    return difference
