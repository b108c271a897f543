"""The generator of RadiomicGAN: a U-Net whose encoder is a frozen ImageNet VGG.

Selim et al., "CT Image Harmonization for Enhancing Radiomics Studies", BIBM 2021 (arXiv
2107.01337), and the authors' public code: from each of VGG's first four blocks the last features
pass a 3x3 convolution to half as many channels, those of the block below are convolved, doubled in
size (nearest neighbor) and joined to them; a 1x1 convolution and tanh end it. The code has VGG19;
the paper says "pre-trained and trainable layers": pre-trained ones stay frozen here. Its batch norm
is instance norm here, so that a slice does not depend on others; its input, repeated gray, gets
VGG's own preprocessing, which the code leaves out.

The frozen weights are part of the model, so that a model folder needs no other file.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from cvsct.core.settings import Settings
from cvsct.networks.padding import reflected
from cvsct.networks.vgg import VGG, WIDTHS, Network, layer_names
from cvsct.networks.winograd import Conv2d


class VGGUNetConfig(Settings):
    """Settings of a U-Net with a frozen VGG as encoder."""

    architecture: Literal["vgg-unet"] = "vgg-unet"
    """Which network it is."""

    network: Network = "vgg16"
    """The encoder: VGG16, or VGG19 as in the authors' code."""

    layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    """The ReLU layer of each block that is used, from the first block on; the last block decides
    how far the network sees, how long it takes and how large the model is."""

    reduction: int = Field(default=2, ge=1)
    """The trainable convolutions have VGG's channels divided by this."""

    norm: Literal["none", "instance"] = "instance"
    """Instance normalization after the convolution of each block's features."""

    residual: bool = False
    """Add the input to the output, which the authors do not."""

    @model_validator(mode="after")
    def _refuse_unknown_layers(self) -> VGGUNetConfig:
        known = layer_names(self.network)
        blocks = [name.removeprefix("relu").partition("_")[0] for name in self.layers]
        in_order = blocks == [str(block) for block in range(1, len(blocks) + 1)]
        if not self.layers or not in_order or not set(self.layers) <= set(known):
            raise ValueError(
                f"layers must be one of each block of {self.network.upper()}, from the first on, "
                f"such as {', '.join(known[1:4:2])}; not {', '.join(self.layers) or 'none'}"
            )
        return self


class VGGUNet(nn.Module):
    """Image of one scanner in, image of the other out; both in [-1, 1] of the HU window."""

    def __init__(self, config: VGGUNetConfig) -> None:
        super().__init__()
        self.config, self.step_px = config, 2 ** (len(config.layers) - 1)
        self.encoder = VGG(config.layers, config.network)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(len(config.layers)))
        self.across, self.up = nn.ModuleList(), nn.ModuleList()
        below = 0
        for width in reversed(WIDTHS[: len(config.layers)]):
            own = max(width // config.reduction, 1)
            norm = nn.InstanceNorm2d(own, affine=True) if config.norm == "instance" else None
            layers = (Conv2d(width, own, 3, padding=1), norm or nn.Identity(), nn.ReLU())
            self.across.append(nn.Sequential(*layers))
            if below:
                passed = max(below // 2, 1)
                self.up.append(Conv2d(below, passed, 3, padding=1))
                own += passed
            below = own
        self.head = nn.Conv2d(below, 1, 1)
        if self.config.residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Translate; the output has the input's size."""
        rows, columns = image.shape[-2:]
        levels = self._encoded(reflected(image, self.step_px))
        features = self.across[0](levels.pop())
        for across, up in zip(self.across[1:], self.up, strict=True):
            larger = functional.interpolate(up(features), scale_factor=2.0, mode="nearest")
            features = torch.cat((across(levels.pop()), larger), dim=1)
        change = torch.tanh(self.head(features))[..., :rows, :columns]
        return torch.clamp(image + change, -1.0, 1.0) if self.config.residual else change

    @torch.no_grad()
    def scale_to_data(self, images: Float[Tensor, "n 1 h w"]) -> None:
        """Divide each layer's features by their root mean square on these images.

        VGG's features are hundreds in places, and the authors' batch norm, which takes that out,
        is not there without `norm`.
        """
        self.scale.fill_(1.0)
        for index, features in enumerate(self._encoded(images)):
            self.scale[index] = 1 / features.square().mean().sqrt().clamp_min(1e-6)

    def _encoded(self, image: Tensor) -> list[Tensor]:
        with torch.autocast(image.device.type, enabled=False):  # bf16 has one gray level of 255
            layers = self.encoder((image.to(self.scale.dtype) + 1) / 2)
        return [features * self.scale[index] for index, features in enumerate(layers)]
