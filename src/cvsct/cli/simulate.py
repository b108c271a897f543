"""`cvsct simulate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from cvsct.cli.console import (
    EXIT_SOME_FAILED,
    is_dry_run,
    report_error,
    report_line,
    report_result,
)
from cvsct.core.text import counted


def simulate(
    out: Annotated[
        Path, typer.Option(help="Folder to write; an interrupted simulation is continued.")
    ],
    scale: Annotated[
        Literal["tiny", "demo", "paper"],
        typer.Option(help="Number and size of the images: for tests, a demo, a study."),
    ] = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Seed of bodies and noise.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Number of processes; 0 for one per core.")
    ] = 0,
    mas: Annotated[
        float, typer.Option(min=1, max=1000, help="Tube load of a rotation, in mAs.")
    ] = 100,
    match_dose: Annotated[
        bool, typer.Option(help="Equal CTDIvol on both scanners instead of equal mAs.")
    ] = False,
    shift_px: Annotated[
        float, typer.Option(min=-10, max=10, help="Misregistration of the test pair, in pixels.")
    ] = 0,
    parenchyma: Annotated[
        bool, typer.Option("--parenchyma", help="Fill the lungs of the phantom with tissue.")
    ] = False,
    emphysema: Annotated[
        float, typer.Option(min=0, max=0.6, help="Share of the lung destroyed in pairs' patients.")
    ] = 0,
    parts: Annotated[
        str,
        typer.Option(
            help="Parts to simulate, separated by commas: train, test, repeat, kernels; and, only "
            "on request: paired (the same bodies on both scanners), pairs (two scanners or "
            "settings that differ in one respect; or one of them, such as pairs/dose), study "
            "(patients of five hospitals, with masks)."
        ),
    ] = "",
    fov_mm: Annotated[
        float, typer.Option(min=100, max=350, help="Reconstructed field of view, in mm.")
    ] = 350,
    reconstructions: Annotated[
        str,
        typer.Option(
            help="Reconstructions of each acquisition, separated by commas: fbp, iterative-1 to "
            "iterative-5, denoised-1 to denoised-3."
        ),
    ] = "fbp",
    table: Annotated[bool, typer.Option("--table", help="Lay the bodies on a table.")] = False,
    arms: Annotated[
        Literal["up", "side"],
        typer.Option(help="Position of the arms: out of the scan, or along the body."),
    ] = "up",
    tube_current: Annotated[
        bool, typer.Option("--tube-current", help="Let the tube current follow the attenuation.")
    ] = False,
    helical: Annotated[bool, typer.Option("--helical", help="Simulate a helical scan.")] = False,
) -> None:
    """Simulate CT scans of virtual bodies on virtual scanners, as DICOM."""
    from cvsct.api.simulate import simulate as run
    from cvsct.cli.progress import progress

    result = run(
        out, scale=scale, parts=parts.split(",") if parts else (), seed=seed, workers=workers,
        mas=mas, match_dose=match_dose, shift_px=shift_px, parenchyma=parenchyma,
        emphysema=emphysema, fov_mm=fov_mm, reconstructions=reconstructions.split(","),
        table=table, arms=arms, tube_current=tube_current, helical=helical,
        dry_run=is_dry_run(), progress=progress(), note=report_line,
    )  # fmt: skip
    speed = f", {result.images_per_s:g} images/s"
    end = "; nothing was written (--dry-run)" if is_dry_run() else speed
    report_result(
        f"{out}: {counted(result.n_images, 'image')} in {result.n_series} series of "
        f"{counted(result.n_bodies, 'body', 'bodies')}{end}",
        {"out": str(out), "dry_run": is_dry_run(), **asdict(result)},
    )
    for scan, reason in result.failed.items():
        report_error(f"{scan}: {reason}")
    if result.failed:
        sys.exit(EXIT_SOME_FAILED)
