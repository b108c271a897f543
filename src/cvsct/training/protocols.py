"""Protocols of a family of methods for the training loop: step, batches and validator."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor

from cvsct.training.logging import Picture


@runtime_checkable
class Step(Protocol):
    """One training step of a method, called until the training ends."""

    def __call__(
        self, a: Any, b: Any, fraction_done: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """Train on one batch of each domain; returns loss terms and what else is to be logged."""

    def weights(self) -> dict[str, Tensor]:
        """Weights of the model if the training ended now."""

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""


@runtime_checkable
class Batches(Protocol):
    """Source of the batches that a step is trained on."""

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw this rank's slice of the next batch of each domain, in [-1, 1] of the HU window."""


AnyStep = TypeVar("AnyStep", bound=Step)
MeasuredStep_contra = TypeVar("MeasuredStep_contra", contravariant=True)


@runtime_checkable
class Validator(Protocol[MeasuredStep_contra]):
    """Validation of a step's model, by figures and by pictures."""

    def __call__(self, step: MeasuredStep_contra, /) -> dict[str, float]:
        """Figures; `score` decides which model is kept, the lowest, and the rest is logged."""

    def pictures(self, step: MeasuredStep_contra, /) -> dict[str, Picture]:
        """Images in [0, 1] by name."""
