"""Network of local gains, on OpenVINO.

Five convolutions of 3 x 3 with dilations 1, 2, 4, 2, 1 and 32 filters; each is scaled and shifted
by numbers that two dense layers make of the texture of both sides. They see 10 pixels each way, so
that a slice with a margin of 16 mirrored pixels comes out the same whatever pads the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32
from safetensors.numpy import load

from cvsct.core.fourier import frequency_radius
from cvsct.methods.spectrum_network.texture_condition import BANDS, SCALED, TextureCondition
from cvsct.methods.volume_mapping import Engine

WEIGHTS_FILE = Path(__file__).with_name("weights.safetensors")
"""Trained by `notebook/scripts/learned_stage.py`."""

DILATIONS = (1, 2, 4, 2, 1)
MARGIN_PX = 16
LOW_HU = 300.0
"""Unit of the lowest band, which tells the tissue."""

MAX_GAIN = 1.0
"""Largest gain of a band: what is added has at most its amplitude."""

Weights = Mapping[str, np.ndarray]


def packaged_weights() -> dict[str, np.ndarray]:
    """Weights of the network that comes with the package."""
    weights: dict[str, np.ndarray] = load(WEIGHTS_FILE.read_bytes())
    return weights


def is_complete(weights: Weights, n_conditions: int) -> bool:
    """Whether arrays are weights of this network, by their names and shapes."""
    dense = weights.get("conditions.0.bias", np.zeros(0)).shape
    width = len(weights.get("convolutions.0.bias", np.zeros(0)))
    wanted = {
        "conditions.0.weight": (*dense, n_conditions),
        "conditions.0.bias": dense,
        "conditions.2.weight": (2 * width * len(DILATIONS), *dense),
        "conditions.2.bias": (2 * width * len(DILATIONS),),
        "gains.weight": (2 * SCALED, width, 1, 1),
        "gains.bias": (2 * SCALED,),
    }
    for layer in range(len(DILATIONS)):
        inputs = width if layer else 2 * SCALED + 1
        wanted[f"convolutions.{layer}.weight"] = (width, inputs, 3, 3)
        wanted[f"convolutions.{layer}.bias"] = (width,)
    return width > 0 and {name: array.shape for name, array in weights.items()} == wanted


@lru_cache(maxsize=2)
def _shares(
    shape: tuple[int, int], pixel_mm: tuple[float, float]
) -> Float32[np.ndarray, "bands rows half"]:
    """Share of each band at each coefficient of `scipy.fft.rfft2`."""
    radius = frequency_radius(shape, pixel_mm)
    return np.stack([BANDS.share(band, radius).astype(np.float32) for band in range(BANDS.count)])


class GainNetwork:
    """The network for one direction of a model, compiled for the size of the images.

    It computes on one thread: more threads would part the image elsewhere and so give other bytes.

    Args:
        weights: arrays by name (`is_complete`).
        condition: texture of both sides.
    """

    def __init__(self, weights: Weights, condition: TextureCondition) -> None:
        self._weights, self._condition = weights, condition
        self._size: tuple[int, int] = (0, 0)
        self._request: Any = None
        self._lock = Lock()  # of the request, which holds one slice

    @cached_property
    def engine(self) -> Engine:
        """Engine that it runs on."""
        import openvino  # noqa: PLC0415

        version = openvino.__version__.partition("-")[0]
        return Engine("openvino", version, "cpu", "fp32", threads=1)

    def change(
        self,
        filtered: Float32[np.ndarray, "rows columns"],
        source: Float32[np.ndarray, "rows columns"],
        pixel_mm: tuple[float, float],
        kept: Float[np.ndarray, " bands"],
    ) -> Float32[np.ndarray, "rows columns"]:
        """What is to be added to a filtered slice, in HU.

        Args:
            filtered, source: the slice before noise is added, and as it was, in HU.
            kept: share of each band of the change that is kept.
        """
        planes = [np.pad(plane, MARGIN_PX, mode="reflect") for plane in (filtered, source)]
        shape = planes[0].shape
        shares = _shares(shape, pixel_mm)
        spectra = [scipy.fft.rfft2(plane, workers=1) for plane in planes]

        def band_of(side: int, band: int) -> Float32[np.ndarray, "rows columns"]:
            plane: Float32[np.ndarray, "rows columns"] = scipy.fft.irfft2(
                spectra[side] * shares[band], s=shape, workers=1, overwrite_x=True
            )
            return plane

        upper = np.stack([band_of(side, band) for side in (0, 1) for band in range(1, BANDS.count)])
        unit = np.float32(self._condition.unit_hu)
        seen = [np.arcsinh(upper / unit), band_of(0, 0)[None] / np.float32(LOW_HU)]
        change = (self._gains(np.concatenate(seen)) * upper).sum(axis=0)
        if not np.all(kept == 1):
            share = np.einsum("b,bij->ij", kept.astype(np.float32), shares)
            change = scipy.fft.irfft2(
                scipy.fft.rfft2(change, workers=1) * share, s=shape, workers=1, overwrite_x=True
            )
        return np.asarray(change[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX], dtype=np.float32)

    def _gains(
        self, seen: Float32[np.ndarray, "inputs rows columns"]
    ) -> Float32[np.ndarray, "gains rows columns"]:
        """Gains of the scaled bands of the filtered slice, then of the source's."""
        rows, columns = seen.shape[1:]
        with self._lock:
            if self._size != (rows, columns):
                self._request, self._size = self._compiled(rows, columns), (rows, columns)
            self._request.infer({0: np.ascontiguousarray(seen)[None]})
            return np.array(self._request.get_output_tensor(0).data[0])

    def _layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights and biases of the convolutions, with what the condition makes of them."""
        w = self._weights

        def dense(x: np.ndarray, name: str) -> np.ndarray:
            weight = np.asarray(w[f"{name}.weight"], dtype=np.float64)
            return np.asarray(np.einsum("oi,i->o", weight, x) + w[f"{name}.bias"])

        hidden = dense(self._condition.vector, "conditions.0")
        scales = dense(hidden / (1 + np.exp(-hidden)), "conditions.2")
        layers = []
        for layer, pair in enumerate(np.split(scales, len(DILATIONS))):
            factor, offset = np.split(pair, 2)
            weight, bias = w[f"convolutions.{layer}.weight"], w[f"convolutions.{layer}.bias"]
            layers.append((
                (weight * (1 + factor)[:, None, None, None]).astype(np.float32),
                (bias * (1 + factor) + offset).astype(np.float32),
            ))  # fmt: skip
        return layers

    def _compiled(self, rows: int, columns: int) -> Any:
        """Inference request for slices of one size, margins included."""
        import openvino  # noqa: PLC0415
        from openvino import opset13 as ops  # noqa: PLC0415

        image = ops.parameter([1, 2 * SCALED + 1, rows, columns], np.float32)

        def convolved(x: Any, weight: np.ndarray, bias: np.ndarray, dilation: int) -> Any:
            pad = [dilation * (weight.shape[2] // 2)] * 2
            y = ops.convolution(x, ops.constant(weight), [1, 1], pad, pad, [dilation] * 2)
            return ops.add(y, ops.constant(bias[None, :, None, None]))

        x: Any = image
        for layer, (weight, bias) in enumerate(self._layers()):
            y = ops.swish(convolved(x, weight, bias, DILATIONS[layer]))
            x = ops.add(x, y) if layer else y
        gains = ops.tanh(
            convolved(x, self._weights["gains.weight"], self._weights["gains.bias"], 1)
        )
        result = ops.multiply(gains, ops.constant(np.float32(MAX_GAIN)))
        model = openvino.Model([result], [image], "gains")
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": 1,
                "ENABLE_CPU_PINNING": False,
            },
        )
        return compiled.create_infer_request()
