"""`cvsct evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cvsct.cli.console import (
    EXIT_FAILED,
    add_inputs,
    is_dry_run,
    renamed,
    report_note,
    report_result,
)
from cvsct.core.errors import UsageError
from cvsct.core.sides import HARMONIZED, RETEST, SOURCE, TARGET, TARGET_HARMONIZED
from cvsct.core.text import counted


def evaluate(
    harmonized: Annotated[Path, typer.Option(HARMONIZED.option, help=HARMONIZED.what)],
    target: Annotated[Path, typer.Option(TARGET.option, help=TARGET.what)],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    source: Annotated[Path | None, typer.Option(SOURCE.option, help=SOURCE.what)] = None,
    retest: Annotated[Path | None, typer.Option(RETEST.option, help=RETEST.what)] = None,
    repeat: Annotated[Path | None, typer.Option(RETEST.old_option, hidden=True)] = None,
    target_harmonized: Annotated[
        Path | None, typer.Option(TARGET_HARMONIZED.option, help=TARGET_HARMONIZED.what)
    ] = None,
    passed: Annotated[Path | None, typer.Option(TARGET_HARMONIZED.old_option, hidden=True)] = None,
    regions: Annotated[
        Literal["squares", "slices"],
        typer.Option(help="Where features are measured: squares, or whole slices."),
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
    ibsi: Annotated[
        bool, typer.Option("--ibsi", help="Compare by IBSI's gray levels too; features take twice.")
    ] = False,
    tolerances: Annotated[
        Path | None, typer.Option(help="A TOML file with tolerances of your own.")
    ] = None,
    fail_on: Annotated[
        Literal["attention", "fail"] | None,
        typer.Option(help="Exit code 1 where the scorecard has such a tile, or a worse one."),
    ] = None,
    cache: Annotated[
        bool, typer.Option(help="Keep features in the user's cache folder and use them again.")
    ] = True,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print report.pdf too, by Chromium, Chrome or Edge.")
    ] = False,
) -> None:
    """Measure how alike the scanners' images are, before and after: metrics.json, report.html."""
    from cvsct.api.evaluate import check_evaluation
    from cvsct.api.evaluate import evaluate as run
    from cvsct.cli.progress import progress

    retest = renamed(RETEST.option, retest, RETEST.old_option, repeat)
    target_harmonized = renamed(
        TARGET_HARMONIZED.option, target_harmonized, TARGET_HARMONIZED.old_option, passed
    )
    add_inputs(harmonized, target, source, retest, target_harmonized)
    if pair and unpaired:
        raise UsageError("--pair and --unpaired exclude each other; give one of them")
    if is_dry_run():
        planned = check_evaluation(
            {HARMONIZED: harmonized, TARGET: target, SOURCE: source, RETEST: retest,
             TARGET_HARMONIZED: target_harmonized},
            [*(masks or ()), *([nodules] if nodules else [])], out, pdf, tolerances,
        )  # fmt: skip
        lines = [f"{name}: {counted(count, 'slice')}" for name, count in planned.items()]
        report_result(
            f"{'; '.join(lines)}; nothing was written (--dry-run)",
            {"out": str(out), "dry_run": True, "slices": planned},
        )
        return
    found = run(
        harmonized, target, source=source, retest=retest, target_harmonized=target_harmonized,
        masks=masks or (), structures=structures or (), nodules=nodules, regions=regions,
        rois=rois, pairing="forced" if pair else "off" if unpaired else "checked", seed=seed,
        workers=workers, ibsi=ibsi, cache=cache, tolerances=tolerances, pdf=pdf, out=out,
        progress=progress(), note=report_note,
    )  # fmt: skip
    report_result(
        f"{found.summary()}\n{found.scorecard.headline}\n{out / 'report.html'}",
        json.loads((out / "metrics.json").read_text(encoding="utf-8")),
    )
    if fail_on and found.scorecard.reaches(fail_on):
        sys.exit(EXIT_FAILED)
