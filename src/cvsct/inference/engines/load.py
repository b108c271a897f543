"""Loading of a trained network on an engine, as a mapping of whole slices.

Slices are not tiled: the channel gate of CBAM averages over the image, so that a tile would have
another gate. Input and output are float32 HU; `HUWindow` converts them for the network.
"""

from __future__ import annotations

import ctypes
import os
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from cvsct.core.errors import MissingExtraError, ModelError, UsageError
from cvsct.core.platform import usable_cores
from cvsct.core.volume import CTVolume, HUWindow
from cvsct.methods.volume_mapping import Engine, VolumeMapping
from cvsct.model.bundle import Bundle

MAX_PIXEL_RATIO = 1.05
"""Largest ratio of pixel sizes at which scans are on one grid for a network, as in training."""

PRECISIONS = ("fp32", "bf16")
"""Values of `--precision`."""


@runtime_checkable
class Network(Protocol):
    """Generator of one direction on an engine; images in [-1, 1] become images in [-1, 1]."""

    slices_at_once: int
    engine: Engine

    def __call__(
        self, images: Float32[np.ndarray, "slices rows columns"]
    ) -> Float32[np.ndarray, "slices rows columns"]:
        """Translate images of one size, each independently of the others."""
        ...


def load_network(
    bundle: Bundle, reverse: bool, engine: str, precision: str = "fp32", threads: int = 0
) -> VolumeMapping:
    """Load the generator of a model as a mapping from HU to HU.

    Args:
        bundle: a trained network.
        reverse: use the generator from B to A.
        engine: `openvino` runs the model's graph on the processor. `torch` runs PyTorch, on a
            CUDA GPU where it sees one. `auto` is PyTorch with a GPU, else OpenVINO where the
            model holds a graph, else PyTorch.
        precision: `fp32`; engines then agree within 0.01 HU. `bf16` is about twice as fast and
            errs by some HU.
        threads: number of processor threads; 0 for `core.platform.usable_cores` with OpenVINO,
            and for PyTorch's own choice.

    Raises:
        UsageError: if this model or machine cannot run the engine or precision.
        MissingExtraError: if PyTorch is needed and not installed.
        ModelError: if the weights do not fit the settings.
    """
    for given, known, option in ((engine, ENGINES, "engine"), (precision, PRECISIONS, "precision")):
        if given not in known:
            raise UsageError(f"no {option} {given!r}; choose one of {', '.join(known)}")
    network = _network(bundle, "b2a" if reverse else "a2b", engine, precision, threads)
    window = _window(bundle)
    pixel_mm = bundle.settings.get("resample_mm")

    def run(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
        _refuse_other_pixels(volume, pixel_mm)
        result = np.empty(volume.hu.shape, dtype=np.float32)
        for start in range(0, len(result), network.slices_at_once):
            part = slice(start, start + network.slices_at_once)
            hu = volume.hu[part].astype(np.float32, copy=False)
            result[part] = window.restore(network(window.to_unit(hu)), hu)
        return result

    return VolumeMapping(run, network.slices_at_once, network.engine)


def _network(bundle: Bundle, direction: str, engine: str, precision: str, threads: int) -> Network:
    """The network on the engine that was asked for, or on the one that suits this machine."""
    if engine == "auto":
        engine = "openvino" if direction in bundle.graphs and not _gpu_is_there() else "torch"
    return _LOADERS[engine](bundle, direction, precision, threads)


def _openvino_network(bundle: Bundle, direction: str, precision: str, threads: int) -> Network:
    if direction not in bundle.graphs:
        raise UsageError("this model holds no ONNX graph for OpenVINO; use --engine torch")
    from cvsct.inference.engines.openvino import OpenVINONetwork  # noqa: PLC0415

    return OpenVINONetwork(bundle.graphs[direction], precision, threads or usable_cores())


def _torch_network(bundle: Bundle, direction: str, precision: str, threads: int) -> Network:
    try:
        import torch  # noqa: PLC0415

        from cvsct.inference.engines.torch import TorchNetwork  # noqa: PLC0415
        from cvsct.networks.export import rebuild_generator  # noqa: PLC0415
    except ImportError as error:
        graph = "" if direction in bundle.graphs else ": the model holds no ONNX graph for OpenVINO"
        raise MissingExtraError(
            f"{bundle.method} needs PyTorch to run{graph}; "
            "install it with: pip install 'cvsct[train]'"
        ) from error
    if threads:
        torch.set_num_threads(threads)
    network = rebuild_generator(bundle, direction)
    device = torch.device("cuda" if _gpu_is_there() else "cpu")
    return TorchNetwork(network, precision, device)


_LOADERS = {"openvino": _openvino_network, "torch": _torch_network}
"""Engines by name: a new one is a row here, and its module beside this one."""

ENGINES = ("auto", *_LOADERS)
"""Values of `--engine`."""


def _gpu_is_there() -> bool:
    """Whether PyTorch sees a CUDA GPU; without a driver it is not imported, which is slow."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        import torch  # noqa: PLC0415
    except (OSError, ImportError):
        return False
    return torch.cuda.is_available()


def _window(bundle: Bundle) -> HUWindow:
    try:
        return HUWindow(*bundle.settings["window_hu"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model's settings hold no HU window ({error}); train it again"
        ) from error


def _refuse_other_pixels(volume: CTVolume, pixel_mm: float | None) -> None:
    """Refuse pixels of another size than the resampled scans that a network was trained on."""
    ratio = 1.0 if pixel_mm is None else volume.pixel_mm / pixel_mm
    if max(ratio, 1 / ratio) > MAX_PIXEL_RATIO:
        raise ModelError(
            f"the model was trained on scans resampled to pixels of {pixel_mm:g} mm, these have "
            f"{volume.pixel_mm:.3g} mm: resample them, or train a model for theirs"
        )
