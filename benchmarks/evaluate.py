"""Time, memory and figures of `cvsct evaluate`, by number of workers, beside another checkout.

`python -m benchmarks.evaluate --harmonized DIR --target DIR [--source DIR] [--retest DIR]
[--src BASE/src] [--rounds N] [--out FILE]`. Each run is a process of its own without the feature
cache. Checkouts and numbers of workers take turns, so that what else the machine does weighs on
all alike; with `--src` the ratio of processor time and the largest relative difference of any
figure in `metrics.json` follow.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvsct.core.files import write_json

SIDES = ("harmonized", "target", "source", "retest", "target_harmonized")
HERE = Path(__file__).parents[1] / "src"

_MIB = 2**20
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024

_ABSOLUTE = 1e-9
"""Difference below which figures count as equal, whatever their size."""


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Args:
        cpu_s: processor time of the process and its workers, user and system.
        wall_s: wall time.
        peak_mib: largest resident set of a process.
    """

    cpu_s: float
    wall_s: float
    peak_mib: float


def evaluate(src: Path, scans: dict[str, Path], workers: int, out: Path) -> Run:
    """Run the command of a checkout, and return what it took."""
    options = [f"--{side.replace('_', '-')}={path}" for side, path in scans.items()]
    command = [
        sys.executable, "-m", "cvsct", "evaluate", *options, f"--workers={workers}", "--no-cache",
        f"--out={out}",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(src), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed with status {status}: {' '.join(command)}")
    return Run(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss * _RSS_UNIT / _MIB)


def figures(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every figure of a `metrics.json` with its place in the file."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from figures(part, f"{name}/{key}")
    else:
        yield name, value


def largest_difference(first: Path, second: Path) -> tuple[float, str]:
    """Largest relative difference between two `metrics.json`, and the key that has it."""
    a, b = (dict(figures(json.loads(path.read_text("utf-8")))) for path in (first, second))
    largest = 0.0, ""
    for key in sorted(a.keys() & b.keys()):
        x, y = a[key], b[key]
        if not isinstance(x, float) or not isinstance(y, float):
            difference = 0.0 if x == y else float("inf")
        elif abs(x - y) <= _ABSOLUTE:
            difference = 0.0
        else:
            difference = abs(x - y) / max(abs(x), abs(y))
        largest = max(largest, (difference, key))
    return largest


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for side in SIDES:
        option = f"--{side.replace('_', '-')}"
        parser.add_argument(option, type=Path, required=side in ("harmonized", "target"))
    parser.add_argument("--src", type=Path, help="src folder of another checkout, the one before")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    scans = {side: path for side in SIDES if (path := getattr(options, side)) is not None}
    checkouts = {"before": options.src, "now": HERE} if options.src else {"now": HERE}
    runs: dict[str, list[Run]] = {}
    record: dict[str, Any] = {"what": "evaluate", "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for workers in options.workers:
                for name, src in checkouts.items():
                    out = Path(folder) / f"{name}-{workers}-{number}"
                    run = evaluate(src, scans, workers, out)
                    runs.setdefault(f"{name}, workers {workers}", []).append(run)
                    print(f"{name}, workers {workers}: {run.cpu_s:.1f} s of processor time, "
                          f"{run.wall_s:.1f} s, {run.peak_mib:.0f} MiB", flush=True)  # fmt: skip
        if options.src:
            first = options.workers[0]
            both = (Path(folder) / f"{name}-{first}-0" / "metrics.json" for name in checkouts)
            record["largest_difference"] = largest_difference(*both)
    record["runs"] = {key: [asdict(run) for run in of_key] for key, of_key in runs.items()}
    medians = {key: statistics.median(run.cpu_s for run in row) for key, row in runs.items()}
    record["cpu_s"] = medians
    if options.src:
        record["ratio_of_cpu_s"] = {
            workers: medians[f"before, workers {workers}"] / medians[f"now, workers {workers}"]
            for workers in options.workers
        }
    if options.out:
        write_json(options.out, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
