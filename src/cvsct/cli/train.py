"""`cvsct train`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct.cli.words import know, note
from cvsct.errors import GeometryError, SeriesError, UsageError

if TYPE_CHECKING:
    from cvsct.methods import Method
    from cvsct.models.bundle import Bundle


def train(
    method: Annotated[str, typer.Argument(help="A row of `cvsct methods`.")],
    source: Annotated[Path, typer.Option(help="Scans of scanner A: DICOM or NIfTI in any tree.")],
    target: Annotated[Path, typer.Option(help="Scans of scanner B. Other patients are fine.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    preset: Annotated[str, typer.Option(help="paper, stable or cpu.")] = "cpu",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop by wall time.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
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
) -> None:
    """Learn to make scans of A read like scans of B, from unpaired scans."""
    from cvsct.cli.training_set import admitted, refuse_damaged
    from cvsct.inference.calibration import calibrated
    from cvsct.inference.training_set import parse_allowed
    from cvsct.methods import find_method
    from cvsct.models.bundle import CENSUS
    from cvsct.runs import (
        Manifest,
        TrainingRequest,
        is_first_rank,
        new_folder,
        refuse_unknown_preset,
        silent,
    )
    from cvsct.terminal import progress

    row = find_method(method)
    settings = {**row.settings, **_settings(setting or [])}
    refuse_unknown_preset(preset)
    allowed = sorted(parse_allowed(allow or []))
    first, checkpoints = is_first_rank(), "resume" in row.uses
    if not first and not checkpoints:  # one of torchrun's further ranks: nothing to share
        return
    if first:  # the others train and leave files to it
        _refuse_out(out, row, resume, limited=max_steps is not None or max_minutes is not None)
    _refuse_same_path(source, target)
    know(source, target)
    manifest = Manifest(
        f"train {method}",
        {
            "method": method,
            "preset": preset,
            "seed": seed,
            **({"allow": allowed} if allowed else {}),
            **({"skip_refused": True} if skip_refused else {}),
            **settings,
        },
    )
    show = progress() if first else silent
    notes: list[str] = []

    def tell(message: str) -> None:
        if message in notes:
            return
        notes.append(message)
        if first:
            note(f"note: {message}")

    with manifest.timed("finding"):
        learned_from = admitted(source, target, allowed, skip_refused, show, tell, first)
    scans_a, scans_b = learned_from.source, learned_from.target
    asked = {
        "preset": preset != "cpu",
        "max_steps": max_steps is not None,
        "max_minutes": max_minutes is not None,
        "seed": seed != 0,
        "resume": resume,
    }
    if first:
        _note_unused(row, [name for name, given in asked.items() if given])
    request = TrainingRequest(
        method=method,
        out=out,
        settings=settings,
        preset=preset,
        max_steps=max_steps,
        max_minutes=max_minutes,
        seed=seed,
        resume=resume and checkpoints,
        progress=show,
        note=tell,
    )
    with manifest.timed("training"):
        try:
            bundle: Bundle = row.load("trainer")(scans_a, scans_b, request)
        except (SeriesError, GeometryError):
            refuse_damaged(source, target, allowed, show)
            raise
    if not first:
        return
    bundle = replace(bundle, training={**bundle.training, CENSUS: learned_from.census})
    with manifest.timed("guard"):
        bundle = calibrated(
            bundle, (scans_a.series, scans_a.facts), (scans_b.series, scans_b.facts), show, tell,
        )  # fmt: skip
    manifest.inputs = {
        "source": [each.series_uid for each in scans_a.facts],
        "target": [each.series_uid for each in scans_b.facts],
    }
    # a training with checkpoints already has its folder
    with contextlib.nullcontext(out) if checkpoints else new_folder(out) as folder:
        bundle = bundle.write(folder)
        manifest.figures = {**bundle.training, **({"notes": notes} if notes else {})}
        manifest.model_sha256 = bundle.sha256
        manifest.write(folder)
    print(f"{out}: {method} from {bundle.source} to {bundle.target}, sha256 {bundle.sha256[:12]}")


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
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


def _refuse_out(out: Path, row: Method, resume: bool, limited: bool) -> None:
    """Refuse an output folder that is in use, or that there is nothing to go on with.

    Args:
        limited: whether the user said when to stop.
    """
    from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE

    if not resume:
        if (out / CHECKPOINT_FILE).exists() and not (out / SUMS_FILE).exists():
            raise UsageError(f"{out}: holds an unfinished training; go on with --resume")
        _refuse_used(out, row)
    elif (out / SUMS_FILE).exists() and not limited:
        raise UsageError(f"{out}: this training is finished; give a higher --max-steps to go on")


def _refuse_used(out: Path, row: Method) -> None:
    """Refuse an output folder in use; what an interrupted start stored there is taken up."""
    from cvsct.data.domains import CACHE
    from cvsct.runs import refuse_existing

    held = list(out.iterdir()) if out.is_dir() else []
    started = [each for each in held if each.name == CACHE or each.suffix == ".partial"]
    if not ("resume" in row.uses and started and len(started) == len(held)):
        refuse_existing(out)


def _refuse_same_path(source: Path, target: Path) -> None:
    if source.exists() and target.exists() and source.samefile(target):
        raise UsageError(f"source and target are both {source}; give scans of two scanners")


def _note_unused(row: Method, asked: Sequence[str]) -> None:
    for name in asked:
        if name not in row.uses:
            note(f"note: --{name.replace('_', '-')} means nothing to {row.name}")
