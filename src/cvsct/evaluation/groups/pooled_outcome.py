"""What pooled features tell of an outcome: a classifier of all groups, tested on unseen patients.

Patients are divided into folds, all rows of one together. Choice of features, classifier and ComBat
see the other folds alone, so that no stage profits from the patients that it is tested on.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    outcome_folds,
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
        stages: areas, `source` first.
    """

    outcome: str
    region: str
    patients: tuple[int, int]
    stages: tuple[StageAuc, ...]

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
    everybody = set.intersection(*(set(part.patient) for part in rows.values()))
    rows = {
        stage: part.select([i for i, p in enumerate(part.patient) if p in everybody])
        for stage, part in rows.items()
    }
    label = outcome_labels(rows, table, outcome, patients)
    counts = (sum(not v for v in label.values()), sum(label.values()))
    if min(counts) < MIN_OF_OUTCOME:
        raise EvaluationError(
            f"{counts[0]} patients without and {counts[1]} with {outcome}, expected at least "
            f"{MIN_OF_OUTCOME} of each"
        )
    comparable = ComparablePairs.empty(sorted(label))
    tally: dict[str, ComparablePairs] = {}
    for repeat in range(REPEATS):
        fold = outcome_folds(label, random_stream(seed, "pooled outcome", str(repeat)))
        for number in range(FOLDS):
            inside = {patient for patient, own in fold.items() if own == number}
            for stage, part in rows.items():
                used = {stage: part}
                if len(set(part.group)) > 1:
                    harmonized = combat_without(part, inside, table, covariates, patients)
                    used[combat_of(stage)] = harmonized
                for name, own in used.items():
                    scores = _scores(own, label, inside)
                    tally.setdefault(name, comparable.copy()).add(scores, label)
    areas = stage_areas(tally, random_stream(seed, "pooled outcome", "resamples"))
    return PooledOutcome(outcome, region, counts, areas)


def _scores(rows: PatientRows, label: dict[str, int], inside: set[str]) -> dict[str, float]:
    """Score of each patient inside a fold, by a classifier of the others."""
    known = [i for i, patient in enumerate(rows.patient) if patient not in inside]
    new = [i for i, patient in enumerate(rows.patient) if patient in inside]
    side = np.array([1.0 if label[rows.patient[i]] else -1.0 for i in known])
    x, z = rows.values[known], rows.values[new]
    chosen = best_features(x, side)
    score = discriminant(x[:, chosen], side, z[:, chosen])
    by_patient: dict[str, list[float]] = {}
    for i, value in zip(new, score, strict=True):
        by_patient.setdefault(rows.patient[i], []).append(float(value))
    return {patient: float(np.mean(values)) for patient, values in by_patient.items()}
