"""Scanner identification: whether a classifier recognizes the scanner by the features.

After harmonization it should not. The classifier is a linear discriminant with a ridge (least
squares; Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section 4.3)
on features' ranks. In its cross-validation all rows of one place are on the same side of every
split; otherwise it would recognize the place instead of the scanner. An accuracy of one half is
chance, and the goal. A linear classifier at chance proves little against better ones; one above
chance proves that the scanners can be distinguished.
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
from cvsct.evaluation.features.radiomics import RegionFeatures

FOLDS = 5
"""Number of folds of the cross-validation."""

REPEATS = 10
"""Number of splits into folds whose results are averaged, because a single one scatters."""

RIDGE = 1.0
"""Ridge added to the correlation matrix: eigenvalues below it have little weight."""

MIN_DEFINED = 0.8
"""Share of either side's regions in which a feature must be defined to be used."""

SCORES_KEPT = 5
"""Number of features in the record, those with the highest scores."""

Z_95 = 1.96
"""Quantile of the normal distribution behind a two-sided 95 % interval."""


@dataclass(frozen=True)
class IdentificationScore:
    """Area under the ROC curve of one feature as the only sign of the scanner.

    Args:
        feature: name of the feature.
        auc: probability that a value of the first side exceeds one of the second; at 0.5 the
            feature does not distinguish them.
    """

    feature: str
    auc: float


@dataclass(frozen=True)
class Identification:
    """Accuracy of a classifier that assigns features to one of two sides, on unseen places.

    Args:
        accuracy: share of right answers, mean of both sides; 0.5 is chance.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        n: number of rows of both sides.
        groups: number of places, each on one side of every split.
        features: number of features used.
        left_out: number of features that are constant or undefined too often.
        telling: the features that distinguish the sides best.
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

        It lies below where places resemble those of the other side more than those of their own.
        """
        return self.low > 0.5

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def identify(
    first: RegionFeatures,
    second: RegionFeatures,
    groups: Sequence[Hashable],
    second_groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Identification:
    """Measure how well features distinguish two sides (source or harmonized, and target).

    Where the sides show different bodies, the bodies differ as well as the scanners: the accuracy
    must be read beside that of the source, and that of two sets of one scanner.

    Args:
        first: features of the first side.
        second: features of the second side.
        groups: for each row of `first`, the place it shows (region, slice or patient); the rows of
            one place stay in one fold.
        second_groups: the same for `second`; None where its rows show the same places in order.
        seed: seed of the folds.

    Raises:
        EvaluationError: if rows and groups do not fit, features differ, none is usable, or a side
            has fewer than two places.
    """
    groups_of_sides = [list(groups), list(groups if second_groups is None else second_groups)]
    _refuse_misfits(first, second, groups_of_sides)
    values = np.concatenate([first.values, second.values])
    side = np.repeat([1.0, -1.0], [len(first.values), len(second.values)])
    all_groups = groups_of_sides[0] + groups_of_sides[1]
    number_of = {group: number for number, group in enumerate(dict.fromkeys(all_groups))}
    place = np.array([number_of[group] for group in all_groups])
    used = _usable(values, side)
    if not used.any():
        raise EvaluationError(
            "no feature varies and is defined in most regions of both sides; measure more regions"
        )
    values = values[:, used]
    rng = random_stream(seed, "identification")
    right = np.mean([_cross_validated(values, side, place, rng) for _ in range(REPEATS)], axis=0)
    accuracy = float((right[side > 0].mean() + right[side < 0].mean()) / 2)
    low, high = _interval(right, side, place, accuracy)
    names = [name for name, is_used in zip(first.names, used, strict=True) if is_used]
    scores = [
        IdentificationScore(name, _auc(column, side))
        for name, column in zip(names, values.T, strict=True)
    ]
    scores.sort(key=lambda score: -abs(score.auc - 0.5))
    return Identification(
        accuracy=accuracy,
        low=low,
        high=high,
        n=len(side),
        groups=len(number_of),
        features=int(used.sum()),
        left_out=int((~used).sum()),
        telling=tuple(scores[:SCORES_KEPT]),
    )


def _refuse_misfits(
    first: RegionFeatures, second: RegionFeatures, groups: Sequence[Sequence[Hashable]]
) -> None:
    """Refuse tables and groups that do not fit each other.

    Raises:
        EvaluationError: as `identify`.
    """
    if first.names != second.names:
        raise EvaluationError(
            "the two sides have different features; measure the same features of both"
        )
    for table, groups_of_side in zip((first, second), groups, strict=True):
        if len(groups_of_side) != len(table.values):
            raise EvaluationError(
                f"{len(groups_of_side)} groups for {len(table.values)} regions, expected one for "
                "each; name the place of every region"
            )
        if len(set(groups_of_side)) < 2:
            raise EvaluationError(
                "all regions show one place, expected at least 2, because a classifier is tested "
                "on places that it was not trained on; give regions of other slices"
            )


def _usable(
    values: Float[np.ndarray, "rows features"], side: Float[np.ndarray, " rows"]
) -> Bool[np.ndarray, " features"]:
    """Features that are defined often enough on both sides and are not constant."""
    defined = np.isfinite(values)
    share = np.minimum(defined[side > 0].mean(axis=0), defined[side < 0].mean(axis=0))
    top = np.where(defined, values, -np.inf).max(axis=0)
    bottom = np.where(defined, values, np.inf).min(axis=0)
    return np.asarray((share >= MIN_DEFINED) & (top > bottom))


def _cross_validated(
    values: Float[np.ndarray, "rows features"],
    side: Float[np.ndarray, " rows"],
    place: Int[np.ndarray, " rows"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " rows"]:
    """1 where a classifier trained without a row's place assigns it to its side, else 0."""
    fold = _folds(side, place, rng)
    right = np.full(len(side), 0.5)
    for number in np.unique(fold):
        tested = fold == number
        if len(np.unique(side[~tested])) < 2:
            continue  # nothing to learn from: a guess
        score = discriminant(values[~tested], side[~tested], values[tested])
        right[tested] = np.where(score == 0, 0.5, np.sign(score) == side[tested])
    return right


def _folds(
    side: Float[np.ndarray, " rows"], place: Int[np.ndarray, " rows"], rng: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """Random fold of each row, one for all rows of a place; every fold gets places of both sides.

    Places are dealt to the folds in turn, those with rows of both sides and of either side apart.
    """
    places_by_sides: dict[tuple[bool, bool], list[int]] = defaultdict(list)
    for number in rng.permutation(np.unique(place)):
        sides = side[place == number]
        key = bool((sides > 0).any()), bool((sides < 0).any())
        places_by_sides[key].append(int(number))
    fold = np.zeros(len(side), dtype=np.int64)
    for places in places_by_sides.values():
        for turn, number in enumerate(places):
            fold[place == number] = turn % FOLDS
    return fold


def discriminant(
    known: Float[np.ndarray, "known features"],
    side: Float[np.ndarray, " known"],
    new: Float[np.ndarray, "new features"],
) -> Float[np.ndarray, " new"]:
    """Discriminant of new rows, fitted on known ones: above 0 for the first side."""
    x, z = np.split(ranks_among(known, np.concatenate([known, new])), [len(known)])
    # both sides have the same weight, however many rows they have
    weight = np.where(side > 0, 0.5 / (side > 0).sum(), 0.5 / (side < 0).sum())
    middle = weight @ x
    centred = x - middle
    scale = np.sqrt(weight @ centred**2)
    scale = np.where(scale > 0, scale, np.inf)
    normal = centred / scale
    matrix = (normal.T * weight) @ normal + RIDGE * np.eye(x.shape[1])
    direction = np.linalg.solve(matrix, normal.T @ (weight * side))
    return np.asarray(((z - middle) / scale) @ direction)


def ranks_among(
    known: Float[np.ndarray, "known features"], values: Float[np.ndarray, "rows features"]
) -> Float[np.ndarray, "rows features"]:
    """Rank of values among the known ones, from 0 to 1; 0.5 where undefined."""
    ranks = np.full(values.shape, 0.5)
    for column, (known_values, new_values) in enumerate(zip(known.T, values.T, strict=True)):
        order = np.sort(known_values[np.isfinite(known_values)])
        defined = np.isfinite(new_values)
        if len(order):
            low = np.searchsorted(order, new_values[defined], side="left")
            high = np.searchsorted(order, new_values[defined], side="right")
            ranks[defined, column] = (low + high) / 2 / len(order)
    return ranks


def _interval(
    right: Float[np.ndarray, " rows"],
    side: Float[np.ndarray, " rows"],
    place: Int[np.ndarray, " rows"],
    accuracy: float,
) -> tuple[float, float]:
    """Wilson's 95 % interval of the accuracy, for the effective number of independent trials.

    Rows of one place are not independent. The number of trials follows from the scatter between
    places, and lies between the number of places and the number of rows. That the folds share
    training rows is not taken into account.
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
    defined = np.isfinite(values)
    first, second = values[defined & (side > 0)], np.sort(values[defined & (side < 0)])
    below = np.searchsorted(second, first, side="left")
    equal = np.searchsorted(second, first, side="right")
    return float((below + equal).mean() / 2 / len(second))
