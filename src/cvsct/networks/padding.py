"""Padding by reflection, for networks that halve and double the image size."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def reflected(image: Float[Tensor, "n c h w"], step_px: int) -> Float[Tensor, "n c y x"]:
    """The image with rows and columns reflected below and to the right, to multiples of `step_px`.

    What is cut back to the first rows and columns lies where it lay. A side of at least
    `(step_px + 1) / 2` px always has enough to reflect.
    """
    rows, columns = image.shape[-2:]
    return functional.pad(image, (0, -columns % step_px, 0, -rows % step_px), mode="reflect")
