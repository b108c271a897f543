"""What pooled features tell of an outcome: a classifier of all groups, tested on unseen patients.

Patients are divided into folds, all rows of one together. Choice of features, classifier and ComBat
see the other folds alone, so that no stage profits from the patients that it is tested on. Where
the outcome is more frequent in some groups, whatever tells groups apart foretells it: the area
within groups compares patients of one group alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cvsct.core.errors import EvaluationError
from cvsct.core.seeding import random_stream
from cvsct.evaluation.cohort_table import (
    COMBAT,
    PatientRows,
    combat_of,
    feature_columns,
    frame_of,
    patient_rows,
    patient_values,
    region_name,
    stage_rows,
    stages_of,
)
from cvsct.evaluation.groups.signal_kept import (
    FOLDS,
    MIN_OF_OUTCOME,
    REPEATS,
    ComparablePairs,
    StageAuc,
    best_features,
    combat_without,
    outcome_labels,
    stage_areas,
)
from cvsct.evaluation.identification import discriminant


@dataclass(frozen=True)
class PooledOutcome:
    """Areas under the ROC curve of classifiers of an outcome, trained and tested on all groups.

    Args:
        outcome: name of the outcome.
        region: name of the regions.
        patients: number of patients without and with the outcome.
        unknown: number of patients whose outcome is not told, who are left out.
        by_group: the same numbers of patients in each group.
        stages: areas, `source` first.
        within: areas of patients compared within their group.
    """

    outcome: str
    region: str
    patients: tuple[int, int]
    unknown: int
    by_group: dict[str, tuple[int, int]]
    stages: tuple[StageAuc, ...]
    within: tuple[StageAuc, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def pooled_outcome(
    table: Any,
    outcome: str,
    *,
    group: str = "batch",
    region: str,
    groups: Sequence[str] = (),
    patients: Any | None = None,
    covariates: Sequence[str] = (),
    seed: int = 0,
) -> PooledOutcome:
    """Cross-validate a classifier of an outcome on the pooled patients of all groups.

    Args:
        table: wide table of features; ComBat's stages in it are not used, but fitted anew in every
            fold, without its patients; of a single group there is no ComBat.
        outcome: column of the outcome, with two values; the larger one counts as having it.
        group: column of the groups.
        region: name of the regions.
        groups: groups to use; empty for all.
        patients: table with a column `patient`, the outcome and covariates; None if `table` has
            them.
        covariates: covariates of ComBat; never the outcome.
        seed: seed of folds and resamples.

    Raises:
        EvaluationError: if a column is missing, the outcome has not two values, or too few patients
            have either.
    """
    table = frame_of(table)
    features = feature_columns(table)
    rows: dict[str, PatientRows] = {}
    for stage in (each for each in stages_of(table) if not each.endswith(COMBAT)):
        own = stage_rows(table, stage, group)
        own = own[own["region"].astype(str).map(region_name) == region]
        own = own[own[group].astype(str).isin(groups)] if groups else own
        rows[stage] = patient_rows(own, features, group)
    everybody = set.intersection(*(set(part.keys) for part in rows.values()))
    outcomes = patient_values(sorted({p for p, _ in everybody}), table, [outcome], patients)
    told = dict(zip(sorted({p for p, _ in everybody}), outcomes[outcome], strict=True))
    unknown = sum(value is None for value in told.values())
    rows = {
        stage: part.select(
            [i for i, key in enumerate(part.keys)
             if key in everybody and told[key[0]] is not None]
        )
        for stage, part in rows.items()
    }  # fmt: skip
    label = outcome_labels(rows, table, outcome, patients)
    counts = (sum(not v for v in label.values()), sum(label.values()))
    if min(counts) < MIN_OF_OUTCOME:
        raise EvaluationError(
            f"{counts[0]} patients without and {counts[1]} with {outcome}, expected at least "
            f"{MIN_OF_OUTCOME} of each"
        )
    first = next(iter(rows.values()))
    person = {_unit(key): key[0] for key in first.keys}
    group_of = {_unit(key): key[1] for key in first.keys}
    labels = {unit: label[person[unit]] for unit in person}
    comparable = ComparablePairs.empty(sorted(labels))
    tally: dict[str, ComparablePairs] = {}
    within: dict[str, ComparablePairs] = {}
    for repeat in range(REPEATS):
        fold = _folds(first, label, random_stream(seed, "pooled outcome", str(repeat)))
        for number in range(FOLDS):
            inside = {patient for patient, own in fold.items() if own == number}
            for stage, part in rows.items():
                used = {stage: part}
                if len(set(part.group)) > 1:
                    harmonized = combat_without(part, inside, table, covariates, patients)
                    used[combat_of(stage)] = harmonized
                for name, own in used.items():
                    scores = _scores(own, label, inside)
                    tally.setdefault(name, comparable.copy()).add(scores, labels)
                    within.setdefault(name, comparable.copy()).add(scores, labels, group_of)
    who = [person[unit] for unit in sorted(labels)]
    areas, areas_within = (
        stage_areas(part, random_stream(seed, "pooled outcome", "resamples"), who)
        for part in (tally, within)
    )
    by_group = {
        name: (sum(not labels[u] for u, g in group_of.items() if g == name),
               sum(labels[u] for u, g in group_of.items() if g == name))
        for name in sorted(set(group_of.values()))
    }  # fmt: skip
    return PooledOutcome(outcome, region, counts, unknown, by_group, areas, areas_within)


def _unit(key: tuple[str, str]) -> str:
    """A patient's scan in one group, as one that is compared with others."""
    return f"{key[0]} in {key[1]}"


def _folds(rows: PatientRows, label: Mapping[str, int], rng: np.random.Generator) -> dict[str, int]:
    """Fold of each patient, dealt in turn, those of one group and outcome apart."""
    first_group: dict[str, str] = {}
    for patient, group in rows.keys:
        first_group.setdefault(patient, group)
    kinds = sorted({(first_group[patient], label[patient]) for patient in first_group})
    fold, turn = {}, 0
    for kind in kinds:
        own = sorted(p for p in first_group if (first_group[p], label[p]) == kind)
        for i in rng.permutation(len(own)):
            fold[own[i]] = turn % FOLDS
            turn += 1
    return fold


def _scores(rows: PatientRows, label: Mapping[str, int], inside: set[str]) -> dict[str, float]:
    """Score of each row of patients inside a fold, by a classifier of the others."""
    known = [i for i, patient in enumerate(rows.patient) if patient not in inside]
    new = [i for i, patient in enumerate(rows.patient) if patient in inside]
    side = np.array([1.0 if label[rows.patient[i]] else -1.0 for i in known])
    x, z = rows.values[known], rows.values[new]
    chosen = best_features(x, side)
    score = discriminant(x[:, chosen], side, z[:, chosen])
    keys = rows.keys
    return {_unit(keys[i]): float(value) for i, value in zip(new, score, strict=True)}
