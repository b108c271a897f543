"""Training step of the cycle family: CVS-CT and its ablations.

A step owns networks, optimizers and the statistics of its losses; it is given the batches and
returns its weighted loss terms. It knows nothing of files, time or progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvsct.networks.cvsct_generator import build_generator, scale_to_data
from cvsct.networks.discriminator import Discriminator
from cvsct.networks.winograd import train_directly
from cvsct.training import losses
from cvsct.training.collapse_monitor import CollapseMonitor
from cvsct.training.cyclegan.settings import CycleConfig
from cvsct.training.distributed import ALONE, Ranks
from cvsct.training.network_set import Images, NetworkSet, bf16_is_fast, mean_terms, on_device
from cvsct.training.texture_loss import TextureLoss

__all__ = ["CRITICS", "CyclePass", "CycleStep", "Images", "bf16_is_fast", "cycle_pass"]

Pair = tuple[Images, Images]
"""Images of domain A and of domain B."""

CRITICS = ("critic_a", "critic_b")


@dataclass(frozen=True)
class CyclePass:
    """Images that both generators make of one batch."""

    fake_b: Images
    fake_a: Images
    back_a: Images
    back_b: Images
    same_a: Images
    same_b: Images


def cycle_pass(a2b: nn.Module, b2a: nn.Module, a: Images, b: Images) -> CyclePass:
    """Run both generators for translation, cycle and identity; the first and last in one call."""
    fake_b, same_b = a2b(torch.cat((a, b))).tensor_split((len(a),))
    fake_a, same_a = b2a(torch.cat((b, a))).tensor_split((len(b),))
    return CyclePass(fake_b, fake_a, b2a(fake_b), a2b(fake_a), same_a, same_b)


class ImagePool:
    """Pool of earlier translated images, which are shown to a discriminator again.

    Up to `size` images (Shrivastava et al. 2017, section 2.3; CycleGAN has 50).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, fresh: Images, rng: np.random.Generator) -> Images:
        """Swap half of the images, on average, for stored ones once the pool is full."""
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
    """Networks, optimizers and losses of CVS-CT (eq. 8); each call is one training step.

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
        self.networks = NetworkSet(
            {**generators, **critics},
            ("a2b", "b2a"),
            {
                "generators": (("a2b", "b2a"), config.learning_rate),
                "critics": (CRITICS, config.learning_rate_discriminator),
            },
            config,
            ranks,
        )
        self.nets, self.averaged, self.bf16 = (
            self.networks.nets,
            self.networks.averaged,
            self.networks.bf16,
        )
        self.device = device = ranks.device
        self.texture_loss: TextureLoss | None = None
        if config.weight_domain:
            self.texture_loss = TextureLoss(config.domain, config.window, ranks)
            self.texture_loss.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if config.convolution == "direct":
                train_directly(self.texture_loss)
            if config.domain.against == "domain":
                self.texture_loss.learn_target("a", sample_a.to(device))
                self.texture_loss.learn_target("b", sample_b.to(device))
                ranks.broadcast_(
                    [gram for side in self.texture_loss.target.values() for gram in side]
                )
        self.pools = {side: ImagePool(config.pool) for side in "ab"}
        self.collapse_monitor = CollapseMonitor(config.health)

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
        a, b = (self.networks.to_device(x) for x in (a, b))
        parts = list(zip(*(x.chunk(self.config.accumulate) for x in (a, b)), strict=True))
        terms, fakes = self._train_generators(parts)
        norms = self.networks.optimizers["generators"].update(fraction_done)
        self.networks.update_average()
        terms |= self._train_critics(parts, fakes, rng)
        norms |= self.networks.optimizers["critics"].update(fraction_done)
        gradients = {f"gradient_{name}": norm for name, norm in norms.items()}
        values = self.networks.read_out(terms | gradients)
        self.collapse_monitor.check(
            {name: values[name] for name in CRITICS},
            {name: values[f"gradient_{name}"] for name in CRITICS},
        )
        return values | self.networks.rates(fraction_done)

    def _train_generators(self, parts: list[Pair]) -> tuple[dict[str, Tensor], list[Pair]]:
        """Gradients of all parts; the weighted terms, and what was translated."""
        self.networks.set_trainable(CRITICS, False)
        self.networks.optimizers["generators"].zero_grad()
        if self.texture_loss and len(parts) > 1:
            self._survey(self.texture_loss, parts)
        gathered, fakes = [], []
        for a, b in parts:
            with self.networks.precision():
                translation = cycle_pass(self.nets["a2b"], self.nets["b2a"], a, b)
                terms = self._generator_terms(translation, a, b)
            gathered.append(self.networks.backward(terms, len(parts)))
            fakes.append((translation.fake_a.detach(), translation.fake_b.detach()))
        if self.texture_loss:
            self.texture_loss.finish_step()
        return mean_terms(gathered), fakes

    def _train_critics(
        self, parts: list[Pair], fakes: list[Pair], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Gradients of all parts; translated images pass through the pools as one whole batch."""
        self.networks.set_trainable(CRITICS, True)
        self.networks.optimizers["critics"].zero_grad()
        shown = [
            self.ranks.share(
                self.pools[side].exchange(self.ranks.gather(torch.cat(translation)), rng)
            ).chunk(len(parts))
            for side, translation in zip("ab", zip(*fakes, strict=True), strict=True)
        ]
        gathered = []
        for reals, shown_a, shown_b in zip(parts, *shown, strict=True):
            terms = {}
            with self.networks.precision():
                for name, real, fake in zip(CRITICS, reals, (shown_a, shown_b), strict=True):
                    scores = self._scores(name, torch.cat((real, fake)))
                    terms[name] = losses.discriminator_adversarial(*scores.chunk(2))
            gathered.append(self.networks.backward(terms, len(parts)))
        return mean_terms(gathered)

    def _generator_terms(self, translation: CyclePass, a: Images, b: Images) -> dict[str, Tensor]:
        config = self.config
        adversarial = losses.generator_adversarial
        terms = {
            "adversarial_a2b": config.weight_adversarial
            * adversarial(self._scores("critic_b", translation.fake_b)),
            "adversarial_b2a": config.weight_adversarial
            * adversarial(self._scores("critic_a", translation.fake_a)),
            "cycle_a": config.weight_cycle * losses.mean_absolute(translation.back_a, a),
            "cycle_b": config.weight_cycle * losses.mean_absolute(translation.back_b, b),
            "identity_a": config.weight_identity * losses.mean_absolute(translation.same_a, a),
            "identity_b": config.weight_identity * losses.mean_absolute(translation.same_b, b),
        }
        if self.texture_loss is not None:
            terms["domain_a2b"] = config.weight_domain * self.texture_loss(
                translation.fake_b, b, "b"
            )
            terms["domain_b2a"] = config.weight_domain * self.texture_loss(
                translation.fake_a, a, "a"
            )
        return terms

    @torch.no_grad()
    def _survey(self, texture_loss: TextureLoss, parts: list[Pair]) -> None:
        with self.networks.precision():
            if texture_loss.needs_survey("b"):
                texture_loss.survey([(self.nets["a2b"](a), b) for a, b in parts], "b")
            if texture_loss.needs_survey("a"):
                texture_loss.survey([(self.nets["b2a"](b), a) for a, b in parts], "a")

    def _scores(self, critic: str, images: Images) -> Tensor:
        return losses.at_least_single(self.nets[critic](images))

    def generator_state(self) -> dict[str, Tensor]:
        """Weights of both generators as trained, by `a2b.` and `b2a.` names."""
        return self.networks.model_state()

    def translate(self, direction: str, images: Images) -> Images:
        """Translate (`a2b`, `b2a`) as the finished model would, with averaged weights."""
        return self.networks.translate(direction, images)

    def weights(self) -> dict[str, Tensor]:
        """Averaged weights of both generators: what a model is made of."""
        return self.averaged

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {
            **self.networks.state(),
            "pools": {side: pool.images for side, pool in self.pools.items()},
            "domain": self.texture_loss.statistics() if self.texture_loss else {},
            "health": self.collapse_monitor.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        state = on_device(self.ranks.device, state)
        self.networks.restore(state)
        for side, pool in self.pools.items():
            pool.images = state["pools"][side]
        if self.texture_loss:
            self.texture_loss.restore(state["domain"])
        self.collapse_monitor.restore(state["health"])
