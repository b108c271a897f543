"""Networks of a training step with their optimizers, shared by all families of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import get_total_norm

from cvsct.networks.winograd import train_directly
from cvsct.training import losses
from cvsct.training.distributed import Ranks
from cvsct.training.settings import TrainingConfig

Images = Float[Tensor, "n 1 h w"]


class NetworkOptimizer:
    """Adam optimizer of some networks, with gradients averaged over ranks and a decaying rate.

    Args:
        nets: networks by name; all their parameters are trained.
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

    def zero_grad(self) -> None:
        """Reset gradients; those of several backward passes add up until then."""
        self.adam.zero_grad(set_to_none=True)

    def update(self, fraction_done: float) -> dict[str, Tensor]:
        """Update the weights by the accumulated gradients.

        Returns:
            Norm of each network's gradient over the whole batch.
        """
        gradients = {
            name: [p.grad for p in parameters if p.grad is not None]
            for name, parameters in self.parameters.items()
        }
        self.ranks.average_([gradient for group in gradients.values() for gradient in group])
        for group in self.adam.param_groups:
            group["lr"] = self.rate(fraction_done)
        self.adam.step()
        return {name: get_total_norm(group) for name, group in gradients.items()}

    def rate(self, fraction_done: float) -> float:
        """Learning rate at a fraction of the training."""
        if fraction_done <= self.decay_from:
            return self.start
        return self.start * max(0.0, (1 - fraction_done) / (1 - self.decay_from))

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return self.adam.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.adam.load_state_dict(state)


class NetworkSet:
    """Networks on their device, one optimizer for each group of them, and averaged weights.

    Args:
        nets: every network by its name; their weights become the first rank's.
        models: names of those that a model is made of: `a2b`, or `a2b` and `b2a`.
        trained: for each optimizer by name, the networks it trains and its learning rate.
        ranks: the processes that train together.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        models: Sequence[str],
        trained: Mapping[str, tuple[Sequence[str], float]],
        config: TrainingConfig,
        ranks: Ranks,
    ) -> None:
        self.config, self.ranks, self.device = config, ranks, ranks.device
        self.models = tuple(models)
        self.nets = nn.ModuleDict(nets)
        if config.convolution == "direct":
            train_directly(self.nets)
        self.nets.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        ranks.broadcast_(self.nets.state_dict().values())
        self.averaged = {name: tensor.clone() for name, tensor in self.model_state().items()}
        betas = (config.beta1, config.beta2)
        self.optimizers = {
            name: NetworkOptimizer(
                {net: self.nets[net] for net in names}, rate, betas, config.decay_from, ranks
            )
            for name, (names, rate) in trained.items()
        }
        self.bf16 = config.precision == "bf16" or (
            config.precision == "auto" and bf16_is_fast(ranks.device)
        )

    def to_device(self, images: Images) -> Images:
        """Images on the networks' device, in the memory layout that convolutions are fastest on."""
        moved: Tensor = images.to(self.device, memory_format=torch.channels_last)
        return moved

    def precision(self) -> torch.autocast:
        """Context in which networks run: bf16 where that is fast or asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def set_trainable(self, names: Sequence[str], trainable: bool) -> None:
        """Set whether gradients are computed for these networks' weights."""
        for name in names:
            self.nets[name].requires_grad_(trainable)

    def backward(self, terms: Mapping[str, Tensor], parts: int) -> dict[str, Tensor]:
        """Add the gradients of one part of a batch; returns its terms without their graph."""
        loss = torch.stack(list(terms.values())).sum() / parts
        loss.backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    def rates(self, fraction_done: float) -> dict[str, float]:
        """Each optimizer's learning rate, to be logged."""
        return {
            f"rate_{name}": optimizer.rate(fraction_done)
            for name, optimizer in self.optimizers.items()
        }

    def read_out(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Values as numbers, averaged over the ranks, in one transfer from the device."""
        stacked = torch.stack([losses.at_least_single(value) for value in values.values()])
        self.ranks.average_([stacked])
        return dict(zip(values, stacked.tolist(), strict=True))

    @torch.no_grad()
    def update_average(self) -> None:
        """Update the running average of the models' weights."""
        for name, tensor in self.model_state().items():
            self.averaged[name].lerp_(tensor, 1 - self.config.average)

    def model_state(self) -> dict[str, Tensor]:
        """Weights of the models as trained, by `a2b.` and `b2a.` names."""
        return {
            f"{name}.{key}": tensor
            for name in self.models
            for key, tensor in self.nets[name].state_dict().items()
        }

    @torch.no_grad()
    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Set the models' weights, and their running average, to those of a finished model.

        Args:
            weights: by the names of `model_state`, all of them.
        """
        for name, tensor in self.model_state().items():
            tensor.copy_(weights[name])
        self.ranks.broadcast_(self.model_state().values())
        for name, tensor in self.model_state().items():
            self.averaged[name].copy_(tensor)

    @torch.no_grad()
    def translate(self, direction: str, images: Images) -> Images:
        """Translate images with the averaged weights, as the finished model would.

        Args:
            direction: `a2b` or `b2a`.
        """
        prefix = f"{direction}."
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.averaged.items()
            if name.startswith(prefix)
        }
        with self.precision():
            translated = [
                functional_call(self.nets[direction], weights, part)
                for part in torch.split(images, max(1, self.config.batch // self.config.accumulate))
            ]
        return torch.cat(translated).float()

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {
            "nets": self.nets.state_dict(),
            "averaged": self.averaged,
            "optimisers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.nets.load_state_dict(state["nets"])
        self.averaged.update(state["averaged"])
        for name, optimizer in self.optimizers.items():
            optimizer.restore(state["optimisers"][name])


def mean_terms(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each term over the parts of a batch."""
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def on_device(device: torch.device, value: Any) -> Any:
    """Move all tensors of nested lists and dictionaries to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(device, part) for key, part in value.items()}
    return [on_device(device, part) for part in value] if isinstance(value, list) else value


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bf16 arithmetic is in the hardware; emulated, it is many times slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
