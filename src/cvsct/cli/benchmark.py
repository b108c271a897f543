"""`cvsct benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cvsct.cli.console import (
    EXIT_SOME_FAILED,
    is_dry_run,
    report_error,
    report_note,
    report_result,
)
from cvsct.cli.question import Yes, confirm_download
from cvsct.cli.train import parse_settings


def benchmark(
    data: Annotated[Path, typer.Option(help="Holds train/, test/, perhaps repeat/ and paired/.")],
    methods: Annotated[
        str, typer.Option(help="Rows of `cvsct methods`, by commas; NAME:K for K seeds of one.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; one begun before goes on.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method that has any.")] = 1,
    preset: Annotated[
        Literal["paper", "stable", "cpu"], typer.Option(help="Settings of networks' trainings.")
    ] = "cpu",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of each training: one step of a model of both ways is one each."),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="A direction: twice as long where one training serves both."),
    ] = None,
    rois: Annotated[int, typer.Option(min=3, help="Soft-tissue regions of each test.")] = 120,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help="Of `cvsct train`: phantom, derived, mixed-scanners."),
    ] = None,
    ibsi: Annotated[
        bool, typer.Option("--ibsi", help="Compare by IBSI's gray levels too; features take twice.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Train, harmonize and evaluate each method both ways; the paper's tables with ours beside."""
    from cvsct.benchmarking.run import benchmark as run
    from cvsct.cli.progress import progress

    result = run(
        data, methods, out, seeds=seeds, preset=preset, settings=parse_settings(setting or []),
        max_steps=max_steps, max_minutes=max_minutes, rois=rois, workers=workers,
        allow=allow or (), ibsi=ibsi, dry_run=is_dry_run(), confirm=confirm_download(yes),
        progress=progress(), note=report_note, failure=report_error,
    )  # fmt: skip
    tables = "\n".join(table.to_markdown() for table in result.rankings)
    end = "nothing was written (--dry-run)" if is_dry_run() else str(out / "benchmark.html")
    report_result(f"{tables}\n{end}".strip(), result.to_json())
    if result.failed:
        sys.exit(EXIT_SOME_FAILED)
