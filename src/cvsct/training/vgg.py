"""Texture features for the domain loss: the convolutions of an ImageNet VGG, frozen.

Simonyan and Zisserman 2015, networks D (VGG16) and E (VGG19). The weights are in a file, of this
project's format or torchvision's. Nothing is downloaded unless the user has asked for it.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cvsct.errors import TrainingError
from cvsct.runs import file_sha256

logger = logging.getLogger(__name__)

Network: TypeAlias = Literal["vgg16", "vgg19"]
WEIGHTS_VARIABLE = "CVSCT_VGG_WEIGHTS"
CONVOLUTIONS: dict[Network, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks."""

WIDTHS = (64, 128, 256, 512, 512)
"""Filters of each block's convolutions."""

PUBLISHED: dict[Network, str] = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
"""torchvision's files; the name ends in the first digits of the file's sha256."""

PUBLISHED_AT = "https://download.pytorch.org/models/"
PUBLISHED_MB = 550

MEAN_BGR = (103.939, 116.779, 123.68)
"""ImageNet's mean in the order and scale (0 to 255) of Simonyan and Zisserman's weights."""

MEAN_RGB, SD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation in the order and scale (0 to 1) of torchvision's."""


_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    RuntimeError,
    KeyError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""What numpy and torch raise for a file that is damaged or another's."""


def find_weights(path: str, network: Network = "vgg16", download: bool = False) -> Path:
    """The weights file: `path`, else what CVSCT_VGG_WEIGHTS names, else torch's cache.

    Args:
        path: empty where the user has named none.
        download: fetch torchvision's file into the cache if it is nowhere else.

    Raises:
        TrainingError: if there is none, or it cannot be downloaded.
    """
    named = path or os.environ.get(WEIGHTS_VARIABLE, "")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[network]
    if named:
        if not Path(named).is_file():
            raise TrainingError(f"{named}: no such file of VGG weights; see docs/training.md")
        return Path(named)
    if cached.is_file():
        return cached
    if download:
        _download(cached)
        return cached
    raise TrainingError(
        f"the domain loss needs ImageNet {network.upper()} weights: give --set domain.weights=FILE "
        f"(.npz or .pth), or set {WEIGHTS_VARIABLE}, or put torchvision's {cached.name} into "
        f"{cached.parent}, or allow a download of {PUBLISHED_MB} MB with --set "
        "domain.download=true; `cvsct-2` and `cyclegan` train without them"
    )


class VGGFeatures(nn.Module):
    """Feature maps of chosen ReLU layers of a VGG for grey images in [0, 1].

    Args:
        weights: `.npz` with `block{b}_conv{c}/kernel` (out, in, 3, 3) and `/bias`, for BGR input
            in 0..255 minus the ImageNet mean; or torchvision's state dict with
            `features.{n}.weight` and `.bias`, for RGB input in 0..1, less mean, over deviation.
            Blocks after the last layer may be left out.
        layers: names such as `relu2_1`. The network ends at the last.
        network: which of the two the weights are of.
    """

    def __init__(self, weights: Path, layers: Sequence[str], network: Network = "vgg16") -> None:
        super().__init__()
        known = [f"relu{block}_{place}" for block, place in _convolutions(network)]
        unknown = sorted(set(layers) - set(known))
        if unknown or not layers:
            raise TrainingError(
                f"{network.upper()} has no layers {unknown}; choose from {', '.join(known)}"
                if unknown
                else f"the domain loss needs at least one layer of {network.upper()}"
            )
        self.layers = tuple(name for name in known if name in layers)
        self.names = known[: known.index(self.layers[-1]) + 1]
        convolutions, form = _read(weights, network, len(self.names))
        self.convolutions = nn.ModuleList(convolutions)
        self.weights_sha256 = file_sha256(weights)
        self.gain: Tensor
        self.mean: Tensor
        for name, value in (("gain", form.gain), ("mean", form.mean)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, grey: Float[Tensor, "n 1 h w"]) -> list[Float[Tensor, "n c y x"]]:
        """Feature maps of the chosen layers."""
        maps = grey * self.gain - self.mean
        found = []
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name.endswith("_1") and name != "relu1_1":
                maps = functional.max_pool2d(maps, 2)
            maps = functional.relu(convolution(maps))
            if name in self.layers:
                found.append(maps)
        return found


@dataclass(frozen=True)
class _Format:
    """How a file ends its names, and the input it was trained on: `grey * gain - mean`."""

    kernel: str
    bias: str
    gain: tuple[float, ...]
    mean: tuple[float, ...]


_NPZ = _Format("/kernel", "/bias", (255.0,) * 3, MEAN_BGR)
_TORCHVISION = _Format(
    ".weight",
    ".bias",
    tuple(1 / sd for sd in SD_RGB),
    tuple(mean / sd for mean, sd in zip(MEAN_RGB, SD_RGB, strict=True)),
)


def _convolutions(network: Network) -> list[tuple[int, int]]:
    """Block and place of each convolution, both counted from 1, in network order."""
    return [
        (block, place)
        for block, count in enumerate(CONVOLUTIONS[network], 1)
        for place in range(1, count + 1)
    ]


def _read(path: Path, network: Network, count: int) -> tuple[list[nn.Conv2d], _Format]:
    """The first `count` convolutions of a file."""
    order = _convolutions(network)
    try:
        if path.suffix == ".npz":
            form, names = _NPZ, [f"block{block}_conv{place}" for block, place in order]
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                held = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:  # its numbers count a ReLU after each convolution and a pooling after each block
            form = _TORCHVISION
            names = [f"features.{2 * n + block - 1}" for n, (block, _) in enumerate(order)]
            held = _state_dict(path)
        _refuse_other_network(held, form.kernel, names)
        widths = [3, *(WIDTHS[block - 1] for block, _ in order)]
        convolutions = [
            _convolution(held, names[n] + form.kernel, names[n] + form.bias, *widths[n : n + 2])
            for n in range(count)
        ]
    except _UNREADABLE as error:
        missing = isinstance(error, KeyError)
        reason = f"no {error.args[0]}" if missing else str(error).partition("\n")[0]
        raise TrainingError(
            f"{path}: not {network.upper()} convolution weights ({reason}); expected torchvision's "
            f"{PUBLISHED[network]} or an .npz as in docs/training.md"
        ) from error
    return convolutions, form


def _state_dict(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"it holds a {type(state).__name__}, no state dict")
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor) and str(name).startswith("features.")
    }


def _refuse_other_network(held: Mapping[str, Tensor], ending: str, names: Sequence[str]) -> None:
    """A file may end early, but must not skip a convolution or have one more."""
    found = {name.removesuffix(ending) for name in held if name.endswith(ending)}
    more, fewer = found - set(names), set(names[: len(found)]) - found
    if more:
        raise ValueError(f"this network has no {', '.join(sorted(more))}")
    if fewer:
        raise ValueError(f"no {', '.join(sorted(fewer))}")


def _convolution(
    held: Mapping[str, Tensor], kernel_name: str, bias_name: str, channels_in: int, channels: int
) -> nn.Conv2d:
    kernel, bias = (held[name].to(torch.get_default_dtype()) for name in (kernel_name, bias_name))
    for name, values, shape in (
        (kernel_name, kernel, (channels, channels_in, 3, 3)),
        (bias_name, bias, (channels,)),
    ):
        if tuple(values.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, expected {shape}")
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} holds values that are not finite")
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1)
    convolution.weight = nn.Parameter(kernel)
    convolution.bias = nn.Parameter(bias)
    return convolution


def _download(place: Path) -> None:
    """Fetch torchvision's file; it appears under its name only when its hash is right."""
    url = PUBLISHED_AT + place.name
    digits = place.stem.rpartition("-")[2]
    logger.info("fetching %s into %s", url, place.parent)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url, str(place), hash_prefix=digits, progress=sys.stderr.isatty()
        )
    except (OSError, HTTPException, RuntimeError) as error:
        raise TrainingError(
            f"{url}: cannot be downloaded ({error}); fetch it by other means and give it with "
            "--set domain.weights=FILE"
        ) from error
