"""What a family of methods brings to a training: a step, its batches, and a validator."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor

from cvsct.training.logging import Picture


@runtime_checkable
class Step(Protocol):
    """What a training repeats."""

    def __call__(
        self, a: Any, b: Any, fraction_done: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """Train on one batch of each domain; returns loss terms and what else is to be logged."""

    def weights(self) -> dict[str, Tensor]:
        """What the model would be if the training ended now."""

    def state(self) -> dict[str, Any]:
        """All that must survive a restart."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state."""


@runtime_checkable
class Batches(Protocol):
    """What a step is trained on."""

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw this rank's slice of the next batch of each domain, in [-1, 1] of the HU window."""


AnyStep = TypeVar("AnyStep", bound=Step)
MeasuredStep_contra = TypeVar("MeasuredStep_contra", contravariant=True)


@runtime_checkable
class Validator(Protocol[MeasuredStep_contra]):
    """Measures a step's model, and shows what it does."""

    def __call__(self, step: MeasuredStep_contra, /) -> dict[str, float]:
        """Figures; `score` decides which model is kept, the lowest, and the rest is logged."""

    def pictures(self, step: MeasuredStep_contra, /) -> dict[str, Picture]:
        """Images in [0, 1] by name."""
