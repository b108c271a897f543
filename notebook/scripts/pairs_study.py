"""How far apart two scans are by kind of difference, and how much of it `spectrum` closes.

usage: pairs_study.py --out FOLDER [--pairs kernel,dose,...] [--scale demo] [--seeds 0,1]
                      [--workers 0]

For each pair and seed: `cvsct.simulate(parts=["pairs/NAME"])`, then `cvsct benchmark` with
`spectrum`, both ways, whose reports hold input and repeat too. What is there already is kept, so
that the same command goes on. The pair `held-out` is left out unless it is named: nobody looks at
it while a method is tuned. Writes pairs.json and pairs.md: means over seeds, with the least and the
greatest where there are several.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cvsct
from cvsct.benchmarking.run import benchmark
from cvsct.core.files import write_atomic, write_json
from cvsct.simulation.pairs import ALL_PAIRS, Pair

CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
HELD_OUT = "held-out"
COLUMNS = {
    "PSNR (dB)": ("psnr_db", 1),
    "across": ("across", 3),
    "within": ("within", 2),
    **{name: (f"across_{name}", 2) for name in CLASSES},
    "noise (HU)": ("noise_hu", 1),
    "50 % (lp/cm)": ("mtf50_lp_cm", 1),
}
"""Headings with their keys and digits; the classes' concordance is across regions."""
HEADINGS = ("from → to", *COLUMNS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    default = ",".join(pair.name for pair in ALL_PAIRS if pair.name != HELD_OUT)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", default=default)
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args(arguments)
    by_name = {pair.name: pair for pair in ALL_PAIRS}
    seeds = [int(seed) for seed in args.seeds.split(",")]
    record: dict[str, Any] = {"scale": args.scale, "seeds": seeds, "pairs": {}}
    for name in args.pairs.split(","):
        for seed in seeds:
            folder = args.out / f"{name}-{seed}"
            print(f"{name}, seed {seed}", flush=True)
            record["pairs"].setdefault(name, []).append(
                measure(by_name[name], folder, args.scale, seed, args.workers)
            )
            write_json(args.out / "pairs.json", record)
    table = markdown([by_name[name] for name in record["pairs"]], record)
    write_atomic(args.out / "pairs.md", table)
    print(table)
    return 0


def measure(pair: Pair, folder: Path, scale: str, seed: int, workers: int) -> dict[str, Any]:
    """Simulate a pair, run the benchmark on it and gather its figures, both ways."""
    part = f"pairs/{pair.name}"
    cvsct.simulate(folder / "scans", scale=scale, parts=[part], seed=seed, workers=workers)
    benchmark(folder / "scans" / part, ["spectrum"], folder / "benchmark", workers=workers)
    sides = sorted(technique.name for technique in pair.techniques)
    return {
        f"{a} → {b}": figures(folder / "benchmark/results/spectrum-0" / way / "report/metrics.json")
        for way, (a, b) in {"a2b": sides, "b2a": sides[::-1]}.items()
    }


def figures(path: Path) -> dict[str, Any]:
    """The figures of one direction: of input, `spectrum` and repeated scan, and what is closed."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    physics = metrics["physics"]
    rows = {}
    for row, values, side in (
        ("input", metrics["input"], "source"),
        ("spectrum", metrics, "harmonized"),
        ("repeat", metrics["retest"], "retest"),
    ):
        within, across = (
            [values[f"ccc_{how}"][name] for name in CLASSES] for how in ("within", "across")
        )
        edge = physics["edge_transfer"].get("lung", {}).get(side) or {}
        rows[row] = {
            "psnr_db": values["psnr_db"],
            "across": float(np.mean(across)),
            "within": float(np.mean(within)),
            **{f"across_{name}": value for name, value in zip(CLASSES, across, strict=True)},
            "noise_hu": physics["noise_power"][side]["sd_hu"],
            "mtf50_lp_cm": 10 * edge["mtf50_per_mm"] if edge.get("mtf50_per_mm") else None,
        }
    return {**rows, "closed": metrics["way_to_retest"]["share"]}


def markdown(pairs: Sequence[Pair], record: dict[str, Any]) -> str:
    """The table of all pairs, three rows a direction."""
    lines = []
    for pair in pairs:
        draws = record["pairs"][pair.name]
        rule = ["---"] * len(HEADINGS)
        lines += ["", f"**{pair.difference}**", "", table_row(HEADINGS), table_row(rule)]
        for direction in draws[0]:
            of_direction = [draw[direction] for draw in draws]
            for row in ("input", "spectrum", "repeat"):
                cells = [
                    shown([draw[row][key] for draw in of_direction], digits)
                    for key, digits in COLUMNS.values()
                ]
                lines.append(table_row([f"{direction}: {row}", *cells]))
            closed = shown([draw["closed"] for draw in of_direction], 2)
            lines.append(table_row([f"closed by spectrum: {closed}", *[""] * (len(HEADINGS) - 1)]))
    return "\n".join(lines).strip() + "\n"


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def shown(values: Sequence[float | None], digits: int) -> str:
    """Mean, with the range where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{np.mean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.{digits}f}–{max(known):.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
