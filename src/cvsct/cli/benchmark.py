"""`cvsct benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.console import EXIT_SOME_FAILED, report_error, report_note
from cvsct.cli.train import parse_settings


def benchmark(
    data: Annotated[Path, typer.Option(help="Holds train/, test/, perhaps repeat/ and paired/.")],
    methods: Annotated[
        str, typer.Option(help="Rows of `cvsct methods`, by commas; NAME:K for K seeds of one.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; one begun before goes on.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method that has any.")] = 1,
    preset: Annotated[str, typer.Option(help="paper, stable or cpu.")] = "cpu",
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
) -> None:
    """Train, harmonise and evaluate each method both ways; the paper's tables with ours beside."""
    from cvsct.benchmarking.run import benchmark as run
    from cvsct.cli.progress import progress

    result = run(
        data, methods, out, seeds=seeds, preset=preset, settings=parse_settings(setting or []),
        max_steps=max_steps, max_minutes=max_minutes, rois=rois, workers=workers,
        allow=allow or (), progress=progress(), note=report_note, failure=report_error,
    )  # fmt: skip
    for table in result.rankings:
        print(table.to_markdown())
    print(out / "benchmark.html")
    if result.failed:
        sys.exit(EXIT_SOME_FAILED)
