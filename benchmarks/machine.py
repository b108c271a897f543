"""The machine that a benchmark ran on, and what its convolutions can do at best.

A time alone carries over to no other machine. Shares of the peak do, and the peak is that of a
convolution: sgemm reaches less than half of it on some processors and says nothing of bf16.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cvsct.core.files import write_atomic, write_json
from cvsct.training.cyclegan.step import bf16_is_fast

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

ISA = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Processor flags that decide how fast a convolution is, x86 and Arm."""


@dataclass(frozen=True)
class Convolution:
    """A stride-1 convolution of square images with as many filters as channels."""

    channels: int
    kernel_px: int
    image_px: int
    batch: int

    @property
    def gflop(self) -> float:
        """A multiplication and an addition for each weight and output pixel."""
        side = self.image_px - self.kernel_px + 1
        weights = self.channels**2 * self.kernel_px**2
        return 2 * weights * side**2 * self.batch / 1e9


PROBES = {
    "cpu": (Convolution(64, 4, 83, 8), Convolution(128, 3, 66, 8), Convolution(256, 3, 42, 8)),
    "cuda": (Convolution(64, 4, 515, 8), Convolution(256, 3, 162, 32), Convolution(512, 3, 82, 64)),
}
"""The best of these is the peak; the first is a layer of the generator."""

QUICK_PROBE = (Convolution(8, 3, 18, 1),)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device, repeats: int, warm_up: int = 2) -> float:
    """Mean time of one call after some that do not count; by CUDA events on a GPU."""
    for _ in range(warm_up):
        work()
    synchronise(device)
    if device.type == "cuda":
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        for _ in range(repeats):
            work()
        ended.record()
        synchronise(device)
        return begun.elapsed_time(ended) / 1e3 / repeats
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def peak_gflop_s(device: torch.device, precision: str, quick: bool = False) -> float:
    """The fastest of some channels-last convolutions, forward, in its best round.

    Args:
        precision: `fp32` or `bf16`.
        quick: one tiny convolution, for tests; no peak.
    """
    probes = QUICK_PROBE if quick else PROBES[device.type]
    rounds, repeats = (1, 1) if quick else (5, 4)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
        return max(
            probe.gflop / seconds(_run(probe, device, PRECISIONS[precision]), device, repeats)
            for probe in probes
            for _ in range(rounds)
        )


def peaks(device: torch.device, quick: bool = False) -> dict[str, float]:
    """The peak of each precision that the hardware computes, GFLOP/s."""
    known = ["fp32", "bf16"] if bf16_is_fast(device) or quick else ["fp32"]
    return {precision: round(peak_gflop_s(device, precision, quick), 1) for precision in known}


def facts(device: torch.device) -> dict[str, Any]:
    """What a reader must know to compare figures."""
    info = _cpu_info()
    flags = (info.get("flags") or info.get("Features", "")).split()
    found: dict[str, Any] = {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "isa": [flag for flag in ISA if flag in flags],
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "bf16_in_hardware": bf16_is_fast(device),
    }
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": about.name,
            "gpu_memory_gb": round(about.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "fp32_convolutions": "TF32" if torch.backends.cudnn.allow_tf32 else "fp32",
        }
    return found


def publish(report: Mapping[str, Any], text: str, name: str, out: Path | None) -> None:
    """Print a report as JSON and as text, and write both into a folder where one is given."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / f"{name}.json", report)
        write_atomic(out / f"{name}.md", text)
    print(json.dumps(report, indent=2))
    print(text)


def one_line(about: dict[str, Any]) -> str:
    """The facts as a caption."""
    where = about.get("gpu") or f"{about['cpu']}, {about['cores']} cores ({' '.join(about['isa'])})"
    return (
        f"{where}, {about['threads']} threads, torch {about['torch']}, Python {about['python']}, "
        f"load {about['load']} before the run"
    )


def _run(probe: Convolution, device: torch.device, dtype: torch.dtype) -> Callable[[], Any]:
    layer = torch.nn.Conv2d(probe.channels, probe.channels, probe.kernel_px)
    images = torch.randn(probe.batch, probe.channels, probe.image_px, probe.image_px)
    layer.to(device, dtype, memory_format=torch.channels_last)
    given = images.to(device, dtype, memory_format=torch.channels_last)
    return lambda: layer(given)


def _cpu_info() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; nothing where there is none."""
    path = Path("/proc/cpuinfo")
    lines = (
        path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines() if path.exists() else []
    )
    return {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
