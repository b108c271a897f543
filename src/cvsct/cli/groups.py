"""`cvsct groups`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.console import (
    EXIT_SOME_FAILED,
    add_inputs,
    is_dry_run,
    report_failures,
    report_note,
    report_result,
)
from cvsct.core.errors import UsageError


def groups(
    table: Annotated[Path, typer.Argument(help="A features_wide.csv, or Parquet.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    group: Annotated[str, typer.Option(help="Column to compare: scanner, site, ...")] = "scanner",
    covariates: Annotated[
        str, typer.Option(help="Columns to adjust for, by commas; never the outcome.")
    ] = "",
    patients: Annotated[
        Path | None, typer.Option(help="A CSV file with the columns patient and covariates.")
    ] = None,
    physics: Annotated[
        Path | None, typer.Option(help="A CSV file of images' figures: patient, stage, group, ...")
    ] = None,
    combat: Annotated[
        str, typer.Option(metavar="COLUMN", help="Harmonize features by ComBat; its batches.")
    ] = "",
    estimates: Annotated[
        Path | None, typer.Option(help="A combat.json to apply to new patients instead.")
    ] = None,
    reference_batch: Annotated[
        str | None, typer.Option(help="The batch that ComBat leaves as it is.")
    ] = None,
    mean_only: Annotated[
        bool, typer.Option("--mean-only", help="ComBat fits shifts alone.")
    ] = False,
    outcome: Annotated[
        str, typer.Option(help="Column of an outcome whose signal should be kept.")
    ] = "",
    train_on: Annotated[str, typer.Option(help="The group its classifier is trained on.")] = "",
    test_on: Annotated[str, typer.Option(help="The group it is tested on.")] = "",
    retest: Annotated[
        Path | None, typer.Option(help="A table of second scans of the group of --train-on.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The group to compare with; else all others.")
    ] = None,
    min_patients: Annotated[
        int, typer.Option(min=5, help="Patients that a group or batch needs.")
    ] = 10,
    permutations: Annotated[int, typer.Option(min=19, help="Permutations behind chance.")] = 999,
    seed: Annotated[int, typer.Option(min=0, help="Seed of permutations and folds.")] = 0,
) -> None:
    """Compare features of scanners or sites where no patient was scanned twice; ComBat."""
    from cvsct.api.groups import ComBatOptions, OutcomeOptions, check_groups, report_groups
    from cvsct.cli.progress import progress

    add_inputs(table, patients, physics, estimates, retest)
    if bool(outcome) != bool(train_on and test_on):
        raise UsageError("--outcome, --train-on and --test-on go together; give all three")
    options = ComBatOptions(combat, estimates, reference_batch, mean_only)
    wanted = options if combat or estimates else None
    signal = OutcomeOptions(outcome, train_on, test_on, retest) if outcome else None
    if is_dry_run():
        check_groups(table, out, patients, physics, wanted, signal)
        report_result("nothing was written (--dry-run)", {"out": str(out), "dry_run": True})
        return
    report = report_groups(
        table, out, group=group, covariates=[name for name in covariates.split(",") if name],
        patients=patients, physics=physics, combat=wanted, outcome=signal, reference=reference,
        min_patients=min_patients, permutations=permutations, seed=seed, progress=progress(),
        note=report_note,
    )  # fmt: skip
    report_result(f"{report.evaluation.summary()}\n{out / 'groups.html'}",
                  {**report.evaluation.metrics(), "failed": report.failed})  # fmt: skip
    report_failures([(f"{what}: {why}", ()) for what, why in report.failed.items()])
    if report.failed:
        sys.exit(EXIT_SOME_FAILED)
