"""The training step of the cycle family: CVS-CT and its ablations.

A step owns networks, optimisers and whatever statistics its losses keep; it is told the batches
and returns its weighted loss terms. It knows nothing of files, time or progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvsct.networks.cvsct_generator import build_generator, scale_to_data
from cvsct.networks.discriminator import Discriminator
from cvsct.training import losses
from cvsct.training.collapse_monitor import Health
from cvsct.training.cyclegan.settings import CycleConfig
from cvsct.training.distributed import ALONE, Ranks
from cvsct.training.networks import Images, Team, bf16_is_fast, mean_terms, on_device
from cvsct.training.texture_loss import DomainLoss

__all__ = ["CRITICS", "CyclePass", "CycleStep", "Images", "bf16_is_fast", "cycle_pass"]

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


class ImagePool:
    """Earlier translated images, shown to a discriminator again so that it does not forget them.

    Up to `size` images (Shrivastava et al. 2017, section 2.3; CycleGAN has 50).
    """

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
    """Networks, optimisers and losses of CVS-CT (eq. 8), one call a step.

    Args:
        sample_a: patches of domain A from which scales and texture are taken.
        ranks: the processes that train together; each is given its slice of a batch.
    """

    def __init__(
        self, config: CycleConfig, sample_a: Images, sample_b: Images, ranks: Ranks = ALONE
    ) -> None:
        self.config, self.ranks = config, ranks
        generators = {name: build_generator(config.generator) for name in ("a2b", "b2a")}
        critics = {name: Discriminator(config.discriminator, config.window) for name in CRITICS}
        if config.scale_to_data:
            scale_to_data(generators["a2b"], sample_a[:16])
            scale_to_data(generators["b2a"], sample_b[:16])
        self.team = Team(
            {**generators, **critics},
            ("a2b", "b2a"),
            {
                "generators": (("a2b", "b2a"), config.learning_rate),
                "critics": (CRITICS, config.learning_rate_discriminator),
            },
            config,
            ranks,
        )
        self.nets, self.averaged, self.bf16 = self.team.nets, self.team.averaged, self.team.bf16
        self.device = device = ranks.device
        self.domain: DomainLoss | None = None
        if config.weight_domain:
            self.domain = DomainLoss(config.domain, config.window, ranks)
            self.domain.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if config.domain.against == "domain":
                self.domain.learn_target("a", sample_a.to(device))
                self.domain.learn_target("b", sample_b.to(device))
                ranks.agree_([gram for side in self.domain.target.values() for gram in side])
        self.pools = {side: ImagePool(config.pool) for side in "ab"}
        self.health = Health(config.health)

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
        a, b = (self.team.here(x) for x in (a, b))
        parts = list(zip(*(x.chunk(self.config.accumulate) for x in (a, b)), strict=True))
        terms, fakes = self._teach_generators(parts)
        norms = self.team.learners["generators"].learn(fraction_done)
        self.team.update_average()
        terms |= self._teach_critics(parts, fakes, rng)
        norms |= self.team.learners["critics"].learn(fraction_done)
        gradients = {f"gradient_{name}": norm for name, norm in norms.items()}
        values = self.team.read_out(terms | gradients)
        self.health.check(
            {name: values[name] for name in CRITICS},
            {name: values[f"gradient_{name}"] for name in CRITICS},
        )
        return values | self.team.rates(fraction_done)

    def _teach_generators(self, parts: list[Pair]) -> tuple[dict[str, Tensor], list[Pair]]:
        """Gradients of all parts; the weighted terms, and what was translated."""
        self.team.let_learn(CRITICS, False)
        self.team.learners["generators"].clear()
        if self.domain and len(parts) > 1:
            self._survey(self.domain, parts)
        gathered, fakes = [], []
        for a, b in parts:
            with self.team.precision():
                made = cycle_pass(self.nets["a2b"], self.nets["b2a"], a, b)
                terms = self._generator_terms(made, a, b)
            gathered.append(self.team.backward(terms, len(parts)))
            fakes.append((made.fake_a.detach(), made.fake_b.detach()))
        if self.domain:
            self.domain.finish_step()
        return mean_terms(gathered), fakes

    def _teach_critics(
        self, parts: list[Pair], fakes: list[Pair], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Gradients of all parts; translated images pass through the pools as one whole batch."""
        self.team.let_learn(CRITICS, True)
        self.team.learners["critics"].clear()
        shown = [
            self.ranks.share(
                self.pools[side].exchange(self.ranks.gather(torch.cat(made)), rng)
            ).chunk(len(parts))
            for side, made in zip("ab", zip(*fakes, strict=True), strict=True)
        ]
        gathered = []
        for reals, shown_a, shown_b in zip(parts, *shown, strict=True):
            terms = {}
            with self.team.precision():
                for name, real, fake in zip(CRITICS, reals, (shown_a, shown_b), strict=True):
                    scores = self._scores(name, torch.cat((real, fake)))
                    terms[name] = losses.discriminator_adversarial(*scores.chunk(2))
            gathered.append(self.team.backward(terms, len(parts)))
        return mean_terms(gathered)

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
        with self.team.precision():
            if domain.needs_survey("b"):
                domain.survey([(self.nets["a2b"](a), b) for a, b in parts], "b")
            if domain.needs_survey("a"):
                domain.survey([(self.nets["b2a"](b), a) for a, b in parts], "a")

    def _scores(self, critic: str, images: Images) -> Tensor:
        return losses.at_least_single(self.nets[critic](images))

    def generator_state(self) -> dict[str, Tensor]:
        """Weights of both generators as trained, by `a2b.` and `b2a.` names."""
        return self.team.model_state()

    def translate(self, direction: str, images: Images) -> Images:
        """Translate (`a2b`, `b2a`) as the finished model would, with averaged weights."""
        return self.team.translate(direction, images)

    def weights(self) -> dict[str, Tensor]:
        """Averaged weights of both generators: what a model is made of."""
        return self.averaged

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint needs to go on."""
        return {
            **self.team.state(),
            "pools": {side: pool.images for side, pool in self.pools.items()},
            "domain": self.domain.statistics() if self.domain else {},
            "health": self.health.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        state = on_device(self.ranks.device, state)
        self.team.restore(state)
        for side, pool in self.pools.items():
            pool.images = state["pools"][side]
        if self.domain:
            self.domain.restore(state["domain"])
        self.health.restore(state["health"])
