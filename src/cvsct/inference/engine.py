"""Runs a trained network over a volume, one whole slice at a time.

Whole slices, because CBAM's channel gate averages over the image: a tile would see another gate.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from cvsct.errors import MissingExtraError, ModelError, UsageError
from cvsct.models.bundle import Bundle, VolumeMapping
from cvsct.volume import CTVolume, HUWindow

MAX_PIXEL_RATIO = 1.05
"""As in training: scans whose pixels differ by more are another grid to a network."""

ENGINES = ("auto", "openvino", "torch")


def load_network(bundle: Bundle, reverse: bool, engine: str) -> VolumeMapping:
    """What maps a volume's HU through the bundle's generator.

    Args:
        bundle: a trained network.
        reverse: use the generator from B to A.
        engine: `auto` and `torch` run PyTorch.

    Raises:
        UsageError: if the engine is not one this model can run on.
        MissingExtraError: if torch is not installed.
        ModelError: if the weights do not fit the settings.
    """
    if engine not in ENGINES:
        raise UsageError(f"no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if engine == "openvino":
        raise UsageError(
            "this version cannot run a model's ONNX graph on OpenVINO yet; use --engine torch"
            if bundle.graphs
            else "this model holds no ONNX graph for OpenVINO; use --engine torch"
        )
    try:
        import torch  # noqa: PLC0415

        from cvsct.models.export import rebuild_generator  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            f"{bundle.method} needs PyTorch to run; install it with: pip install 'cvsct[train]'"
        ) from error
    network = rebuild_generator(bundle, "b2a" if reverse else "a2b")
    try:
        window = HUWindow(*bundle.settings["window_hu"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model's settings hold no HU window ({error}); train it again"
        ) from error
    pixel_mm = bundle.settings.get("resample_mm")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
        _refuse_other_pixels(volume, pixel_mm)
        result = np.empty_like(volume.hu)
        with torch.inference_mode():
            for plane, hu in zip(result, volume.hu, strict=True):
                unit = torch.from_numpy(window.to_unit(hu))[None, None]
                made = network(unit.contiguous(memory_format=torch.channels_last))
                plane[:] = window.restore(made[0, 0].numpy(), hu)
        return result

    return run


def _refuse_other_pixels(volume: CTVolume, pixel_mm: float | None) -> None:
    """A network that was trained on resampled scans knows pixels of that size only."""
    ratio = 1.0 if pixel_mm is None else volume.pixel_mm / pixel_mm
    if max(ratio, 1 / ratio) > MAX_PIXEL_RATIO:
        raise ModelError(
            f"the model was trained on scans resampled to pixels of {pixel_mm:g} mm, these have "
            f"{volume.pixel_mm:.3g} mm: resample them, or train a model for theirs"
        )
