"""The domain loss of CVS-CT: how far translated patches' texture is from the target scanner's.

Eqs 1 to 3: Gram matrices of VGG feature maps, compared by their mean squared difference. What
the figures behind the presets are is in docs/decisions/.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from cvsct.training import losses
from cvsct.training.vgg import VGGFeatures, find_weights
from cvsct.volume import HUWindow

Images = Float[Tensor, "n 1 h w"]


class DomainConfig(BaseModel):
    """The texture ("domain") loss, eqs 1 to 3.

    Attributes:
        weights: file of VGG16 weights; empty takes CVSCT_VGG_WEIGHTS.
        layers: ReLU layers whose Gram matrices are compared.
        window_hu: what the VGG network sees as black and white.
        against: `batch` compares each translated patch with one patch of the target, as the
            paper does; `domain` compares the running mean Gram matrix of translated patches
            with the target domain's own, so that anatomy averages out.
        scale: each layer's loss is divided by its value at the `start`, or by the energy of the
            `target`'s Gram matrix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = ""
    layers: tuple[str, ...] = ("relu4_1", "relu5_1")
    window_hu: tuple[float, float] = (-1000.0, 900.0)
    against: Literal["batch", "domain"] = "batch"
    scale: Literal["start", "target"] = "start"


class DomainLoss(nn.Module):
    """Distance of translated patches' Gram matrices from the target's, eqs 1 to 3.

    One object serves both directions; `side` names the target domain.
    """

    MEMORY = 0.8
    """Weight of the past in the running mean of translated Gram matrices."""

    def __init__(self, config: DomainConfig, window: HUWindow) -> None:
        super().__init__()
        self.config = config
        self.features = VGGFeatures(find_weights(config.weights), config.layers)
        low, high = config.window_hu
        self.gain = (window.high_hu - window.low_hu) / (2 * (high - low))
        self.offset = (window.low_hu - low) / (high - low) + self.gain
        self.target: dict[str, list[Tensor]] = {}
        self.recent: dict[str, list[Tensor]] = {}
        self.unit: dict[str, Tensor] = {}

    def grams(self, images: Images) -> list[Float[Tensor, "n c c"]]:
        """Gram matrices of each image at the chosen layers."""
        grey = (images * self.gain + self.offset).clamp(0, 1)
        return [losses.gram(features) for features in self.features(grey)]

    @torch.no_grad()
    def learn_target(self, side: str, images: Images) -> None:
        """Take a domain's mean Gram matrices from a large sample of its patches."""
        parts = [self.grams(images[first : first + 16]) for first in range(0, len(images), 16)]
        self.target[side] = [
            torch.cat(layer).mean(dim=0, keepdim=True) for layer in zip(*parts, strict=True)
        ]

    def forward(self, fake: Images, real: Images, side: str) -> losses.Scalar:
        """The loss of translated images, with real ones of the domain they should be in."""
        found = self.grams(fake)
        if self.config.against == "batch":
            with torch.no_grad():
                wanted = self.grams(real)
        else:
            wanted = self.target[side]
            found = self._with_memory(side, found)
        distances = losses.domain_distances(found, wanted)
        if side not in self.unit:
            unit = (
                distances.detach()
                if self.config.scale == "start"
                else torch.stack([gram.square().mean() for gram in wanted])
            )
            self.unit[side] = unit.clamp_min(1e-12)
        return (distances / self.unit[side]).mean()

    def _with_memory(self, side: str, found: list[Tensor]) -> list[Tensor]:
        means = [gram.mean(dim=0, keepdim=True) for gram in found]
        if side in self.recent:
            means = [
                self.MEMORY * past + (1 - self.MEMORY) * now
                for past, now in zip(self.recent[side], means, strict=True)
            ]
        self.recent[side] = [mean.detach() for mean in means]
        return means

    def statistics(self) -> dict[str, Any]:
        """What it has learned from data, for a checkpoint."""
        return {"target": self.target, "recent": self.recent, "unit": self.unit}

    def restore(self, statistics: dict[str, Any]) -> None:
        """Take up statistics from a checkpoint."""
        self.target, self.recent = statistics["target"], statistics["recent"]
        self.unit = statistics["unit"]
