"""The CVS-CT generator: seven 4x4 convolutions with an attention block after each of three pairs.

Paper, Fig. 2 and section "Model Implementation". With attention and the default width it has
332,150 parameters. It works on images of any size and keeps it. The other architectures are in
modules of their own: CycleGAN's public ResNet-9, and those of the paired methods; `build_generator`
makes any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, overload

import torch
from jaxtyping import Float
from pydantic import Field, TypeAdapter, model_validator
from torch import Tensor, nn
from torch.nn import functional

from cvsct.core.settings import Settings
from cvsct.networks import winograd
from cvsct.networks.highpass import HighPass
from cvsct.networks.pooling import mean_and_max
from cvsct.networks.residual_cnn import ResidualCNN, ResidualCNNConfig
from cvsct.networks.resnet import BLOCKS, ResNetGenerator
from cvsct.networks.unet import UNet, UNetConfig
from cvsct.networks.vgg_unet import VGGUNet, VGGUNetConfig

LEAK = 0.2
"""Slope of LeakyReLU below zero (DCGAN's value; the paper names only the activation)."""


class GeneratorConfig(Settings):
    """Settings of a generator of unpaired training."""

    architecture: Literal["cvs-ct", "resnet-9"] = "cvs-ct"
    """The paper's, or CycleGAN's public ResNet-9 as a second baseline."""

    width: int = Field(default=64, ge=1)
    """Filters of each hidden convolution; of the first in `resnet-9`."""

    blocks: int = Field(default=3, ge=1)
    """Pairs of convolutions, each followed by attention; `resnet-9` has its nine."""

    attention: bool = True
    """CBAM after each pair; off for the paper's first ablation and in `resnet-9`."""

    norm: Literal["none", "instance"] = "none"
    """Instance normalization after each hidden convolution. The paper names none, and it makes a
    slice's result depend on what else it shows; `resnet-9` always has it."""

    reduction: int = Field(default=16, ge=1)
    """Bottleneck of the channel gate's MLP."""

    last_kernel: Literal[3, 4] = 4
    """Side of the last kernel: 4 as in the paper shifts the image by half a pixel, 3 by none.
    `resnet-9` ends in its 7x7 and shifts by none."""

    residual: bool = False
    """Add the input to the output. The network then learns the difference between the scanners and
    starts as the identity."""

    hold_low_px: float = Field(default=0.0, ge=0)
    """Sigma of the Gaussian whose low frequencies a residual may not change, so that no area's mean
    CT number can drift; 0 leaves it free."""

    @model_validator(mode="before")
    @classmethod
    def _complete_resnet(cls, given: Any) -> Any:
        """The defaults are the paper's: what `resnet-9` fixes otherwise is filled in."""
        if isinstance(given, Mapping) and given.get("architecture") == "resnet-9":
            return {"attention": False, "blocks": BLOCKS, "norm": "instance", **given}
        return given

    @model_validator(mode="after")
    def _refuse_settings_resnet_lacks(self) -> GeneratorConfig:
        if self.architecture == "resnet-9" and self.attention:
            raise ValueError(
                "resnet-9 has no attention; train cyclegan or cvsct-1, or set "
                "generator.attention=false"
            )
        if self.architecture == "resnet-9" and self.blocks != BLOCKS:
            raise ValueError(f"resnet-9 has {BLOCKS} blocks, not {self.blocks}; leave blocks out")
        if self.architecture == "resnet-9" and self.norm == "none":
            raise ValueError("resnet-9 has instance normalization; leave generator.norm out")
        return self


class SameConv(winograd.Conv2d):
    """A stride-1 convolution that keeps the image size, zero-padded.

    A kernel of even size has no center: it must be padded one pixel more on one side, and moves
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
        if self.trains_by_winograd(image):
            return self.by_winograd(image, self.margins)
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
        mean, peak = mean_and_max(features, over="pixels")
        features = features * torch.sigmoid(self.mlp(mean) + self.mlp(peak))
        pooled = torch.cat(mean_and_max(features, over="channels"), dim=1)
        gated: Tensor = features * torch.sigmoid(self.spatial(pooled))
        return gated


class Generator(nn.Module):
    """Image of one scanner in, image of the other out; both in [-1, 1] of the HU window."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.residual = config.residual
        layers: list[nn.Module] = []
        channels = 1
        for index in range(2 * config.blocks):
            layers.append(SameConv(channels, config.width, 4, lean=1 if index % 2 else 0))
            if config.norm == "instance":
                layers.append(nn.InstanceNorm2d(config.width, affine=True))
            layers.append(nn.LeakyReLU(LEAK))
            channels = config.width
            if config.attention and index % 2:
                layers.append(CBAM(config.width, config.reduction))
        self.body = nn.Sequential(*layers)
        self.head = SameConv(config.width, 1, config.last_kernel, lean=0)
        self.hold = HighPass.after(self.head, config.hold_low_px if config.residual else 0.0)

    def forward(self, image: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Translate; the output has the input's size."""
        change = torch.tanh(self.head(self.body(image)))
        if self.residual:
            return torch.clamp(image + self.hold(change), -1.0, 1.0)
        return change


PairedGeneratorConfig: TypeAlias = Annotated[
    ResidualCNNConfig | UNetConfig | VGGUNetConfig, Field(discriminator="architecture")
]
"""Settings of a generator of paired training, told apart by `architecture`."""

AnyConfig: TypeAlias = GeneratorConfig | ResidualCNNConfig | UNetConfig | VGGUNetConfig
CycleGenerator: TypeAlias = Generator | ResNetGenerator
AnyGenerator: TypeAlias = CycleGenerator | ResidualCNN | UNet | VGGUNet

_ANY: TypeAdapter[AnyConfig] = TypeAdapter(
    Annotated[AnyConfig, Field(discriminator="architecture")]
)


def read_config(settings: Mapping[str, Any]) -> AnyConfig:
    """The configuration that a model's settings hold; one without architecture is the paper's.

    Raises:
        ValueError: if it is none.
    """
    return _ANY.validate_python({"architecture": "cvs-ct", **settings})


@overload
def build_generator(config: GeneratorConfig) -> CycleGenerator: ...


@overload
def build_generator(config: AnyConfig) -> AnyGenerator: ...


def build_generator(config: AnyConfig) -> AnyGenerator:
    """The network of a configuration, with its architecture's own initial weights."""
    match config:
        case ResidualCNNConfig():
            return ResidualCNN(config)
        case UNetConfig():
            return UNet(config)
        case VGGUNetConfig():
            return VGGUNet(config)
        case GeneratorConfig(architecture="resnet-9"):
            return ResNetGenerator(config.width, config.residual, config.hold_low_px)
        case _:
            return Generator(config)


@torch.no_grad()
def scale_to_data(generator: CycleGenerator, images: Float[Tensor, "n 1 h w"]) -> None:
    """Scale each hidden convolution so that its output has unit variance on these images.

    Layer-sequential unit-variance initialization (Mishkin and Matas, ICLR 2016). With default
    weights the six sigmoid gates shrink the features about a thousandfold and the network hardly
    trains. ResNet-9's instance norm does that itself: only its head is scaled. The head of a
    residual generator starts at zero: the identity.
    """
    features = images
    for layer in generator.body:
        if isinstance(layer, SameConv):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            layer.weight /= layer(features).std()
        features = layer(features)
    if generator.residual:
        nn.init.zeros_(generator.head.weight)
        nn.init.zeros_(generator.head.bias)  # type: ignore[arg-type]
    else:
        generator.head.weight *= 0.3 / generator.head(features).std()
