"""The residual CNN of Choe et al., which learns the difference of two kernels' images.

Choe et al., Radiology 2019, 292:365: a CNN "using residual learning and an end-to-end way"; its
layers are those of the same group's Lee et al., Korean J Radiol 2019, 20:295: six convolutions,
each 3x3 with 64 filters. Chosen here, as neither says: ReLU between them, the last to one channel,
zero padding, and a last convolution that starts at zero: the identity.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from cvsct.core.settings import Settings
from cvsct.networks.winograd import Conv2d


class ResidualCNNConfig(Settings):
    """Settings of the residual CNN."""

    architecture: Literal["residual-cnn"] = "residual-cnn"
    """Which network it is."""

    width: int = Field(default=64, ge=1)
    """Filters of each hidden convolution."""

    convolutions: int = Field(default=6, ge=2)
    """How many convolutions there are, the last to one channel."""


class ResidualCNN(nn.Module):
    """Image in, image plus the output of the convolutions out; both in [-1, 1] of the HU window."""

    def __init__(self, config: ResidualCNNConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(config.convolutions - 1):
            convolution = Conv2d(channels, config.width, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.ReLU()]
            channels = config.width
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Translate; the output has the input's size, which may be any."""
        return torch.clamp(image + self.head(self.body(image)), -1.0, 1.0)
