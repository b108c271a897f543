"""Texture loss of CVS-CT (the paper's domain loss), from Gram matrices of VGG features.

Eqs 1 to 3: Gram matrices of VGG feature maps, compared by their mean squared difference. What
the figures behind the presets are is in notebook/decisions/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cvsct.core.settings import Settings
from cvsct.core.volume import HUWindow
from cvsct.networks.vgg import TextureNetwork
from cvsct.training import losses
from cvsct.training.distributed import ALONE, Ranks
from cvsct.training.vgg_files import WantedWeights, describe_weights, find_weights
from cvsct.training.vgg_weights import load_ct_texture, load_vgg

Images = Float[Tensor, "n 1 h w"]


class TextureLossConfig(Settings):
    """Settings of the texture loss (the paper's domain loss), eqs 1 to 3."""

    network: TextureNetwork = "vgg16"
    """Whose features are compared: VGG16 or VGG19, both trained on ImageNet, or `ct-texture`, which
    comes with the package and was trained on simulated CT."""

    weights: str = ""
    """File of its weights, `.npz`, Keras's `.h5` or torchvision's `.pth`; empty takes
    CVSCT_VGG_WEIGHTS, else torch's cache, else this program's."""

    download: bool = False
    """Download the convolutions that Keras publishes (VGG16 59 MB, VGG19 80 MB) into the cache of
    this program where there is no file."""

    layers: tuple[str, ...] = ("relu4_1", "relu5_1")
    """ReLU layers whose Gram matrices are compared."""

    window_hu: tuple[float, float] = (-1000.0, 900.0)
    """What the VGG network sees as black and white."""

    against: Literal["batch", "domain"] = "batch"
    """`batch` compares each translated patch with one patch of the target, as the paper does;
    `domain` compares the running mean Gram matrix of translated patches with the target domain's
    own, so that anatomy averages out."""

    scale: Literal["start", "target"] = "start"
    """Each layer's loss is divided by its value at the `start`, or by the energy of the `target`'s
    Gram matrix."""

    def wanted_weights(self) -> WantedWeights | None:
        """The weights that the loss needs of others; None where they come with the package."""
        if self.network == "ct-texture":
            return None
        return WantedWeights(self.network, self.weights, self.download, "domain")


class TextureLoss(nn.Module):
    """Distance of translated patches' Gram matrices from the target's, eqs 1 to 3.

    One object serves both directions; `side` names the target domain. Running means and units are
    of the whole batch, also where it is computed by several ranks or one part after another.
    """

    MEMORY = 0.8
    """Weight of the past in the running mean of translated Gram matrices."""

    def __init__(self, config: TextureLossConfig, window: HUWindow, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.config, self.ranks = config, ranks
        self.weights_origin: dict[str, str] | None = None
        wanted = config.wanted_weights()
        if wanted is None:
            self.features = load_ct_texture(config.layers)
        else:
            path = find_weights(wanted)
            self.features = load_vgg(path, config.layers, wanted.network)
            self.weights_origin = describe_weights(path, wanted.network, "in the domain loss alone")
        low, high = config.window_hu
        self.gain = (window.high_hu - window.low_hu) / (2 * (high - low))
        self.offset = (window.low_hu - low) / (high - low) + self.gain
        self.target: dict[str, list[Tensor]] = {}
        self.recent: dict[str, list[Tensor]] = {}
        self.surveyed: dict[str, list[Tensor]] = {}
        self.latest: dict[str, list[Tensor]] = {}
        self.unit: dict[str, Tensor] = {}

    def grams(self, images: Images) -> list[Float[Tensor, "n c c"]]:
        """Gram matrices of each image at the chosen layers."""
        gray = (images * self.gain + self.offset).clamp(0, 1)
        return [losses.gram(features) for features in self.features(gray)]

    @torch.no_grad()
    def mean_grams(self, images: Images) -> list[Float[Tensor, "1 c c"]]:
        """The mean Gram matrix of many images at each layer."""
        parts = [self.grams(images[first : first + 16]) for first in range(0, len(images), 16)]
        return [torch.cat(layer).mean(dim=0, keepdim=True) for layer in zip(*parts, strict=True)]

    def learn_target(self, side: str, images: Images) -> None:
        """Learn the mean Gram matrices of a domain from a large sample of its patches."""
        self.target[side] = self.mean_grams(images)

    def needs_survey(self, side: str) -> bool:
        """Whether `survey` must see all parts of a batch before the loss of one is computed."""
        return self.config.against == "domain" or side not in self.unit

    @torch.no_grad()
    def survey(self, parts: Iterable[tuple[Images, Images]], side: str) -> None:
        """Measure all parts of a batch beforehand: translated and real images of one domain."""
        if self.config.against == "domain":
            means = [[gram.mean(dim=0, keepdim=True) for gram in self.grams(f)] for f, _ in parts]
            whole = [torch.stack(layer).mean(dim=0) for layer in zip(*means, strict=True)]
            self.ranks.average_(whole)
            self.surveyed[side] = whole
            self._set_unit(side, self._with_memory(side, whole), self.target[side])
        else:
            part_grams = [(self.grams(fake), self.grams(real)) for fake, real in parts]
            fakes, reals = (
                [torch.cat(layer) for layer in zip(*grams, strict=True)]
                for grams in zip(*part_grams, strict=True)
            )
            self._set_unit(side, fakes, reals)

    def forward(self, fake: Images, real: Images, side: str) -> losses.Scalar:
        """Loss of translated images, given real ones of the domain they should be in."""
        fake_grams = self.grams(fake)
        if self.config.against == "batch":
            with torch.no_grad():
                wanted = self.grams(real)
        else:
            wanted = self.target[side]
            means = [gram.mean(dim=0, keepdim=True) for gram in fake_grams]
            fake_grams = self._with_memory(side, self._of_whole_batch(side, means))
        self._set_unit(side, fake_grams, wanted)
        return (losses.gram_distances(fake_grams, wanted) / self.unit[side]).mean()

    def finish_step(self) -> None:
        """Add the batch of this step to the running means."""
        for side, means in self.latest.items():
            self.recent[side] = self._with_memory(side, means)
        self.latest, self.surveyed = {}, {}

    def _of_whole_batch(self, side: str, means: list[Tensor]) -> list[Tensor]:
        """The mean over the whole batch in value, and of this part in gradient.

        Averaged over parts, such gradients are those of the whole batch.
        """
        own = [mean.detach() for mean in means]
        if side in self.surveyed:
            self.latest[side] = self.surveyed[side]
        else:
            self.latest[side] = [mean.clone() for mean in own]
            self.ranks.average_(self.latest[side])
        return [
            mean + (whole - mine)
            for mean, mine, whole in zip(means, own, self.latest[side], strict=True)
        ]

    def _with_memory(self, side: str, means: list[Tensor]) -> list[Tensor]:
        if side not in self.recent:
            return means
        return [
            self.MEMORY * past + (1 - self.MEMORY) * now
            for past, now in zip(self.recent[side], means, strict=True)
        ]

    @torch.no_grad()
    def _set_unit(self, side: str, fake_grams: list[Tensor], wanted: list[Tensor]) -> None:
        if side in self.unit:
            return
        if self.config.scale == "start":
            unit = losses.gram_distances(fake_grams, wanted)
        else:
            unit = torch.stack([gram.square().mean() for gram in wanted])
        self.ranks.average_([unit])
        self.unit[side] = unit.clamp_min(1e-12)

    def statistics(self) -> dict[str, Any]:
        """Statistics learned from data, for a checkpoint."""
        return {"target": self.target, "recent": self.recent, "unit": self.unit}

    def restore(self, statistics: dict[str, Any]) -> None:
        """Restore the statistics from a checkpoint."""
        self.target, self.recent = statistics["target"], statistics["recent"]
        self.unit = statistics["unit"]
