"""Comparison of groups of patients from a table on disk, with ComBat before it where asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvsct.core.errors import UsageError, need_extra
from cvsct.core.files import atomic_file, new_folder, refuse_missing, refuse_no_place
from cvsct.core.manifest import Manifest
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.evaluation.cohort_table import read_table
from cvsct.evaluation.combat.harmonize_features import FeatureComBat, harmonize_features
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.groups.evaluate_groups import evaluate_groups
from cvsct.evaluation.groups.result import GroupEvaluation
from cvsct.evaluation.groups.signal_kept import signal_kept

TABLE, ESTIMATES = "features_wide.csv", "combat.json"
"""Names of the table with ComBat's stages, and of ComBat's estimates."""


@dataclass(frozen=True)
class ComBatOptions:
    """ComBat before the comparison.

    Args:
        batch: column of the batches; empty where `estimates` are given.
        estimates: file of estimates to apply to patients of known batches, in place of a fit.
        reference: batch that stays as it is.
        mean_only: fit shifts alone.
    """

    batch: str = ""
    estimates: Path | None = None
    reference: str | None = None
    mean_only: bool = False


@dataclass(frozen=True)
class OutcomeOptions:
    """An outcome whose signal is to be kept: see `signal_kept`.

    Args:
        outcome: its column.
        train: group that the classifier is trained on.
        test: group that it is tested on.
        retest: table of second scans on `train`.
    """

    outcome: str
    train: str
    test: str
    retest: Path | None = None


@dataclass(frozen=True)
class GroupReport:
    """What `report_groups` found and wrote.

    Args:
        evaluation: the comparison.
        failed: reason for each region name that ComBat could not be fitted for.
        files: files that were written.
    """

    evaluation: GroupEvaluation
    failed: dict[str, str]
    files: tuple[Path, ...]


def report_groups(
    table: Path,
    out: Path,
    *,
    group: str = "scanner",
    covariates: Sequence[str] = (),
    patients: Path | None = None,
    physics: Path | None = None,
    combat: ComBatOptions | None = None,
    outcome: OutcomeOptions | None = None,
    reference: str | None = None,
    min_patients: int = 10,
    permutations: int = 999,
    seed: int = 0,
    progress: Progress = silent,
    note: Note = log_note,
) -> GroupReport:
    """Compare the groups of a table on disk and write the report, `cvsct groups`.

    Args:
        table: a `features_wide.csv`, or Parquet.
        out: folder to write.
        group: column of the groups.
        covariates: columns that ComBat keeps and the share of variance is adjusted for.
        patients: table of patients with these columns; None if `table` has them.
        physics: table of figures of images.
        combat: apply ComBat first; its table and estimates are written too.
        outcome: an outcome whose signal is to be kept.
        reference: group that the others are compared with.
        min_patients: smallest number of patients of a group and of a batch.
        permutations: number of permutations behind the share of variance.
        seed: seed of everything that is random.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark.

    Raises:
        UsageError: if a path does not exist or `out` holds something.
        EvaluationError: as `evaluate_groups`, `harmonize_features` and `signal_kept`.
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    check_groups(table, out, patients, physics, combat, outcome)
    settings: dict[str, Any] = {
        "group": group, "covariates": list(covariates), "reference": reference,
        "min_patients": min_patients, "permutations": permutations, "seed": seed,
    }  # fmt: skip
    manifest = Manifest("groups", settings, local=[TABLE])
    frame = read_table(table)
    clinical = read_table(patients) if patients is not None else None
    failed: dict[str, str] = {}
    remarks: list[str] = []
    with new_folder(out) as folder:
        with manifest.timed("measuring"):
            fitted = None
            if combat is not None:
                frame, fitted, failed = _combat(
                    frame, clinical, covariates, combat, min_patients, remarks.append
                )
            signal = None
            if outcome is not None:
                signal = signal_kept(
                    frame, outcome.outcome, train=outcome.train, test=outcome.test, group=group,
                    retest=read_table(outcome.retest) if outcome.retest else None,
                    patients=clinical, covariates=covariates, seed=seed,
                )  # fmt: skip
            evaluation = evaluate_groups(
                frame, group, covariates=covariates, patients=clinical,
                physics=read_table(physics) if physics else None, signal=signal,
                reference=reference, min_patients=min_patients, permutations=permutations,
                seed=seed, progress=progress,
            )  # fmt: skip
        for remark in dict.fromkeys([*remarks, *evaluation.notes]):
            note(remark)
        names = [path.name for path in evaluation.write(folder).values()]
        if fitted is not None:
            fitted.save(folder / ESTIMATES)
            with atomic_file(folder / TABLE, private=True) as stream:
                stream.write(frame.to_csv(index=False).encode())
            names += [ESTIMATES, TABLE]
        manifest.figures = {"groups": "groups.json"}
        manifest.write(folder)
    return GroupReport(evaluation, failed, tuple(out / name for name in names))


def check_groups(
    table: Path,
    out: Path,
    patients: Path | None = None,
    physics: Path | None = None,
    combat: ComBatOptions | None = None,
    outcome: OutcomeOptions | None = None,
) -> None:
    """Check the arguments of `report_groups`; nothing is read or written.

    Raises:
        UsageError: if a path does not exist, `out` holds something or cannot be written, or options
            do not go together.
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    need_extra("evaluate", "groups")
    refuse_no_place(out)
    refuse_missing(
        table, patients, physics, combat.estimates if combat else None,
        outcome.retest if outcome else None,
    )  # fmt: skip
    if combat is not None and bool(combat.batch) == (combat.estimates is not None):
        raise UsageError(
            "ComBat is fitted by a column (--combat) or applied from a file (--estimates); give one"
        )


def _combat(
    table: Any,
    patients: Any | None,
    covariates: Sequence[str],
    options: ComBatOptions,
    min_patients: int,
    note: Note,
) -> tuple[Any, FeatureComBat, dict[str, str]]:
    """The table with ComBat's stages, the estimates, and what could not be fitted."""
    if options.estimates is not None:
        known = FeatureComBat.load(options.estimates)
        parts = [table, known.apply(table, patients)]
        return load_extra("pandas").concat(parts, ignore_index=True), known, {}
    harmonized = harmonize_features(
        table, options.batch, covariates=covariates, patients=patients,
        reference=options.reference, mean_only=options.mean_only, min_patients=min_patients,
    )  # fmt: skip
    for remark in harmonized.notes:
        note(remark)
    return harmonized.table, harmonized.combat, harmonized.failed
