"""`cvsct demo`: the whole way on virtual scans."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.evaluate import evaluate
from cvsct.cli.harmonize import harmonize
from cvsct.cli.simulate import simulate
from cvsct.cli.train import train


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo"),
) -> None:
    """Simulate two scanners, train the spectrum filter, harmonise, evaluate: under two minutes."""
    from cvsct.runs import refuse_existing
    from cvsct.scanner.benchmark import GE, REPEAT, SIEMENS, TEST, TRAIN

    refuse_existing(out)
    started = time.monotonic()
    scans, model, harmonized = out / "scans", out / "model", out / "harmonized"
    simulate(scans, scale="demo")
    train("spectrum", scans / TRAIN / GE, scans / TRAIN / SIEMENS, model)
    harmonize(scans / TEST / GE, model, harmonized)
    evaluate(
        harmonized,
        scans / TEST / SIEMENS,
        out / "report",
        source=scans / TEST / GE,
        repeat=scans / REPEAT / SIEMENS,
        nodules=scans / "nodules.csv",
    )
    print(f"done in {time.monotonic() - started:.0f} s; open {out / 'report' / 'report.html'}")
