"""Speed where scripts/gpu_run.sh runs: a slice through the generator, and a training step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import facts, peaks, seconds
from cvsct.models.generator import GeneratorConfig, build_generator

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("eager-fp32", "together", "cudnn-search", "stable-preset")


def measure(
    device: torch.device, folder: Path, slice_px: int, settings: Sequence[str], quick: bool
) -> dict[str, Any]:
    """Machine, peak, inference and training step.

    Args:
        folder: for the files of the training step's benchmark.
        settings: `key=value` over the presets.
        quick: for tests, as small as can be.
    """
    peak = peaks(device, quick)
    speed: dict[str, Any] = {
        "machine": facts(device),
        "peak_gflop_s": peak,
        "inference": [
            _inference(device, slice_px, precision, value, 2 if quick else 50)
            for precision, value in peak.items()
        ],
    }
    words = [sys.executable, "-m", "benchmarks.training", "--device", device.type]
    words += ["--batch", "32", "--repeats", "1" if quick else "10", "--out", str(folder)]
    words += ["--configurations", *(["together"] if quick else STEPS), *["--quick"] * quick]
    words += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        speed["training_step"] = f"not measured: {done.stderr.strip().splitlines()[-1]}"
    else:
        speed["training_step"] = json.loads((folder / "training.json").read_text())
    return speed


def lines(speed: Mapping[str, Any]) -> list[str]:
    """The figures in words."""
    found = [
        f"{each['precision']}: {each['ms_per_slice']:.3g} ms a slice of {each['slice_px']} px, "
        f"{each['share_of_peak']:.0%} of the convolution peak"
        for each in speed["inference"]
    ]
    step = speed["training_step"]
    if isinstance(step, str):
        return [*found, f"training step {step}"]
    return found + [
        f"step {each['what']}: {1e3 * each['wall_s']:.4g} ms at batch {each['batch']}, "
        f"{each['precision']}, 31,250 in {each['paper_schedule_h']:.2g} h"
        for each in step["rows"]
        if "skipped" not in each
    ]


def _inference(
    device: torch.device, slice_px: int, precision: str, peak: float, repeats: int
) -> dict[str, Any]:
    """Time of one slice through the paper's generator; its weights do not matter for that."""
    layout = torch.channels_last
    network = build_generator(GeneratorConfig()).to(device, memory_format=layout)
    image = (0.1 * torch.randn(1, 1, slice_px, slice_px)).to(device, memory_format=layout)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), autocast:
        with FlopCounterMode(display=False) as counter:
            network(image)
        taken_s = seconds(lambda: network(image), device, repeats)
    gflop = counter.get_total_flops() / 1e9
    return {
        "slice_px": slice_px,
        "precision": precision,
        "ms_per_slice": 1e3 * taken_s,
        "gflop": gflop,
        "share_of_peak": gflop / taken_s / peak,
    }
