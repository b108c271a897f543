"""A model's ONNX graph on OpenVINO: the processor's engine, and the one that needs no PyTorch.

Slices are independent, so several are in the works at the same time, each on few threads: threads
of one slice wait for each other at every layer, and for whatever else a core has to do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from jaxtyping import Float32

from cvsct.core.errors import ModelError, UsageError
from cvsct.methods.volume_mapping import Engine

MAX_STREAMS = 4
"""A slice of 512 x 512 in the works holds 140 MB."""

SLICE_PX = 512**2


def streams_for(cores: int, pixels: int) -> int:
    """How many slices of so many pixels to work on at a time; memory stays that of four of 512."""
    return max(1, min(cores, MAX_STREAMS, MAX_STREAMS * SLICE_PX // pixels))


class OpenVINONetwork:
    """One direction's graph, compiled for the size of the images it is given.

    Args:
        graph: ONNX, images in [-1, 1] to images in [-1, 1].
        precision: `fp32` or `bf16`.
        cores: how many to use.

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
        """Translate images in [-1, 1].

        Raises:
            ModelError: if the network cannot take images of that size.
        """
        rows, columns = images.shape[1:]
        if self._size != (rows, columns):
            self._queue = self._compile(rows, columns)
            self._size = (rows, columns)
        made = np.empty_like(images)

        def keep(request: Any, index: int) -> None:
            made[index] = request.get_output_tensor(0).data[0, 0]

        self._queue.set_callback(keep)
        for index, image in enumerate(images):
            self._queue.start_async({0: image[None, None]}, index)
        self._queue.wait_all()
        return made

    def _compile(self, rows: int, columns: int) -> Any:
        """A fixed size takes a quarter less memory than a free one."""
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
