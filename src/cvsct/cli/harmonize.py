"""`cvsct harmonize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.words import EXIT_SOME_FAILED, complain, note
from cvsct.errors import CvsctError, UsageError


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
) -> None:
    """Rewrite scans as derived series that read like the other scanner's."""
    from cvsct.inference.harmonizer import harmonize_series
    from cvsct.io.dicom import find_series
    from cvsct.methods import find_method
    from cvsct.models.bundle import Bundle
    from cvsct.models.bundled import model_folder
    from cvsct.runs import Manifest, new_folder, refuse_existing
    from cvsct.terminal import progress

    refuse_existing(out)
    bundle = Bundle.read(model_folder(model))
    row = find_method(bundle.method)
    if reverse and not row.reversible:
        raise UsageError(f"{bundle.method} maps only from A to B; train it with the scans swapped")
    options: dict[str, str] = {} if precision == "fp32" else {"precision": precision}
    if options and row.kind == "classical":
        note(f"note: --precision means nothing to {row.name}")
        options = {}
    mapping = row.load("loader")(bundle, reverse, engine, **options)
    if mapping.engine:
        note(f"engine: {mapping.engine}")
    series = find_series(scans)
    manifest = Manifest(
        "harmonize",
        {
            "method": bundle.method,
            "reverse": reverse,
            "engine": engine,
            **options,
            **bundle.settings,
        },
        model_sha256=bundle.sha256,
    )
    with new_folder(out) as folder:
        with manifest.timed("harmonising"):
            outcomes = harmonize_series(
                series, bundle, mapping, folder, reverse, keep_equipment, progress(), nifti
            )
        failed = [outcome for outcome in outcomes if outcome.error]
        if len(failed) == len(outcomes):
            more = f" (and {len(failed) - 1} more series failed)" if len(failed) > 1 else ""
            raise CvsctError(f"{failed[0].error}{more}")
        manifest.inputs = {"series": [outcome.series_uid for outcome in outcomes]}
        slices = sum(outcome.n_slices for outcome in outcomes)
        manifest.figures = {
            "series": [outcome.to_json() for outcome in outcomes],
            "n_slices": slices,
            "slices_per_s": round(slices / manifest.timings_s["harmonising"], 2),
            **({"engine": mapping.engine.to_json()} if mapping.engine else {}),
        }
        manifest.write(folder)
    print(f"{out}: {len(outcomes) - len(failed)} series, {slices} slices, by {bundle.method}")
    if failed:
        for outcome in failed:
            complain(outcome.error)
        sys.exit(EXIT_SOME_FAILED)
