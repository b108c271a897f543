"""Texture features for the domain loss: the convolutions of an ImageNet VGG16, frozen.

Simonyan and Zisserman 2015. The weights come from a file the user names; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cvsct.errors import TrainingError

WEIGHTS_VARIABLE = "CVSCT_VGG_WEIGHTS"
CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Convolutions in each of VGG16's five blocks."""

MEAN_BGR = (103.939, 116.779, 123.68)
"""ImageNet's mean in the order and scale (0 to 255) of the published weights."""


def find_weights(path: str) -> Path:
    """The weights file: `path` where given, else the one that CVSCT_VGG_WEIGHTS names.

    Raises:
        TrainingError: if there is none.
    """
    named = path or os.environ.get(WEIGHTS_VARIABLE, "")
    if not named:
        raise TrainingError(
            "the domain loss needs ImageNet VGG16 weights: give --set domain.weights=FILE.npz or "
            f"set {WEIGHTS_VARIABLE}; `cvsct-2` and `cyclegan` train without them"
        )
    if not Path(named).is_file():
        raise TrainingError(f"{named}: no such file of VGG16 weights; see docs/training.md")
    return Path(named)


class VGGFeatures(nn.Module):
    """Feature maps of chosen ReLU layers of VGG16 for grey images in [0, 1].

    Args:
        weights: `.npz` with `block{b}_conv{c}/kernel` (out, in, 3, 3) and `/bias`, for BGR input
            in 0..255 minus the ImageNet mean.
        layers: names such as `relu2_1`, in network order. The network ends at the last.
    """

    def __init__(self, weights: Path, layers: Sequence[str]) -> None:
        super().__init__()
        known = [f"relu{b}_{c}" for b, n in enumerate(CONVOLUTIONS, 1) for c in range(1, n + 1)]
        unknown = sorted(set(layers) - set(known))
        if unknown or not layers:
            raise TrainingError(
                f"VGG16 has no layers {unknown}; choose from {', '.join(known)}"
                if unknown
                else "the domain loss needs at least one VGG16 layer"
            )
        self.layers = tuple(name for name in known if name in layers)
        self.names = known[: known.index(self.layers[-1]) + 1]
        self.convolutions = nn.ModuleList(_read(weights, self.names))
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, grey: Float[Tensor, "n 1 h w"]) -> list[Float[Tensor, "n c y x"]]:
        """Feature maps of the chosen layers."""
        maps = grey * 255 - self.mean
        found = []
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name.endswith("_1") and name != "relu1_1":
                maps = functional.max_pool2d(maps, 2)
            maps = functional.relu(convolution(maps))
            if name in self.layers:
                found.append(maps)
        return found


def _read(path: Path, names: Sequence[str]) -> list[nn.Conv2d]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            pairs = [
                tuple(
                    torch.from_numpy(
                        arrays[f"block{name[4]}_conv{name[6]}/{part}"].astype(np.float32)
                    )
                    for part in ("kernel", "bias")
                )
                for name in names
            ]
    except (OSError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not VGG16 convolution weights ({error})") from error
    convolutions = []
    for kernel, bias in pairs:
        convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        convolution.weight = nn.Parameter(kernel)
        convolution.bias = nn.Parameter(bias)
        convolutions.append(convolution)
    return convolutions
