"""Cohorts: two workers against one, Dask against local, and growth with the number of series.

python -m benchmarks.cohort --model MODEL --out DIR

Every run is `cvsct harmonize` in a process of its own, over small series in new folders. Runs that
are compared take turns, and a ratio is the median of the rounds' own ratios, so that what else the
machine does weighs on all alike. The Dask cluster is up before, and has loaded the model after its
first round; the local workers start in every run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import torch

from benchmarks.machine import facts, one_line, publish
from benchmarks.streams import body_slices, train_classical
from cvsct.core.platform import usable_cores
from tests.support.dicom_files import slice_dataset, write_slice

ONE, TWO, DASK = "1 worker", "2 workers", "Dask, 2 workers"

_COMMAND = """
import atexit, json, resource, sys, threading
from pathlib import Path
from cvsct.cli import main

def field(process, name):
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)

peaks, stop = {}, threading.Event()

def watch():
    while not stop.wait(0.1):
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text(encoding="utf-8").split():
                peaks[child] = max(peaks.get(child, 0), field(child, "VmHWM"))

def tell():
    stop.set()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({
        "parent_kib": field("self", "VmHWM"),
        "worker_kib": max(peaks.values(), default=0),
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in used),
    }))

if __name__ == "__main__":  # and not in its workers
    threading.Thread(target=watch, daemon=True).start()
    atexit.register(tell)
    main(sys.argv[1:])
"""
"""The command, its own peak memory, and the largest of its workers'."""


def write_series(folder: Path, count: int, slices: int, size_px: int) -> Path:
    """So many series of the same pixels, a folder each."""
    planes = (body_slices(min(slices, 4), size_px) + 1024).astype("<u2")
    for number in range(count):
        for i in range(slices):
            dataset = slice_dataset(i, planes[i % len(planes)], series=f"1.2.826.{number + 1}")
            write_slice(folder / f"{number:05d}" / f"{i:04d}.dcm", dataset)
    return folder


def run(script: Path, tree: Path, model: Path, out: Path, *words: str) -> dict[str, Any]:
    """One run of the command: wall time with its start, processor time, memory."""
    command = [sys.executable, script, "harmonize", tree, "--model", model, "--out", out, *words]
    begun = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"cvsct harmonize ended with exit code {done.returncode}: {done.stderr}")
    own = json.loads(done.stdout.splitlines()[-1])
    figures = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["figures"]
    return {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(own["cpu_s"], 2),
        "slices_per_s": figures["slices_per_s"],
        "parent_peak_gb": round(own["parent_kib"] * 1024 / 1e9, 3),
        "worker_peak_gb": round(own["worker_kib"] * 1024 / 1e9, 3),
    }


def content(out: Path) -> dict[str, bytes]:
    """Every file of every series."""
    paths = (path for path in out.rglob("*") if path.parent != out and path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """The address of a Dask cluster of two processes here, up before anything is timed."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as workers:
        yield workers.scheduler_address


def compare(
    go: Callable[..., dict[str, Any]], scheduler: str, rounds: int, folder: Path
) -> list[dict[str, Any]]:
    """One worker, two, and Dask in every round; the bytes of all must be the same."""
    ways = {
        ONE: ("--workers", "1"),
        TWO: ("--workers", "2"),
        DASK: ("--scheduler", scheduler),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    wanted: dict[str, bytes] = {}
    for index in range(rounds):
        print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)
        for name, words in ways.items():
            out = folder / "out"
            found[name].append(go(out, *words))
            made = content(out)
            wanted = wanted or made
            if made != wanted:
                sys.exit(f"{name}: other bytes than {ONE}")
            shutil.rmtree(out)
    walls = {name: np.array([each["wall_s"] for each in runs]) for name, runs in found.items()}
    rows = []
    for name, runs in found.items():
        middle = {key: round(float(np.median([each[key] for each in runs])), 3) for key in runs[0]}
        rows.append(
            {
                "way": name,
                **middle,
                "wall_s_all": walls[name].tolist(),
                "times_one_worker": round(float(np.median(walls[ONE] / walls[name])), 2),
                "times_two_workers": round(float(np.median(walls[TWO] / walls[name])), 2),
            }
        )
    return rows


def grow(
    go: Callable[..., dict[str, Any]], folder: Path, counts: Sequence[int], slices: int, px: int
) -> list[dict[str, Any]]:
    """Time and memory of more and more series, by one worker."""
    rows = []
    for count in counts:
        print(f"{count} series", file=sys.stderr, flush=True)
        tree = write_series(folder / f"growth-{count}", count, slices, px)
        row = {"series": count, **go(folder / "out", "--workers", "1", tree=tree)}
        begun = time.perf_counter()
        go(folder / "out", "--workers", "1", tree=tree)
        row["again_wall_s"] = round(time.perf_counter() - begun, 2)
        for used in (tree, folder / "out"):
            shutil.rmtree(used)
        rows.append(row)
    for row in rows:
        more = row["series"] - rows[0]["series"]
        for name in ("wall_s", "cpu_s"):
            added = row[name] - rows[0][name]
            row[f"{name}_a_series"] = round(added / more, 4) if more else None
    return rows


def tables(report: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = []
    if report["ways"]:
        lines += [
            "| way | s in all | CPU s | slices/s | x 1 worker | x 2 workers | peak GB, parent "
            "| peak GB, worker |",
            "|---" * 8 + "|",
        ]
    for row in report["ways"]:
        ours = row["way"] != DASK  # whose workers are the cluster's
        there, cpu_s = (row["worker_peak_gb"], f"{row['cpu_s']:.1f}") if ours else ("-", "-")
        lines.append(
            f"| {row['way']} | {row['wall_s']:.1f} | {cpu_s} "
            f"| {row['slices_per_s']:.1f} | {row['times_one_worker']:.2f} "
            f"| {row['times_two_workers']:.2f} | {row['parent_peak_gb']} | {there} |"
        )
    if report["growth"]:
        lines += [
            "",
            "| series | s in all | CPU s | s a series more | CPU s a series more "
            "| the same command again, s | peak GB, parent | peak GB, worker |",
            "|---" * 8 + "|",
        ]
    for row in report["growth"]:
        more = [row["wall_s_a_series"], row["cpu_s_a_series"]]
        shown = " | ".join("-" if each is None else f"{each:.3f}" for each in more)
        lines.append(
            f"| {row['series']} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {shown} "
            f"| {row['again_wall_s']:.1f} | {row['parent_peak_gb']} | {row['worker_peak_gb']} |"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    args = _arguments(words)
    machine = {
        **facts(torch.device("cpu")),
        "usable_cores": usable_cores(),
        "distributed": distributed.__version__,
    }
    report: dict[str, Any] = {"benchmark": "cohort", "machine": machine, "ways": [], "growth": []}
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder = Path(name)
        model = args.model or train_classical(args.method, folder / "model")
        script = folder / "command.py"
        script.write_text(_COMMAND, encoding="utf-8", newline="\n")
        if args.series:
            shown = f"{args.series} series of {args.slices} slices of {args.size} x {args.size}"
            tree = write_series(folder / "tree", args.series, args.slices, args.size)
            with cluster() as scheduler:
                report["ways"] = compare(
                    lambda out, *more: run(script, tree, model, out, *more),
                    scheduler,
                    args.rounds,
                    folder,
                )
        else:
            shown = "no ways compared"
        report["growth"] = grow(
            lambda out, *more, tree: run(script, tree, model, out, *more),
            folder,
            args.growth,
            args.growth_slices,
            args.growth_size,
        )
        report["method"] = json.loads((model / "model.json").read_text(encoding="utf-8"))["method"]
        report["load_after"] = round(os.getloadavg()[0], 1)
    text = (
        f"{one_line(machine)} and {report['load_after']} after it, distributed "
        f"{machine['distributed']}. {report['method']}, {shown}; growth with series of "
        f"{args.growth_slices} slices of {args.growth_size} x {args.growth_size}.\n\n"
        f"{tables(report)}\n"
    )
    publish(report, text, "cohort", args.out)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a trained model; without it --method is fitted")
    parser.add_argument("--method", default="spectrum", help="a classical method")
    parser.add_argument("--series", type=int, default=40, help="0 leaves out workers and Dask")
    parser.add_argument("--slices", type=int, default=20, help="of each series")
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=3, help="in which every way has a turn")
    parser.add_argument("--growth", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--growth-slices", type=int, default=3)
    parser.add_argument("--growth-size", type=int, default=64)
    parser.add_argument("--scratch", type=Path, help="where series go, 1.5 GB; else temporary")
    parser.add_argument("--out", type=Path, help="folder for cohort.json and cohort.md")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
