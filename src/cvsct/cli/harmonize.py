"""`cvsct harmonize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cvsct.cli.command import complete_model
from cvsct.cli.console import (
    EXIT_FAILED,
    EXIT_SOME_FAILED,
    add_inputs,
    is_dry_run,
    report_failures,
    report_line,
    report_note,
    report_result,
)
from cvsct.cli.guards import report_guards, report_notes
from cvsct.cli.left_out import report_paths
from cvsct.core.text import counted

if TYPE_CHECKING:
    from cvsct.api.harmonize import HarmonizeResult


def harmonize(
    scans: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A DICOM series or tree, or NIfTI.")
    ],
    model: Annotated[
        Path,
        typer.Option(
            help="A model folder, or a name of `cvsct models`.", autocompletion=complete_model
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write, one sub-folder a series.")],
    reverse: Annotated[
        bool,
        typer.Option(
            "--reverse", help="From the model's target (B) to its source (A); see `cvsct models`."
        ),
    ] = False,
    engine: Annotated[
        Literal["auto", "openvino", "torch"], typer.Option(help="What runs a network.")
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(help="bf16 is faster, with errors of some HU; its output is labelled so."),
    ] = "fp32",
    keep_equipment: Annotated[
        bool, typer.Option("--keep-equipment", help="Leave Manufacturer and model as they are.")
    ] = False,
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Write each DICOM series as .nii.gz too.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes for many series; 0 is one a core. One leaves the cores to a network.",
        ),
    ] = 1,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="One of N parts of many series, for job arrays.")
    ] = "",
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler whose workers do many series.")
    ] = "",
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Change a guard: NAME=number, NAME=off, scan=note (warn only), slices=refuse, off "
            "(all). Names stand in the model's card and in docs/reference/guards.md.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in OUT, and try again what failed there.")
    ] = False,
    timestamp: Annotated[
        str,
        typer.Option(
            metavar="now|ISO",
            help="Date and time for the derived images, local; without it they have none.",
        ),
    ] = "",
    names: Annotated[
        Literal["input", "hash"],
        typer.Option(help="NIfTI output is named after its input, or by a hash."),
    ] = "input",
    force: Annotated[
        bool, typer.Option("--force", help="Accept input that cvsct itself has produced.")
    ] = False,
    uncertainty: Annotated[
        Literal["none", "table", "map"],
        typer.Option(help="Write how uncertain each slice is, as a table or a NIfTI map too."),
    ] = "none",
) -> None:
    """Rewrite scans as derived series that look like the other scanner's.

    A scan unlike those the model learned from is refused; slices that were changed too much are
    written, flagged and told in manifest.json. Of many series, those that are done are kept: the
    same command goes on after any crash.
    """
    from cvsct.api.harmonize import AllSeriesFailedError
    from cvsct.api.harmonize import harmonize as run
    from cvsct.cli.progress import progress

    add_inputs(scans)
    try:
        result = run(
            scans, out, model=model, direction="b2a" if reverse else "a2b", engine=engine,
            precision=precision, guard=guard or (), keep_equipment=keep_equipment, nifti=nifti,
            names=names, timestamp=timestamp, force=force, uncertainty=uncertainty,
            workers=workers, shard=shard, scheduler=scheduler, resume=resume,
            dry_run=is_dry_run(), progress=progress(), note=report_note,
        )  # fmt: skip
    except AllSeriesFailedError as error:
        result = error.result
    _report(result, reverse)
    if result.failed or result.incomplete:
        sys.exit(EXIT_SOME_FAILED if result.n_done or result.shard else EXIT_FAILED)


def _report(result: HarmonizeResult, reverse: bool) -> None:
    where = f"{result.out}, shard {result.shard}" if result.shard else str(result.out)
    failed = f", {len(result.failed)} failed" if result.failed else ""
    planned = "; nothing was written (--dry-run)" if result.dry_run else ""
    report_result(
        f"{where}: {result.n_done} series, {counted(result.n_slices, 'slice')}, "
        f"by {result.method}{failed}{planned}",
        result.to_json(),
    )
    report_paths(result.left_out)
    report_notes(result.outcomes)
    report_guards(result.outcomes, reverse)
    failures = [(outcome.error, result.sources[outcome.folder].files) for outcome in result.failed]
    report_failures(failures)
    if failures and not result.dry_run:
        report_line("note: series.csv has the path and the reason of each")
        report_line(
            "note: repair or remove what cannot be read; the same command with --resume tries "
            "again what failed"
        )
