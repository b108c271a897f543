"""DICOM in to DICOM out by the command line: time over the network alone, peak memory.

Each run is `cvsct harmonize` in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from cvsct.core.volume import Acquisition, CTVolume, Geometry
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import find_method
from tests.support.dicom_files import slice_dataset, write_slice

CLASSICAL = ("histogram", "spectrum")
ALONE_SLICES = 24
"""Of the network alone, before and after the run that it is compared with."""


def body_slices(count: int, size_px: int, seed: int = 0, blur_px: float = 0.0) -> np.ndarray:
    """HU of a trunk with lungs and uneven tissue under noise of a kernel's sharpness."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    inside = (x / 0.92) ** 2 + (y / 0.8) ** 2 < 1
    lungs = np.zeros_like(inside)
    for side in (-1, 1):
        lungs |= ((x - side * 0.45) / 0.25) ** 2 + ((y + 0.2) / 0.35) ** 2 < 1
    planes = []
    for _ in range(count):
        tissue = ndimage.gaussian_filter(rng.normal(0, 1, inside.shape), size_px / 28)
        hu = np.where(inside, 40 + 40 * tissue / tissue.std(), -1000.0)
        hu[lungs] = -830 + 60 * (tissue / tissue.std())[lungs]
        noise = ndimage.gaussian_filter(rng.normal(0, 1, inside.shape), 0.6 + blur_px)
        planes.append(hu + 30 * noise / noise.std())
    return np.clip(np.rint(planes), -1024, 3071).astype(np.float32)


def write_body_series(folder: Path, count: int, size_px: int) -> Path:
    """A series of so many slices, a few different ones in turn, one file in memory at a time."""
    planes = body_slices(min(count, 4), size_px)
    for i in range(count):
        stored = (planes[i % len(planes)] + 1024).astype("<u2")
        write_slice(folder / f"{i:05d}.dcm", slice_dataset(i, stored))
    return folder


def as_volume(hu: np.ndarray) -> CTVolume:
    """Slices as a volume of 0.7 mm pixels and 5 mm slices."""
    positions = np.zeros((len(hu), 3))
    positions[:, 2] = 5.0 * np.arange(len(hu))
    geometry = Geometry(positions, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.7, 0.7), 5.0)
    return CTVolume(hu, geometry, Acquisition("Maker", "Scanner", "K1", 120.0))


def train_classical(method: str, folder: Path, size_px: int = 256) -> Path:
    """A model of two kernels, fitted in seconds."""
    sides = [[as_volume(body_slices(3, size_px, seed, 0.6 * seed))] for seed in (0, 1)]
    request = TrainingRequest(method, folder)
    find_method(method).train(*sides, request).write(folder)
    return folder


_MEASURED = """
import atexit, json, resource, sys
from pathlib import Path
from cvsct.cli import main

def tell():
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"peak_kib": int(peak), "cpu_s": used.ru_utime + used.ru_stime}))

atexit.register(tell)
main(sys.argv[1:])
"""
"""The command, and its own peak memory: the system's for a child counts what its parent held."""


def harmonize(series: Path, model: Path, out: Path, *words: str) -> dict[str, Any]:
    """One run of the command: wall time with its start, its own slices/s, peak memory."""
    command = [sys.executable, "-c", _MEASURED, "harmonize", series, "--model", model]
    begun = time.perf_counter()
    done = subprocess.run(
        [*map(str, command), "--out", str(out), *words], capture_output=True, text=True, check=False
    )
    wall_s = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"cvsct harmonize ended with exit code {done.returncode}: {done.stderr}")
    own = json.loads(done.stdout.splitlines()[-1])
    figures = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["figures"]
    return {
        "method": json.loads((model / "model.json").read_text(encoding="utf-8"))["method"],
        "slices": figures["n_slices"],
        "wall_s": round(wall_s, 2),
        "cpu_s": round(own["cpu_s"], 2),
        "slices_per_s": figures["slices_per_s"],
        "peak_rss_gb": round(own["peak_kib"] * 1024 / 1e9, 3),
        **({"engine": figures["engine"]} if "engine" in figures else {}),
    }


def alone_s(series: Path, model: Path, precision: str, slices: int) -> float:
    """Seconds a slice of the network by itself, in a process of its own, as the command runs it."""
    code = (
        "import sys, time, numpy as np; from pathlib import Path;"
        "from cvsct.model.bundle import Bundle;"
        "from cvsct.inference.engines.load import load_network;"
        "from cvsct.io.read import find_series; from cvsct.io.dicom.stack import open_stack;"
        "series, model, precision, slices = sys.argv[1:];"
        "v = open_stack(find_series(Path(series))[0]).read(0, int(slices));"
        "m = load_network(Bundle.read(Path(model)), False, 'openvino', precision);"
        "m(v.select(slice(0, m.slices_at_once)));"
        "t = time.perf_counter(); m(v); print((time.perf_counter() - t) / len(v.hu))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(series), str(model), precision, str(slices)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def end_to_end(model: Path, folder: Path, slices: int, size_px: int) -> list[dict[str, Any]]:
    """The network's command beside the network alone, then the classical methods."""
    series = write_body_series(folder / f"series-{slices}", slices, size_px)
    few = min(slices, ALONE_SLICES)
    before = alone_s(series, model, "fp32", few)
    row = harmonize(series, model, folder / "out", "--engine", "openvino")
    alone = [before, alone_s(series, model, "fp32", few)]
    row["alone_s_a_slice"] = [round(each, 4) for each in alone]
    row["overhead"] = round(row["wall_s"] / (slices * float(np.mean(alone))) - 1, 3)
    rows = [row]
    for method in CLASSICAL:
        fitted = train_classical(method, folder / method)
        rows.append(harmonize(series, fitted, folder / f"out-{method}"))
    return rows


def memory(
    models: Sequence[Path], folder: Path, counts: Sequence[int], size_px: int
) -> list[dict[str, Any]]:
    """Peak memory of series of different lengths."""
    rows = []
    for count in counts:
        series = write_body_series(folder / f"memory-{count}", count, size_px)
        for i, model in enumerate(models):
            rows.append(harmonize(series, model, folder / f"out-memory-{count}-{i}"))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| method | slices | s in all | CPU s | slices/s | peak GB | over the network alone |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        over = f"{row['overhead']:+.0%}" if "overhead" in row else "-"
        lines.append(
            f"| {row['method']} | {row['slices']} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} "
            f"| {row['slices_per_s']:.2f} | {row['peak_rss_gb']:.2f} | {over} |"
        )
    return "\n".join(lines)
