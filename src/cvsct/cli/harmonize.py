"""`cvsct harmonize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.guards import tell_guards, tell_notes
from cvsct.cli.left_out import tell_paths
from cvsct.cli.words import EXIT_SOME_FAILED, complain, know, note, tell


def harmonize(
    scans: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A DICOM series or tree, or NIfTI.")
    ],
    model: Annotated[Path, typer.Option(help="A model folder, or a name of `cvsct models`.")],
    out: Annotated[Path, typer.Option(help="The folder to write, one sub-folder a series.")],
    reverse: Annotated[bool, typer.Option("--reverse", help="From B to A.")] = False,
    engine: Annotated[str, typer.Option(help="auto, openvino or torch.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16: faster, some HU off, labelled as such.")
    ] = "fp32",
    keep_equipment: Annotated[
        bool, typer.Option("--keep-equipment", help="Leave Manufacturer and model as they are.")
    ] = False,
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Write each DICOM series as .nii.gz too.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes for many series; 0 is one a core.")
    ] = 1,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="One of N parts of many series, as of a job array.")
    ] = "",
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler whose workers do many series.")
    ] = "",
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another limit than the model card's, or NAME=off; scan=note; slices=refuse; off.",
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
        str, typer.Option(help="NIfTI output is named after its input, or by a hash: input, hash.")
    ] = "input",
    force: Annotated[
        bool, typer.Option("--force", help="Harmonize even what cvsct derived already.")
    ] = False,
) -> None:
    """Rewrite scans as derived series that read like the other scanner's.

    A scan unlike those the model learned from is refused; slices that were changed too much are
    written, flagged and told in manifest.json. Of many series, those that are done are kept: the
    same command goes on after any crash.
    """
    from cvsct.api.harmonize import harmonize as run
    from cvsct.cli.progress_display import progress

    know(scans)
    result = run(
        scans, out, model=model, direction="b2a" if reverse else "a2b", engine=engine,
        precision=precision, guard=guard or (), keep_equipment=keep_equipment, nifti=nifti,
        names=names, timestamp=timestamp, force=force, workers=workers, shard=shard,
        scheduler=scheduler, resume=resume, progress=progress(), note=tell,
    )  # fmt: skip
    where = f"{out}, shard {shard}" if result.shard else str(out)
    print(f"{where}: {result.n_done} series, {result.n_slices} slices, by {result.method}")
    tell_paths(result.left_out)
    tell_notes(result.outcomes)
    tell_guards(result.outcomes)
    for outcome in result.failed:
        complain(outcome.error, result.sources[outcome.folder].files)
    if result.failed:
        note("note: the same command with --resume tries again what failed")
    if result.failed or result.incomplete:
        sys.exit(EXIT_SOME_FAILED)
