"""One table of all methods from several benchmarks, as Markdown.

    python notebook/scripts/comparison.py NAME=BENCHMARK [NAME=BENCHMARK ...]

Each BENCHMARK is an output folder of `cvsct benchmark`. A table a direction, best concordance
first: CCC across with its interval, within, PSNR, SSIM, NCC, HU bias, fit time and steps, time a
slice, model size. Steps are those of the model folders beside the results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.sides import with_new_keys

HEADS = (
    "method", "kind", "CCC across", "within", "PSNR dB", "SSIM", "NCC", "HU bias", "fit s", "steps",
    "ms/slice", "MB",
)  # fmt: skip


def steps(models: Path, result: dict[str, Any]) -> str:
    """Steps of the training behind a result; a dash where it has none."""
    back = "-b2a" if result["direction"] and not result["both_ways"] else ""
    card = models / f"{result['method']}-{result['seed']}{back}" / "model.json"
    found = json.loads(card.read_text())["training"].get("steps") if card.exists() else None
    return "–" if found is None else f"{found:,}"


def row(models: Path, result: dict[str, Any]) -> list[str]:
    """One method in one direction."""
    metrics = result["metrics"]
    low, high = metrics["ccc_across_mean_interval"]
    within = np.mean([value for value in metrics["ccc_within"].values() if value is not None])
    features_only = metrics.get("psnr_db") is None
    return [
        result["method"],
        result.get("kind") or "–",
        f"{metrics['ccc_across_mean']:.3f} ({low:.2f} to {high:.2f})",
        f"{within:.2f}",
        *(
            ["–"] * 4
            if features_only
            else [
                f"{metrics['psnr_db']:.1f}",
                f"{metrics['ssim']:.3f}",
                f"{metrics['ncc']:.4f}",
                f"{metrics['hu_bias']:+.1f}",
            ]
        ),
        "–" if not result.get("fit_s") else f"{result['fit_s']:.0f}",
        steps(models, result),
        "–" if not result.get("slices_per_s") else f"{1000 / result['slices_per_s']:.0f}",
        "–" if not result.get("model_mb") else f"{result['model_mb']:.2g}",
    ]


def table(folder: Path, direction: int) -> list[str]:
    """Lines of one direction's table."""
    record = with_new_keys(json.loads((folder / "results.json").read_text()))
    results = [one for one in record["results"] if one["direction"] == direction]
    rows = [(one["metrics"]["ccc_across_mean"], row(folder / "models", one)) for one in results]
    retest = next(
        (one["metrics"]["retest"] for one in results if one["metrics"].get("retest")), None
    )
    if retest:
        rows.append((retest["ccc_across_mean"], retest_row(retest)))
    rows.sort(key=lambda one: -one[0])
    return [
        f"| {' | '.join(HEADS)} |",
        "|---" * len(HEADS) + "|",
        *(f"| {' | '.join(cells)} |" for _, cells in rows),
    ]


def retest_row(metrics: dict[str, Any]) -> list[str]:
    """The target scanned twice: what no method can pass."""
    within = np.mean([value for value in metrics["ccc_within"].values() if value is not None])
    return [
        "*retest*", "–", f"{metrics['ccc_across_mean']:.3f}", f"{within:.2f}",
        f"{metrics['psnr_db']:.1f}", f"{metrics['ssim']:.3f}", f"{metrics['ncc']:.4f}",
        *["–"] * 5,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmarks", nargs="+", metavar="NAME=BENCHMARK")
    for given in parser.parse_args().benchmarks:
        name, _, folder = given.partition("=")
        directions = json.loads((Path(folder) / "results.json").read_text())["directions"]
        for number, direction in enumerate(directions):
            print(f"### {name}: {direction}\n")
            print("\n".join(table(Path(folder), number)) + "\n")


if __name__ == "__main__":
    main()
