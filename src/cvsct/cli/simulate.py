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


def simulate(
    out: Annotated[Path, typer.Option(help="The folder to write; one begun before goes on.")],
    scale: Annotated[
        Literal["tiny", "demo", "paper"], typer.Option(help="How much: for tests, a look, a study.")
    ] = "demo",
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
            help="Only these, by commas: train, test, repeat, kernels; and what is made only when "
            "named: paired (one set of bodies on both scanners), pairs (two scanners or settings "
            "that differ in one respect; or one of them, such as pairs/dose), study (patients of "
            "five hospitals, with masks)."
        ),
    ] = "",
    fov_mm: Annotated[float, typer.Option(min=100, max=350, help="Field of view.")] = 350,
    reconstructions: Annotated[
        str,
        typer.Option(
            help="Of each acquisition, by commas: fbp, iterative-1 to iterative-5, denoised-1 to "
            "denoised-3."
        ),
    ] = "fbp",
    table: Annotated[bool, typer.Option("--table", help="Bodies lie on a table.")] = False,
    arms: Annotated[
        Literal["up", "side"], typer.Option(help="Out of the scan, or along the body.")
    ] = "up",
    tube_current: Annotated[
        bool, typer.Option("--tube-current", help="Tube current follows the attenuation.")
    ] = False,
    helical: Annotated[bool, typer.Option("--helical", help="Slices from a helical scan.")] = False,
) -> None:
    """Scan virtual bodies on two virtual scanners: a benchmark of CT as DICOM."""
    from cvsct.api.simulate import simulate as run
    from cvsct.cli.progress import progress

    result = run(
        out, scale=scale, parts=parts.split(",") if parts else (), seed=seed, workers=workers,
        mas=mas, match_dose=match_dose, shift_px=shift_px, parenchyma=parenchyma, fov_mm=fov_mm,
        reconstructions=reconstructions.split(","), table=table, arms=arms,
        tube_current=tube_current, helical=helical, dry_run=is_dry_run(), progress=progress(),
        note=report_line,
    )  # fmt: skip
    speed = f", {result.images_per_s:g} images/s"
    report_result(
        f"{out}: {result.n_images} images in {result.n_series} series of {result.n_bodies} "
        f"bodies{'; nothing was written (--dry-run)' if is_dry_run() else speed}",
        {"out": str(out), "dry_run": is_dry_run(), **asdict(result)},
    )
    for scan, reason in result.failed.items():
        report_error(f"{scan}: {reason}")
    if result.failed:
        sys.exit(EXIT_SOME_FAILED)
