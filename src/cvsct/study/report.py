"""Report of a study: one page for the cohort, and every table as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cvsct.core.errors import EvaluationError, UsageError, need_extra
from cvsct.core.files import refuse_missing, refuse_unwritable, write_atomic, write_json
from cvsct.core.names import portable_name
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.settings import refuse_outside
from cvsct.core.text import did_you_mean
from cvsct.evaluation.cohort_table import read_table, region_name
from cvsct.evaluation.features.patient_table import WIDE
from cvsct.evaluation.groups.evaluate_groups import evaluate_groups
from cvsct.evaluation.groups.figures import RegionFigures
from cvsct.evaluation.groups.pooled_outcome import PooledOutcome, pooled_outcome
from cvsct.evaluation.groups.result import GroupEvaluation
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.study.agreement import (
    Distance,
    PairedAgreement,
    RemainingFeatures,
    distances,
    not_harmonized,
    paired_agreement,
    rows_of,
)
from cvsct.study.images import GroupImages, measure_images
from cvsct.study.jobs import Where
from cvsct.study.patients import read_patients
from cvsct.study.plan import PlanRow, StudyPlan, folder_of, read_plan
from cvsct.study.prepare import only_series
from cvsct.study.run import STATUS

REPORT, TABLES = "report.html", "report"
"""The page, and the folder of its tables."""

FEWEST = 5
"""Fewest patients of a group that has figures."""

AFTER_STAGES = ("harmonized", "source")


@dataclass(frozen=True)
class SeriesLine:
    """Line of `series.csv`: what came of a series."""

    row: PlanRow
    status: str
    reason: str
    guard: str
    prepared: Path
    harmonized: Path | None

    @property
    def made(self) -> Path:
        """Folder of the harmonized series; of the reference that of its own."""
        return self.harmonized or self.prepared


@dataclass(frozen=True)
class RegionAgreement:
    """How well groups agree in one region.

    Args:
        region: name of the region.
        distances: of each group to the reference, stage by stage.
        remaining: features that still tell groups apart.
        paired: patients who were scanned in several groups.
        outcome: what pooled features tell of the outcome.
        by_outcome: share of the variance by outcome, stage by stage, as `evaluate_groups` gives it.
        why_no_outcome: why there is none.
    """

    region: str
    distances: tuple[Distance, ...]
    remaining: RemainingFeatures
    paired: tuple[PairedAgreement, ...]
    outcome: PooledOutcome | None = None
    by_outcome: GroupEvaluation | None = None
    why_no_outcome: str = ""


@dataclass(frozen=True)
class StudyReport:
    """Report of a study.

    Args:
        plan: its plan.
        series: what came of each series.
        images: images of each group beside the reference's.
        groups: comparison of the groups' features.
        regions: agreement in each region.
        outcome: column of the outcome; empty without one.
        path: the page.
    """

    plan: StudyPlan
    series: tuple[SeriesLine, ...]
    images: tuple[GroupImages, ...]
    groups: GroupEvaluation
    regions: tuple[RegionAgreement, ...]
    outcome: str
    path: Path

    def summary(self) -> str:
        """Verdicts, what cannot be told of the outcome, and the page, for a terminal."""
        lines = [f"{region}: {self.compared(region)} {judged.text}"
                 for region, judged in self.groups.verdicts.items()]  # fmt: skip
        lines += [f"{region.region}: nothing is told of {self.outcome}: {region.why_no_outcome}"
                  for region in self.regions if region.why_no_outcome]  # fmt: skip
        return "\n".join([*lines, str(self.path)])

    def compared(self, region: str) -> str:
        """A sentence on the groups and patients that the figures of a region stand on."""
        own = next(figures for figures in self.groups.regions if figures.region == region)
        patients = {line.row.patient for line in self.series if line.row.group in own.groups}
        n_groups = len({line.row.group for line in self.series})
        n_patients = len({line.row.patient for line in self.series})
        others = "" if len(own.groups) == n_groups else (
            f"; the others have fewer than {self.groups.settings.min_patients} patients with this "
            "region in every stage"
        )  # fmt: skip
        return (
            f"{len(own.groups)} of {n_groups} groups, {len(patients) if own.groups else 0} of "
            f"{n_patients} patients{others}."
        )

    def to_json(self) -> dict[str, Any]:
        """All figures, without patients."""
        return {
            "reference": self.plan.reference,
            "images": [
                {"group": images.group,
                 "to_reference": {stage: {"noise": d.noise, "sharpness": d.sharpness}
                                  for stage, d in images.to_reference.items()},
                 "laa950_percent": _medians(images.laa950_percent),
                 "perc15_hu": _medians(images.perc15_hu)}
                for images in self.images
            ],
            "groups": self.groups.metrics(),
            "regions": [
                {"region": region.region,
                 "distances": [vars(each) for each in region.distances],
                 "not_harmonized": asdict(region.remaining),
                 "paired": [vars(each) for each in region.paired],
                 "outcome": region.outcome.to_json() if region.outcome else None}
                for region in self.regions
            ],
        }  # fmt: skip


def _medians(figures: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {stage: median(values) if values else None for stage, values in figures.items()}


def report_study(
    study: StudyPlan | Path | str,
    *,
    outcome: str = "",
    min_patients: int = FEWEST,
    permutations: int = 999,
    seed: int = 0,
    workers: int = 0,
    scheduler: str = "",
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
) -> StudyReport:
    """Report a study that was run: `report.html`, its tables as CSV, `report.json`.

    Args:
        study: the study's folder, or its plan.
        outcome: a column of the table of patients, with two values: shares of variance by outcome,
            and areas under the ROC curve of classifiers of the pooled patients, if ten patients of
            the groups compared have each.
        min_patients: fewest patients of a group whose features are compared.
        permutations: permutations behind the shares of variance.
        seed: seed of all that is random.
        workers: number of processes; 0 for one per core.
        scheduler: address of a Dask scheduler whose workers measure the images.
        dry_run: compute, and write nothing but the measurements.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.

    Returns:
        The `StudyReport`: `groups`, `images`, `regions`, `to_json()`.

    Raises:
        UsageError: if the study was not run, or has no table of patients for an outcome.
        EvaluationError: if too few patients are in any two groups.

    Example:
        >>> report = cvsct.report_study(finished_study, permutations=19, workers=1)
        >>> len(report.images), [region.region for region in report.regions]
        (3, ['lesion'])
    """
    need_extra("evaluate", "study")
    folder = folder_of(study)
    refuse_outside(2, min_patients=min_patients)
    refuse_outside(19, permutations=permutations)
    refuse_outside(0, seed=seed, workers=workers)
    plan = read_plan(folder)
    refuse_unwritable(folder, grows=True)
    table_path = folder / f"{WIDE}.csv"
    if not table_path.exists() or not (folder / STATUS).exists():
        raise UsageError(f"{folder}: not run yet, or not to its end; run it with `cvsct study run`")
    if outcome and not plan.options.patients:
        raise UsageError(
            "--outcome is a column of the table of patients; name the table in plan.toml (patients)"
        )
    patients_path = Path(plan.options.patients) if plan.options.patients else None
    refuse_missing(patients_path)
    table = read_table(table_path)
    patients = read_patients(patients_path) if patients_path else None
    if outcome:
        _refuse_other_outcome(patients, outcome, patients_path)
    lines = _read_status(plan)
    images = measure_images(plan, _files(plan, lines), Where(workers, scheduler), progress)
    _refuse_other_run(table, lines)
    done = [line.row.series_uid for line in lines if line.status != "failed"]
    kept = table[table["batch"].isin(_finished(lines)) & table["series_uid"].isin(done)]
    groups = evaluate_groups(
        kept, "batch", covariates=plan.options.combat.covariates, patients=patients,
        min_patients=min_patients, permutations=permutations, seed=seed, progress=progress,
    )  # fmt: skip
    regions = tuple(
        _region(kept, region, plan, outcome, patients, permutations, seed)
        for region in groups.regions
    )
    for remark in groups.notes:
        note(remark)
    report = StudyReport(
        plan, tuple(lines), tuple(images), groups, regions, outcome, folder / REPORT
    )
    if not dry_run:
        _write(report)
    return report


def _refuse_other_outcome(patients: Any, outcome: str, path: Path | None) -> None:
    """Refuse an outcome that is no column of two values.

    Raises:
        UsageError: saying what there is.
    """
    names = [str(name) for name in patients.columns if name != "patient"]
    if outcome not in names:
        raise UsageError(
            f"--outcome {outcome}: no column of {path}; {did_you_mean(outcome, names)}choose one "
            f"of {', '.join(names)}"
        )
    count = int(patients[outcome].nunique())
    if count != 2:
        raise UsageError(f"--outcome {outcome}: {count} values in {path}, expected two")


def _refuse_other_run(table: Any, lines: Sequence[SeriesLine]) -> None:
    """Refuse a table of features that lacks series of the last run, which was stopped before it.

    Raises:
        UsageError: saying what to do.
    """
    measured = set(table["series_uid"].astype(str))
    if any(line.row.series_uid not in measured for line in lines if line.status != "failed"):
        raise UsageError(
            "the features are not of the last run, which was stopped before them; go on with it by "
            "`cvsct study run`"
        )


def _write(report: StudyReport) -> None:
    from cvsct.study.report_page import report_html, report_tables  # noqa: PLC0415

    folder = report.plan.folder / TABLES
    folder.mkdir(exist_ok=True)
    for table in report_tables(report):
        write_atomic(folder / f"{portable_name(table.key.replace(' ', '_'))}.csv", table.to_csv())
    write_atomic(folder / "group_features.csv", report.groups.features_csv())
    write_json(report.plan.folder / "report.json", report.to_json())
    write_atomic(report.path, report_html(report))


def _read_status(plan: StudyPlan) -> list[SeriesLine]:
    """What the last run made of each series of the plan."""
    with (plan.folder / STATUS).open(encoding="utf-8", newline="") as stream:
        found = {line["series_uid"]: line for line in csv.DictReader(stream)}
    lines = []
    for row in plan.used:
        line = found.get(row.series_uid)
        if line is None:
            raise UsageError(
                f"{plan.folder}: the plan has series that the last run had not; run it again with "
                "`cvsct study run`"
            )
        harmonized = plan.folder / line["harmonized"] if line["harmonized"] else None
        lines.append(
            SeriesLine(row, line["status"], line["reason"], line["guard"],
                       plan.folder / line["prepared"], harmonized)
        )  # fmt: skip
    return lines


def _finished(lines: Sequence[SeriesLine]) -> list[str]:
    """Groups of which at least one series is harmonized, or the reference."""
    return sorted({line.row.group for line in lines if line.status != "failed"})


def _files(
    plan: StudyPlan, lines: Sequence[SeriesLine]
) -> dict[str, list[tuple[PlanRow, SeriesFiles, SeriesFiles]]]:
    """Series of each group, before and after."""
    series: dict[str, list[tuple[PlanRow, SeriesFiles, SeriesFiles]]] = {}
    for group in plan.groups:
        own = [line for line in lines if line.row.group == group.name and line.status != "failed"]
        if own:
            series[group.name] = [
                (line.row, only_series(line.prepared), only_series(line.made)) for line in own
            ]
    return series


def _region(
    table: Any,
    region: RegionFigures,
    plan: StudyPlan,
    outcome: str,
    patients: Any | None,
    permutations: int,
    seed: int,
) -> RegionAgreement:
    name = region.region
    everybody = rows_of(table, name, sorted(region.patients), combat=False)
    paired = tuple(paired_agreement(everybody, plan.reference))
    if not region.stages:
        return RegionAgreement(name, (), RemainingFeatures((), 0.0, 0), paired)
    groups = region.groups
    rows = rows_of(table, name, groups)
    after = next(stage for stage in AFTER_STAGES if stage in rows)
    reference = plan.reference if plan.reference in groups else ""
    found, by_outcome, why = None, None, ""
    if outcome:
        try:
            found = pooled_outcome(
                table, outcome, region=name, groups=groups, patients=patients,
                covariates=plan.options.combat.covariates, seed=seed,
            )  # fmt: skip
            by_outcome = _by_outcome(table, name, groups, outcome, patients, permutations, seed)
        except EvaluationError as error:
            why = str(error)
    return RegionAgreement(
        name,
        tuple(distances(rows, reference, groups)) if reference else (),
        not_harmonized(rows["source"], rows[after], seed),
        paired,
        found,
        by_outcome,
        why,
    )


def _by_outcome(
    table: Any,
    region: str,
    groups: Sequence[str],
    outcome: str,
    patients: Any,
    permutations: int,
    seed: int,
) -> GroupEvaluation:
    """The same comparison with the outcome in place of the group."""
    values = dict(zip(patients["patient"].astype(str), patients[outcome], strict=True))
    own = table[
        table["batch"].isin(list(groups)) & (table["region"].astype(str).map(region_name) == region)
    ].copy()
    told = [values.get(str(patient)) for patient in own["patient"]]
    own["outcome of the study"] = [f"{outcome} {value}" for value in told]
    own = own[[value is not None and value == value for value in told]]  # noqa: PLR0124
    return evaluate_groups(
        own, "outcome of the study", permutations=permutations, min_patients=FEWEST, seed=seed
    )
