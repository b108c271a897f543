"""Scans of two scanners to a model: looked at, learned from, guarded, written."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvsct.api.model import Model
from cvsct.api.training_scans import admitted, refuse_damaged
from cvsct.core.errors import GeometryError, SeriesError, UsageError
from cvsct.core.files import new_folder, refuse_existing, refuse_missing
from cvsct.core.manifest import Manifest
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.workers import is_first_rank
from cvsct.guard.calibrate import calibrate_guard
from cvsct.guard.training_set import parse_allowed
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import Method, find_method
from cvsct.methods.settings import refuse_unknown_preset
from cvsct.model.bundle import CENSUS, CHECKPOINT_FILE, SUMS_FILE
from cvsct.training.data.prepare import CACHE


def train(
    method: str,
    source: Path | str,
    target: Path | str,
    out: Path | str,
    *,
    preset: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    allow: Sequence[str] = (),
    skip_refused: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
    census: Note = log_note,
) -> Model | None:
    """Learn to make scans of `source` read like scans of `target`, from unpaired scans.

    The model's guard is calibrated on the scans it learned from, and its folder is written.

    Args:
        method: a row of `list_methods`.
        source, target: scans of scanner A and of scanner B, DICOM or NIfTI in any tree.
        out: the model folder to write.
        preset: `paper`, `stable` or `cpu`, for networks.
        settings: further settings of the method by name.
        seed: of everything random.
        max_steps, max_minutes: when a network's training stops.
        resume: go on from the checkpoint in `out`.
        allow: learn all the same from `phantom`, `derived`, `mixed-scanners`.
        skip_refused: leave out series that must be refused, instead of refusing them all at once.
        dry_run: check arguments, settings and scans, tell the census; learn and write nothing.
        progress, note: told of the work's state, and of what a user should know.
        census: told the table of what is learned from, before it is.

    Returns:
        The model, as `load_model` reads it; None in torchrun's further ranks, which write nothing,
        and of a dry run.

    Raises:
        UsageError: for methods, settings or options that do not exist, or an `out` in use.
        RefusedScansError: if scans must be refused, with every reason.
        TrainingError: if nothing can be learned from the scans, or training diverged.

    Example:
        >>> trained = cvsct.train("spectrum", scans_of_a, scans_of_b, out)
        >>> trained.method, trained.directions
        ('spectrum', ('a2b', 'b2a'))
    """
    source, target, out = Path(source), Path(target), Path(out)
    row = find_method(method)
    chosen = {**row.settings, **(settings or {})}
    refuse_unknown_preset(preset)
    allowed = sorted(parse_allowed(allow))
    first, checkpoints = is_first_rank(), "resume" in row.uses
    if not first and not checkpoints:  # one of torchrun's further ranks: nothing to share
        return None
    if first:  # the others train and leave files to it
        _refuse_out(out, row, resume, limited=max_steps is not None or max_minutes is not None)
    refuse_missing(source, target)
    row.configure(preset, chosen)  # so that what is wrong with it is told before scans are read
    if source.samefile(target):
        raise UsageError(f"source and target are both {source}; give scans of two scanners")
    manifest = Manifest(
        f"train {method}",
        {
            "method": method,
            "preset": preset,
            "seed": seed,
            **({"allow": allowed} if allowed else {}),
            **({"skip_refused": True} if skip_refused else {}),
            **chosen,
        },
    )
    progress = progress if first else silent
    notes: list[str] = []

    def remember(message: str) -> None:
        if message not in notes:
            notes.append(message)
            if first:
                note(message)

    with manifest.timed("finding"):
        learned_from = admitted(
            source, target, allowed, skip_refused, progress, remember,
            (note, census) if first else None,
        )  # fmt: skip
    asked = {
        "preset": preset != "cpu",
        "max_steps": max_steps is not None,
        "max_minutes": max_minutes is not None,
        "seed": seed != 0,
        "resume": resume,
    }
    for name in (name for name, given in asked.items() if first and given and name not in row.uses):
        note(f"--{name.replace('_', '-')} means nothing to {row.name}")
    if dry_run:
        return None
    request = TrainingRequest(
        method=method,
        out=out,
        settings=chosen,
        preset=preset,
        max_steps=max_steps,
        max_minutes=max_minutes,
        seed=seed,
        resume=resume and checkpoints,
        progress=progress,
        note=remember,
    )
    scans_a, scans_b = learned_from.source, learned_from.target
    with manifest.timed("training"):
        try:
            bundle = row.train(scans_a, scans_b, request)
        except (SeriesError, GeometryError):
            refuse_damaged(source, target, allowed, progress)
            raise
    if not first:
        return None
    bundle = replace(bundle, training={**bundle.training, CENSUS: learned_from.census})
    with manifest.timed("guard"):
        bundle = calibrate_guard(
            bundle, (scans_a.series, scans_a.facts), (scans_b.series, scans_b.facts), progress,
            remember,
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
    return Model(bundle, out.absolute())


def _refuse_out(out: Path, row: Method, resume: bool, limited: bool) -> None:
    """Refuse an output folder that is in use, or that there is nothing to go on with.

    Args:
        limited: whether the user said when to stop.
    """
    finished = (out / SUMS_FILE).exists()
    if resume:
        if finished and not limited:
            raise UsageError(
                f"{out}: this training is finished; give a higher --max-steps to go on"
            )
        return
    if (out / CHECKPOINT_FILE).exists() and not finished:
        raise UsageError(f"{out}: holds an unfinished training; go on with --resume")
    held = list(out.iterdir()) if out.is_dir() else []
    started = [each for each in held if each.name == CACHE or each.suffix == ".partial"]
    if not ("resume" in row.uses and started and len(started) == len(held)):
        refuse_existing(out)  # what an interrupted start stored there is taken up
