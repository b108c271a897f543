"""High-pass filter of a residual generator, so that it cannot change low frequencies.

Two scanners agree on what large areas read (both are calibrated on water), and nothing in the
losses of unpaired training holds them there: a target patient with less fat pulls every organ up.
The classical filter has gain 1 at zero frequency; this gives a network the same.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

REACH_SIGMA = 3.0
"""The Gaussian is cut off here and scaled to a sum of 1: a constant comes out as exactly zero."""


def reach_px(sigma_px: float) -> int:
    """Radius of the filter in pixels; an image must be larger."""
    return max(1, math.ceil(REACH_SIGMA * sigma_px))


class HighPass(nn.Module):
    """An image less its Gaussian-blurred self, reflected at the borders.

    Half of the amplitude passes at 0.19 / sigma cycles a pixel. The filter's support is finite,
    so a tile with a margin of `reach_px` gives what the whole slice gives. It has no weights.

    Args:
        sigma_px: of the Gaussian.
    """

    def __init__(self, sigma_px: float) -> None:
        super().__init__()
        self.reach_px = reach_px(sigma_px)
        place = torch.arange(-self.reach_px, self.reach_px + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (place / sigma_px) ** 2)
        self.kernel: Tensor
        kernel = (kernel / kernel.sum()).to(torch.get_default_dtype())
        self.register_buffer("kernel", kernel, persistent=False)

    @staticmethod
    def after(head: nn.Conv2d, sigma_px: float) -> nn.Module:
        """Filter for the output of a convolution; for 0 the identity.

        The convolution's bias is frozen: the filter takes it out again, so its gradient is
        rounding noise, which Adam would blow up to whole steps.
        """
        if sigma_px == 0:
            return nn.Identity()
        if head.bias is not None:
            nn.init.zeros_(head.bias).requires_grad_(False)
        return HighPass(sigma_px)

    def forward(self, change: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Take out the low frequencies; images are larger than `reach_px` a side."""
        reach = self.reach_px
        with torch.autocast(change.device.type, enabled=False):  # 49 taps of bf16 leave a bias
            change = change.to(self.kernel.dtype)
            padded = functional.pad(change, (reach,) * 4, mode="reflect")
            blurred = functional.conv2d(padded, self.kernel.view(1, 1, -1, 1))
            blurred = functional.conv2d(blurred, self.kernel.view(1, 1, 1, -1))
        return change - blurred
