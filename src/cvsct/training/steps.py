"""One training step a family of methods. Here: the cycle family, CVS-CT and its ablations.

A step owns networks, optimisers and whatever statistics its losses keep; it is told the batches
and returns its weighted loss terms. It knows nothing of files, time or progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from cvsct.models.discriminator import Discriminator
from cvsct.models.generator import AnyGenerator, build_generator, scale_to_data
from cvsct.training import losses
from cvsct.training.domain import DomainLoss
from cvsct.training.health import Health
from cvsct.training.learner import Learner
from cvsct.training.parallel import ALONE, Ranks
from cvsct.training.pool import ImagePool
from cvsct.training.settings import CycleConfig

Images = Float[Tensor, "n 1 h w"]
Pair = tuple[Images, Images]
"""Images of domain A and of domain B."""

CRITICS = ("critic_a", "critic_b")


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


class CycleStep:
    """Networks, optimisers and losses of CVS-CT (eq. 8), one call a step.

    Args:
        sample_a: patches of domain A from which scales and texture are taken.
        ranks: the processes that train together; each is given its slice of a batch.
    """

    def __init__(
        self, config: CycleConfig, sample_a: Images, sample_b: Images, ranks: Ranks = ALONE
    ) -> None:
        self.config, self.ranks, self.device = config, ranks, ranks.device
        device = ranks.device
        layout = torch.channels_last
        self.nets = nn.ModuleDict(
            {
                "a2b": build_generator(config.generator),
                "b2a": build_generator(config.generator),
                "critic_a": Discriminator(config.discriminator, config.window),
                "critic_b": Discriminator(config.discriminator, config.window),
            }
        )
        if config.scale_to_data:
            scale_to_data(self._generator("a2b"), sample_a[:16])
            scale_to_data(self._generator("b2a"), sample_b[:16])
        self.nets.to(device, memory_format=layout)  # type: ignore[call-overload]
        ranks.agree_(self.nets.state_dict().values())
        self.domain: DomainLoss | None = None
        if config.weight_domain:
            self.domain = DomainLoss(config.domain, config.window, ranks)
            self.domain.to(device, memory_format=layout)  # type: ignore[call-overload]
            if config.domain.against == "domain":
                self.domain.learn_target("a", sample_a.to(device))
                self.domain.learn_target("b", sample_b.to(device))
                ranks.agree_([gram for side in self.domain.target.values() for gram in side])
        self.averaged = {name: tensor.clone() for name, tensor in self.generator_state().items()}
        self.pools = {side: ImagePool(config.pool) for side in "ab"}
        self.learners = {
            "generators": self._learner(("a2b", "b2a"), config.learning_rate),
            "critics": self._learner(CRITICS, config.learning_rate_discriminator),
        }
        self.health = Health(config.health)
        self.bf16 = config.precision == "bf16" or (
            config.precision == "auto" and bf16_is_fast(device)
        )

    def __call__(
        self, a: Images, b: Images, fraction_done: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """One step of the generators, then one of the discriminators.

        Args:
            a: this rank's slice of the batch.
            fraction_done: of the whole training, for the learning rate.
            rng: draws from the image pools.

        Returns:
            Every weighted loss term, gradient norm and learning rate by name.

        Raises:
            TrainingError: when a discriminator has been dead too long.
        """
        a, b = (x.to(self.device, memory_format=torch.channels_last) for x in (a, b))
        parts = list(zip(*(x.chunk(self.config.accumulate) for x in (a, b)), strict=True))
        terms, fakes = self._teach_generators(parts)
        norms = self.learners["generators"].learn(fraction_done)
        self._update_average()
        terms |= self._teach_critics(parts, fakes, rng)
        norms |= self.learners["critics"].learn(fraction_done)
        values = self._read_out(terms | {f"gradient_{name}": norm for name, norm in norms.items()})
        self.health.check(
            {name: values[name] for name in CRITICS},
            {name: values[f"gradient_{name}"] for name in CRITICS},
        )
        rates = {f"rate_{name}": each.rate(fraction_done) for name, each in self.learners.items()}
        return values | rates

    def _teach_generators(self, parts: list[Pair]) -> tuple[dict[str, Tensor], list[Pair]]:
        """Gradients of all parts; the weighted terms, and what was translated."""
        self._critics_learn(False)
        self.learners["generators"].clear()
        if self.domain and len(parts) > 1:
            self._survey(self.domain, parts)
        gathered, fakes = [], []
        for a, b in parts:
            with self._precision():
                made = cycle_pass(self.nets["a2b"], self.nets["b2a"], a, b)
                terms = self._generator_terms(made, a, b)
            gathered.append(self._backward(terms, len(parts)))
            fakes.append((made.fake_a.detach(), made.fake_b.detach()))
        if self.domain:
            self.domain.finish_step()
        return _mean_terms(gathered), fakes

    def _teach_critics(
        self, parts: list[Pair], fakes: list[Pair], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Gradients of all parts; translated images pass through the pools as one whole batch."""
        self._critics_learn(True)
        self.learners["critics"].clear()
        shown = [
            self.ranks.share(
                self.pools[side].exchange(self.ranks.gather(torch.cat(made)), rng)
            ).chunk(len(parts))
            for side, made in zip("ab", zip(*fakes, strict=True), strict=True)
        ]
        gathered = []
        for reals, shown_a, shown_b in zip(parts, *shown, strict=True):
            terms = {}
            with self._precision():
                for name, real, fake in zip(CRITICS, reals, (shown_a, shown_b), strict=True):
                    scores = self._scores(name, torch.cat((real, fake)))
                    terms[name] = losses.discriminator_adversarial(*scores.chunk(2))
            gathered.append(self._backward(terms, len(parts)))
        return _mean_terms(gathered)

    def _generator_terms(self, made: CyclePass, a: Images, b: Images) -> dict[str, Tensor]:
        config = self.config
        adversarial = losses.generator_adversarial
        terms = {
            "adversarial_a2b": config.weight_adversarial
            * adversarial(self._scores("critic_b", made.fake_b)),
            "adversarial_b2a": config.weight_adversarial
            * adversarial(self._scores("critic_a", made.fake_a)),
            "cycle_a": config.weight_cycle * losses.mean_absolute(made.back_a, a),
            "cycle_b": config.weight_cycle * losses.mean_absolute(made.back_b, b),
            "identity_a": config.weight_identity * losses.mean_absolute(made.same_a, a),
            "identity_b": config.weight_identity * losses.mean_absolute(made.same_b, b),
        }
        if self.domain is not None:
            terms["domain_a2b"] = config.weight_domain * self.domain(made.fake_b, b, "b")
            terms["domain_b2a"] = config.weight_domain * self.domain(made.fake_a, a, "a")
        return terms

    @torch.no_grad()
    def _survey(self, domain: DomainLoss, parts: list[Pair]) -> None:
        with self._precision():
            if domain.needs_survey("b"):
                domain.survey([(self.nets["a2b"](a), b) for a, b in parts], "b")
            if domain.needs_survey("a"):
                domain.survey([(self.nets["b2a"](b), a) for a, b in parts], "a")

    def _scores(self, critic: str, images: Images) -> Tensor:
        return losses.at_least_single(self.nets[critic](images))

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _backward(self, terms: dict[str, Tensor], parts: int) -> dict[str, Tensor]:
        """Add one part's share to the gradients."""
        loss = torch.stack(list(terms.values())).sum() / parts
        loss.backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    def _read_out(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Numbers, of the whole batch, in one transfer."""
        stacked = torch.stack([losses.at_least_single(value) for value in values.values()])
        self.ranks.average_([stacked])
        return dict(zip(values, stacked.tolist(), strict=True))

    def _learner(self, names: tuple[str, ...], rate: float) -> Learner:
        nets = {name: self.nets[name] for name in names}
        betas = (self.config.beta1, self.config.beta2)
        return Learner(nets, rate, betas, self.config.decay_from, self.ranks)

    def _critics_learn(self, learn: bool) -> None:
        for name in CRITICS:
            self.nets[name].requires_grad_(learn)

    @torch.no_grad()
    def _update_average(self) -> None:
        for name, tensor in self.generator_state().items():
            self.averaged[name].lerp_(tensor, 1 - self.config.average)

    def _generator(self, name: str) -> AnyGenerator:
        network = self.nets[name]
        assert isinstance(network, AnyGenerator)
        return network

    def generator_state(self) -> dict[str, Tensor]:
        """Weights of both generators as trained, by `a2b.` and `b2a.` names."""
        return {
            f"{name}.{key}": tensor
            for name in ("a2b", "b2a")
            for key, tensor in self.nets[name].state_dict().items()
        }

    @torch.no_grad()
    def translate(self, direction: str, images: Images) -> Images:
        """Translate as the finished model would, with averaged weights.

        Args:
            direction: `a2b` or `b2a`.
        """
        prefix = f"{direction}."
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.averaged.items()
            if name.startswith(prefix)
        }
        with self._precision():
            made = [
                functional_call(self.nets[direction], weights, part)
                for part in torch.split(images, max(1, self.config.batch // self.config.accumulate))
            ]
        return torch.cat(made).float()

    def weights(self) -> dict[str, Tensor]:
        """Averaged weights of both generators: what a model is made of."""
        return self.averaged

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint needs to go on."""
        return {
            "nets": self.nets.state_dict(),
            "averaged": self.averaged,
            "optimisers": {name: each.state() for name, each in self.learners.items()},
            "pools": {side: pool.images for side, pool in self.pools.items()},
            "domain": self.domain.statistics() if self.domain else {},
            "health": self.health.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        state = _on(self.device, state)
        self.nets.load_state_dict(state["nets"])
        self.averaged = state["averaged"]
        for name, each in self.learners.items():
            each.restore(state["optimisers"][name])
        for side, pool in self.pools.items():
            pool.images = state["pools"][side]
        if self.domain:
            self.domain.restore(state["domain"])
        self.health.restore(state["health"])


def _on(device: torch.device, value: Any) -> Any:
    """Nested lists and dictionaries with their tensors on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on(device, part) for key, part in value.items()}
    return [_on(device, part) for part in value] if isinstance(value, list) else value


def _mean_terms(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bf16 arithmetic is in the hardware; emulated, it is many times slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
