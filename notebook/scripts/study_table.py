"""The summary table of notebook/virtual_study.md, from what `cvsct benchmark` left.

    python notebook/scripts/study_table.py runs/study/benchmark/results.json

One row a method, the best first (by the first seed's concordance in the first direction), in
Markdown. Where a method was trained from several seeds, concordance across regions is given for
each, with the mean; the other figures are means. Steps come from the models beside the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.benchmarking.results import INPUT, RETEST, Benchmark, Result
from cvsct.core.manifest import MANIFEST

MISSING_CELL = "–"


def read(path: Path) -> Benchmark:
    """The results of a finished benchmark."""
    record = json.loads(path.read_text(encoding="utf-8"))
    first, second = record["directions"]
    return Benchmark((first, second), tuple(Result(**one) for one in record["results"]), budget="")


def steps(models: Path, method: str, seeds: Sequence[int]) -> str:
    """How many steps each training made; nothing for methods that make none."""
    found = []
    for seed in seeds:
        manifest = models / f"{method}-{seed}" / MANIFEST
        made = json.loads(manifest.read_text()) if manifest.exists() else {"figures": {}}
        if "steps" in made["figures"]:
            found.append(f"{made['figures']['steps']:,}")
    return " / ".join(found) or MISSING_CELL


def across(found: Sequence[Mapping[str, Any]]) -> str:
    values = [one["ccc_across_mean"] for one in found]
    shown = " / ".join(f"{value:.3f}" for value in values)
    return shown if len(values) == 1 else f"{shown} (mean {np.mean(values):.3f})"


def within(found: Sequence[Mapping[str, Any]]) -> str:
    return f"{np.mean([list(one['ccc_within'].values()) for one in found]):.2f}"


def psnr_db(found: Sequence[Mapping[str, Any]]) -> str:
    values = [one["psnr_db"] for one in found if "psnr_db" in one]
    return f"{np.mean(values):.1f}" if values else MISSING_CELL


def table(benchmark: Benchmark, models: Path) -> str:
    """The table as Markdown."""
    methods = [name for name in (RETEST, *benchmark.methods, INPUT) if benchmark.of(name, 0)]
    methods.sort(key=lambda name: -benchmark.of(name, 0)[0]["ccc_across_mean"])
    seeds = sorted({one.seed for one in benchmark.results})
    first, second = benchmark.directions
    head = ["method", f"steps (seed {' / '.join(map(str, seeds))})"]
    head += [f"{first}: CCC across", "within", "PSNR dB"]
    head += [f"{second}: CCC across", "within", "PSNR dB"]
    rows = [head]
    for name in methods:
        ways = [benchmark.of(name, direction) for direction in (0, 1)]
        cells = [cell(way) for way in ways for cell in (across, within, psnr_db)]
        rows.append([name, steps(models, name, seeds), *cells])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json of `cvsct benchmark`")
    path = parser.parse_args().results
    print(table(read(path), path.parent / "models"))


if __name__ == "__main__":
    main()
