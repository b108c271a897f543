"""Reading VGG convolutions from the HDF5 files of Keras."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.errors import import_extra

HDF5_SUFFIXES = (".h5", ".hdf5")
"""How the names of such files end."""

CONVOLUTION = re.compile(r"block\d+_conv\d+")
"""Name of a convolution's group."""

MAX_OBJECTS = 2000
"""Largest number of groups and arrays; a VGG19 has about 60, hard links may form circles."""


def require_h5py() -> Any:
    """Import h5py.

    Raises:
        MissingExtraError: if it is not installed.
    """
    return import_extra("h5py", "reading VGG weights from HDF5", "train")


def read_h5(path: Path, max_bytes: int) -> dict[str, np.ndarray]:
    """Read kernels and biases of all convolutions of a Keras file.

    A convolution is a group `block{b}_conv{c}` at any depth, whose arrays have names that differ
    between versions of Keras: the one of four axes (rows, columns, in, out) is the kernel, the one
    of one axis the bias. Links and arrays stored in other files are refused before they are
    followed; other groups, such as fully connected layers, are not read.

    Args:
        max_bytes: largest size of all convolutions together.

    Returns:
        Arrays by `block{b}_conv{c}/kernel` (out, in, rows, columns) and `/bias`.

    Raises:
        ValueError, OSError, RuntimeError, KeyError: if the file is damaged, holds something else,
            or refers to other files.
        MissingExtraError: if h5py is not installed.
    """
    h5py = require_h5py()
    arrays: dict[str, np.ndarray] = {}
    n_bytes = 0
    with h5py.File(path, "r", locking=False) as file:
        for place, dataset in _datasets(h5py, file):
            name = next((part for part in reversed(place) if CONVOLUTION.fullmatch(part)), None)
            if name is None:
                continue
            _refuse_unusual(dataset, "/".join(place))
            n_bytes += max(dataset.size, math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
            if n_bytes > max_bytes:
                raise ValueError(f"{n_bytes} bytes of convolutions, more than {max_bytes}")
            part = {4: "kernel", 1: "bias"}.get(dataset.ndim)
            if part is None or f"{name}/{part}" in arrays:
                raise ValueError(
                    f"{name} holds {'/'.join(place)} of shape {dataset.shape}, expected one array "
                    "of four axes and one of one"
                )
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused so
                values = dataset[()].astype(np.float32)
            if part == "kernel":
                values = np.ascontiguousarray(values.transpose(3, 2, 0, 1))
            arrays[f"{name}/{part}"] = values
    return arrays


def _datasets(h5py: Any, file: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Arrays of a file, each with the names on the way to it.

    Raises:
        ValueError: for links, named types, and more objects than a file of weights has.
    """
    groups: list[tuple[tuple[str, ...], Any]] = [((), file)]
    n_objects = 0
    while groups:
        place, group = groups.pop()
        n_objects += len(group)
        if n_objects > MAX_OBJECTS:
            raise ValueError(f"more than {MAX_OBJECTS} arrays and groups")
        for name in group:
            inner = (*place, name)
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{'/'.join(inner)} is a link, expected an array or a group")
            kind = group.get(name, getclass=True)
            if issubclass(kind, h5py.Group):
                groups.append((inner, group[name]))
            elif issubclass(kind, h5py.Dataset):
                yield inner, group[name]
            else:
                raise ValueError(f"{'/'.join(inner)} is a {kind.__name__}, expected an array")


def _refuse_unusual(dataset: Any, name: str) -> None:
    """Refuse arrays whose values lie in other files or are no floating point numbers.

    Raises:
        ValueError: naming the array.
    """
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} has its values in other files")
    if dataset.dtype.kind != "f":
        raise ValueError(f"{name} holds {dataset.dtype}, expected floating point numbers")
