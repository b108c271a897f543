"""Training step of the paired family: a generator is trained on pairs of source and target.

One step serves choe-cnn, cgan (pix2pix), ganai, stan-ct and radiomicgan; what they differ in are
settings (`cvsct.training.paired.settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from cvsct.core.volume import HUWindow
from cvsct.networks.cvsct_generator import build_generator
from cvsct.networks.discriminator import Discriminator
from cvsct.networks.unet import UNet
from cvsct.networks.vgg_unet import VGGUNet
from cvsct.training import losses
from cvsct.training.collapse_monitor import CollapseMonitor
from cvsct.training.distributed import ALONE, Ranks
from cvsct.training.network_set import Images, NetworkSet, mean_terms, on_device
from cvsct.training.paired.alternation import Alternation, State
from cvsct.training.paired.settings import PairedConfig
from cvsct.training.vgg_files import WantedWeights, describe_weights, find_weights
from cvsct.training.vgg_weights import fill

Pair = tuple[Images, Images]
"""Images of the source and of the target, of the same places."""

MODEL = "a2b"
ENCODER = f"{MODEL}.encoder.convolutions."
GENERATOR_LOSS = {
    "cross-entropy": losses.generator_cross_entropy,
    "least-squares": losses.generator_adversarial,
}
CRITIC_LOSS = {
    "cross-entropy": losses.discriminator_cross_entropy,
    "least-squares": losses.discriminator_adversarial,
}
PIXEL_LOSS = {"l1": losses.mean_absolute, "l2": losses.mean_squared}


class PairedStep:
    """Networks, optimizers and losses of a paired method; each call is one training step.

    Args:
        sample: patches of the source, from which a frozen encoder's scales are taken.
        ranks: the processes that train together; each is given its slice of a batch.

    Raises:
        TrainingError: if a frozen encoder's weights are not found.
    """

    def __init__(self, config: PairedConfig, sample: Images, ranks: Ranks = ALONE) -> None:
        self.config, self.ranks = config, ranks
        self.critics = tuple(f"critic_{view}" for view in config.critics)
        generator = build_generator(config.generator)
        self.weights_origin: dict[str, str] | None = None
        wanted = config.wanted_weights()
        if isinstance(generator, VGGUNet) and wanted:
            self.weights_origin = _fill_encoder(generator, wanted)
            generator.scale_to_data(sample)
        trained: dict[str, tuple[tuple[str, ...], float]] = {
            "generator": ((MODEL,), config.learning_rate)
        }
        if self.critics:
            trained["critics"] = (self.critics, config.learning_rate_discriminator)
        nets = {MODEL: generator, **{name: _critic(name, config) for name in self.critics}}
        self.networks = NetworkSet(nets, (MODEL,), trained, config, ranks)
        self.nets, self.bf16 = self.networks.nets, self.networks.bf16
        self.alternation, self.collapse_monitor = (
            Alternation(config.alternation),
            CollapseMonitor(config.health),
        )

    def __call__(
        self, a: Images, b: Images, fraction_done: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """One step of the generator, then one of the discriminators, or of who has the turn.

        Args:
            a: this rank's slice of the batch, images of the source.
            b: the target's images of the same places.
            fraction_done: of the whole training, for the learning rate and the window.
            rng: draws which generator's images discriminators are shown.

        Returns:
            Every weighted loss term, what discriminators read, gradient norm and learning rate by
            name; of who rests, nothing.

        Raises:
            TrainingError: when a discriminator has been dead too long.
        """
        images = (self._windowed(self.networks.to_device(x), fraction_done) for x in (a, b))
        parts = list(zip(*(x.chunk(self.config.accumulate) for x in images), strict=True))
        logged: dict[str, Tensor] = {}
        turn, fakes = self.alternation.turn, None
        if turn != "critics":
            terms, fakes = self._train_generator(parts)
            logged |= terms | self._update_weights("generator", fraction_done)
            self.networks.update_average()
        if self.critics and turn != "generator":
            fakes = fakes or self._translated(parts, self.alternation.generator_to_show(MODEL, rng))
            logged |= self._train_critics(parts, fakes) | self._update_weights(
                "critics", fraction_done
            )
        values = self.networks.read_out(logged)
        learned = [name for name in self.critics if name in values]
        self.collapse_monitor.check(
            {name: values[name] for name in learned},
            {name: values[f"gradient_{name}"] for name in learned},
        )
        if turn != "both":
            self._end_step(values)
        return values | self.networks.rates(fraction_done)

    def _train_generator(self, parts: list[Pair]) -> tuple[dict[str, Tensor], list[Images]]:
        """Gradients of all parts; the weighted terms with what is read, and what was translated."""
        self.networks.set_trainable(self.critics, False)
        self.networks.optimizers["generator"].zero_grad()
        gathered, fakes = [], []
        for a, b in parts:
            with self.networks.precision():
                fake = self.nets[MODEL](a)
                terms, read = self._generator_terms(fake, a, b)
            gathered.append(self.networks.backward(terms, len(parts)) | read)
            fakes.append(fake.detach())
        return mean_terms(gathered), fakes

    def _train_critics(self, parts: list[Pair], fakes: list[Images]) -> dict[str, Tensor]:
        """Gradients of all parts; the weighted terms with what is read."""
        self.networks.set_trainable(self.critics, True)
        self.networks.optimizers["critics"].zero_grad()
        gathered = []
        for (a, b), fake in zip(parts, fakes, strict=True):
            terms: dict[str, Tensor] = {}
            read: dict[str, Tensor] = {}
            with self.networks.precision():
                for name in self.critics:
                    own, seen = self._critic_terms(name, a, b, fake)
                    terms |= own
                    read |= seen
            gathered.append(self.networks.backward(terms, len(parts)) | read)
        return mean_terms(gathered)

    def _generator_terms(
        self, fake: Images, a: Images, b: Images
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        config = self.config
        terms = {"pixels": config.weight_pixels * PIXEL_LOSS[config.pixels](fake, b)}
        read = {}
        for name in self.critics:
            # every discriminator that is kept must be convinced too
            held: list[State | None] = [None, *self.alternation.earlier(name)]
            scores = [self._scores(name, a, fake, weights)[0] for weights in held]
            fooled = [GENERATOR_LOSS[config.adversarial](score) for score in scores]
            view = name.removeprefix("critic_")
            terms[f"adversarial_{view}"] = config.weight_adversarial * torch.stack(fooled).mean()
            read[f"fools_{view}"] = torch.stack([self._reading(score) for score in scores]).min()
        if config.weight_latent:
            network = self.nets[MODEL]
            assert isinstance(network, UNet)
            with torch.no_grad():
                wanted = network.latent(b)
            distance = losses.latent_distance(network.latent(fake), wanted)
            terms["latent"] = config.weight_latent * distance
        return terms, read

    def _critic_terms(
        self, name: str, a: Images, b: Images, fake: Images
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        view = name.removeprefix("critic_")
        scores, features = self._scores(name, torch.cat((a, a)), torch.cat((b, fake)))
        real, translated = scores.chunk(2)
        terms = {name: CRITIC_LOSS[self.config.adversarial](real, translated)}
        if self.config.weight_feature:
            difference = losses.feature_distance(
                *zip(*(layer.chunk(2) for layer in features), strict=True)
            )
            terms[f"features_{view}"] = self.config.weight_feature * (1 - difference).clamp_min(0)
        return terms, {
            f"real_{view}": self._reading(real),
            f"fake_{view}": self._reading(translated),
        }

    def _scores(
        self, name: str, a: Images, shown: Images, weights: State | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Scores and features of what a discriminator is shown, with other weights if given."""
        seen = torch.cat((a, shown), dim=1) if name == "critic_conditional" else shown
        critic = self.nets[name]
        assert isinstance(critic, Discriminator)
        if weights is not None:
            return losses.at_least_single(functional_call(critic, weights, (seen,))), []
        scores, features = critic.scores_and_features(seen)
        return losses.at_least_single(scores), features

    def _reading(self, scores: Tensor) -> Tensor:
        """Mean score of images as a discriminator reads them: 1 real, 0 translated."""
        scores = scores.detach()
        return (scores.sigmoid() if self.config.adversarial == "cross-entropy" else scores).mean()

    @torch.no_grad()
    def _translated(self, parts: list[Pair], weights: State | None) -> list[Images]:
        """Images translated by the generator, or by an earlier one where weights are given."""
        network = self.nets[MODEL]
        with self.networks.precision():
            if weights is None:
                return [network(a) for a, _ in parts]
            return [functional_call(network, weights, (a,)) for a, _ in parts]

    def _update_weights(self, optimizer: str, fraction_done: float) -> dict[str, Tensor]:
        norms = self.networks.optimizers[optimizer].update(fraction_done)
        return {f"gradient_{name}": norm for name, norm in norms.items()}

    def _end_step(self, values: Mapping[str, float]) -> None:
        views = [name.removeprefix("critic_") for name in self.critics]
        if self.alternation.turn == "generator":
            convinced = self.alternation.convinced(
                0.0, min(values[f"fools_{view}"] for view in views)
            )
            resting = self.critics
        else:
            convinced = self.alternation.convinced(
                min(values[f"real_{view}"] for view in views),
                max(values[f"fake_{view}"] for view in views),
            )
            resting = (MODEL,)
        self.alternation.end_step(convinced, {name: self.nets[name] for name in resting})

    def _windowed(self, images: Images, fraction_done: float) -> Images:
        """The images in the window of this stage of the training."""
        stages = self.config.window_stages
        if not stages:
            return images
        share = stages[min(int(fraction_done * len(stages)), len(stages) - 1)]
        return narrowed(images, share, self.config.window, self.config.window_centre_hu)

    def translate(self, direction: str, images: Images) -> Images:
        """Translate (`a2b`) as the finished model would, with averaged weights."""
        return self.networks.translate(direction, images)

    def weights(self) -> dict[str, Tensor]:
        """Averaged weights of the generator: what a model is made of.

        Those of a frozen encoder in half precision, to which they were rounded when they were
        read: nothing is lost.
        """
        return {
            name: tensor.half() if name.startswith(ENCODER) else tensor
            for name, tensor in self.networks.averaged.items()
        }

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {
            **self.networks.state(),
            "turns": self.alternation.state(),
            "health": self.collapse_monitor.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        state = on_device(self.ranks.device, state)
        self.networks.restore(state)
        self.alternation.restore(state["turns"])
        self.collapse_monitor.restore(state["health"])


def narrowed(images: Images, share: float, window: HUWindow, centre_hu: float | None) -> Images:
    """The images clipped to a narrower window and stretched to [-1, 1].

    Args:
        images: in [-1, 1] of the whole window.
        share: the narrow window's width over the whole's.
        centre_hu: its middle, moved so that it lies within the whole; None for the lower end.
    """
    width_hu = window.high_hu - window.low_hu
    centre = -1.0 if centre_hu is None else 2 * (centre_hu - window.low_hu) / width_hu - 1
    centre = min(max(centre, share - 1), 1 - share)
    narrow: Tensor = ((images - centre) / share).clamp(-1, 1)
    return narrow


def _critic(name: str, config: PairedConfig) -> Discriminator:
    images = 2 if name == "critic_conditional" else 1
    return Discriminator(config.discriminator, config.window, images)


def _fill_encoder(generator: VGGUNet, wanted: WantedWeights) -> dict[str, str]:
    """Give the encoder its ImageNet weights, in half precision; the attribution of their file."""
    path = find_weights(wanted)
    fill(generator.encoder, path, wanted.network)
    for parameter in generator.encoder.parameters():
        parameter.copy_(parameter.half())
    use = "frozen, rounded to half precision, as the encoder that this model holds"
    return describe_weights(path, wanted.network, use)
