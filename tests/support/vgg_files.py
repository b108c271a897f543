"""VGG weights as Keras keeps them, made from this project's format."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

NAMES = ("{layer}/{layer}_W_1:0", "{layer}/{layer}_b_1:0")
"""Arrays of a convolution in the published files."""

NESTED_NAMES = ("{layer}/{layer}/kernel:0", "{layer}/{layer}/bias:0")
"""Arrays of a convolution as TensorFlow's Keras saves them."""


def as_keras(npz: Path, h5: Path, names: tuple[str, str] = NAMES) -> Path:
    """Write the numbers of an `.npz` to `h5`, kernels with their axes in the order of Keras."""
    with np.load(npz) as arrays, h5py.File(h5, "w") as file:
        file.attrs["layer_names"] = np.array([b"input_1", b"block1_conv1"])
        file.create_group("input_1")
        file.create_group("block1_pool")
        for layer in {name.partition("/")[0] for name in arrays.files}:
            kernel, bias = (name.format(layer=layer) for name in names)
            values = arrays[f"{layer}/kernel"].astype(np.float32)
            file[kernel] = np.transpose(values, (2, 3, 1, 0))
            file[bias] = arrays[f"{layer}/bias"].astype(np.float32)
    return h5
