"""PyTorch engine: the reference on the processor, and the engine of a CUDA GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from cvsct.core.errors import ModelError
from cvsct.methods.volume_mapping import Engine

WARM_UP = 3
"""Number of calls before a CUDA graph is recorded, for setup that recording forbids."""


class TorchNetwork:
    """Generator of one direction on PyTorch: eager on the processor, a CUDA graph on a GPU.

    TF32, PyTorch's default for fp32 on a GPU, is switched off: it errs by more than 0.01 HU.

    Args:
        network: the generator with its weights.
        precision: `fp32` or `bf16`.
        device: the processor or a CUDA GPU.
    """

    slices_at_once = 4

    def __init__(self, network: nn.Module, precision: str, device: torch.device) -> None:
        self._device, self._precision = device, precision
        self._network = network.to(self._device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._recorded: tuple[Tensor, Callable[[], Tensor]] | None = None
        cuda = self._device.type == "cuda"
        self.engine = Engine(
            name="torch",
            version=torch.__version__,
            device=torch.cuda.get_device_name(self._device) if cuda else "cpu",
            precision=precision,
            threads=0 if cuda else torch.get_num_threads(),
        )

    def __call__(
        self, images: Float32[np.ndarray, "slices rows columns"]
    ) -> Float32[np.ndarray, "slices rows columns"]:
        """Translate images in [-1, 1], one at a time.

        Raises:
            ModelError: if the network cannot take images of that size.
        """
        translated = np.empty_like(images)
        try:
            with torch.inference_mode():
                for output, image in zip(translated, images, strict=True):
                    image_tensor = torch.from_numpy(image)[None, None]
                    output[:] = self._translate(image_tensor)[0, 0].float().cpu().numpy()
        except RuntimeError as error:
            rows, columns = images.shape[1:]
            raise ModelError(
                f"the network cannot run on images of {rows} x {columns} "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        return translated

    def _translate(self, image: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return self._run(image.contiguous(memory_format=torch.channels_last))
        if self._recorded is None or self._recorded[0].shape != image.shape:
            self._recorded = self._record(image)
        static, replay = self._recorded
        static.copy_(image)
        return replay()

    def _run(self, image: Tensor) -> Tensor:
        # The cache of weights cast to bf16 must not outlive the recording of a graph.
        with torch.autocast(
            self._device.type,
            torch.bfloat16,
            enabled=self._precision == "bf16",
            cache_enabled=False,
        ):
            translated: Tensor = self._network(image)
        return translated

    def _record(self, image: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        """Record the network as one CUDA graph, so that one call launches its sixty kernels."""
        static = image.to(self._device, memory_format=torch.channels_last)
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream), _exact():
            for _ in range(WARM_UP):
                self._run(static)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with _exact(), torch.cuda.graph(graph):
            translated = self._run(static)

        def replay() -> Tensor:
            graph.replay()
            return translated

        return static, replay


def _exact() -> AbstractContextManager[None]:
    """Switch off TF32 and nondeterministic algorithms, so that every run gives the same bytes."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags
