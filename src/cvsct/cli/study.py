"""`cvsct study`: plan, run and report."""

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

STUDY = typer.Argument(help="The study's folder.")


def plan(
    scans: Annotated[Path, typer.Argument(help="Scans of all scanners: DICOM or NIfTI.")],
    out: Annotated[Path, typer.Option(help="The study's folder.")],
    masks: Annotated[
        list[Path] | None, typer.Option(help="Masks; again for each. Default: among the scans.")
    ] = None,
    mask_pattern: Annotated[
        str, typer.Option(help="Pattern of the masks' paths, as in `features`.")
    ] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER=NAME", help="Name of a number in NIfTI masks; again for more."
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="A CSV file with the scanners of NIfTI scans.")
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="A CSV file with the column patient, and outcomes.")
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="GROUP", help="The group to bring all others to.")
    ] = "",
    thickness: Annotated[
        float, typer.Option(min=0, help="Slice thickness to bring all to, in mm.")
    ] = 0.0,
    rules: Annotated[
        Path | None, typer.Option(help="A plan.toml to take the rules from, of any study.")
    ] = None,
    kernel: Annotated[
        str | None, typer.Option(help="Kernels to prefer of one patient's: soft, sharp, any.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(help="Contrast phase to prefer: yes, no; any by default.")
    ] = None,
    min_patients: Annotated[
        int | None, typer.Option(min=1, help="Fewest patients of a group; 3 by default.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD", help="Let models learn from: phantom, derived, mixed-scanners."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method of the models; spectrum by default.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core.")] = 0,
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler, in place of processes.")
    ] = "",
) -> None:
    """Plan a study: series, groups and reference, in two files to edit.

    Plan, edit plan.csv and plan.toml, run. Planning again replaces both files.
    """
    from cvsct.cli.features import label_names
    from cvsct.cli.progress import progress
    from cvsct.study.make_plan import plan_study
    from cvsct.study.options import changed_rules

    add_inputs(scans, *(masks or ()), table, patients, rules)
    changes = {
        "choice": {"kernel": kernel, "contrast": contrast},
        "grouping": {"min_patients": min_patients},
        "features": {"label_names": label_names(label) if label else None},
        "allow": allow or None,
        "method": method,
    }
    made = plan_study(
        scans, out, masks=masks or (), mask_pattern=mask_pattern, table=table, patients=patients,
        reference=reference, thickness_mm=thickness, rules=changed_rules(rules, changes),
        workers=workers, scheduler=scheduler, dry_run=is_dry_run(), progress=progress(),
        note=report_note,
    )  # fmt: skip
    where = "only measurements were written (--dry-run)" if is_dry_run() else out / "plan.html"
    report_result(f"{made.summary()}\n{where}", made.to_json())


def run(
    study: Annotated[Path, STUDY],
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core.")] = 0,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Part I of N of the series.")] = "",
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler, in place of processes.")
    ] = "",
) -> None:
    """Run a study: models, harmonized series, masks, features; goes on after a kill or an edit."""
    from cvsct.cli.progress import progress
    from cvsct.study.run import run_study

    add_inputs(study)
    result = run_study(
        study, workers=workers, shard=shard, scheduler=scheduler, dry_run=is_dry_run(),
        progress=progress(), note=report_note,
    )  # fmt: skip
    said = f"nothing was done (--dry-run); {result.wanted()}" if is_dry_run() else result.summary()
    report_result(said, result.to_json())
    problems = [(f"{each.row.path}: {each.reason}", ()) for each in result.failed]
    problems += [(f"{what}: {why}", ()) for what, why in result.failed_combat.items()]
    report_failures(problems)
    if problems:
        sys.exit(EXIT_SOME_FAILED)


def report(
    study: Annotated[Path, STUDY],
    outcome: Annotated[str, typer.Option(help="A column of the table of patients.")] = "",
    min_patients: Annotated[
        int, typer.Option(min=2, help="Fewest patients of a group whose features are compared.")
    ] = 5,
    permutations: Annotated[int, typer.Option(min=19, help="Permutations behind chance.")] = 999,
    seed: Annotated[int, typer.Option(min=0, help="Seed of permutations and folds.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 for one per core.")] = 0,
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler, in place of processes.")
    ] = "",
) -> None:
    """Report a study: one page for the cohort, and every table as CSV."""
    from cvsct.cli.progress import progress
    from cvsct.study.report import report_study

    add_inputs(study)
    made = report_study(
        study, outcome=outcome, min_patients=min_patients, permutations=permutations,
        seed=seed, workers=workers, scheduler=scheduler, dry_run=is_dry_run(),
        progress=progress(), note=report_note,
    )  # fmt: skip
    report_result(made.summary(), made.to_json())
