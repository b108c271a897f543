"""Can a classifier still tell which scanner features came from? After harmonizing it should not.

A linear discriminant with a ridge (the least-squares one: Hastie, Tibshirani and Friedman, The
Elements of Statistical Learning, 2009, section 4.3) on features' ranks. It is cross-validated with
all features of one place on the same side of every split: else it would know the place again, not
the scanner. Half right is chance, and the goal. A linear classifier at chance proves little
against cleverer ones; one above chance proves that scanners can be told apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.errors import EvaluationError
from cvsct.core.seeding import random_stream
from cvsct.evaluation.features.radiomics import FeatureTable

FOLDS = 5
REPEATS = 10
"""Different splits into folds, whose results are averaged: one alone scatters."""

RIDGE = 1.0
"""Of the correlation matrix: its eigenvalues below this count little."""

MIN_DEFINED = 0.8
"""A feature that is undefined in more of either side's regions is left out."""

SCORES_KEPT = 5
"""Features of the highest scores that go into the record."""

Z_95 = 1.96
"""Quantile of the normal distribution behind a two-sided 95 % interval."""


@dataclass(frozen=True)
class IdentificationScore:
    """How well one feature alone tells two sides apart: the area under its ROC curve.

    Args:
        auc: probability that a value of the first side exceeds one of the second; 0.5 is none.
    """

    feature: str
    auc: float


@dataclass(frozen=True)
class Identification:
    """How often features were given to the right side, in places the classifier had not seen.

    Args:
        accuracy: mean of both sides' shares; 0.5 is chance.
        low: lower end of the 95 % interval.
        high: upper end.
        n: rows of both sides.
        groups: places, none of which was ever on both sides of a split.
        features: used.
        left_out: constant, or undefined too often.
        telling: the features that give it away most.
    """

    accuracy: float
    low: float
    high: float
    n: int
    groups: int
    features: int
    left_out: int
    telling: tuple[IdentificationScore, ...]

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above chance.

        Below it lies where places resemble places of the other side more than of their own.
        """
        return self.low > 0.5

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def identify(
    first: FeatureTable,
    second: FeatureTable,
    groups: Sequence[Hashable],
    second_groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Identification:
    """How well features tell two sides apart (source and target, or harmonized and target).

    Where the sides show different bodies, bodies differ as well as scanners: read the figure
    beside that of the source, and of two sets of one scanner.

    Args:
        groups: for each row of `first`, the place it shows (region, slice or patient); rows of one
            place are held back together.
        second_groups: the same for `second`; None where its rows show the same places in order.

    Raises:
        EvaluationError: if rows and groups do not fit, features differ, none is usable, or a side
            has fewer than two places.
    """
    both = [list(groups), list(groups if second_groups is None else second_groups)]
    _refuse_misfits(first, second, both)
    values = np.concatenate([first.values, second.values])
    side = np.repeat([1.0, -1.0], [len(first.values), len(second.values)])
    keys = {key: number for number, key in enumerate(dict.fromkeys(both[0] + both[1]))}
    place = np.array([keys[key] for key in both[0] + both[1]])
    used = _usable(values, side)
    if not used.any():
        raise EvaluationError("no feature varies and is defined in most regions of both sides")
    values = values[:, used]
    rng = random_stream(seed, "identification")
    right = np.mean([_cross_validated(values, side, place, rng) for _ in range(REPEATS)], axis=0)
    accuracy = float((right[side > 0].mean() + right[side < 0].mean()) / 2)
    low, high = _interval(right, side, place, accuracy)
    names = [name for name, one in zip(first.names, used, strict=True) if one]
    alone = [
        IdentificationScore(name, _auc(column, side))
        for name, column in zip(names, values.T, strict=True)
    ]
    alone.sort(key=lambda one: -abs(one.auc - 0.5))
    return Identification(
        accuracy=accuracy,
        low=low,
        high=high,
        n=len(side),
        groups=len(keys),
        features=int(used.sum()),
        left_out=int((~used).sum()),
        telling=tuple(alone[:SCORES_KEPT]),
    )


def _refuse_misfits(
    first: FeatureTable, second: FeatureTable, groups: Sequence[Sequence[Hashable]]
) -> None:
    if first.names != second.names:
        raise EvaluationError("the two sides hold different features; measure both alike")
    for table, own in zip((first, second), groups, strict=True):
        if len(own) != len(table.values):
            raise EvaluationError(
                f"{len(own)} groups for {len(table.values)} regions; name the place of every one"
            )
        if len(set(own)) < 2:
            raise EvaluationError(
                "one place only: a classifier must be tested where it was not trained; "
                "give regions of two or more"
            )


def _usable(
    values: Float[np.ndarray, "rows features"], side: Float[np.ndarray, " rows"]
) -> Bool[np.ndarray, " features"]:
    """Features defined often enough on both sides that are not one number everywhere."""
    defined = np.isfinite(values)
    enough = np.minimum(defined[side > 0].mean(axis=0), defined[side < 0].mean(axis=0))
    top = np.where(defined, values, -np.inf).max(axis=0)
    bottom = np.where(defined, values, np.inf).min(axis=0)
    return np.asarray((enough >= MIN_DEFINED) & (top > bottom))


def _cross_validated(
    values: Float[np.ndarray, "rows features"],
    side: Float[np.ndarray, " rows"],
    place: Int[np.ndarray, " rows"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " rows"]:
    """1 where a row was given to its side by a classifier that had not seen its place, else 0."""
    fold = _folds(side, place, rng)
    right = np.full(len(side), 0.5)
    for number in np.unique(fold):
        held = fold == number
        if len(np.unique(side[~held])) < 2:
            continue  # nothing to learn from: a guess
        score = _score(values[~held], side[~held], values[held])
        right[held] = np.where(score == 0, 0.5, np.sign(score) == side[held])
    return right


def _folds(
    side: Float[np.ndarray, " rows"], place: Int[np.ndarray, " rows"], rng: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """Places dealt out to folds at random, those that show the same sides in turn."""
    kinds: dict[tuple[bool, bool], list[int]] = defaultdict(list)
    for one in rng.permutation(np.unique(place)):
        here = side[place == one]
        kinds[bool((here > 0).any()), bool((here < 0).any())].append(int(one))
    fold = np.zeros(len(side), dtype=np.int64)
    for places in kinds.values():
        for turn, one in enumerate(places):
            fold[place == one] = turn % FOLDS
    return fold


def _score(
    known: Float[np.ndarray, "known features"],
    side: Float[np.ndarray, " known"],
    new: Float[np.ndarray, "new features"],
) -> Float[np.ndarray, " new"]:
    """Discriminant of new rows: above 0 for the first side."""
    x, z = _ranks(known, known), _ranks(known, new)
    # both sides weigh the same, however many rows they have
    weight = np.where(side > 0, 0.5 / (side > 0).sum(), 0.5 / (side < 0).sum())
    middle = weight @ x
    centred = x - middle
    scale = np.sqrt(weight @ centred**2)
    scale = np.where(scale > 0, scale, np.inf)
    normal = centred / scale
    matrix = (normal.T * weight) @ normal + RIDGE * np.eye(x.shape[1])
    direction = np.linalg.solve(matrix, normal.T @ (weight * side))
    return np.asarray(((z - middle) / scale) @ direction)


def _ranks(
    known: Float[np.ndarray, "known features"], values: Float[np.ndarray, "rows features"]
) -> Float[np.ndarray, "rows features"]:
    """Where values lie among the known ones, 0 to 1; 0.5 where undefined."""
    ranks = np.full(values.shape, 0.5)
    for column, (own, mine) in enumerate(zip(known.T, values.T, strict=True)):
        order = np.sort(own[np.isfinite(own)])
        told = np.isfinite(mine)
        if len(order):
            low = np.searchsorted(order, mine[told], side="left")
            high = np.searchsorted(order, mine[told], side="right")
            ranks[told, column] = (low + high) / 2 / len(order)
    return ranks


def _interval(
    right: Float[np.ndarray, " rows"],
    side: Float[np.ndarray, " rows"],
    place: Int[np.ndarray, " rows"],
    accuracy: float,
) -> tuple[float, float]:
    """Wilson's interval for as many independent trials as the scatter between places amounts to.

    Rows of one place are right or wrong together or in turn; at least the places, at most the
    rows count. That the folds share training rows is not allowed for.
    """
    share = np.where(side > 0, 0.5 / (side > 0).sum(), 0.5 / (side < 0).sum())
    by_place = np.bincount(place, share * (right - accuracy))
    variance = float(by_place @ by_place)
    spread = accuracy * (1 - accuracy)
    places = int(place.max()) + 1
    trials = float(np.clip(spread / variance if variance > 0 else 0.0, places, len(side)))
    middle = (accuracy + Z_95**2 / (2 * trials)) / (1 + Z_95**2 / trials)
    half = (
        Z_95 * float(np.sqrt(spread / trials + Z_95**2 / (4 * trials**2))) / (1 + Z_95**2 / trials)
    )
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _auc(values: Float[np.ndarray, " rows"], side: Float[np.ndarray, " rows"]) -> float:
    """Mann and Whitney's probability that a value of the first side exceeds one of the second."""
    told = np.isfinite(values)
    first, second = values[told & (side > 0)], np.sort(values[told & (side < 0)])
    below = np.searchsorted(second, first, side="left")
    equal = np.searchsorted(second, first, side="right")
    return float((below + equal).mean() / 2 / len(second))
