"""What trainers and loaders of methods without a network share: settings, checks, the bundle."""

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

AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True)
class TrainingRequest:
    """What `cvsct train` asks of a method.

    Args:
        method: row of the METHODS table.
        out: the model folder; trainings that checkpoint keep their state in it.
        settings: the row's own settings, then the user's `--set key=value` over them.
        preset: `paper`, `stable` or `cpu`.
        max_steps: stop after so many optimiser steps.
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
    """How a model is run; methods without a network run one way only.

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
    """What makes a model of the scans of two sides."""

    def __call__(self, source: Scans, target: Scans, request: TrainingRequest, /) -> Bundle:
        """Learn from the scans.

        Raises:
            CvsctError: if nothing can be learned from them.
        """
        ...


@runtime_checkable
class Loader(Protocol):
    """What makes of a model that which maps volumes in one direction."""

    def __call__(
        self, bundle: Bundle, direction: Direction, options: RunOptions, /
    ) -> VolumeMapping:
        """Prepare the model.

        Raises:
            CvsctError: if it cannot be run here.
        """
        ...


def settings_in(kind: type[AnySettings], bundle: Bundle) -> AnySettings:
    """The settings a model was trained with.

    Raises:
        ModelError: if this version does not know them.
    """
    try:
        return kind.model_validate(bundle.settings)
    except ValidationError as error:
        raise ModelError(
            f"a {bundle.method} model with settings this version does not know; train it again"
        ) from error


def need_scans(source: Scans, target: Scans) -> None:
    """Refuse a side without scans.

    Raises:
        TrainingError: if a side has none.
    """
    for name, scans in (("source", source), ("target", target)):
        if len(scans) == 0:
            raise TrainingError(f"no {name} scans; give at least one series")


def weights_of(bundle: Bundle, *names: str) -> list[Float[np.ndarray, "..."]]:
    """Arrays of a model, in double precision.

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


def need_curves(bundle: Bundle, *curves: Float[np.ndarray, "..."]) -> None:
    """Refuse arrays that are not curves over the same points, two at least.

    Raises:
        ModelError: if they are not.
    """
    shapes = {curve.shape for curve in curves}
    need_fit(bundle, len(shapes) == 1 and curves[0].ndim == 1 and len(curves[0]) > 1)


def need_fit(bundle: Bundle, fits: bool) -> None:
    """Refuse a model whose arrays do not fit each other.

    Raises:
        ModelError: if they do not.
    """
    if not fits:
        raise ModelError(
            f"a {bundle.method} model whose weights do not fit each other; train it again with "
            f"`cvsct train {bundle.method}`"
        )


def bundle_of(
    source: Scans,
    target: Scans,
    request: TrainingRequest,
    settings: Settings,
    weights: dict[str, np.ndarray],
    figures: dict[str, Any],
) -> Bundle:
    """The model of a training."""
    return Bundle(
        method=request.method,
        settings=settings.model_dump(mode="json"),
        weights=weights,
        source=Domain.of(source),
        target=Domain.of(target),
        training={"preset": request.preset, "seed": request.seed, **figures},
    )
