"""Reading the weights of a VGG network from a file.

A file of ImageNet weights is of this project's format, of Keras's or of torchvision's;
`vgg_files.py` finds it. The weights of `ct-texture` come with the package. The networks are in
`networks/vgg.py`.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cvsct.core.errors import TrainingError
from cvsct.networks.vgg import VGG, Network, convolution_positions
from cvsct.training.vgg_files import PUBLISHED, TORCHVISION
from cvsct.training.vgg_h5 import HDF5_SUFFIXES, read_h5

MEAN_BGR = (103.939, 116.779, 123.68)
"""ImageNet's mean in the order and scale (0 to 255) of Simonyan and Zisserman's weights."""

MEAN_RGB, SD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation in the order and scale (0 to 1) of torchvision's."""

CT_TEXTURE_WEIGHTS = Path(__file__).with_name("ct_texture.npz")
"""Weights of `ct-texture`."""

MAX_BYTES = 2**30
"""Largest size of a file of weights, unpacked; torchvision's of VGG19 has 0.55 GB."""

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
"""What numpy, torch and h5py raise for a file that is damaged or another's."""


def load_vgg(path: Path, layers: Sequence[str], network: Network = "vgg16") -> VGG:
    """The network up to the last of `layers`, with the weights of a file.

    Args:
        path: `.npz` with `block{b}_conv{c}/kernel` (out, in, 3, 3) and `/bias`, for BGR input in
            0..255 minus the ImageNet mean; or Keras's `.h5` or `.hdf5` for the same input, with a
            kernel (3, 3, in, out) and a bias in each group `block{b}_conv{c}`; or torchvision's
            state dict with `features.{n}.weight` and `.bias`, for RGB input in 0..1, less mean,
            over deviation. Blocks after the last layer may be left out.
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
def load_ct_texture(layers: Sequence[str], path: Path | None = None) -> VGG:
    """The texture network that this project trained on simulated CT, up to the last of `layers`.

    `scripts/texture_network.py` trains it; `docs/reference/training.md` says on what.

    Args:
        layers: names such as `relu2_1`.
        path: file of weights, in place of the package's.

    Raises:
        TrainingError: if the network has no such layers.
    """
    try:
        vgg = VGG(layers, "ct-texture")
    except ValueError as error:
        raise TrainingError(f"domain.layers: {error}") from error
    arrays = _npz(path or CT_TEXTURE_WEIGHTS)
    for (block, place), convolution in zip(
        convolution_positions("ct-texture"), vgg.convolutions, strict=False
    ):
        for ending, parameter in zip(("kernel", "bias"), convolution.parameters(), strict=True):
            parameter.copy_(torch.from_numpy(arrays[f"block{block}_conv{place}/{ending}"]))
    vgg.gain.fill_(float(arrays["gain"]))
    vgg.mean.fill_(float(arrays["mean"]))
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


_CAFFE = _Format("/kernel", "/bias", (255.0,) * 3, MEAN_BGR)
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
        if path.suffix in (".npz", *HDF5_SUFFIXES):
            form, names = _CAFFE, [f"block{block}_conv{place}" for block, place in order]
            arrays = _npz(path) if path.suffix == ".npz" else read_h5(path, MAX_BYTES)
            held = {name: torch.from_numpy(values) for name, values in arrays.items()}
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
            f"{path}: not {network.upper()} convolution weights ({reason}); expected Keras's "
            f"{PUBLISHED[network].name}, torchvision's {TORCHVISION[network]} or an .npz as in "
            "docs/reference/training.md"
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


def _npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


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
