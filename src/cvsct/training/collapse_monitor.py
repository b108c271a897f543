"""Detection of a collapsed discriminator, which no longer teaches the generators anything.

With least squares a discriminator at chance reads about 0.25 and that is success: it cannot tell
translated patches from real ones. Two other states are failures and never end by themselves.
*Won*: the loss stays next to 0, real and translated patches are told apart without doubt, and the
score no longer depends on how good a translation is. *Stuck*: it has no gradient, so that it
neither learns nor teaches: a saturated sigmoid, or an input the network cannot see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from cvsct.core.errors import TrainingError
from cvsct.core.settings import Settings

NO_GRADIENT = 1e-5
"""Norm of a discriminator's gradient; one that still learns has 1e-2 and more, also at chance."""


class CollapseConfig(Settings):
    """When a training is stopped because a discriminator has collapsed."""

    dead_steps: int = Field(default=3000, ge=0)
    """So many steps in a row in one of the two states, won or stuck; 0 never gives up."""

    dead_loss: float = Field(default=0.005, ge=0)
    """The loss below which a discriminator has won. Chance is 0.25."""


class CollapseMonitor:
    """Monitor of discriminators by their loss and gradient norm, step by step."""

    def __init__(self, config: CollapseConfig) -> None:
        self.config = config
        self.won: dict[str, int] = {}
        self.stuck: dict[str, int] = {}

    def check(self, losses: Mapping[str, float], gradients: Mapping[str, float]) -> None:
        """Check one step: each discriminator's loss and gradient norm by its name.

        Raises:
            TrainingError: for a discriminator that has been collapsed for too many steps.
        """
        for name, loss in losses.items():
            won, stuck = loss < self.config.dead_loss, gradients[name] <= NO_GRADIENT
            self.won[name] = self.won.get(name, 0) + 1 if won else 0
            self.stuck[name] = self.stuck.get(name, 0) + 1 if stuck else 0
            self._refuse_dead(name, loss)

    def _refuse_dead(self, name: str, loss: float) -> None:
        steps = self.config.dead_steps
        if steps and self.won[name] >= steps:
            raise TrainingError(
                f"{name} has won: its loss has stayed below {self.config.dead_loss:g} for {steps} "
                "steps, the generators can learn nothing from it; lower "
                "learning_rate_discriminator, give a smaller discriminator.widths, or raise "
                "weight_adversarial (health.dead_steps=0 goes on regardless)"
            )
        if steps and self.stuck[name] >= steps:
            raise TrainingError(
                f"{name} is stuck: it has had no gradient for {steps} steps, its loss is "
                f"{loss:.4g} (a saturated sigmoid, or an input it cannot see); set "
                "discriminator.sigmoid=false, change discriminator.input_gain, or lower "
                "learning_rate_discriminator (health.dead_steps=0 goes on regardless)"
            )

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"won": dict(self.won), "stuck": dict(self.stuck)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.won, self.stuck = dict(state["won"]), dict(state["stuck"])
