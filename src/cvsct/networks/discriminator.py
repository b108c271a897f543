"""The CVS-CT discriminator: a fully convolutional critic of patches.

Paper, Fig. 1 and section "Model Implementation": seven hidden 4x4 convolutions, LeakyReLU, after
pix2pix (Isola et al. 2017). With the default widths and strides an 80x80 patch gives one number.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cvsct.core.errors import TrainingError
from cvsct.core.settings import Settings
from cvsct.core.volume import HUWindow
from cvsct.networks.cvsct_generator import LEAK


class DiscriminatorConfig(Settings):
    """Settings of a discriminator."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)
    """Filters of each hidden convolution."""

    strides: tuple[int, ...] = (2, 2, 2, 2, 1, 1, 1)
    """Stride of each hidden convolution."""

    sigmoid: bool = True
    """End in a sigmoid, as the paper says. Least-squares GANs stall with one."""

    input_gain: float = 1.0
    """Contrast given to the input around `input_centre_hu`. Soft-tissue texture spans about +-0.03
    of [-1, 1]: without a gain the critic sees nothing for long."""

    input_centre_hu: float = -50.0
    """The CT number that the gain leaves at zero."""

    kaiming: bool = False
    """Kaiming initialization in place of PyTorch's default."""

    def map_size(self, patch_px: int) -> int:
        """Side of the score map for a square patch of that many pixels a side.

        Raises:
            TrainingError: if the patch is too small for this network.
        """
        size = patch_px
        for stride in (*self.strides, 1):
            size = (size + 2 - 4) // stride + 1
            if size < 1:
                raise TrainingError(
                    f"patches of {patch_px} px vanish in a discriminator of strides "
                    f"{self.strides}; use larger patches or fewer layers"
                )
        return size


class Discriminator(nn.Module):
    """Scores whether a patch was made by the scanner it knows: 1 real, 0 translated.

    Args:
        window: HU range of the [-1, 1] it is shown.
        images: how many it is shown side by side; two where it also sees what was translated.
    """

    def __init__(self, config: DiscriminatorConfig, window: HUWindow, images: int = 1) -> None:
        super().__init__()
        if len(config.widths) != len(config.strides):
            raise TrainingError(
                f"discriminator has {len(config.widths)} widths and {len(config.strides)} strides; "
                "give one stride a width"
            )
        self.config = config
        low, high = window.low_hu, window.high_hu
        self.centre = 2 * (config.input_centre_hu - low) / (high - low) - 1
        layers: list[nn.Module] = []
        channels = images
        for width, stride in zip(config.widths, config.strides, strict=True):
            layers += [nn.Conv2d(channels, width, 4, stride, padding=1), nn.LeakyReLU(LEAK)]
            channels = width
        layers.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        if config.kaiming:
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, LEAK)
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, image: Float[Tensor, "n images h w"]) -> Float[Tensor, "n 1 y x"]:
        """A map of scores, 1x1 for 80x80 patches with the default strides."""
        return self.scores_and_features(image)[0]

    def scores_and_features(
        self, image: Float[Tensor, "n images h w"]
    ) -> tuple[Float[Tensor, "n 1 y x"], list[Float[Tensor, "n c v u"]]]:
        """Map of scores, and the features of each hidden layer."""
        if self.config.input_gain != 1:
            image = (image - self.centre) * self.config.input_gain
        features = []
        for layer in self.layers:
            image = layer(image)
            if isinstance(layer, nn.LeakyReLU):
                features.append(image)
        return (torch.sigmoid(image) if self.config.sigmoid else image), features
