"""The U-Net generator of pix2pix, which cGAN, GANai and STAN-CT share.

Isola et al., CVPR 2017, appendix 6.1.1: 4x4 convolutions of stride 2 down (LeakyReLU 0.2) and up
(ReLU), each level's features joined to those that come back up to it, 64-128-256-512-512-...
filters, normalization but at the first and the innermost, weights drawn from N(0, 0.02). At batch
1, as published, its batch norm is instance norm. Left out: dropout, which pix2pix keeps on at test
time as its noise: the same scan must give the same image.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cvsct.core.settings import Settings
from cvsct.networks.padding import reflected

LEAK = 0.2
INITIAL_SD = 0.02
WIDEST = 8
"""Largest number of filters, as a multiple of the first level's."""


class UNetConfig(Settings):
    """Settings of a U-Net."""

    architecture: Literal["unet"] = "unet"
    """Which network it is."""

    width: int = Field(default=64, ge=1)
    """Filters of the first level."""

    depth: int = Field(default=8, ge=1, le=8)
    """Halvings; a side of at least `2^(depth - 1) + 1` px is needed."""

    norm: Literal["none", "instance"] = "instance"
    """Instance normalization as in pix2pix. It takes mean and variance over the image it is given,
    so a slice with air around is normalized otherwise than a patch of tissue."""

    residual: bool = False
    """Add the input to the output, which pix2pix does not. The network then learns the difference
    of the scanners and starts as the identity."""


class UNet(nn.Module):
    """Image of one scanner in, image of the other out; both in [-1, 1] of the HU window."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.residual, self.step_px = config.residual, 2**config.depth
        widths = [config.width * min(2**level, WIDEST) for level in range(config.depth)]
        normed = config.norm == "instance"
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            layer = nn.Conv2d(1 if level == 0 else widths[level - 1], width, 4, 2, padding=1)
            has_norm = normed and 0 < level < config.depth - 1
            self.down.append(nn.Sequential(layer, _norm(width, has_norm)))
        for level in reversed(range(1, config.depth)):
            joined = widths[level] * (1 if level == config.depth - 1 else 2)
            back = nn.ConvTranspose2d(joined, widths[level - 1], 4, 2, padding=1)
            self.up.append(nn.Sequential(back, _norm(widths[level - 1], normed)))
        joined = widths[0] * (1 if config.depth == 1 else 2)
        self.head = nn.ConvTranspose2d(joined, 1, 4, 2, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, INITIAL_SD)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if self.residual:
            nn.init.zeros_(self.head.weight)

    def forward(self, image: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Translate; the output has the input's size."""
        rows, columns = image.shape[-2:]
        levels = self._encoded(reflected(image, self.step_px))
        features = levels.pop()
        for layer in self.up:
            features = torch.cat((layer(functional.relu(features)), levels.pop()), dim=1)
        change = torch.tanh(self.head(functional.relu(features)))[..., :rows, :columns]
        return torch.clamp(image + change, -1.0, 1.0) if self.residual else change

    def latent(self, image: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n c y x"]:
        """Innermost features of an image: output of the last encoder level."""
        return self._encoded(reflected(image, self.step_px))[-1]

    def _encoded(self, image: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for level, layer in enumerate(self.down):
            image = layer(functional.leaky_relu(image, LEAK) if level else image)
            levels.append(image)
        return levels


def _norm(channels: int, wanted: bool) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True) if wanted else nn.Identity()
