"""`cvsct train`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct.cli.left_out import tell_left_out
from cvsct.cli.words import know, note
from cvsct.errors import UsageError

if TYPE_CHECKING:
    from cvsct.io.scans import SeriesOnDisk
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
) -> None:
    """Learn to make scans of A read like scans of B, from unpaired scans."""
    from cvsct.inference.calibration import calibrated
    from cvsct.io.scans import open_scans
    from cvsct.methods import find_method
    from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE
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
    first, checkpoints = is_first_rank(), "resume" in row.uses
    if not first:  # one of torchrun's further ranks: it trains and leaves files to the first
        if not checkpoints:
            return
    elif not resume:
        if (out / CHECKPOINT_FILE).exists() and not (out / SUMS_FILE).exists():
            raise UsageError(f"{out}: holds an unfinished training; go on with --resume")
        _refuse_used(out, row)
    elif (out / SUMS_FILE).exists() and max_steps is None and max_minutes is None:
        raise UsageError(f"{out}: this training is finished; give a higher --max-steps to go on")
    _refuse_same_path(source, target)
    manifest = Manifest(
        f"train {method}", {"method": method, "preset": preset, "seed": seed, **settings}
    )
    with manifest.timed("finding"):
        know(source, target)
        scans_a, scans_b = open_scans(source), open_scans(target)
    if first:
        tell_left_out(scans_a.left_out, "source")
        tell_left_out(scans_b.left_out, "target")
    _refuse_same_series(scans_a, scans_b)
    asked = {
        "preset": preset != "cpu",
        "max_steps": max_steps is not None,
        "max_minutes": max_minutes is not None,
        "seed": seed != 0,
        "resume": resume,
    }
    if first:
        _note_unused(row, [name for name, given in asked.items() if given])
    notes: list[str] = []

    def tell(message: str) -> None:
        notes.append(message)
        note(f"note: {message}")

    request = TrainingRequest(
        method=method,
        out=out,
        settings=settings,
        preset=preset,
        max_steps=max_steps,
        max_minutes=max_minutes,
        seed=seed,
        resume=resume and checkpoints,
        progress=progress() if first else silent,
        note=tell,
    )
    with manifest.timed("training"):
        bundle: Bundle = row.load("trainer")(scans_a, scans_b, request)
    if not first:
        return
    with manifest.timed("guard"):
        bundle = calibrated(
            bundle, (scans_a.series, scans_a.facts), (scans_b.series, scans_b.facts), progress(),
            tell,
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


def _refuse_same_series(source: SeriesOnDisk, target: SeriesOnDisk) -> None:
    both = {each.series_uid for each in source.facts} & {each.series_uid for each in target.facts}
    if both:
        raise UsageError(
            f"{len(both)} series lie in both source and target; give scans of two scanners"
        )


def _note_unused(row: Method, asked: Sequence[str]) -> None:
    for name in asked:
        if name not in row.uses:
            note(f"note: --{name.replace('_', '-')} means nothing to {row.name}")
