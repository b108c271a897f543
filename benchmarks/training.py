"""Time and memory of a training step: the plain step against each improvement, and all of them.

    python -m benchmarks.training [--batch 8 32] [--configurations NAME ...] [--repeats 5]
           [--device cpu|cuda] [--set key=value ...] [--out DIR]

Each configuration runs in a process of its own, so that its peak memory is its own. Operations are
counted from the step itself (convolutions and matrix products, forward and backward). The VGG
weights are found as in training; where there are none, random ones of the same shape take the same
time, and the output says so. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import facts, one_line, peaks, publish, synchronise
from benchmarks.plain_step import PlainStep
from benchmarks.step_configurations import CONFIGURATIONS, REFERENCE, configured
from cvsct.core.errors import CvsctError, TrainingError
from cvsct.networks.vgg import CONVOLUTIONS, WIDTHS, Network
from cvsct.training.cyclegan.step import CycleStep, bf16_is_fast
from cvsct.training.distributed import Ranks
from cvsct.training.vgg_files import WEIGHTS_VARIABLE, WantedWeights, find_weights

PAPER_STEPS, PAPER_BATCH = 31_250, 32
GENERATOR_TERMS = ("adversarial", "cycle", "identity", "domain")
"""Loss terms by which rows are compared: all draw the same patches and weights."""
SAMPLE = 32
"""Patches of each domain that a step learns its scales and texture from, before the first."""


def measure(
    name: str, batch: int, device: torch.device, repeats: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One configuration in this process: time, memory and operations of a step."""
    row, config = CONFIGURATIONS[name], configured(name, batch, settings)
    torch.backends.cudnn.benchmark = row.cudnn_search
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    before_gb = _peak_rss_gb()
    size = (config.patch_px, config.patch_px)
    a, b, sample_a, sample_b = (
        0.05 * torch.randn(n, 1, *size) for n in (config.batch, config.batch, SAMPLE, SAMPLE)
    )
    own = CycleStep(config, sample_a, sample_b, Ranks(device=device))
    plain = PlainStep(own, row.plain) if row.plain else None

    def step() -> dict[str, float]:
        return plain(a, b) if plain else own(a, b, 0.0, rng)

    with FlopCounterMode(display=False) as counter:
        step()
    step()  # the second is the first with all of its memory in place
    wall_s, cpu_s = [], []
    for _ in range(repeats):
        synchronise(device)
        wall, cpu = time.perf_counter(), time.process_time()
        terms = step()
        synchronise(device)
        wall_s.append(time.perf_counter() - wall)
        cpu_s.append(time.process_time() - cpu)
    cuda = device.type == "cuda"
    return {
        "configuration": name,
        "what": row.what,
        "batch": config.batch,
        "patch_px": config.patch_px,
        "precision": "bf16" if (row.plain.bf16 if row.plain else own.bf16) else "fp32",
        "wall_s": float(np.median(wall_s)),
        "wall_s_all": [round(each, 4) for each in wall_s],
        "cpu_s": float(np.median(cpu_s)),
        "cpu_s_all": [round(each, 4) for each in cpu_s],
        "loss": sum(value for name, value in terms.items() if name.startswith(GENERATOR_TERMS)),
        "gflop": counter.get_total_flops() / 1e9,
        "peak_rss_gb": round(_peak_rss_gb(), 3),
        "rss_before_gb": round(before_gb, 3),
        **({"peak_cuda_gb": round(torch.cuda.max_memory_allocated() / 1e9, 3)} if cuda else {}),
        "own_steps": config.max_steps,
    }


def derived(row: dict[str, Any], rows: Sequence[dict[str, Any]], peak: Mapping[str, float]) -> None:
    """Add what follows from the measured: share of the peak, ratio to the reference, hours."""
    row["gflop_s"] = row["gflop"] / row["wall_s"]
    if row["precision"] in peak:
        row["share_of_peak"] = row["gflop_s"] / peak[row["precision"]]
    same = [x for x in rows if x["configuration"] == REFERENCE and x["batch"] == row["batch"]]
    if same:
        row["times_reference"] = same[0]["wall_s"] / row["wall_s"]
    if CONFIGURATIONS[row["configuration"]].preset == "cpu":
        row["own_schedule_h"] = row["own_steps"] * row["wall_s"] / 3600
    else:
        steps = PAPER_STEPS * PAPER_BATCH / row["batch"]
        row["paper_schedule_h"] = steps * row["wall_s"] / 3600


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| configuration | batch | precision | s a step | CPU s | peak GB | GFLOP | share of peak "
        "| x reference | loss of the last step | paper's schedule, h |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        if "skipped" in row:
            lines.append(f"| {row['what']} | {row['batch']} | {row['skipped']} {'| ' * 8}|")
            continue
        memory = row.get("peak_cuda_gb", row["peak_rss_gb"])
        hours = (
            f"{row['paper_schedule_h']:.3g}"
            if "paper_schedule_h" in row
            else f"own {row['own_steps']} steps: {row['own_schedule_h']:.2g}"
        )
        share = f"{row['share_of_peak']:.0%}" if "share_of_peak" in row else "-"
        ratio = f"{row['times_reference']:.2f}" if "times_reference" in row else "-"
        lines.append(
            f"| {row['what']} | {row['batch']} | {row['precision']} | {row['wall_s']:.3g} "
            f"| {row['cpu_s']:.3g} | {memory:.2f} | {row['gflop']:.4g} | {share} | {ratio} "
            f"| {row['loss']:.6g} | {hours} |"
        )
    return "\n".join(lines)


def vgg_weights(network: Network, folder: Path) -> tuple[Path, str]:
    """A weights file for the domain loss, and what it is."""
    try:
        return find_weights(WantedWeights(network)), f"{network}, ImageNet weights"
    except TrainingError:
        path, rng, channels = folder / f"{network}.npz", np.random.default_rng(0), 3
        arrays = {}
        for block, (count, width) in enumerate(zip(CONVOLUTIONS[network], WIDTHS, strict=True), 1):
            for place in range(1, count + 1):
                scale = np.float32((2 / (9 * channels)) ** 0.5)
                kernel = scale * rng.standard_normal((width, channels, 3, 3), np.float32)
                arrays[f"block{block}_conv{place}/kernel"] = kernel.astype(np.float16)
                arrays[f"block{block}_conv{place}/bias"] = np.zeros(width, np.float16)
                channels = width
        np.savez(path, **arrays)
        return path, f"{network}, RANDOM weights: times hold, losses mean nothing"


def main() -> None:
    """Measure what is asked for and print it; with `--one`, one row in this process."""
    args = _arguments()
    settings = {
        key: _value(text) for key, _, text in (pair.partition("=") for pair in args.settings)
    }
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no CUDA GPU here; give --device cpu")
    try:
        if args.one:
            print(json.dumps(measure(args.one, args.batch[0], device, args.repeats, settings)))
            return
        for name in args.configurations:
            configured(name, args.batch[0], settings)
    except CvsctError as error:
        sys.exit(str(error))
    machine = facts(device)
    peak = peaks(device, args.quick)
    with tempfile.TemporaryDirectory() as folder:
        path, vgg = vgg_weights(settings.get("domain.network", "vgg16"), Path(folder))
        rows = [
            _in_own_process(name, batch, args, path)
            for batch, names in _work(args)
            for name in names
        ]
    measured = [row for row in rows if "skipped" not in row]
    for row in measured:
        derived(row, measured, peak)
    report = {
        "benchmark": "training step",
        "machine": machine,
        "peak_gflop_s": peak,
        "vgg": vgg,
        "repeats": args.repeats,
        **({"quick": "a tiny convolution: peak and shares mean nothing"} if args.quick else {}),
        "rows": rows,
    }
    of = ", ".join(f"{value:g} GFLOP/s {name}" for name, value in peak.items())
    text = f"{one_line(machine)}. Convolution peak {of}. {vgg}.\n\n{table(rows)}\n"
    publish(report, text, "training", args.out)


def _work(args: argparse.Namespace) -> list[tuple[int, list[str]]]:
    """Configurations by batch; one with its own batch comes once, at the end."""
    own = [name for name in args.configurations if CONFIGURATIONS[name].batch]
    others = [name for name in args.configurations if name not in own]
    return [*((batch, others) for batch in args.batch), (args.batch[0], own)]


def _in_own_process(name: str, batch: int, args: argparse.Namespace, vgg: Path) -> dict[str, Any]:
    row = CONFIGURATIONS[name]
    why = None
    if row.plain and row.plain.bf16 and not bf16_is_fast(torch.device(args.device)):
        why = "skipped: bf16 is not in this hardware"
    if row.cudnn_search and args.device != "cuda":
        why = "skipped: no GPU"
    if why:
        return {"configuration": name, "what": row.what, "batch": batch, "skipped": why}
    print(f"{name}, batch {row.batch or batch}", file=sys.stderr, flush=True)
    words = [sys.executable, "-m", "benchmarks.training", "--one", name, "--batch", str(batch)]
    words += ["--device", args.device, "--repeats", str(args.repeats)]
    words += [word for pair in args.settings for word in ("--set", pair)]
    done = subprocess.run(
        words,
        env={**os.environ, WEIGHTS_VARIABLE: str(vgg)},
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name} at batch {batch} ended with exit code {done.returncode}, see above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_rss_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(CONFIGURATIONS)
    parser.add_argument("--configurations", nargs="+", choices=names, default=names)
    parser.add_argument("--batch", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--repeats", type=int, default=5, help="timed steps, after two that warm")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for training.json and training.md")
    parser.add_argument("--quick", action="store_true", help="for tests: no peak is measured")
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
