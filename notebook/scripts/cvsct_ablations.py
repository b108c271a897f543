"""CVS-CT and its ablations at equal steps over several seeds: the last model of each training.

    python notebook/scripts/cvsct_ablations.py --data SCANS/pairs/NAME --out FOLDER --steps 600
           [--methods cyclegan cvsct-1 cvsct-2 cvsct] [--seeds 3] [--set key=value ...]
           [--label NAME] [--rois 120]

SCANS comes from `cvsct simulate --scale demo --parts pairs/NAME`. Each training runs with one
thread for so many steps of preset `cpu` and is judged by its last model, as in the paper: choosing
a checkpoint would hide which loss learns and which does not. Seeds are the outer loop, so that a
study that is stopped compares methods alike; the same command goes on. FOLDER/rows.jsonl holds a
line for each training and direction; printed are means over seeds with the interval of Student's t.
VGG16's weights are found as docs/reference/training.md says.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from body_draws import by_patient, measured, summary
from cvsct.cli.train import parse_settings
from cvsct.core.volume import CTVolume
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method

METHODS = ("cyclegan", "cvsct-1", "cvsct-2", "cvsct")
SHOWN = (
    ("ccc_across", 3), ("ccc_within", 3), ("psnr_db", 1), ("noise", 2), ("lung_mtf50", 2),
    ("lung_hu", 1), ("bone_hu", 1),
)  # fmt: skip
Sides = tuple[list[CTVolume], list[CTVolume]]


def train_and_measure(
    method: str, seed: int, train: Sides, test: Sides, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """One training, and the figures of both directions by its last model."""
    row = find_method(method)
    folder = args.out / f"{args.label or method}-{seed}"
    settings = {**row.settings, **parse_settings(args.set), "schedule.save_seconds": 60.0}
    request = TrainingRequest(
        method=method, out=folder, settings=settings, seed=seed, preset="cpu",
        max_steps=args.steps, resume=(folder / "checkpoint.pt").exists(),
    )  # fmt: skip
    begun = time.process_time()
    bundle = row.train(*train, request)
    seconds = time.process_time() - begun
    rows = []
    for direction, (source, target) in {"a2b": test, "b2a": test[::-1]}.items():
        mapping = row.load(bundle, direction, RunOptions())
        made = [volume.with_hu(np.rint(mapping(volume))) for volume in source]
        about = {"method": args.label or method, "seed": seed, "direction": direction}
        cost = {"steps": args.steps, "cpu_s": round(seconds, 1)}
        rows.append({**about, **cost, **measured(made, target, args.rois)})
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of a Markdown table: mean over seeds with its interval."""
    lines = [
        f"| method | direction | seeds | {' | '.join(name for name, _ in SHOWN)} |",
        "|---|---|---|" + "---|" * len(SHOWN),
    ]
    keys = dict.fromkeys((row["direction"], row["method"]) for row in rows)
    for direction, method in sorted(keys, key=lambda key: key[0]):
        mine = [row for row in rows if (row["direction"], row["method"]) == (direction, method)]
        cells = []
        for name, digits in SHOWN:
            values = [row[name] for row in mine if name in row]
            one = summary(values) if values else None
            cells.append(
                "–" if one is None else f"{one['mean']:.{digits}f}" if len(values) < 2
                else f"{one['mean']:.{digits}f} ± {one['high'] - one['mean']:.{digits}f}"
            )  # fmt: skip
        lines.append(f"| {method} | {direction} | {len(mine)} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--label", default="", help="name of the rows, where settings are changed")
    parser.add_argument("--rois", type=int, default=120)
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = sorted(folder.name for folder in (args.data / "train").iterdir())
    train, test = (
        tuple(by_patient(args.data / part / name) for name in names) for part in ("train", "test")
    )
    file = args.out / "rows.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if not rows:
        repeat = tuple(by_patient(args.data / "repeat" / name) for name in names)
        for direction, side in {"a2b": 1, "b2a": 0}.items():
            for method, images in (("input", test[1 - side]), ("repeat", repeat[side])):
                about = {"method": method, "seed": 0, "direction": direction, "steps": 0}
                rows.append({**about, "cpu_s": 0.0, **measured(images, test[side], args.rois)})
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for method in args.methods:
            name = args.label or method
            if not any((row["method"], row["seed"]) == (name, seed) for row in rows):
                rows += train_and_measure(method, seed, train, test, args)
                file.write_text("".join(json.dumps(row) + "\n" for row in rows))
                print(f"{name}, seed {seed}: done", flush=True)
    print(f"a: {names[0]}, b: {names[1]}")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
