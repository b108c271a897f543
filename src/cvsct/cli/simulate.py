"""`cvsct simulate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.words import EXIT_SOME_FAILED, complain, note


def simulate(
    out: Annotated[Path, typer.Option(help="The folder to write; one begun before goes on.")],
    scale: Annotated[str, typer.Option(help="tiny, demo or paper.")] = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Other bodies, other noise.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
    mas: Annotated[float, typer.Option(min=1, max=1000, help="Tube load of a rotation.")] = 100,
    match_dose: Annotated[
        bool, typer.Option(help="Equal CTDIvol on both scanners instead of equal mAs.")
    ] = False,
    shift_px: Annotated[
        float, typer.Option(min=-10, max=10, help="Misregistration of the test pair, in pixels.")
    ] = 0,
    parenchyma: Annotated[
        bool, typer.Option("--parenchyma", help="Lung tissue in the phantom, not air alone.")
    ] = False,
    parts: Annotated[
        str,
        typer.Option(
            help="Only these, by commas: train, test, repeat, kernels/train, kernels/test, "
            "kernels/repeat; and paired, which is made only when named: the same bodies on both "
            "scanners to train on."
        ),
    ] = "",
    fov_mm: Annotated[float, typer.Option(min=100, max=350, help="Field of view.")] = 350,
    table: Annotated[bool, typer.Option("--table", help="Bodies lie on a table.")] = False,
    arms: Annotated[str, typer.Option(help="up: out of the scan; side: along the body.")] = "up",
    tube_current: Annotated[
        bool, typer.Option("--tube-current", help="Tube current follows the attenuation.")
    ] = False,
    helical: Annotated[bool, typer.Option("--helical", help="Slices from a helical scan.")] = False,
) -> None:
    """Scan virtual bodies on two virtual scanners: a benchmark of CT as DICOM."""
    from cvsct.api.simulate import simulate as run
    from cvsct.cli.progress_display import progress

    outcome = run(
        out, scale=scale, parts=parts.split(",") if parts else (), seed=seed, workers=workers,
        mas=mas, match_dose=match_dose, shift_px=shift_px, parenchyma=parenchyma, fov_mm=fov_mm,
        table=table, arms=arms, tube_current=tube_current, helical=helical,
        progress=progress(), note=note,
    )  # fmt: skip
    print(
        f"{out}: {outcome.n_images} images in {outcome.n_series} series of {outcome.n_bodies} "
        f"bodies, {outcome.images_per_s:g} images/s"
    )
    if outcome.failed:
        for scan, why in outcome.failed.items():
            complain(f"{scan}: {why}")
        sys.exit(EXIT_SOME_FAILED)
