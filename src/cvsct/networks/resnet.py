"""The public ResNet-9 generator of CycleGAN, as a second baseline.

Zhu et al., ICCV 2017, appendix 7.2: c7s1-64, d128, d256, nine residual blocks of 256, u128, u64,
c7s1-1, with instance norm, ReLU, reflection padding and weights drawn from N(0, 0.02); one channel
in and out in place of three. 11,365,633 parameters at the published width.

Instance norm is kept as published. It takes mean and variance over the whole image it is given, so
a slice with air and table around the patient is normalized otherwise than the soft-tissue patches
of the training, and a slice cut into tiles would come back otherwise than whole.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cvsct.networks.highpass import HighPass
from cvsct.networks.padding import reflected
from cvsct.networks.winograd import Conv2d

BLOCKS = 9
STEP_PX = 4
"""Two halvings: sizes between are reached by reflection, and cut back after."""

INITIAL_SD = 0.02


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Add what the layers find."""
        added: Tensor = features + self.layers(features)
        return added


class ResNetGenerator(nn.Module):
    """Image of one scanner in, image of the other out; both in [-1, 1] of the HU window.

    Args:
        width: filters of the first convolution; 64 as published.
        residual: add the input to the output, which is not published.
        hold_low_px: see `GeneratorConfig`.
    """

    def __init__(self, width: int, residual: bool, hold_low_px: float = 0.0) -> None:
        super().__init__()
        self.residual = residual
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_normed(nn.Conv2d(1, width, 7))]
        for channels in (width, 2 * width):
            layers += _normed(nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1))
        layers += [ResidualBlock(4 * width) for _ in range(BLOCKS)]
        for channels in (4 * width, 2 * width):
            layers += _normed(
                nn.ConvTranspose2d(
                    channels, channels // 2, 3, stride=2, padding=1, output_padding=1
                )
            )
        self.body = nn.Sequential(*layers, nn.ReflectionPad2d(3))
        self.head = nn.Conv2d(width, 1, 7)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, INITIAL_SD)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.hold = HighPass.after(self.head, hold_low_px if residual else 0.0)

    def forward(self, image: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Translate; the output has the input's size, which is at least 5 px a side."""
        rows, columns = image.shape[-2:]
        padded = reflected(image, STEP_PX)
        change = torch.tanh(self.head(self.body(padded)))[..., :rows, :columns]
        if self.residual:
            return torch.clamp(image + self.hold(change), -1.0, 1.0)
        return change


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU()]
