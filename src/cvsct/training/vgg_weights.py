"""Weights of an ImageNet VGG network: finding the file, downloading and reading it.

They are in a file, of this project's format or torchvision's. Nothing is downloaded unless the user
has asked for it. The network itself is in `networks/vgg.py`.
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

import numpy as np
import torch
from torch import Tensor, nn

from cvsct.core.errors import TrainingError
from cvsct.networks.vgg import VGG, Network, convolution_positions

logger = logging.getLogger(__name__)

WEIGHTS_VARIABLE = "CVSCT_VGG_WEIGHTS"
PUBLISHED: dict[Network, str] = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
"""torchvision's files; the name ends in the first digits of the file's sha256."""

PUBLISHED_AT = "https://download.pytorch.org/models/"
PUBLISHED_MB = 550

MEAN_BGR = (103.939, 116.779, 123.68)
"""ImageNet's mean in the order and scale (0 to 255) of Simonyan and Zisserman's weights."""

MEAN_RGB, SD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation in the order and scale (0 to 1) of torchvision's."""


MAX_BYTES = 2**30
"""Largest size of a file of weights, unpacked; torchvision's of VGG19 has 0.55 GB."""

NEEDED_BY = {"domain": "the domain loss", "vgg": "the frozen encoder"}
"""Part that needs the weights, by the setting that names their file."""

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    RuntimeError,
    KeyError,
    MemoryError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""What numpy and torch raise for a file that is damaged or another's."""


def find_weights(
    path: str, network: Network = "vgg16", download: bool = False, setting: str = "domain"
) -> Path:
    """The weights file: `path`, else what CVSCT_VGG_WEIGHTS names, else torch's cache.

    Args:
        path: empty where the user has named none.
        download: fetch torchvision's file into the cache if it is nowhere else.
        setting: whose parts `weights` and `download` are, for the error.

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
        _download(cached, setting)
        return cached
    raise TrainingError(
        f"{NEEDED_BY[setting]} needs ImageNet {network.upper()} weights: give --set "
        f"{setting}.weights=FILE "
        f"(.npz or .pth), or set {WEIGHTS_VARIABLE}, or put torchvision's {cached.name} into "
        f"{cached.parent}, or allow a download of {PUBLISHED_MB} MB with --set "
        f"{setting}.download=true; of the GANs `cvsct-2`, `cyclegan` and `cgan` train without them"
    )


def load_vgg(path: Path, layers: Sequence[str], network: Network = "vgg16") -> VGG:
    """The network up to the last of `layers`, with the weights of a file.

    Args:
        path: `.npz` with `block{b}_conv{c}/kernel` (out, in, 3, 3) and `/bias`, for BGR input in
            0..255 minus the ImageNet mean; or torchvision's state dict with `features.{n}.weight`
            and `.bias`, for RGB input in 0..1, less mean, over deviation. Blocks after the last
            layer may be left out.
        layers: names such as `relu2_1`.

    Raises:
        TrainingError: if the network has no such layers, or the file does not hold its weights.
    """
    try:
        vgg = VGG(layers, network)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    fill(vgg, path, network)
    return vgg


@torch.no_grad()
def fill(vgg: VGG, path: Path, network: Network) -> None:
    """Fill a network with the weights of a file and their preprocessing.

    Raises:
        TrainingError: if the file does not hold its weights.
    """
    convolutions = [layer for layer in vgg.convolutions if isinstance(layer, nn.Conv2d)]
    weights, form = _read(path, network, [tuple(layer.parameters()) for layer in convolutions])
    for convolution, values in zip(convolutions, weights, strict=True):
        for parameter, value in zip(convolution.parameters(), values, strict=True):
            parameter.copy_(value)
    vgg.gain.copy_(torch.tensor(form.gain).view_as(vgg.gain))
    vgg.mean.copy_(torch.tensor(form.mean).view_as(vgg.mean))


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


def _read(
    path: Path, network: Network, wanted: Sequence[tuple[Tensor, ...]]
) -> tuple[list[tuple[Tensor, Tensor]], _Format]:
    """Kernels and biases of a file's first convolutions, as many as `wanted` and like them."""
    order = convolution_positions(network)
    try:
        _refuse_large(path)
        if path.suffix == ".npz":
            form, names = _NPZ, [f"block{block}_conv{place}" for block, place in order]
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                held = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:  # its numbers count a ReLU after each convolution and a pooling after each block
            form = _TORCHVISION
            names = [f"features.{2 * n + block - 1}" for n, (block, _) in enumerate(order)]
            held = _state_dict(path)
        _refuse_other_network(held, form.kernel, names)
        weights = [
            (_checked(held, name + form.kernel, kernel), _checked(held, name + form.bias, bias))
            for name, (kernel, bias) in zip(names, wanted, strict=False)
        ]
    except _UNREADABLE as error:
        missing = isinstance(error, KeyError)
        reason = f"no {error.args[0]}" if missing else str(error).partition("\n")[0]
        raise TrainingError(
            f"{path}: not {network.upper()} convolution weights ({reason}); expected torchvision's "
            f"{PUBLISHED[network]} or an .npz as in docs/training.md"
        ) from error
    return weights, form


def _refuse_large(path: Path) -> None:
    """Refuse a file by what it says that it holds, before any of it is unpacked."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes, more than {MAX_BYTES}")


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
    """Refuse weights that skip a convolution or have one more; a file may end early."""
    in_file = {name.removesuffix(ending) for name in held if name.endswith(ending)}
    extra, missing = in_file - set(names), set(names[: len(in_file)]) - in_file
    if extra:
        raise ValueError(f"this network has no {', '.join(sorted(extra))}")
    if missing:
        raise ValueError(f"no {', '.join(sorted(missing))}")


def _checked(held: Mapping[str, Tensor], name: str, wanted: Tensor) -> Tensor:
    values = held[name]
    if values.shape != wanted.shape:
        raise ValueError(f"{name} has shape {tuple(values.shape)}, expected {tuple(wanted.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} holds values that are not finite")
    return values


def _download(file: Path, setting: str) -> None:
    """Fetch torchvision's file; it appears under its name only when its hash is right."""
    url = PUBLISHED_AT + file.name
    digits = file.stem.rpartition("-")[2]
    logger.info("fetching %s into %s", url, file.parent)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url, str(file), hash_prefix=digits, progress=sys.stderr.isatty()
        )
    except (OSError, HTTPException, RuntimeError) as error:
        raise TrainingError(
            f"{url}: cannot be downloaded ({error}); fetch it by other means and give it with "
            f"--set {setting}.weights=FILE"
        ) from error
