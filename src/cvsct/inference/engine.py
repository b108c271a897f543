"""Runs a trained network over a volume, one whole slice at a time.

Whole slices, because CBAM's channel gate averages over the image: a tile would see another gate.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from cvsct.errors import MissingExtraError, ModelError, UsageError
from cvsct.models.bundle import Bundle, VolumeMapping
from cvsct.volume import CTVolume, HUWindow

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
            "this model holds no ONNX graph for OpenVINO; use --engine torch (the OpenVINO engine "
            "comes with a later version)"
        )
    try:
        import torch  # noqa: PLC0415

        from cvsct.models.generator import Generator, GeneratorConfig  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            f"{bundle.method} needs PyTorch to run; install it with: pip install 'cvsct[train]'"
        ) from error
    prefix = "b2a." if reverse else "a2b."
    weights = {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in bundle.weights.items()
        if name.startswith(prefix)
    }
    try:
        network = Generator(GeneratorConfig.model_validate(bundle.settings["generator"]))
        network.load_state_dict(weights)
        window = HUWindow(*bundle.settings["window_hu"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the model's weights do not fit its settings ({error}); train it again"
        ) from error
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
        result = np.empty_like(volume.hu)
        with torch.inference_mode():
            for plane, hu in zip(result, volume.hu, strict=True):
                unit = torch.from_numpy(window.to_unit(hu))[None, None]
                made = network(unit.contiguous(memory_format=torch.channels_last))
                plane[:] = window.restore(made[0, 0].numpy(), hu)
        return result

    return run
