"""The convolutions of a VGG: texture features, and the encoder of RadiomicGAN.

Simonyan and Zisserman 2015, networks D (VGG16) and E (VGG19), trained on ImageNet; and a small one
of the same form, `ct-texture`, which this project trained on simulated CT. Here is the network; its
weights are read from a file by `training/vgg_weights.py`, or come with a model built on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cvsct.networks.winograd import Conv2d

Network: TypeAlias = Literal["vgg16", "vgg19"]
"""Those trained on ImageNet."""

TextureNetwork: TypeAlias = Literal["vgg16", "vgg19", "ct-texture"]
"""Those whose features can stand for texture."""

CONVOLUTIONS: dict[TextureNetwork, tuple[int, ...]] = {
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
    "ct-texture": (2, 2),
}
"""Convolutions in each block."""

WIDTHS = (64, 128, 256, 512, 512)
"""Filters of each block's convolutions, of those trained on ImageNet."""

CT_TEXTURE_WIDTHS = (32, 64)
"""Filters of each block's convolutions of `ct-texture`, which sees one gray channel."""


def convolution_positions(network: TextureNetwork) -> list[tuple[int, int]]:
    """Block of each convolution and its position in it, both from 1, in network order."""
    return [
        (block, place)
        for block, count in enumerate(CONVOLUTIONS[network], 1)
        for place in range(1, count + 1)
    ]


def layer_names(network: TextureNetwork) -> list[str]:
    """Every ReLU layer's name, such as `relu2_1`, in network order."""
    return [f"relu{block}_{place}" for block, place in convolution_positions(network)]


class VGG(nn.Module):
    """Feature maps of chosen ReLU layers of a frozen VGG for gray images in [0, 1].

    Args:
        layers: names such as `relu2_1`. The network ends at the last.
        network: which of them.
    """

    def __init__(self, layers: Sequence[str], network: TextureNetwork = "vgg16") -> None:
        super().__init__()
        known = layer_names(network)
        unknown = sorted(set(layers) - set(known))
        if unknown or not layers:
            raise ValueError(
                f"{network.upper()} has no layers {unknown}; choose from {', '.join(known)}"
                if unknown
                else f"at least one layer of {network.upper()} is needed"
            )
        self.layers = tuple(name for name in known if name in layers)
        self.names = known[: known.index(self.layers[-1]) + 1]
        own = network == "ct-texture"
        filters, channels = (CT_TEXTURE_WIDTHS, 1) if own else (WIDTHS, 3)
        positions = convolution_positions(network)[: len(self.names)]
        widths = [channels, *(filters[block - 1] for block, _ in positions)]
        self.convolutions = nn.ModuleList(Conv2d(*pair, 3, padding=1) for pair in pairwise(widths))
        self.gain: Tensor
        self.mean: Tensor
        self.register_buffer("gain", torch.ones(1, channels, 1, 1))
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, grey: Float[Tensor, "n 1 h w"]) -> list[Float[Tensor, "n c y x"]]:
        """Feature maps of the chosen layers."""
        maps = grey * self.gain - self.mean
        features = []
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name.endswith("_1") and name != "relu1_1":
                maps = functional.max_pool2d(maps, 2)
            maps = functional.relu(convolution(maps))
            if name in self.layers:
                features.append(maps)
        return features
