"""Alternating training of GANai: phases of generator and discriminators, and kept networks.

Liang et al., bioRxiv 460188, 2018, and its authors' public code: training goes in phases. In one
only the discriminators learn, until they tell real from translated without doubt; in the next only
the generator, until it convinces them and also those of the phase before ("every G has to fool two
Ds"). A discriminator is also shown what the generator of the phase before made ("every D was
trained with two Gs"), in three steps of ten. Discriminators begin. A phase ends here at the latest
after so many steps, which is not published: with a large L1 weight a generator need not ever
convince. Left out: the choice of easy patches for the one phase and hard ones for the other.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from cvsct.core.settings import Settings

Turn = Literal["both", "critics", "generator"]
State = dict[str, Tensor]


class AlternationConfig(Settings):
    """Settings of the alternation of generator and discriminators."""

    phase_steps: int = Field(default=0, ge=0)
    """A phase has at most so many steps; 0 has no phases, both learn in each step."""

    enough: float = Field(default=0.95, gt=0.5, lt=1)
    """A phase ends before when discriminators read so much for what they should call real, and
    what is missing to 1 for what they should not."""

    keep: int = Field(default=1, ge=0)
    """How many earlier networks of each kind are kept and used."""

    earlier_share: float = Field(default=0.3, ge=0, le=1)
    """In how many steps discriminators are shown what an earlier generator made."""


class Alternation:
    """State of the alternation: whose turn it is, since when, and weights of earlier networks."""

    def __init__(self, config: AlternationConfig) -> None:
        self.config = config
        self.turn: Turn = "critics" if config.phase_steps else "both"
        self.steps = 0
        self.kept: dict[str, list[State]] = {}

    def earlier(self, name: str) -> list[State]:
        """Weights of the earlier networks of that name, the latest last."""
        return self.kept.get(name, [])

    def generator_to_show(self, name: str, rng: np.random.Generator) -> State | None:
        """Weights of an earlier generator whose images are shown in this step, or None."""
        earlier = self.earlier(name)
        if not earlier or rng.random() >= self.config.earlier_share:
            return None
        return earlier[int(rng.integers(len(earlier)))]

    def convinced(self, of_real: float, of_fake: float) -> bool:
        """Whether the mean scores of the discriminators reach the goal of this phase."""
        if self.turn == "generator":
            return of_fake > self.config.enough
        return of_real > self.config.enough and of_fake < 1 - self.config.enough

    def end_step(self, convinced: bool, resting: dict[str, nn.Module]) -> bool:
        """Count a step; at the end of a phase keep copies of who rested, for it learns next.

        Returns:
            Whether the phase has ended.
        """
        self.steps += 1
        if not convinced and self.steps < self.config.phase_steps:
            return False
        if self.config.keep:
            for name, net in resting.items():
                copy = {key: value.detach().clone() for key, value in net.state_dict().items()}
                self.kept[name] = [*self.earlier(name), copy][-self.config.keep :]
        self.turn = "generator" if self.turn == "critics" else "critics"
        self.steps = 0
        return True

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"turn": self.turn, "steps": self.steps, "kept": self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.turn, self.steps, self.kept = state["turn"], state["steps"], state["kept"]
