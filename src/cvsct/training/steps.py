"""One training step a family of methods. Here: the cycle family, CVS-CT and its ablations.

A step owns networks, optimisers and whatever statistics its losses keep; it is told the batches
and returns its weighted loss terms. It knows nothing of files, time or progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from cvsct.models.discriminator import Discriminator, DiscriminatorConfig
from cvsct.models.generator import Generator, GeneratorConfig, scale_to_data
from cvsct.training import losses
from cvsct.training.domain import DomainConfig, DomainLoss
from cvsct.volume import HUWindow

Images = Float[Tensor, "n 1 h w"]


class CycleConfig(BaseModel):
    """Everything that shapes a CycleGAN-like training. The defaults are the preset `paper`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    domain: DomainConfig = DomainConfig()
    window_hu: tuple[float, float] = (-1000.0, 900.0)
    patch_px: int = 80
    min_tissue: float = 0.8
    batch: int = 32
    weight_adversarial: float = 1.0
    weight_cycle: float = 1.0
    weight_identity: float = 0.5
    weight_domain: float = 1.0
    learning_rate: float = 1e-4
    learning_rate_discriminator: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    scale_to_data: bool = False
    pool: int = 0
    decay_from: float = 1.0
    average: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    max_steps: int = 31_250

    @property
    def window(self) -> HUWindow:
        """The HU range the networks see."""
        return HUWindow(*self.window_hu)


@dataclass(frozen=True)
class CyclePass:
    """What both generators made of one batch."""

    fake_b: Images
    fake_a: Images
    back_a: Images
    back_b: Images
    same_a: Images
    same_b: Images


def cycle_pass(a2b: nn.Module, b2a: nn.Module, a: Images, b: Images) -> CyclePass:
    """Translate, come back, and leave alone; translation and identity in one call each."""
    fake_b, same_b = a2b(torch.cat((a, b))).tensor_split((len(a),))
    fake_a, same_a = b2a(torch.cat((b, a))).tensor_split((len(b),))
    return CyclePass(fake_b, fake_a, b2a(fake_b), a2b(fake_a), same_a, same_b)


class ImagePool:
    """Earlier translated images, so that a discriminator does not forget them (CycleGAN)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, fresh: Images, rng: np.random.Generator) -> Images:
        """Half of the images are swapped for stored ones once the pool is full."""
        if self.size == 0:
            return fresh
        given = []
        for image in fresh:
            if len(self.images) < self.size:
                self.images.append(image)
                given.append(image)
            elif rng.random() < 0.5:
                index = int(rng.integers(self.size))
                given.append(self.images[index])
                self.images[index] = image
            else:
                given.append(image)
        return torch.stack(given)


class CycleStep:
    """Networks, optimisers and losses of CVS-CT (eq. 8), one call a step."""

    def __init__(
        self, config: CycleConfig, sample_a: Images, sample_b: Images, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        layout = torch.channels_last
        self.nets = nn.ModuleDict(
            {
                "a2b": Generator(config.generator),
                "b2a": Generator(config.generator),
                "critic_a": Discriminator(config.discriminator, config.window),
                "critic_b": Discriminator(config.discriminator, config.window),
            }
        )
        if config.scale_to_data:
            scale_to_data(self._generator("a2b"), sample_a[:16])
            scale_to_data(self._generator("b2a"), sample_b[:16])
        self.nets.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.domain: DomainLoss | None = None
        if config.weight_domain:
            self.domain = DomainLoss(config.domain, config.window)
            self.domain.to(device, memory_format=layout)  # type: ignore[call-overload]
            if config.domain.against == "domain":
                self.domain.learn_target("a", sample_a.to(device))
                self.domain.learn_target("b", sample_b.to(device))
        self.averaged = {name: tensor.clone() for name, tensor in self.generator_state().items()}
        self.pools = {side: ImagePool(config.pool) for side in "ab"}
        self.optimisers = {
            "generators": self._adam(("a2b", "b2a"), config.learning_rate),
            "critics": self._adam(("critic_a", "critic_b"), config.learning_rate_discriminator),
        }
        self.bf16 = config.precision == "bf16" or (
            config.precision == "auto" and bf16_is_fast(device)
        )

    def __call__(
        self, a: Images, b: Images, fraction_done: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """One step of the generators, then one of the discriminators.

        Args:
            fraction_done: of the whole training, for the learning rate.
            rng: draws from the image pools.

        Returns:
            Every weighted loss term by name.
        """
        self._set_learning_rates(fraction_done)
        a, b = (x.to(self.device, memory_format=torch.channels_last) for x in (a, b))
        self._critics_learn(False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            made = cycle_pass(self.nets["a2b"], self.nets["b2a"], a, b)
            terms = self._generator_terms(made, a, b)
        self._descend("generators", torch.stack(list(terms.values())).sum())
        self._update_average()
        self._critics_learn(True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            critics = self._critic_terms(made, a, b, rng)
        self._descend("critics", torch.stack(list(critics.values())).sum())
        values = {**terms, **critics}
        return dict(
            zip(values, torch.stack(list(values.values())).detach().float().tolist(), strict=True)
        )

    def _generator_terms(self, made: CyclePass, a: Images, b: Images) -> dict[str, Tensor]:
        config, nets = self.config, self.nets
        adversarial = losses.generator_adversarial
        terms = {
            "adversarial_a2b": config.weight_adversarial
            * adversarial(nets["critic_b"](made.fake_b)),
            "adversarial_b2a": config.weight_adversarial
            * adversarial(nets["critic_a"](made.fake_a)),
            "cycle_a": config.weight_cycle * losses.mean_absolute(made.back_a, a),
            "cycle_b": config.weight_cycle * losses.mean_absolute(made.back_b, b),
            "identity_a": config.weight_identity * losses.mean_absolute(made.same_a, a),
            "identity_b": config.weight_identity * losses.mean_absolute(made.same_b, b),
        }
        if self.domain is not None:
            terms["domain_a2b"] = config.weight_domain * self.domain(made.fake_b, b, "b")
            terms["domain_b2a"] = config.weight_domain * self.domain(made.fake_a, a, "a")
        return terms

    def _critic_terms(
        self, made: CyclePass, a: Images, b: Images, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        terms = {}
        for side, real, fake in (("a", a, made.fake_a), ("b", b, made.fake_b)):
            shown = self.pools[side].exchange(fake.detach(), rng)
            critic = self.nets[f"critic_{side}"]
            terms[f"critic_{side}"] = losses.discriminator_adversarial(critic(real), critic(shown))
        return terms

    def _adam(self, names: tuple[str, ...], rate: float) -> torch.optim.Adam:
        parameters = [p for name in names for p in self.nets[name].parameters()]
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True)

    def _descend(self, which: str, loss: Tensor) -> None:
        self.optimisers[which].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimisers[which].step()

    def _critics_learn(self, learn: bool) -> None:
        for name in ("critic_a", "critic_b"):
            self.nets[name].requires_grad_(learn)

    def _set_learning_rates(self, fraction_done: float) -> None:
        start = self.config.decay_from
        left = 1.0 if fraction_done <= start else max(0.0, (1 - fraction_done) / (1 - start))
        rates = (self.config.learning_rate, self.config.learning_rate_discriminator)
        for optimiser, rate in zip(self.optimisers.values(), rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * left

    @torch.no_grad()
    def _update_average(self) -> None:
        for name, tensor in self.generator_state().items():
            self.averaged[name].lerp_(tensor, 1 - self.config.average)

    def _generator(self, name: str) -> Generator:
        network = self.nets[name]
        assert isinstance(network, Generator)
        return network

    def generator_state(self) -> dict[str, Tensor]:
        """Weights of both generators as trained, by `a2b.` and `b2a.` names."""
        return {
            f"{name}.{key}": tensor
            for name in ("a2b", "b2a")
            for key, tensor in self.nets[name].state_dict().items()
        }

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint needs to go on."""
        return {
            "nets": self.nets.state_dict(),
            "averaged": self.averaged,
            "optimisers": {name: each.state_dict() for name, each in self.optimisers.items()},
            "pools": {side: pool.images for side, pool in self.pools.items()},
            "domain": self.domain.statistics() if self.domain else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        self.nets.load_state_dict(state["nets"])
        self.averaged = state["averaged"]
        for name, each in self.optimisers.items():
            each.load_state_dict(state["optimisers"][name])
        for side, pool in self.pools.items():
            pool.images = state["pools"][side]
        if self.domain:
            self.domain.restore(state["domain"])


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bf16 arithmetic is in the hardware; emulated, it is many times slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
