"""Whether what distinguishes two kinds of patients survives harmonization: the signal kept.

A classifier of the outcome is trained on one scanner and tested on another: area under the ROC
curve before and after harmonization. A second scan of the same patients on the first scanner is the
ceiling: no harmonization can make the other scanner's images better than the first scanner's own.

Patients are divided into folds by outcome. Ranks, the choice of features, the classifier and ComBat
are all fitted on the other folds' patients. A classifier on all features is a ridge discriminant
on ranks, as in `evaluation.identification`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.errors import EvaluationError
from cvsct.core.kinds import texts
from cvsct.core.seeding import random_stream
from cvsct.evaluation.cohort_table import (
    COMBAT,
    SOURCE,
    PatientRows,
    combat_of,
    feature_columns,
    frame_of,
    need_columns,
    need_table,
    patient_rows,
    patient_values,
    region_name,
    stage_rows,
    stages_of,
)
from cvsct.evaluation.combat.estimates import estimate_combat
from cvsct.evaluation.identification import discriminant

FOLDS = 5
"""Number of folds of the cross-validation."""

REPEATS = 5
"""Number of divisions into folds."""

RESAMPLES = 1000
"""Number of resamples of patients behind each interval."""

MIN_OF_OUTCOME = 10
"""Smallest number of patients of each outcome on either scanner."""

SELECTED = 20
"""Number of features that the classifier uses: those that distinguish the outcomes best alone."""

RETEST = "retest"
"""Name of the second scan on the first scanner."""


@dataclass(frozen=True)
class StageAuc:
    """Area under the ROC curve of the outcome in one stage of the tested scanner.

    Args:
        stage: name of the stage, or `retest`.
        auc: probability that a patient with the outcome has a higher score than one without.
        low: lower end of the 95 % interval over patients.
        high: upper end of the 95 % interval.
        change: difference from `source`, with its interval over the same resamples; None there.
    """

    stage: str
    auc: float
    low: float
    high: float
    change: tuple[float, float, float] | None


@dataclass(frozen=True)
class SignalKept:
    """Areas under the ROC curve of a classifier trained on one scanner and tested on another.

    Args:
        outcome: name of the outcome.
        region: name of the regions.
        trained_on: scanner whose images the classifier is trained on.
        tested_on: scanner whose images it is tested on.
        patients: number of patients of each scanner, without and with the outcome.
        stages: areas, `source` first, the ceiling last.
    """

    outcome: str
    region: str
    trained_on: str
    tested_on: str
    patients: dict[str, tuple[int, int]]
    stages: tuple[StageAuc, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def signal_kept(
    table: Any,
    outcome: str,
    *,
    train: str,
    test: str,
    group: str = "scanner",
    region: str | None = None,
    retest: Any | None = None,
    patients: Any | None = None,
    covariates: Sequence[str] = (),
    seed: int = 0,
) -> SignalKept:
    """Train a classifier of an outcome on one scanner and test it on another, stage by stage.

    Patients are divided into five folds, five times. Ranks, the choice of features, the classifier
    and ComBat see the other folds alone. Intervals are of 1000 resamples of the patients, without
    fitting again.

    Args:
        table: wide table with the stage `source`, perhaps `harmonized`. ComBat's stages of the
            table are not used: they are fitted anew in every fold, without its patients.
        outcome: column of the outcome, with two values; the larger one counts as having it.
        train: scanner that the classifier is trained on.
        test: scanner that it is tested on.
        group: column of the scanners.
        region: name of the regions; None where the table has one name.
        retest: wide table of second scans on `train`; None without a ceiling.
        patients: table with a column `patient`, the outcome and covariates; None if `table` has
            them.
        covariates: covariates of ComBat; never the outcome.
        seed: seed of folds and resamples.

    Raises:
        UsageError: if a table is none, such as a path.
        EvaluationError: if a column or scanner is missing, the outcome has not two values, or a
            scanner has too few patients of either.

    Example:
        >>> kept = cvsct.signal_kept(table, "disease", train="scanner A", test="scanner B")
        >>> [stage.stage for stage in kept.stages]
        ['source', 'combat']
    """
    need_table(table=table, patients=patients, retest=retest)
    covariates = texts(covariates)
    table = frame_of(table)
    need_columns(table, "patient", "region", "stage", group)
    if outcome in covariates:
        raise EvaluationError(
            f"the outcome {outcome} is a covariate of ComBat, which would put it into the "
            "features; leave it out of the covariates"
        )
    names = _names_of_region(table, region)
    features = feature_columns(table)
    rows = {
        stage: patient_rows(_part(stage_rows(table, stage, group), names, (train, test), group),
                            features, group)
        for stage in stages_of(table)
        if not stage.endswith(COMBAT)
    }  # fmt: skip
    if retest is not None:
        retest = frame_of(retest)
        second = retest[retest["stage"] == SOURCE] if "stage" in retest.columns else retest
        rows[RETEST] = patient_rows(_part(second, names, (train,), group), features, group)
    label = outcome_labels(rows, table, outcome, patients)
    counts = _refuse_few(rows[SOURCE], label, (train, test), outcome)
    scorer = _Scorer(rows, label, train, test, table, covariates, patients)
    comparable = ComparablePairs.empty(sorted(label))
    tally: dict[str, ComparablePairs] = {}
    for repeat in range(REPEATS):
        fold = outcome_folds(label, random_stream(seed, "signal kept", str(repeat)))
        for number in range(FOLDS):
            inside = {patient for patient, own in fold.items() if own == number}
            for stage, scores in scorer.scores(inside).items():
                tally.setdefault(stage, comparable.copy()).add(scores, label)
    return SignalKept(
        outcome=outcome,
        region=sorted(names)[0],
        trained_on=train,
        tested_on=test,
        patients=counts,
        stages=stage_areas(tally, random_stream(seed, "signal kept", "resamples")),
    )


@dataclass(frozen=True)
class _Scorer:
    """Scores of unseen patients in every stage, from classifiers of the others."""

    rows: Mapping[str, PatientRows]
    label: Mapping[str, int]
    train: str
    test: str
    table: Any
    covariates: Sequence[str]
    patients: Any | None

    def scores(self, inside: set[str]) -> dict[str, dict[str, float]]:
        """Scores of the patients inside a fold, by stage and patient."""
        scores = {}
        for stage, rows in self.rows.items():
            if stage == RETEST:
                scores[stage] = self._scored(self.rows[SOURCE], rows, self.train, inside)
                continue
            scores[stage] = self._scored(rows, rows, self.test, inside)
            harmonized = combat_without(rows, inside, self.table, self.covariates, self.patients)
            scores[combat_of(stage)] = self._scored(harmonized, harmonized, self.test, inside)
        return scores

    def _scored(
        self, learned: PatientRows, tested: PatientRows, scanner: str, inside: set[str]
    ) -> dict[str, float]:
        known = [
            i for i, (patient, group) in enumerate(zip(learned.patient, learned.group, strict=True))
            if group == self.train and patient not in inside
        ]  # fmt: skip
        new = [
            i for i, (patient, group) in enumerate(zip(tested.patient, tested.group, strict=True))
            if group == scanner and patient in inside
        ]  # fmt: skip
        side = np.array([1.0 if self.label[learned.patient[i]] else -1.0 for i in known])
        x, z = learned.values[known], tested.values[new]
        chosen = best_features(x, side)
        score = discriminant(x[:, chosen], side, z[:, chosen])
        return {tested.patient[i]: float(value) for i, value in zip(new, score, strict=True)}


def combat_without(
    rows: PatientRows,
    inside: set[str],
    table: Any,
    covariates: Sequence[str],
    patients: Any | None,
) -> PatientRows:
    """Rows of everybody, harmonized by a ComBat that was fitted without some patients.

    Args:
        inside: patients that the fit does not see.
        table, covariates, patients: as in `signal_kept`.
    """
    known = [i for i, patient in enumerate(rows.patient) if patient not in inside]
    values = {
        name: np.array(column, dtype=object)
        for name, column in patient_values(rows.patient, table, covariates, patients).items()
    }
    fitted = estimate_combat(
        rows.values[known], rows.features, [rows.group[i] for i in known],
        {name: column[known].tolist() for name, column in values.items()},
    )  # fmt: skip
    columns = [rows.features.index(name) for name in fitted.features]
    moved = rows.values.copy()
    moved[:, columns] = fitted.apply(
        rows.values[:, columns], rows.group, {k: v.tolist() for k, v in values.items()}
    )
    return PatientRows(rows.features, moved, rows.patient, rows.group, rows.regions)


@dataclass
class ComparablePairs:
    """For each pair of patients, how often the second's score was higher, of how many folds."""

    patients: list[str]
    higher: Float[np.ndarray, "patients patients"]
    folds: Float[np.ndarray, "patients patients"]

    @classmethod
    def empty(cls, patients: list[str]) -> ComparablePairs:
        """No pair of these patients compared."""
        size = (len(patients), len(patients))
        return cls(patients, np.zeros(size), np.zeros(size))

    def copy(self) -> ComparablePairs:
        """A copy that counts on its own."""
        return ComparablePairs(self.patients, self.higher.copy(), self.folds.copy())

    def add(
        self,
        scores: Mapping[str, float],
        label: Mapping[str, int],
        group: Mapping[str, str] | None = None,
    ) -> None:
        """Compare patients of one fold: scores of different classifiers are not comparable.

        Args:
            scores: of the patients.
            label: 1 of those who have the outcome, 0 of the others.
            group: of each; only patients of one group are compared then.
        """
        for name in dict.fromkeys(group[patient] for patient in scores) if group else ("",):
            own = {p: s for p, s in scores.items() if not group or group[p] == name}
            self._add(own, label)

    def _add(self, scores: Mapping[str, float], label: Mapping[str, int]) -> None:
        place = {patient: i for i, patient in enumerate(self.patients)}
        without = [patient for patient in scores if not label[patient]]
        having = [patient for patient in scores if label[patient]]
        if not without or not having:
            return
        a = np.array([scores[patient] for patient in without])[:, None]
        b = np.array([scores[patient] for patient in having])[None, :]
        index = np.ix_([place[p] for p in without], [place[p] for p in having])
        self.higher[index] += (b > a) + 0.5 * (b == a)
        self.folds[index] += 1

    def area(self, weight: Float[np.ndarray, " patients"]) -> float:
        """Area under the curve of patients with these weights; NaN without a pair."""
        pairs = float(weight @ self.folds @ weight)
        return float(weight @ self.higher @ weight) / pairs if pairs else float("nan")


def stage_areas(
    tally: Mapping[str, ComparablePairs],
    rng: np.random.Generator,
    person: Sequence[str] = (),
) -> tuple[StageAuc, ...]:
    """Areas of all stages with intervals over the same resampled patients.

    Args:
        tally: comparisons of each stage.
        rng: draws the resamples.
        person: who each of the compared is, where one person is compared more than once.
    """
    units = next(iter(tally.values())).patients
    who = list(person) or units
    people = {name: number for number, name in enumerate(dict.fromkeys(who))}
    drawn = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=RESAMPLES)
    weights = drawn[:, [people[name] for name in who]].astype(np.float64)
    n = len(units)
    resampled = {
        stage: np.array([pairs.area(weight) for weight in weights])
        for stage, pairs in tally.items()
    }
    areas = []
    for stage in sorted(tally, key=_order):
        auc = tally[stage].area(np.ones(n))
        low, high = np.nanquantile(resampled[stage], [0.025, 0.975])
        change = None
        if stage != SOURCE:
            gain = resampled[stage] - resampled[SOURCE]
            ends = np.nanquantile(gain, [0.025, 0.975])
            change = (auc - tally[SOURCE].area(np.ones(n)), float(ends[0]), float(ends[1]))
        areas.append(StageAuc(stage, auc, float(low), float(high), change))
    return tuple(areas)


def _order(stage: str) -> tuple[bool, bool, bool, str]:
    """Order of the stages: `source`, harmonized images, ComBat, the retest."""
    return stage == RETEST, stage.endswith(COMBAT), stage != SOURCE, stage


def _names_of_region(table: Any, region: str | None) -> set[str]:
    names = {region_name(str(name)) for name in table["region"]}
    if region is not None and region in names:
        return {region}
    if region is None and len(names) == 1:
        return names
    raise EvaluationError(
        f"region {region!r} is not one name of the table ({', '.join(sorted(names))}); "
        "choose one of them"
    )


def _part(rows: Any, names: set[str], groups: Sequence[str], group: str) -> Any:
    is_named = rows["region"].astype(str).map(region_name).isin(names)
    return rows[is_named & rows[group].astype(str).isin(groups)]


def outcome_labels(
    rows: Mapping[str, PatientRows], table: Any, outcome: str, patients: Any | None
) -> dict[str, int]:
    """1 for each patient that has the outcome, 0 for those that do not."""
    everybody = sorted({patient for part in rows.values() for patient in part.patient})
    values = patient_values(everybody, table, [outcome], patients)[outcome]
    distinct = sorted({value for value in values if value is not None})
    if len(distinct) != 2 or len(set(map(type, distinct))) != 1 or None in values:
        missing = sum(value is None for value in values)
        raise EvaluationError(
            f"the outcome {outcome} has {len(distinct)} values and is missing for {missing} "
            "patients, expected two values and none missing; choose or complete another column"
        )
    return {patient: int(v == distinct[1]) for patient, v in zip(everybody, values, strict=True)}


def _refuse_few(
    rows: PatientRows, label: Mapping[str, int], scanners: Sequence[str], outcome: str
) -> dict[str, tuple[int, int]]:
    """Number of patients of each scanner without and with the outcome.

    Raises:
        EvaluationError: if there are too few.
    """
    counts = {}
    for scanner in scanners:
        own = [label[p] for p, g in zip(rows.patient, rows.group, strict=True) if g == scanner]
        counts[scanner] = (own.count(0), own.count(1))
        if min(counts[scanner]) < MIN_OF_OUTCOME:
            raise EvaluationError(
                f"{scanner!r} has {counts[scanner][0]} patients without and {counts[scanner][1]} "
                f"with {outcome}, expected at least {MIN_OF_OUTCOME} of each; add patients"
            )
    return counts


def outcome_folds(label: Mapping[str, int], rng: np.random.Generator) -> dict[str, int]:
    """Fold of each patient, dealt in turn, those with and without the outcome apart."""
    fold = {}
    for value in (0, 1):
        patients = sorted(patient for patient, own in label.items() if own == value)
        for turn, i in enumerate(rng.permutation(len(patients))):
            fold[patients[i]] = turn % FOLDS
    return fold


def best_features(
    values: Float[np.ndarray, "known features"], side: Float[np.ndarray, " known"]
) -> Int[np.ndarray, " selected"]:
    """Features that distinguish the outcomes best alone, among those defined in every known row."""
    usable: Bool[np.ndarray, " features"] = np.isfinite(values).all(axis=0)
    columns = np.flatnonzero(usable)
    order = np.argsort(np.argsort(values[:, columns], axis=0), axis=0)
    mean_rank = np.abs(order[side > 0].mean(axis=0) - order[side < 0].mean(axis=0))
    return np.asarray(columns[np.argsort(-mean_rank, kind="stable")[:SELECTED]])
