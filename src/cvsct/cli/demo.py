"""`cvsct demo`: the whole way on virtual scans."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.evaluate import evaluate
from cvsct.cli.harmonize import harmonize
from cvsct.cli.simulate import simulate

MODEL = "ge-lung-siemens-bl64-spectrum"
"""Comes with the package; it has seen none of the demo's bodies."""


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo"),
) -> None:
    """Simulate two scanners, harmonise by a bundled model, evaluate: under two minutes."""
    from cvsct.core.runs import refuse_existing
    from cvsct.simulation.benchmark import GE, REPEAT, SIEMENS, TEST

    refuse_existing(out)
    started = time.monotonic()
    scans, harmonized = out / "scans", out / "harmonized"
    simulate(scans, scale="demo", parts=f"{TEST},{REPEAT}")
    harmonize(scans / TEST / GE, Path(MODEL), harmonized)
    evaluate(
        harmonized,
        scans / TEST / SIEMENS,
        out / "report",
        source=scans / TEST / GE,
        repeat=scans / REPEAT / SIEMENS,
        nodules=scans / "nodules.csv",
    )
    print(f"done in {time.monotonic() - started:.0f} s; open {out / 'report' / 'report.html'}")
