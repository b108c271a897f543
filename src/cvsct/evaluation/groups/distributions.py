"""How far the distributions of features lie apart: standardized differences, and tests of each.

A standardized difference is the difference of means over the pooled standard deviation (Cohen's d).
The tests are Kolmogorov and Smirnov's for two samples, with exact p-values. Benjamini and
Hochberg's correction (1995) keeps the expected share of false findings below a level.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import ks_2samp, kstwo

FALSE_SHARE = 0.05
"""Expected share of false findings among all, which Benjamini and Hochberg's correction keeps."""

MIN_DEFINED = 5
"""Smallest number of patients of either side in whom a feature must be defined to be tested."""


@dataclass(frozen=True)
class Contrast:
    """Two sets of patients that are compared.

    Args:
        name: what is compared, such as `A / others`.
        first: true for the patients of the first set.
        second: true for those of the second.
    """

    name: str
    first: Bool[np.ndarray, " patients"]
    second: Bool[np.ndarray, " patients"]


def contrasts(groups: list[str], names: list[str], reference: str | None = None) -> list[Contrast]:
    """Every group against the reference; without one, against all others. Two groups: one contrast.

    Args:
        groups: group of each patient.
        names: the groups to compare.
        reference: one of the groups.
    """
    of = np.array(groups)
    inside = np.isin(of, names)
    if reference is None and len(names) == 2:
        reference = names[0]
    if reference is not None:
        return [
            Contrast(f"{name} / {reference}", of == name, of == reference)
            for name in names
            if name != reference
        ]
    return [Contrast(f"{name} / others", of == name, inside & (of != name)) for name in names]


def standardized_differences(
    values: Float[np.ndarray, "patients features"],
    first: Bool[np.ndarray, " patients"],
    second: Bool[np.ndarray, " patients"],
) -> Float[np.ndarray, " features"]:
    """Difference of means over the pooled standard deviation; NaN where it is undefined."""
    a, b = _moments(values[first]), _moments(values[second])
    pooled = (a.squares + b.squares) / np.maximum(a.n + b.n - 2, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = (a.mean - b.mean) / np.sqrt(pooled)
    enough = (a.n >= MIN_DEFINED) & (b.n >= MIN_DEFINED) & (pooled > 0)
    return np.asarray(np.where(enough, d, np.nan))


@dataclass(frozen=True)
class _Moments:
    n: Int[np.ndarray, " features"]
    mean: Float[np.ndarray, " features"]
    squares: Float[np.ndarray, " features"]


def _moments(values: Float[np.ndarray, "patients features"]) -> _Moments:
    """Number, mean and sum of squared deviations of the defined values of each feature."""
    defined = np.isfinite(values)
    n = defined.sum(axis=0)
    mean = np.where(defined, values, 0.0).sum(axis=0) / np.maximum(n, 1)
    squares = np.where(defined, values - mean, 0.0) ** 2
    return _Moments(n, mean, squares.sum(axis=0))


def ks_p_values(
    values: Float[np.ndarray, "patients features"],
    first: Bool[np.ndarray, " patients"],
    second: Bool[np.ndarray, " patients"],
) -> Float[np.ndarray, " features"]:
    """P-value of the two-sample test of each feature; NaN where too few patients define it."""
    p_of: dict[tuple[int, int, int], float] = {}
    p_values = np.full(values.shape[1], np.nan)
    for feature, column in enumerate(values.T):
        a = np.sort(column[first & np.isfinite(column)])
        b = np.sort(column[second & np.isfinite(column)])
        n, m = len(a), len(b)
        if min(n, m) < MIN_DEFINED:
            continue
        everything = np.concatenate([a, b])
        steps = (
            np.searchsorted(a, everything, "right") * m
            - np.searchsorted(b, everything, "right") * n
        )
        key = (n, m, int(np.abs(steps).max()))  # the statistic times n m, an integer
        if key not in p_of:
            p_of[key] = _ks_p(a, b, key)
        p_values[feature] = p_of[key]
    return p_values


def _ks_p(a: Any, b: Any, key: tuple[int, int, int]) -> float:
    """Exact p-value for samples of up to 10,000; beyond, the distribution for large samples."""
    n, m, steps = key
    if max(n, m) <= 10_000:
        with warnings.catch_warnings():  # where rounding makes it more than 1
            warnings.filterwarnings("ignore", "ks_2samp: Exact calculation", RuntimeWarning)
            return float(ks_2samp(a, b, method="exact").pvalue)
    return float(kstwo.sf(steps / n / m, round(n * m / (n + m))))


def benjamini_hochberg(
    p_values: Float[np.ndarray, " tests"], level: float = FALSE_SHARE
) -> Bool[np.ndarray, " tests"]:
    """Which tests are findings at an expected share of false ones; an undefined test is none."""
    found = np.zeros(len(p_values), dtype=bool)
    defined = np.flatnonzero(np.isfinite(p_values))
    if not len(defined):
        return found
    order = defined[np.argsort(p_values[defined])]
    allowed = level * np.arange(1, len(order) + 1) / len(order)
    below = np.flatnonzero(p_values[order] <= allowed)
    if len(below):
        found[order[: below[-1] + 1]] = True
    return found
