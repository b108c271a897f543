"""A trained model's generators as ONNX graphs, for inference without PyTorch.

A graph takes and gives images in [-1, 1] of the model's HU window, float32, shape (batch, 1, rows,
columns), all but the channel free. Before it is kept, OpenVINO reads it and must give what PyTorch
gives. The window and direction are in the graph's metadata.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cvsct.core.errors import ModelError
from cvsct.model.bundle import DIRECTIONS, Bundle
from cvsct.networks.cvsct_generator import AnyGenerator, build_generator, read_config

logger = logging.getLogger(__name__)

OPSET = 17
"""ONNX operator set of 2022; holds every operator used here, and OpenVINO reads it."""

TOLERANCE = 1e-4
"""Largest difference from PyTorch in [-1, 1]: 0.1 HU on the default window."""

MAX_BYTES = 16 * 2**20
"""Largest size of one graph. ResNet-9 at its published width has 43 MiB and gets none."""

PROBES = ((1, 1, 96, 80), (2, 1, 61, 45))
"""Images the graph is checked on: another size and batch than it was traced with, even and odd."""

AXES = {0: "batch", 2: "rows", 3: "columns"}


def rebuild_generator(bundle: Bundle, direction: str) -> AnyGenerator:
    """The network of one direction, with its weights, ready to be run.

    Raises:
        ModelError: if the weights do not fit the settings.
    """
    prefix = f"{direction}."
    weights = {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in bundle.weights.items()
        if name.startswith(prefix)
    }
    try:
        network = build_generator(read_config(bundle.settings["generator"]))
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the model's weights do not fit its settings ({error}); train it again"
        ) from error
    return network.eval()


def with_graphs(bundle: Bundle) -> Bundle:
    """Add an ONNX graph of each direction to a model, or a note of why it has none.

    Never raises for a graph that cannot be made: a training is worth more than its export.
    """
    try:
        graphs: dict[str, bytes] = {
            direction: export_graph(
                rebuild_generator(bundle, direction),
                {"direction": direction, "window_hu": bundle.settings["window_hu"]},
            )
            for direction in DIRECTIONS
            if any(name.startswith(f"{direction}.") for name in bundle.weights)
        }
        note = f"ONNX opset {OPSET}, equal to PyTorch within {TOLERANCE:g} of [-1, 1]"
    except Exception as error:
        graphs, note = {}, f"none ({str(error).partition(chr(10))[0]})"
        logger.warning("the model is written without ONNX graphs: %s", error)
    return replace(bundle, graphs=graphs, training={**bundle.training, "graphs": note})


def export_graph(network: AnyGenerator, about: Mapping[str, Any]) -> bytes:
    """An ONNX graph of a generator, checked against it.

    Args:
        about: written into the graph's metadata, as JSON values.

    Raises:
        ModelError: if it would be too large, or OpenVINO makes of it what PyTorch does not.
        ImportError: without the library `onnx`.
    """
    import onnx  # noqa: PLC0415

    size = sum(4 * parameter.numel() for parameter in network.parameters())
    if size > MAX_BYTES:
        raise ModelError(
            f"a graph of {size / 2**20:.0f} MiB, the limit is {MAX_BYTES // 2**20}; run it with "
            "--engine torch"
        )
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():  # convolutions as models are run
        # The exporter that traces: PyTorch warns that it is old, its successor needs onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, 32, 32),),
            stream,  # type: ignore[arg-type]  # documented for dynamo=True alone
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["translated"],
            dynamic_axes={"image": AXES, "translated": AXES},
        )
    graph = onnx.load_from_string(stream.getvalue())
    onnx.helper.set_model_props(graph, {key: json.dumps(value) for key, value in about.items()})
    content: bytes = graph.SerializeToString()
    difference = _difference(network, content)
    if not difference < TOLERANCE:
        raise ModelError(
            f"OpenVINO differs from PyTorch by {difference:.1e}, expected below {TOLERANCE:g}; run "
            "it with --engine torch"
        )
    return content


def _difference(network: AnyGenerator, graph: bytes) -> float:
    """Largest absolute difference between OpenVINO's images and PyTorch's."""
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(graph), "CPU", exact)
    rng = np.random.default_rng(0)
    differences = []
    for shape in PROBES:
        image = rng.uniform(-1, 1, shape).astype(np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(image)).numpy()
        differences.append(np.abs(compiled(image)[0] - wanted).max())
    return float(np.max(differences))
