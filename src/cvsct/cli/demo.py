"""`cvsct demo`: the whole way on virtual scans."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cvsct.cli.console import is_dry_run, report_line, report_note, report_result

MODEL = "ge-lung-siemens-bl64-spectrum"
"""Comes with the package; it has seen none of the demo's bodies."""


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo"),
) -> None:
    """Simulate two scanners, harmonize by a bundled model, evaluate: about two minutes."""
    from cvsct.api.evaluate import evaluate
    from cvsct.api.harmonize import harmonize
    from cvsct.api.simulate import simulate
    from cvsct.cli.progress import progress
    from cvsct.core.files import refuse_existing, refuse_unwritable
    from cvsct.simulation.benchmark import GE, REPEAT, SIEMENS, TEST

    refuse_existing(out)
    refuse_unwritable(out, grows=True)
    started, show = time.monotonic(), progress()
    scans, harmonized, report = out / "scans", out / "harmonized", out / "report"
    folders = {"scans": str(scans), "harmonized": str(harmonized), "report": str(report)}
    if is_dry_run():
        report_result(
            f"would write {', '.join(folders.values())}; nothing was written (--dry-run)",
            {**folders, "dry_run": True},
        )
        return
    simulate(scans, scale="demo", parts=[TEST, REPEAT], progress=show, note=report_line)
    harmonize(scans / TEST / GE, harmonized, model=MODEL, progress=show, note=report_note)
    found = evaluate(
        harmonized,
        scans / TEST / SIEMENS,
        source=scans / TEST / GE,
        retest=scans / REPEAT / SIEMENS,
        nodules=scans / "nodules.csv",
        out=report,
        progress=show,
        note=report_note,
    )
    seconds = time.monotonic() - started
    report_result(
        f"{found.summary()}\n{found.scorecard.headline}\n"
        f"done in {seconds:.0f} s; open {report / 'report.html'}",
        {**folders, "seconds": round(seconds, 1)},
    )
