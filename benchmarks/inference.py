"""Time, error and memory of harmonising: engines in one run, then DICOM in to DICOM out.

python -m benchmarks.inference --model MODEL --out DIR

Engines take turns, slice by slice, and a ratio is the median of the rounds' own ratios, so that
what else the machine does weighs on all alike. Errors are against eager PyTorch in fp32.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import facts, one_line, peak_gflop_s, publish
from benchmarks.streams import body_slices, end_to_end, memory, table, train_classical
from cvsct.core.errors import CvsctError
from cvsct.core.platform import usable_cores
from cvsct.core.volume import HUWindow, ScanFacts
from cvsct.inference.engines.openvino import OpenVINONetwork
from cvsct.inference.engines.torch import TorchNetwork
from cvsct.model.bundle import Bundle, Domain
from cvsct.networks.cvsct_generator import GeneratorConfig, build_generator, scale_to_data
from cvsct.networks.export import rebuild_generator, with_graphs
from cvsct.training.cyclegan.step import bf16_is_fast

Images = Callable[[np.ndarray], np.ndarray]

REFERENCE, RESNET = "PyTorch eager fp32, NCHW", "ResNet-9, PyTorch eager fp32, NCHW"


@dataclass(frozen=True)
class Row:
    """One engine.

    Args:
        run: images in [-1, 1] to images in [-1, 1].
        slices: handed over in one call, so many as the engine wants.
        gflop: of one slice.
    """

    name: str
    run: Images
    precision: str
    slices: int
    gflop: float


COUNTED_PX = 128


def eager(network: torch.nn.Module) -> Images:
    """The bare network on the processor, in the layout PyTorch begins with."""

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            made: np.ndarray = network(torch.from_numpy(images)[:, None])[:, 0].numpy()
        return made

    return run


def gflop_of(network: torch.nn.Module, size_px: int) -> float:
    """Of one slice; counted on a smaller one, since convolutions cost the same for each pixel."""
    counted_px = min(size_px, COUNTED_PX)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, counted_px, counted_px))
    return counter.get_total_flops() * (size_px / counted_px) ** 2 / 1e9


def random_model(width: int) -> Bundle:
    """The generator with initial weights: times hold, errors mean nothing."""
    config = GeneratorConfig(width=width, last_kernel=3, residual=True)
    torch.manual_seed(0)
    weights = {}
    for direction in ("a2b", "b2a"):
        network = build_generator(config)
        scale_to_data(network, torch.randn(4, 1, 32, 32) * 0.3)
        torch.nn.init.normal_(network.head.weight, std=0.02)
        for name, tensor in network.state_dict().items():
            weights[f"{direction}.{name}"] = tensor.numpy()
    domain = Domain.from_facts([ScanFacts("", (1, 512, 512), (0.7, 0.7), 5.0)])
    settings = {"generator": config.model_dump(mode="json"), "window_hu": [-1024.0, 900.0]}
    return with_graphs(Bundle("cvsct", settings, weights, domain, domain))


def build_rows(bundle: Bundle, cores: int, size_px: int, resnet_width: int) -> list[Row]:
    """What this machine can run."""
    device = torch.device("cpu")
    reference = rebuild_generator(bundle, "a2b")
    gflop = gflop_of(reference, size_px)
    resnet = build_generator(
        GeneratorConfig.model_validate({"architecture": "resnet-9", "width": resnet_width})
    ).eval()

    def torch_row(name: str, precision: str, device: torch.device) -> Row:
        network = TorchNetwork(rebuild_generator(bundle, "a2b"), precision, device)
        return Row(name, network, precision, 1, gflop)

    rows = [
        Row(REFERENCE, eager(reference), "fp32", 1, gflop),
        torch_row("PyTorch eager fp32, channels last", "fp32", device),
    ]
    if bf16_is_fast(device):
        rows.append(torch_row("PyTorch eager bf16, channels last", "bf16", device))
    for precision in ("fp32", "bf16"):
        try:
            network = OpenVINONetwork(bundle.graphs["a2b"], precision, cores)
        except CvsctError:
            continue  # no bf16 in this processor
        name = f"OpenVINO {precision}, {network.engine.streams} at a time"
        rows.append(Row(name, network, precision, network.slices_at_once, gflop))
    rows.append(Row(RESNET, eager(resnet), "fp32", 1, gflop_of(resnet, size_px)))
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        rows += [torch_row(f"PyTorch CUDA graph {p}", p, gpu) for p in ("fp32", "bf16")]
    return rows


def compare(
    rows: list[Row], window: HUWindow, hu: np.ndarray, rounds: int, quick: bool
) -> list[dict[str, Any]]:
    """Every engine in every round, one after the other; each also beside the round's peak."""
    cpu = torch.device("cpu")
    seconds: dict[str, list[float]] = {row.name: [] for row in rows}
    peaks: dict[str, list[float]] = {"fp32": [], "bf16": []}
    unit = window.to_unit(hu)
    made = {row.name: row.run(unit[:1])[0] for row in rows}  # warms up as well
    for row in rows:
        row.run(np.repeat(unit[:1], row.slices, axis=0))
    computed = {row.precision for row in rows if "OpenVINO" in row.name}
    for index in range(rounds):
        print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)
        for row in rows:
            given = np.repeat(unit[:1], row.slices, axis=0)
            begun = time.perf_counter()
            row.run(given)
            seconds[row.name].append((time.perf_counter() - begun) / row.slices)
        for precision in computed:
            peaks[precision].append(peak_gflop_s(cpu, precision, quick))
    inside = (hu[0] >= window.low_hu) & (hu[0] <= window.high_hu)
    scale = (window.high_hu - window.low_hu) / 2
    found = []
    for row in rows:
        own = np.array(seconds[row.name])
        result: dict[str, Any] = {
            "engine": row.name,
            "s_a_slice": round(float(np.median(own)), 4),
            "s_a_slice_all": own.round(4).tolist(),
            "gflop": round(row.gflop, 1),
            "times_reference": round(float(np.median(np.array(seconds[REFERENCE]) / own)), 2),
            "times_resnet": round(float(np.median(np.array(seconds[RESNET]) / own)), 2),
        }
        if row.precision in computed and "CUDA" not in row.name:
            shares = row.gflop / own / np.array(peaks[row.precision])
            result["share_of_peak"] = round(float(np.median(shares)), 3)
            result["peak_gflop_s"] = round(float(np.median(peaks[row.precision])), 1)
        if row.name != RESNET:
            error = scale * np.abs(made[row.name] - made[REFERENCE])[inside]
            result["error_hu"] = {
                "mean": round(float(error.mean()), 5),
                "p99": round(float(np.quantile(error, 0.99)), 5),
                "max": round(float(error.max()), 5),
            }
        found.append(result)
    return found


def engine_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| engine | s a slice | GFLOP | x eager fp32 | x ResNet-9 | share of conv. peak "
        "| error HU, mean / p99 / max |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        error = row.get("error_hu")
        shown = f"{error['mean']:.2g} / {error['p99']:.2g} / {error['max']:.2g}" if error else "-"
        share = f"{row['share_of_peak']:.0%}" if "share_of_peak" in row else "-"
        lines.append(
            f"| {row['engine']} | {row['s_a_slice']:.3g} | {row['gflop']:.4g} "
            f"| {row['times_reference']:.2f} | {row['times_resnet']:.2f} | {share} | {shown} |"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    args = _arguments(words)
    cores = usable_cores()
    torch.set_num_threads(cores)
    size_px = 64 if args.quick else args.size
    machine = {**facts(torch.device("cpu")), "openvino": openvino.__version__}
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder, path = Path(name), args.model
        if path is None:
            path = folder / "model"
            random_model(4 if args.quick else 64).write(path)
        bundle = Bundle.read(path)
        weights = "trained weights" if args.model else "RANDOM weights: errors mean nothing"
        rows = build_rows(bundle, cores, size_px, 4 if args.quick else 64)
        hu = body_slices(1, size_px)
        window = HUWindow(*bundle.settings["window_hu"])
        report: dict[str, Any] = {
            "benchmark": "inference",
            "machine": machine,
            "model": f"{bundle.method}, {weights}",
            "model_sha256": bundle.sha256,
            "size_px": size_px,
            "engines": compare(rows, window, hu, args.rounds, args.quick),
        }
        del rows
        text = (
            f"{one_line(machine)}, OpenVINO {machine['openvino']}. {size_px} x {size_px}, "
            f"{weights}.\n\n{engine_table(report['engines'])}\n"
        )
        if args.slices:
            report["end_to_end"] = end_to_end(path, folder, args.slices, size_px)
            text += f"\n{table(report['end_to_end'])}\n"
        if args.memory_slices:
            fitted = train_classical("histogram", folder / "memory-model")
            models = [fitted] if args.memory_classical else [path, fitted]
            report["memory"] = memory(models, folder, args.memory_slices, size_px)
            text += f"\n{table(report['memory'])}\n"
        report["load_after"] = round(os.getloadavg()[0], 1)
    publish(report, text, "inference", args.out)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a trained network; without it, random weights")
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=5, help="in which every engine has a turn")
    parser.add_argument("--slices", type=int, default=300, help="end to end; 0 leaves that out")
    parser.add_argument("--memory-slices", type=int, nargs="*", default=[100, 1000])
    parser.add_argument(
        "--memory-classical", action="store_true", help="memory without the network: minutes less"
    )
    parser.add_argument("--scratch", type=Path, help="where the series go, 1 GB; else temporary")
    parser.add_argument("--out", type=Path, help="folder for inference.json and inference.md")
    parser.add_argument("--quick", action="store_true", help="for tests: tiny, shares mean nothing")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
