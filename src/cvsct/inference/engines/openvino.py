"""OpenVINO engine, which runs the ONNX graph of a model on the processor without PyTorch.

Several slices are computed at the same time, each on few threads: threads of one slice wait for
each other at every layer, and for whatever else a core has to do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from jaxtyping import Float32

from cvsct.core.errors import ModelError, UsageError
from cvsct.methods.volume_mapping import Engine

MAX_STREAMS = 4
"""Largest number of slices at a time; one of 512 x 512 takes 140 MB."""

SLICE_PX = 512**2
"""Pixels of the usual slice."""


def streams_for(cores: int, pixels: int) -> int:
    """Number of slices to compute at a time, so that memory stays below four of 512 x 512."""
    return max(1, min(cores, MAX_STREAMS, MAX_STREAMS * SLICE_PX // pixels))


class OpenVINONetwork:
    """Generator of one direction on OpenVINO, compiled for the size of the images.

    Args:
        graph: ONNX graph that maps images in [-1, 1] to images in [-1, 1].
        precision: `fp32` or `bf16`.
        cores: number of processor cores to use.

    Raises:
        UsageError: if this processor does not compute in bf16.
        ModelError: if the graph cannot be read.
    """

    def __init__(self, graph: bytes, precision: str, cores: int) -> None:
        self._core = openvino.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise UsageError("this processor does not compute in bf16; leave out --precision bf16")
        try:
            self._model = self._core.read_model(graph)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot read the model's graph ({_first_line(error)}); "
                "use --engine torch, or train it again"
            ) from error
        self._cores, self._precision = cores, precision
        self._size: tuple[int, int] = (0, 0)
        self._queue: Any = None
        self.slices_at_once = 2 * streams_for(cores, SLICE_PX)
        self.engine = Engine(
            name="openvino",
            version=openvino.__version__.partition("-")[0],
            device="cpu",
            precision=precision,
            threads=cores,
            streams=streams_for(cores, SLICE_PX),
        )

    def __call__(
        self, images: Float32[np.ndarray, "slices rows columns"]
    ) -> Float32[np.ndarray, "slices rows columns"]:
        """Translate images in [-1, 1], each independently of the others.

        Raises:
            ModelError: if the network cannot take images of that size.
        """
        rows, columns = images.shape[1:]
        if self._size != (rows, columns):
            self._queue = self._compile(rows, columns)
            self._size = (rows, columns)
        translated = np.empty_like(images)

        def keep(request: Any, index: int) -> None:
            translated[index] = request.get_output_tensor(0).data[0, 0]

        self._queue.set_callback(keep)
        for index, image in enumerate(images):
            self._queue.start_async({0: image[None, None]}, index)
        self._queue.wait_all()
        return translated

    def _compile(self, rows: int, columns: int) -> Any:
        """Compile the graph for one size, which takes a quarter less memory than a free size."""
        streams = streams_for(self._cores, rows * columns)
        try:
            self._model.reshape([1, 1, rows, columns])
            compiled = self._core.compile_model(
                self._model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self._precision],
                    "INFERENCE_NUM_THREADS": self._cores,
                    "NUM_STREAMS": streams,
                    # Two processes that both pin would share some cores and leave others idle.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            raise ModelError(
                f"the network cannot run on images of {rows} x {columns} ({_first_line(error)})"
            ) from error
        return openvino.AsyncInferQueue(compiled, streams)


def _first_line(error: RuntimeError) -> str:
    return " ".join(str(error).split())[:200]
