"""`cvsct train`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cvsct.cli.command import complete_method
from cvsct.cli.console import (
    add_inputs,
    is_dry_run,
    report_error,
    report_note,
    report_result,
    report_table,
)
from cvsct.cli.question import Yes, confirm_download
from cvsct.core.errors import RefusedScansError, UsageError


def train(
    method: Annotated[
        str, typer.Argument(help="A row of `cvsct methods`.", autocompletion=complete_method)
    ],
    source: Annotated[Path, typer.Option(help="Scans of scanner A: DICOM or NIfTI; or a profile.")],
    target: Annotated[
        Path, typer.Option(help="Scans of scanner B, or a profile. Other patients are fine.")
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    preset: Annotated[
        Literal["paper", "stable", "cpu"], typer.Option(help="Settings of a network's training.")
    ] = "cpu",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop by wall time.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, patches and noise.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT's checkpoint.")] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD", help="Learn all the same from: phantom, derived, mixed-scanners."
        ),
    ] = None,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Leave out series that must be refused.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Learn to make scans of A look like scans of B, from unpaired scans.

    Methods that `cvsct methods` calls paired need the same bodies, at the same places, on both
    sides.
    """
    from cvsct.api.train import train as run
    from cvsct.cli.progress import progress

    add_inputs(source, target)
    try:
        model = run(
            method, source, target, out, preset=preset, settings=parse_settings(setting or []),
            seed=seed, max_steps=max_steps, max_minutes=max_minutes, resume=resume,
            allow=allow or (), skip_refused=skip_refused, dry_run=is_dry_run(),
            confirm=confirm_download(yes), progress=progress(), note=report_note,
            census=report_table,
        )  # fmt: skip
    except RefusedScansError as error:
        for reason in error.reasons[1:]:
            report_error(reason)
        raise
    if model:
        report_result(
            f"{out}: {method} from {model.source} to {model.target}, sha256 {model.sha256[:12]}",
            {
                "out": str(out), "method": method, "source": model.source,
                "target": model.target, "directions": list(model.directions),
                "sha256": model.sha256, "settings": model.bundle.settings,
                "training": model.bundle.training,
            },
        )  # fmt: skip
    elif is_dry_run():
        report_result(
            f"{out}: {method} can be trained from these scans; nothing was written (--dry-run)",
            {"out": str(out), "method": method, "dry_run": True},
        )


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; values that read as JSON are taken as such, others as text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes key=value, not {pair!r}")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings
