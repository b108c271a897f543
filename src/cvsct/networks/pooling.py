"""Mean and maximum over channels or pixels, with gradients in the layout of the features.

PyTorch's gradient of `amax` builds a mask of all maxima, counts them in 64-bit integers and comes
back channels first. Together with its sums it took a fifth of a training step on processors.
Here the place of the maximum is kept, and the gradient is written there.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

Over = Literal["channels", "pixels"]


def mean_and_max(
    features: Float[Tensor, "n c h w"], over: Over
) -> tuple[Float[Tensor, "n _ _ _"], Float[Tensor, "n _ _ _"]]:
    """Mean and maximum over the channels of each pixel, or over the pixels of each channel.

    Where several values are the maximum, one of them gets its gradient; `amax` shares it among
    them. Both are subgradients.

    Args:
        features: in any layout; channels last is fastest, and is the layout of the gradient.
        over: axes to reduce; they stay, with length 1.
    """
    if _needs_gradient(features):
        mean, peak = _MeanAndMax.apply(features, over)  # type: ignore[no-untyped-call]
        return mean, peak
    axes = (1,) if over == "channels" else (2, 3)
    return features.mean(dim=axes, keepdim=True), features.amax(dim=axes, keepdim=True)


def _needs_gradient(features: Tensor) -> bool:
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return torch.is_grad_enabled() and features.requires_grad and not tracing


class _MeanAndMax(torch.autograd.Function):
    """Both reductions, on features as lines of pixels with their channels."""

    @staticmethod
    def forward(context: Any, features: Tensor, over: Over) -> tuple[Tensor, Tensor]:
        n, c, height, width = features.shape
        lines = features.permute(0, 2, 3, 1).reshape(n, height * width, c)
        axis = 2 if over == "channels" else 1
        peak, place = lines.max(dim=axis, keepdim=True)
        context.save_for_backward(place)
        context.shape, context.axis = features.shape, axis
        shape = (n, 1, height, width) if over == "channels" else (n, c, 1, 1)
        return lines.mean(dim=axis).view(shape), peak.view(shape)

    @staticmethod
    def backward(context: Any, of_mean: Tensor, of_peak: Tensor) -> Any:
        (place,) = context.saved_tensors
        n, c, height, width = context.shape
        share = of_mean.reshape(place.shape) / (c if context.axis == 2 else height * width)
        lines = share.expand(n, height * width, c).contiguous()
        lines.scatter_add_(context.axis, place, of_peak.reshape(place.shape))
        return lines.view(n, height, width, c).permute(0, 3, 1, 2), None
