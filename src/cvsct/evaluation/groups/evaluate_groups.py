"""Comparison of groups of patients (scanners, sites) on a wide table, stage by stage.

It needs no two scans of one patient. Every figure is of patients, not of regions, and of the same
patients in every stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import EvaluationError
from cvsct.core.kinds import texts
from cvsct.core.progress import Progress, silent
from cvsct.core.settings import of_arguments
from cvsct.core.text import did_you_mean
from cvsct.evaluation.cohort_table import (
    SOURCE,
    PatientRows,
    feature_columns,
    frame_of,
    need_columns,
    need_table,
    patient_rows,
    patient_values,
    region_name,
    same_patient_notes,
    stage_rows,
    stages_of,
)
from cvsct.evaluation.combat.covariates import covariate_of, design_of, refuse_confounded
from cvsct.evaluation.groups.distributions import (
    Contrast,
    benjamini_hochberg,
    contrasts,
    ks_p_values,
    standardized_differences,
)
from cvsct.evaluation.groups.figures import (
    ContrastFigures,
    FeatureFigures,
    PhysicsSummary,
    RegionFigures,
    StageFigures,
)
from cvsct.evaluation.groups.identification import identify_groups
from cvsct.evaluation.groups.result import GroupEvaluation
from cvsct.evaluation.groups.settings import GroupSettings
from cvsct.evaluation.groups.signal_kept import SignalKept
from cvsct.evaluation.groups.variance_share import change_of_share, variance_share

CLIP = 5.0
"""Largest standardized value behind the principal components, so that no outlier makes an axis."""


def evaluate_groups(
    table: Any,
    group: str = "scanner",
    *,
    covariates: Sequence[str] = (),
    patients: Any | None = None,
    physics: Any | None = None,
    signal: SignalKept | None = None,
    reference: str | None = None,
    min_patients: int = 10,
    permutations: int = 999,
    identification_permutations: int = 199,
    seed: int = 0,
    progress: Progress = silent,
) -> GroupEvaluation:
    """Compare the features of groups of patients before and after harmonization.

    Differences between groups include differences between their patients;
    `docs/reference/groups.md` says what may be concluded. A group that was not harmonized, such as
    the target's, is in every stage with its source's rows.

    Args:
        table: wide table of features, as pandas DataFrame or `FeatureTable`.
        group: column of the groups, such as `scanner`, `site` or `batch`.
        covariates: columns that the share of variance is adjusted for.
        patients: table with a column `patient` and the covariates; None if `table` has them.
        physics: table of figures of images (noise, sharpness, densitometry), with the columns
            `patient`, `stage`, the group and a column for each figure.
        signal: result of `signal_kept`, to be reported with the figures.
        reference: group that the others are compared with; None: each with all others.
        min_patients: smallest number of patients of a group that has figures.
        permutations: number of permutations behind the share of variance.
        identification_permutations: number of permutations behind the identification.
        seed: seed of permutations, folds and halves.
        progress: called with `(task, done, total)` as the work proceeds.

    Raises:
        EvaluationError: if a column is missing, a covariate is confounded with the group, or there
            are no rows of the stage `source`.
        UsageError: if a table is none, or a number is too small: at least 5 patients and 19
            permutations.
        MissingExtraError: if the extra `evaluate` is not installed.

    Example:
        >>> evaluation = cvsct.evaluate_groups(table, "scanner", permutations=99)
        >>> [stage.stage for stage in evaluation.regions[0].stages]
        ['source']
    """
    need_table(table=table, patients=patients, physics=physics)
    covariates = texts(covariates)
    settings = of_arguments(
        GroupSettings, group=group, covariates=tuple(covariates), reference=reference,
        min_patients=min_patients, permutations=permutations,
        identification_permutations=identification_permutations, seed=seed,
    )  # fmt: skip
    table = frame_of(table)
    need_columns(table, "patient", "region", "stage", group)
    known = sorted(set(table[group].astype(str)))
    if reference is not None and reference not in known:
        raise EvaluationError(
            f"{group} {reference!r} is not in the table; {did_you_mean(reference, known)}choose "
            f"one of {', '.join(known)}"
        )
    stages = stages_of(table)
    if SOURCE not in stages:
        raise EvaluationError(
            "the table has no rows of the stage source, with which the others are compared; "
            "measure the features of the source's scans too"
        )
    features = feature_columns(table)
    names = table["region"].astype(str).map(region_name)
    notes = same_patient_notes(table)
    regions = []
    every_region = sorted(set(names))
    for number, region in enumerate(every_region):
        progress("groups", number, len(every_region))
        rows = {
            stage: patient_rows(_of_region(stage_rows(table, stage, group), names, region),
                                features, group)
            for stage in stages
        }  # fmt: skip
        figures, region_notes = _region_figures(region, rows, table, patients, settings)
        regions.append(figures)
        notes += region_notes
    progress("groups", len(every_region), len(every_region))
    return GroupEvaluation(
        settings,
        tuple(regions),
        _physics(frame_of(physics), settings) if physics is not None else (),
        signal,
        tuple(notes),
    )


def _of_region(rows: Any, names: Any, region: str) -> Any:
    return rows[names.loc[rows.index] == region]


def _region_figures(
    region: str,
    rows: Mapping[str, PatientRows],
    table: Any,
    patients: Any | None,
    settings: GroupSettings,
) -> tuple[RegionFigures, list[str]]:
    """Figures of one region name in every stage that has its patients."""
    everyone = rows[SOURCE].group
    counts = {name: everyone.count(name) for name in sorted(set(everyone))}
    names = [name for name, count in counts.items() if count >= settings.min_patients]
    rows, notes = _same_patients(region, rows, names)
    names = [name for name in names if rows[SOURCE].group.count(name) >= settings.min_patients]
    reason = ""
    if len(names) < 2:
        reason = (
            f"{len(names)} of {len(counts)} groups have {settings.min_patients} patients in every "
            "stage, expected at least two such groups"
        )
    elif settings.reference is not None and settings.reference not in names:
        reason = f"the reference {settings.reference} has too few patients"
    if reason:
        return RegionFigures(region, counts, tuple(names), (), (), reason), notes
    kept = [i for i, name in enumerate(rows[SOURCE].group) if name in names]
    rows = {stage: part.select(kept) for stage, part in rows.items()}
    first = rows[SOURCE]
    number = np.array([names.index(name) for name in first.group], dtype=np.int64)
    values = patient_values(first.patient, table, settings.covariates, patients)
    coded = [covariate_of(name, column) for name, column in values.items()]
    refuse_confounded(number, coded, values, settings.group)
    columns = design_of(coded, values, len(kept))
    compared = contrasts(list(first.group), names, settings.reference)
    axes = _axes(first.values)
    stages = []
    for stage, part in rows.items():
        share = variance_share(
            part.values, number, names, columns, settings.permutations, settings.min_patients,
            settings.seed,
        )  # fmt: skip
        by_feature = _by_feature(part, compared)
        stages.append(
            StageFigures(
                stage=stage,
                contrasts=_contrast_figures(by_feature, compared),
                share=share,
                change=None
                if stage == SOURCE
                else change_of_share(first.values, part.values, number, columns, settings.seed),
                identification=identify_groups(
                    part.values, number, names, list(part.patient),
                    settings.identification_permutations, settings.seed,
                ),
                by_feature=by_feature,
                components=None if axes is None else axes.project(part.values),
                components_share=None if axes is None else axes.share,
            )
        )  # fmt: skip
    left_out = len(first.features) - (stages[0].share.features if stages[0].share else 0)
    if left_out:
        notes.append(
            f"{region}: {left_out} of {len(first.features)} features are constant or undefined in "
            "some patient, and not in the share of variance"
        )
    return RegionFigures(region, counts, tuple(names), first.group, tuple(stages)), notes


def _same_patients(
    region: str, rows: Mapping[str, PatientRows], groups: Sequence[str]
) -> tuple[dict[str, PatientRows], list[str]]:
    """Rows of the patients of some groups that every stage has, in one order.

    A stage without any of these patients is left out.
    """
    keys = {stage: [key for key in part.keys if key[1] in groups] for stage, part in rows.items()}
    keys = {stage: own for stage, own in keys.items() if own or stage == SOURCE}
    common = set.intersection(*(set(own) for own in keys.values()))
    aligned = {}
    for stage in keys:
        part = rows[stage]
        place = {key: i for i, key in enumerate(part.keys)}
        aligned[stage] = part.select([place[key] for key in sorted(common)])
    missing = len(keys[SOURCE]) - len(common)
    if not missing:
        return aligned, []
    return aligned, [
        f"{region}: {missing} of {len(keys[SOURCE])} patients have no features in some stage, and "
        "are left out of all"
    ]


def _by_feature(rows: PatientRows, compared: Sequence[Contrast]) -> tuple[FeatureFigures, ...]:
    """Every feature in every contrast; the correction is over all of them."""
    usable = np.flatnonzero(np.isfinite(rows.values).any(axis=0))
    values = rows.values[:, usable]
    p_values = [ks_p_values(values, contrast.first, contrast.second) for contrast in compared]
    found = benjamini_hochberg(np.concatenate(p_values)).reshape(len(compared), -1)
    figures = []
    for contrast, p_of_contrast, found_of_contrast in zip(compared, p_values, found, strict=True):
        differences = standardized_differences(values, contrast.first, contrast.second)
        figures += [
            FeatureFigures(rows.features[column], contrast.name, float(d), float(p), bool(is_found))
            for column, d, p, is_found in zip(
                usable, differences, p_of_contrast, found_of_contrast, strict=True
            )
        ]
    return tuple(figures)


def _contrast_figures(
    by_feature: Sequence[FeatureFigures], compared: Sequence[Contrast]
) -> tuple[ContrastFigures, ...]:
    figures = []
    for contrast in compared:
        own = [row for row in by_feature if row.contrast == contrast.name]
        sizes = np.abs([row.difference for row in own if np.isfinite(row.difference)])
        figures.append(
            ContrastFigures(
                contrast.name,
                float(np.median(sizes)) if len(sizes) else None,
                float((sizes > 0.5).mean()) if len(sizes) else None,
                sum(row.found for row in own),
                sum(bool(np.isfinite(row.p_value)) for row in own),
            )
        )
    return tuple(figures)


class _Axes:
    """First two principal components of standardized features."""

    def __init__(self, values: Float[np.ndarray, "patients features"], used: Any) -> None:
        self._used = used
        kept = values[:, used]
        self._mean, self._spread = kept.mean(axis=0), kept.std(axis=0)
        standard = self._standard(values)
        _, sizes, axes = np.linalg.svd(standard - standard.mean(axis=0), full_matrices=False)
        self._axes = axes[:2].T
        total = float((sizes**2).sum())
        self.share = (float(sizes[0] ** 2 / total), float(sizes[1] ** 2 / total))

    def project(
        self, values: Float[np.ndarray, "patients features"]
    ) -> Float[np.ndarray, "patients 2"]:
        """Both components of each patient; an undefined feature counts as the mean."""
        return np.asarray(np.nan_to_num(self._standard(values)) @ self._axes)

    def _standard(
        self, values: Float[np.ndarray, "patients features"]
    ) -> Float[np.ndarray, "patients used"]:
        standard = (values[:, self._used] - self._mean) / self._spread
        return np.asarray(np.clip(standard, -CLIP, CLIP))


def _axes(values: Float[np.ndarray, "patients features"]) -> _Axes | None:
    """Axes of features that are defined in every patient and vary; None of fewer than two."""
    defined = np.isfinite(values).all(axis=0)
    used = defined & (np.nanstd(np.where(defined, values, 0.0), axis=0) > 0)
    return _Axes(values, used) if int(used.sum()) >= 2 else None


def _physics(table: Any, settings: GroupSettings) -> tuple[PhysicsSummary, ...]:
    """Median and quartiles of each figure, by stage and group, over patients."""
    need_columns(table, "patient", "stage", settings.group)
    keys = {"patient", "stage", settings.group}
    figures = [
        str(name)
        for name in table.columns
        if name not in keys and table[name].dtype.kind in "fi" and table[name].notna().any()
    ]
    summaries = []
    for figure in figures:
        for stage in dict.fromkeys(table["stage"]):
            rows = table[table["stage"] == stage]
            for group in sorted(set(rows[settings.group].astype(str))):
                own = rows[rows[settings.group].astype(str) == group]
                by_patient = own.groupby("patient")[figure].mean().dropna()
                quartiles = None
                if len(by_patient) >= settings.min_patients:
                    low, middle, high = (float(q) for q in by_patient.quantile([0.25, 0.5, 0.75]))
                    quartiles = (low, middle, high)
                summaries.append(
                    PhysicsSummary(figure, str(stage), group, len(by_patient), quartiles)
                )
    return tuple(summaries)
