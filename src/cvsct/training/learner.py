"""Adam over some of a step's networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from cvsct.training.distributed import Ranks


class Learner:
    """One optimiser: gradients averaged over the ranks, and a rate that falls to 0 at the end.

    Args:
        nets: networks by name; it learns all their parameters.
        rate: learning rate at the beginning.
        betas: Adam's.
        decay_from: the fraction of the training after which the rate falls linearly; 1 is never.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        rate: float,
        betas: tuple[float, float],
        decay_from: float,
        ranks: Ranks,
    ) -> None:
        self.parameters = {name: list(net.parameters()) for name, net in nets.items()}
        self.start, self.decay_from, self.ranks = rate, decay_from, ranks
        everything = [p for parameters in self.parameters.values() for p in parameters]
        self.adam = torch.optim.Adam(everything, lr=rate, betas=betas, fused=True)

    def clear(self) -> None:
        """Forget gradients; those of several backward passes add up until then."""
        self.adam.zero_grad(set_to_none=True)

    def learn(self, fraction_done: float) -> dict[str, Tensor]:
        """Move the weights by the gradients gathered.

        Returns:
            Norm of each network's gradient over the whole batch.
        """
        gradients = {
            name: [p.grad for p in parameters if p.grad is not None]
            for name, parameters in self.parameters.items()
        }
        self.ranks.average_([each for some in gradients.values() for each in some])
        for group in self.adam.param_groups:
            group["lr"] = self.rate(fraction_done)
        self.adam.step()
        return {name: get_total_norm(some) for name, some in gradients.items()}

    def rate(self, fraction_done: float) -> float:
        """The learning rate when so much of the training is over."""
        if fraction_done <= self.decay_from:
            return self.start
        return self.start * max(0.0, (1 - fraction_done) / (1 - self.decay_from))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self.adam.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        self.adam.load_state_dict(state)
