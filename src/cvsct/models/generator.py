"""The CVS-CT generator: seven 4x4 convolutions with an attention block after each of three pairs.

Paper, Fig. 2 and section "Model Implementation". With attention and the default width it has
332,150 parameters. It works on images of any size and keeps it.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.2
"""Slope of LeakyReLU below zero (DCGAN's value; the paper names only the activation)."""


class GeneratorConfig(BaseModel):
    """What a generator is built from.

    Attributes:
        width: filters of each hidden convolution.
        blocks: pairs of convolutions, each followed by attention.
        attention: CBAM after each pair; off for the paper's first ablation.
        reduction: bottleneck of the channel gate's MLP.
        last_kernel: 4 as in the paper shifts the image by half a pixel, 3 by none.
        residual: add the input to the output. The network then learns the difference between
            the scanners and starts as the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = 64
    blocks: int = 3
    attention: bool = True
    reduction: int = 16
    last_kernel: Literal[3, 4] = 4
    residual: bool = False


class SameConv(nn.Conv2d):
    """A stride-1 convolution that keeps the image size, zero-padded.

    A kernel of even size has no centre: it must be padded one pixel more on one side, and moves
    the image half a pixel to the other. `lean` says which side gets the odd pixel, so that a
    chain of layers can alternate and stay in place.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel_px: int, lean: Literal[0, 1]
    ) -> None:
        super().__init__(channels_in, channels_out, kernel_px)
        before = (kernel_px - 1 + lean) // 2
        after = kernel_px - 1 - before
        self.margins = (before, after, before, after)

    def forward(self, image: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Convolve."""
        return super().forward(functional.pad(image, self.margins))


class CBAM(nn.Module):
    """Convolutional block attention: a gate per channel, then a gate per pixel.

    Woo et al., ECCV 2018, eqs 2 and 3. Both gates are sigmoids: the paper's text says softmax
    for the spatial one, which would scale the features with the image size.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Scale each channel, then each pixel."""
        mean = features.mean(dim=(2, 3), keepdim=True)
        peak = features.amax(dim=(2, 3), keepdim=True)
        features = features * torch.sigmoid(self.mlp(mean) + self.mlp(peak))
        pooled = torch.cat(
            (features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)), dim=1
        )
        gated: Tensor = features * torch.sigmoid(self.spatial(pooled))
        return gated


class Generator(nn.Module):
    """Image of one scanner in, image of the other out; both in [-1, 1] of the HU window."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        channels = 1
        for index in range(2 * config.blocks):
            layers += [
                SameConv(channels, config.width, 4, lean=1 if index % 2 else 0),
                nn.LeakyReLU(LEAK),
            ]
            channels = config.width
            if config.attention and index % 2:
                layers.append(CBAM(config.width, config.reduction))
        self.body = nn.Sequential(*layers)
        self.head = SameConv(config.width, 1, config.last_kernel, lean=0)

    def forward(self, image: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Translate; the output has the input's size."""
        change = torch.tanh(self.head(self.body(image)))
        if self.config.residual:
            return torch.clamp(image + change, -1.0, 1.0)
        return change


@torch.no_grad()
def scale_to_data(generator: Generator, images: Float[Tensor, "n 1 h w"]) -> None:
    """Scale each hidden convolution so that its output has unit variance on these images.

    Layer-sequential unit-variance initialisation (Mishkin and Matas, ICLR 2016). With default
    weights the six sigmoid gates shrink the features about a thousandfold and the network hardly
    trains. The head of a residual generator starts at zero: the identity.
    """
    features = images
    for layer in generator.body:
        if isinstance(layer, SameConv):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            layer.weight /= layer(features).std()
        features = layer(features)
    if generator.config.residual:
        nn.init.zeros_(generator.head.weight)
        nn.init.zeros_(generator.head.bias)  # type: ignore[arg-type]
    else:
        generator.head.weight *= 0.3 / generator.head(features).std()
