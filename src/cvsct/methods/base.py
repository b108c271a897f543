"""Interfaces of every method, and common parts of trainers and loaders without a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float
from pydantic import ValidationError

from cvsct.core.errors import ModelError, TrainingError
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.settings import Settings
from cvsct.core.volume import Scans
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle, Direction, Domain

RETIRED = frozenset({"classes", "local_mm"})
"""Settings of fits in models up to 0.2 that no longer exist; they do not matter once fitted."""

AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True)
class TrainingRequest:
    """Request to train one method: settings, limits, output folder and callbacks.

    Args:
        method: row of the METHODS table.
        out: the model folder; trainings that checkpoint keep their state in it.
        settings: the row's own settings, then the user's `--set key=value` over them.
        preset: `paper`, `stable` or `cpu`.
        max_steps: stop after so many optimizer steps.
        max_minutes: stop after so much wall time.
        resume: go on from the checkpoint in `out`.
    """

    method: str
    out: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "cpu"
    max_steps: int | None = None
    max_minutes: float | None = None
    seed: int = 0
    resume: bool = False
    progress: Progress = silent
    note: Note = log_note


@dataclass(frozen=True)
class RunOptions:
    """Options for running a model; methods that train no network ignore them.

    Args:
        engine: `auto`, `openvino` or `torch`.
        precision: `fp32` or `bf16`.
        threads: of the processor; 0 leaves it to the engine.
    """

    engine: str = "auto"
    precision: str = "fp32"
    threads: int = 0


@runtime_checkable
class Trainer(Protocol):
    """Function that trains a model from the scans of source and target."""

    def __call__(self, source: Scans, target: Scans, request: TrainingRequest, /) -> Bundle:
        """Train on the scans.

        Raises:
            CvsctError: if nothing can be learned from them.
        """
        ...


@runtime_checkable
class Loader(Protocol):
    """Function that makes a volume mapping of a model for one direction."""

    def __call__(
        self, bundle: Bundle, direction: Direction, options: RunOptions, /
    ) -> VolumeMapping:
        """Prepare the model.

        Raises:
            CvsctError: if it cannot be run here.
        """
        ...


def bundle_settings(kind: type[AnySettings], bundle: Bundle) -> AnySettings:
    """Read the settings a model was trained with.

    Raises:
        ModelError: if this version does not know them.
    """
    known = {name: value for name, value in bundle.settings.items() if name not in RETIRED}
    try:
        return kind.model_validate(known)
    except ValidationError as error:
        raise ModelError(
            f"a {bundle.method} model with settings this version does not know; train it again"
        ) from error


def require_scans(side: str, scans: Scans) -> None:
    """Raise if a side has no scans.

    Raises:
        TrainingError: if it has none.
    """
    if len(scans) == 0:
        raise TrainingError(f"no {side} scans; give at least one series")


def bundle_weights(bundle: Bundle, *names: str) -> list[Float[np.ndarray, "..."]]:
    """Read arrays of a model by name, in double precision.

    Raises:
        ModelError: if it lacks one.
    """
    missing = [name for name in names if name not in bundle.weights]
    if missing:
        raise ModelError(
            f"a {bundle.method} model without {', '.join(missing)}; train it again with "
            f"`cvsct train {bundle.method}`"
        )
    return [bundle.weights[name].astype(np.float64) for name in names]


def require_curves(bundle: Bundle, *curves: Float[np.ndarray, "..."]) -> None:
    """Raise unless all arrays are curves over the same points, at least two.

    Raises:
        ModelError: if they are not.
    """
    shapes = {curve.shape for curve in curves}
    require_consistent(bundle, len(shapes) == 1 and curves[0].ndim == 1 and len(curves[0]) > 1)


def require_consistent(bundle: Bundle, fits: bool) -> None:
    """Raise unless the arrays of a model fit each other.

    Raises:
        ModelError: if they do not.
    """
    if not fits:
        raise ModelError(
            f"a {bundle.method} model whose weights do not fit each other; train it again with "
            f"`cvsct train {bundle.method}`"
        )


def make_bundle(
    source: Domain,
    target: Domain,
    request: TrainingRequest,
    settings: Settings,
    weights: dict[str, np.ndarray],
    figures: dict[str, Any],
) -> Bundle:
    """Bundle of a trained model without a network."""
    return Bundle(
        method=request.method,
        settings=settings.model_dump(mode="json"),
        weights=weights,
        source=source,
        target=target,
        training={"preset": request.preset, "seed": request.seed, **figures},
    )
