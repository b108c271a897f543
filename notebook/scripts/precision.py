"""Convolution speed of this machine by precision and memory layout (notebook/decisions/003)."""

from __future__ import annotations

import time

import torch

from cvsct.training.steps import bf16_is_fast


def seconds(
    layer: torch.nn.Module, images: torch.Tensor, backward: bool, repeats: int = 4
) -> float:
    for _ in range(2):
        layer(images)
    begun = time.perf_counter()
    for _ in range(repeats):
        made = layer(images)
        if backward:
            made.sum().backward()
    return (time.perf_counter() - begun) / repeats


def main() -> None:
    gflop = 2 * 64 * 64 * 16 * 81 * 81 * 8 / 1e9
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"bf16 in hardware: {bf16_is_fast(torch.device('cpu'))}")  # fmt: skip
    for precision in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            layer = torch.nn.Conv2d(64, 64, 4, padding=2).to(precision).to(memory_format=layout)
            images = torch.randn(8, 64, 80, 80, dtype=precision).to(memory_format=layout)
            images.requires_grad_(True)
            forward = gflop / seconds(layer, images, False)
            both = 3 * gflop / seconds(layer, images, True)
            print(f"{precision} {layout}: {forward:.0f} GFLOP/s forward, {both:.0f} with backward")


if __name__ == "__main__":
    main()
