"""`cvsct evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.console import add_inputs, report_note
from cvsct.core.errors import UsageError


def evaluate(
    harmonized: Annotated[Path, typer.Option(help="What `cvsct harmonize` wrote.")],
    target: Annotated[Path, typer.Option(help="Scans of scanner B to compare with.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    source: Annotated[Path | None, typer.Option(help="The scans before harmonisation.")] = None,
    repeat: Annotated[
        Path | None, typer.Option(help="The target scanned once more: what no method surpasses.")
    ] = None,
    passed: Annotated[
        Path | None, typer.Option(help="The target put through the model, to be left alone.")
    ] = None,
    regions: Annotated[
        str, typer.Option(help="Where features are measured: squares, or whole slices.")
    ] = "squares",
    masks: Annotated[
        list[Path] | None,
        typer.Option(help="Measure in these instead: NIfTI, DICOM SEG, RTSTRUCT; on the target."),
    ] = None,
    structures: Annotated[
        list[str] | None,
        typer.Option(help="Of the masks only these, by name or pattern (GTV*); again for more."),
    ] = None,
    rois: Annotated[int, typer.Option(min=3, help="Soft-tissue squares to take.")] = 24,
    nodules: Annotated[
        Path | None, typer.Option(help="The nodules.csv of a simulation; its truth is compared.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Where those squares lie.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
    pair: Annotated[
        bool, typer.Option("--pair", help="Compare slices by position, whatever is shown.")
    ] = False,
    unpaired: Annotated[
        bool, typer.Option("--unpaired", help="Compare no slices, only texture spectra.")
    ] = False,
    cache: Annotated[
        bool, typer.Option(help="Keep features in the user's cache folder and use them again.")
    ] = True,
) -> None:
    """Measure how alike the scanners' images are, before and after: metrics.json, report.html."""
    from cvsct.api.evaluate import evaluate as run
    from cvsct.cli.progress import progress

    add_inputs(harmonized, target, source, repeat, passed)
    if pair and unpaired:
        raise UsageError("--pair and --unpaired exclude each other; give one of them")
    found = run(
        harmonized, target, source=source, retest=repeat, harmonized_target=passed,
        masks=masks or (), structures=structures or (), nodules=nodules, regions=regions,
        rois=rois, pairing="forced" if pair else "off" if unpaired else "checked", seed=seed,
        workers=workers, cache=cache, out=out, progress=progress(), note=report_note,
    )  # fmt: skip
    print(found.summary())
    print(out / "report.html")
