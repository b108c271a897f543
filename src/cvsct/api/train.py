"""Training of a model from scans of two scanners, with calibration of its guard."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.api.model import Model
from cvsct.api.profile import SIDE, SIDE_WORDS, open_side
from cvsct.api.training_scans import admit_scans, refuse_damaged
from cvsct.core.download import Confirm, DownloadOptions
from cvsct.core.errors import GeometryError, SeriesError, TrainingError, UsageError
from cvsct.core.files import new_folder, refuse_existing, refuse_missing, refuse_unwritable
from cvsct.core.kinds import refuse_no_path, refuse_other_kind
from cvsct.core.manifest import Manifest
from cvsct.core.progress import Note, Progress, log_note, no_note, silent
from cvsct.core.settings import refuse_outside
from cvsct.core.workers import is_first_rank
from cvsct.guard.calibrate import GuardedSide, ImagedSide, calibrate_guard
from cvsct.guard.training_set import parse_allowed
from cvsct.io.scans import SeriesOnDisk
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import Method, find_method, list_methods
from cvsct.methods.settings import refuse_unknown_preset
from cvsct.model.bundle import CENSUS, CHECKPOINT_FILE, SUMS_FILE, Bundle
from cvsct.profile.file import with_digest
from cvsct.profile.profile import ScannerProfile
from cvsct.training.data.prepare import CACHE

TrainingSide = SeriesOnDisk | ScannerProfile
"""Side of a training: scans that are admitted to it, or a profile."""


def train(
    method: str,
    source: Path | str | ScannerProfile,
    target: Path | str | ScannerProfile,
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
    confirm: Confirm | None = None,
    progress: Progress = silent,
    note: Note = log_note,
    census: Note = log_note,
) -> Model | None:
    """Train a model that maps scans of `source` to the texture of `target`, from unpaired scans.

    The guard of the model is calibrated on the training scans, and the model folder is written.

    Args:
        method: name of a method, as in `list_methods`.
        source: scans of scanner A, DICOM or NIfTI in any tree of folders; or its profile, for
            methods that learn from statistics.
        target: scans or profile of scanner B, likewise; no series may be in both.
        out: the model folder to write.
        preset: preset of a network: `paper`, `stable` or `cpu`.
        settings: further settings of the method, by name.
        seed: seed of all randomness.
        max_steps: number of steps after which the training of a network stops.
        max_minutes: minutes after which the training of a network stops.
        resume: continue from the checkpoint in `out`.
        allow: scans to accept that are refused otherwise: `phantom`, `derived`, `mixed-scanners`.
        skip_refused: leave out series that cannot be used, instead of refusing to train.
        dry_run: check arguments, settings and scans, and report the census; train nothing.
        confirm: called with a question, before scans are read, where the method needs the VGG
            weights that others publish and finds none; returns whether they may be downloaded.
            None downloads nothing unless the settings allow it (`{"domain.download": True}`, of
            `radiomicgan` `{"vgg.download": True}`).
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.
        census: called with a table of the training scans, before training starts.

    Returns:
        The trained model; None after a dry run, and in all ranks of torchrun but the first.

    Raises:
        UsageError: if a method, setting or option does not exist, or `out` is not empty or
            cannot be written.
        RefusedScansError: if scans cannot be used for training; `reasons` has one line for each.
        TrainingError: if the scans are not enough to learn from, VGG weights are missing, or
            training diverged.

    Example:
        >>> trained = cvsct.train("spectrum", scans_of_a, scans_of_b, out)
        >>> trained.method, trained.directions
        ('spectrum', ('a2b', 'b2a'))
    """
    out, row = _out_and_method(method, source, target, out)
    sides = {"source": open_side(source), "target": open_side(target)}
    paths = {name: side for name, side in sides.items() if isinstance(side, Path)}
    profiles = {name: side for name, side in sides.items() if isinstance(side, ScannerProfile)}
    method_settings = {**row.settings, **(settings or {})}
    _refuse_arguments(preset, seed, max_steps, max_minutes)
    allowed = sorted(parse_allowed(allow))
    first, checkpoints = is_first_rank(), "resume" in row.uses
    if not first and not checkpoints:  # one of torchrun's further ranks: nothing to share
        return None
    if first:  # the others train and leave files to it
        _refuse_out(out, row, resume, limited=max_steps is not None or max_minutes is not None)
    _refuse_profiles(row, list(profiles.values()))
    refuse_missing(*paths.values())
    config = row.configure(preset, method_settings)  # reports wrong settings before scans are read
    if len(paths) == len(sides) and paths["source"].samefile(paths["target"]):
        raise UsageError(f"source and target are both {source}; give scans of two scanners")
    manifest = Manifest(
        f"train {method}",
        {
            "method": method,
            "preset": preset,
            "seed": seed,
            **({"allow": allowed} if allowed else {}),
            **({"skip_refused": True} if skip_refused else {}),
            **method_settings,
        },
    )
    progress = progress if first else silent
    row.obtain_files(
        config, DownloadOptions(confirm, dry_run, progress, note if first else no_note)
    )
    notes: list[str] = []

    def remember(message: str) -> None:
        if message not in notes:
            notes.append(message)
            if first:
                note(message)

    with manifest.timed("finding"):
        training_set = admit_scans(
            paths, allowed, skip_refused, progress, remember,
            (note, census) if first else None, profiles,
        )  # fmt: skip
    given_options = {
        "preset": preset != "cpu",
        "max_steps": max_steps is not None,
        "max_minutes": max_minutes is not None,
        "seed": seed != 0,
        "resume": resume,
    }
    for name in (
        name for name, given in given_options.items() if first and given and name not in row.uses
    ):
        note(f"--{name.replace('_', '-')} means nothing to {row.name}")
    if dry_run:
        return None
    request = TrainingRequest(
        method=method,
        out=out,
        settings=method_settings,
        preset=preset,
        max_steps=max_steps,
        max_minutes=max_minutes,
        seed=seed,
        resume=resume and checkpoints,
        progress=progress,
        note=remember,
    )
    given: dict[str, TrainingSide] = {**training_set.scans, **profiles}
    with manifest.timed("training"):
        try:
            bundle = _learn(row, given["source"], given["target"], request)
        except (SeriesError, GeometryError):
            refuse_damaged(paths, allowed, progress)
            raise
    if not first:
        return None
    bundle = replace(bundle, training={**bundle.training, CENSUS: training_set.census})
    with manifest.timed("guard"):
        bundle = calibrate_guard(
            bundle, _guarded(given["source"]), _guarded(given["target"]), progress, remember
        )
    manifest.inputs = {name: _identifiers(given[name]) for name in sides}
    # A training with checkpoints already has its folder.
    with contextlib.nullcontext(out) if checkpoints else new_folder(out) as folder:
        bundle = bundle.write(folder)
        manifest.figures = {**bundle.training, **({"notes": notes} if notes else {})}
        manifest.model_sha256 = bundle.sha256
        manifest.write(folder)
    return Model(bundle, out.absolute())


def _out_and_method(
    method: object, source: object, target: object, out: object
) -> tuple[Path, Method]:
    """The folder to write and the method, when all arguments are of the right kinds.

    Raises:
        UsageError: for the first that is not, or a method that does not exist.
    """
    refuse_other_kind(str, "a name of list_methods", method=method)
    refuse_other_kind(SIDE, SIDE_WORDS, source=source, target=target)
    refuse_no_path(out=out)
    return Path(str(out)), find_method(str(method))


MOST_LOG_GAIN = 20.0
"""Largest log gain of a fit that is believed; kernels reach 5 where no structure is left."""


def _refuse_profiles(row: Method, profiles: Sequence[ScannerProfile]) -> None:
    """Refuse profiles for a method that learns from images.

    Raises:
        UsageError: naming the methods that learn from profiles.
    """
    if profiles and row.fit is None:
        able = ", ".join(other.name for other in list_methods() if other.fit is not None)
        raise UsageError(f"{row.name} learns from images, not from a profile; {able} can")
    if len({with_digest(profile).sha256 for profile in profiles}) < len(profiles):
        raise UsageError("source and target are one profile; give those of two scanners")


def _learn(
    row: Method, source: TrainingSide, target: TrainingSide, request: TrainingRequest
) -> Bundle:
    """Train a method; only one that is fitted to statistics takes sides without scans."""
    if row.fit is not None:
        a, b = (
            side.side if isinstance(side, ScannerProfile) else side for side in (source, target)
        )
        try:
            bundle = row.fit(a, b, request)
        except (np.linalg.LinAlgError, OverflowError) as error:
            raise TrainingError(
                f"the statistics of the sides cannot be fitted ({error}); measure them again"
            ) from None
        _refuse_absurd(bundle)
        return bundle
    if isinstance(source, ScannerProfile) or isinstance(target, ScannerProfile):
        raise TypeError(f"{row.name} given a profile")  # refused before scans were read
    return row.train(source, target, request)


def _refuse_absurd(bundle: Bundle) -> None:
    """Refuse a fit that no scanners can have.

    Raises:
        TrainingError: if a value is not finite, or a gain beyond any sense.
    """
    for name, values in bundle.weights.items():
        largest = float(np.abs(values).max(initial=0.0))
        if not largest < (MOST_LOG_GAIN if "log_gain" in name else np.inf):
            raise TrainingError(
                f"the fit gives {name} up to {largest:.3g}, which no scanners have; check the "
                "profiles"
            )


def _guarded(side: TrainingSide) -> GuardedSide:
    """A side as its guard is calibrated."""
    if isinstance(side, ScannerProfile):
        return side.reference
    return ImagedSide(side.series, side.facts)


def _identifiers(side: TrainingSide) -> list[str]:
    """Series of a side, or the hash of its profile."""
    if isinstance(side, ScannerProfile):
        return [with_digest(side).sha256]
    return [facts.series_uid for facts in side.facts]


def _refuse_arguments(
    preset: str, seed: int, max_steps: int | None, max_minutes: float | None
) -> None:
    """Refuse values that no training has."""
    refuse_unknown_preset(preset)
    refuse_outside(0, seed=seed, max_minutes=max_minutes)
    refuse_outside(1, max_steps=max_steps)


def _refuse_out(out: Path, row: Method, resume: bool, limited: bool) -> None:
    """Refuse an output folder that is in use or unwritable, or a finished training to be resumed.

    Args:
        limited: whether the user gave a number of steps or minutes.

    Raises:
        UsageError: naming the folder and the remedy.
    """
    refuse_unwritable(out, grows="resume" in row.uses)
    finished = (out / SUMS_FILE).exists()
    if resume:
        if finished and not limited:
            raise UsageError(
                f"{out}: this training is finished; give a higher --max-steps to go on"
            )
        return
    if (out / CHECKPOINT_FILE).exists() and not finished:
        raise UsageError(f"{out}: holds an unfinished training; go on with --resume")
    contents = list(out.iterdir()) if out.is_dir() else []
    reusable = [path for path in contents if path.name == CACHE or path.suffix == ".partial"]
    if not ("resume" in row.uses and reusable and len(reusable) == len(contents)):
        refuse_existing(out)  # files of an interrupted start are used again
