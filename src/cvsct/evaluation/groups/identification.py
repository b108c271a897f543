"""Whether a classifier recognizes the group of a patient it has not seen: balanced accuracy.

The classifier is a linear discriminant of several classes with a ridge, on features' ranks among
the patients it is trained on. All rows of a patient are in one fold. Chance is the permutation of
groups between patients: its interval shows what the same classifier reaches where there is nothing
to learn. A classifier at chance proves little against better ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve

from cvsct.core.seeding import random_stream
from cvsct.evaluation.groups.settings import LEVEL
from cvsct.evaluation.identification import ranks_among

FOLDS = 5
"""Number of folds of the cross-validation."""

REPEATS = 3
"""Number of divisions into folds whose accuracies are averaged."""

RIDGE = 1.0
"""Ridge added to the correlation matrix of the features."""

MIN_DEFINED = 0.8
"""Share of patients in whom a feature must be defined to be used."""


@dataclass(frozen=True)
class GroupIdentification:
    """Balanced accuracy of naming the group of unseen patients.

    Args:
        accuracy: mean over groups of the share of their patients that are named rightly.
        chance: mean of the permutations, about one over the number of groups.
        chance_low: 2.5th percentile of the permutations.
        chance_high: 97.5th percentile of the permutations.
        p_value: share of permutations that reach the accuracy.
        recall: share of right answers of each group.
        patients: number of patients.
        features: number of features used.
    """

    accuracy: float
    chance: float
    chance_low: float
    chance_high: float
    p_value: float
    recall: dict[str, float]
    patients: int
    features: int

    @property
    def above_chance(self) -> bool:
        """Whether at most one in twenty permutations reaches the accuracy."""
        return self.p_value <= LEVEL

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def identify_groups(
    values: Float[np.ndarray, "rows features"],
    group: Int[np.ndarray, " rows"],
    names: list[str],
    patient: list[str],
    permutations: int = 199,
    seed: int = 0,
) -> GroupIdentification | None:
    """Cross-validate a classifier of groups, with its permutation interval.

    Args:
        values: features of each row.
        group: number of the group of each row.
        names: names of the groups.
        patient: patient of each row; the rows of one are in one fold.
        permutations: number of permutations of groups.
        seed: seed of folds and permutations.

    Returns:
        None where no feature is defined often enough and varies.
    """
    defined = np.isfinite(values)
    top = np.where(defined, values, -np.inf).max(axis=0)
    bottom = np.where(defined, values, np.inf).min(axis=0)
    values = values[:, (defined.mean(axis=0) >= MIN_DEFINED) & (top > bottom)]
    if not values.shape[1]:
        return None
    number_of = {name: number for number, name in enumerate(dict.fromkeys(patient))}
    person = np.array([number_of[name] for name in patient])
    rng = random_stream(seed, "groups", "identification")
    splits = [_splits(values, _folds(person, rng)) for _ in range(REPEATS)]
    n = len(names)
    recall = np.mean([_recall(split, group, n) for split in splits], axis=0)
    chance = np.array([
        np.mean([_recall(split, shuffled, n).mean() for split in splits[:1]])
        for shuffled in (rng.permutation(group) for _ in range(permutations))
    ])  # fmt: skip
    first = float(_recall(splits[0], group, n).mean())
    low, high = np.quantile(chance, [0.025, 0.975])
    return GroupIdentification(
        accuracy=float(recall.mean()),
        chance=float(chance.mean()),
        chance_low=float(low),
        chance_high=float(high),
        p_value=float((1 + (chance >= first).sum()) / (1 + permutations)),
        recall={name: float(share) for name, share in zip(names, recall, strict=True)},
        patients=len(number_of),
        features=values.shape[1],
    )


@dataclass(frozen=True)
class _Split:
    """One fold: rows to train on and to test, with inner products of their standardized ranks."""

    known: Int[np.ndarray, " known"]
    tested: Int[np.ndarray, " tested"]
    among_known: Float[np.ndarray, "known known"]
    with_tested: Float[np.ndarray, "tested known"]


def _splits(
    values: Float[np.ndarray, "rows features"], fold: Int[np.ndarray, " rows"]
) -> list[_Split]:
    splits = []
    for number in np.unique(fold):
        known, tested = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        x, z = (ranks_among(values[known], values[rows]) for rows in (known, tested))
        mean, spread = x.mean(axis=0), x.std(axis=0)
        spread = np.where(spread > 0, spread, np.inf)
        x, z = (x - mean) / spread, (z - mean) / spread
        splits.append(_Split(known, tested, x @ x.T, z @ x.T))
    return splits


def _recall(
    splits: list[_Split], group: Int[np.ndarray, " rows"], n_groups: int
) -> Float[np.ndarray, " groups"]:
    """Share of each group's rows that are named rightly by classifiers that did not see them."""
    named = np.full(len(group), -1)
    for split in splits:
        named[split.tested] = _named(split, group[split.known], n_groups)
    right = named == group
    counts = np.bincount(group, minlength=n_groups)
    return np.asarray(np.bincount(group, right, minlength=n_groups) / np.maximum(counts, 1))


def _named(
    split: _Split, group: Int[np.ndarray, " known"], n_groups: int
) -> Int[np.ndarray, " tested"]:
    """Group of the tested rows: ridge regression of each group's indicator, in dual form.

    Every group has the same weight, however many patients it has.
    """
    counts = np.bincount(group, minlength=n_groups)
    present = np.flatnonzero(counts)
    weight = 1.0 / (counts[group] * len(present))
    middle = split.among_known @ weight
    centred = split.among_known - middle[:, None] - middle[None, :] + weight @ middle
    indicator = np.equal.outer(group, present) - 1.0 / len(present)
    system = centred + RIDGE * np.diag(1.0 / weight)
    dual = cho_solve(cho_factor(system, check_finite=False), indicator, check_finite=False)
    of_tested = split.with_tested @ weight
    crossed = split.with_tested - of_tested[:, None] - middle[None, :] + weight @ middle
    return np.asarray(present[(crossed @ dual).argmax(axis=1)])


def _folds(person: Int[np.ndarray, " rows"], rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """Fold of each row, one for all rows of a patient.

    Folds know no groups: the groups of patients can then be exchanged as in the permutations.
    """
    fold_of_person = rng.permutation(int(person.max()) + 1) % FOLDS
    return np.asarray(fold_of_person[person])
