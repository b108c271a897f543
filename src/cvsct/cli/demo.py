"""`cvsct demo`: the whole way on virtual scans."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.words import note, tell

MODEL = "ge-lung-siemens-bl64-spectrum"
"""Comes with the package; it has seen none of the demo's bodies."""


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo"),
) -> None:
    """Simulate two scanners, harmonise by a bundled model, evaluate: under two minutes."""
    from cvsct.api.evaluate import evaluate
    from cvsct.api.harmonize import harmonize
    from cvsct.api.simulate import simulate
    from cvsct.cli.progress_display import progress
    from cvsct.core.files import refuse_existing
    from cvsct.simulation.benchmark import GE, REPEAT, SIEMENS, TEST

    refuse_existing(out)
    started, show = time.monotonic(), progress()
    scans, harmonized, report = out / "scans", out / "harmonized", out / "report"
    simulate(scans, scale="demo", parts=[TEST, REPEAT], progress=show, note=note)
    harmonize(scans / TEST / GE, harmonized, model=MODEL, progress=show, note=tell)
    found = evaluate(
        harmonized,
        scans / TEST / SIEMENS,
        source=scans / TEST / GE,
        retest=scans / REPEAT / SIEMENS,
        nodules=scans / "nodules.csv",
        out=report,
        progress=show,
        note=tell,
    )
    print(found.summary())
    print(f"done in {time.monotonic() - started:.0f} s; open {report / 'report.html'}")
