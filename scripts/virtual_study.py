"""Compare methods on the virtual benchmark with equal budgets: one table, both directions.

    python scripts/virtual_study.py --work runs/virtual --minutes 30
           [--variants input spectrum cyclegan cvsct-1 cvsct-2 cvsct] [--seeds 0] [--bodies 3]

Trains GE Lung to Siemens Bl64 on `bodies` simulations of the demo scale (each two bodies a scanner,
all different: unpaired) and tests on the pairs of the first, both ways. Networks train two at a
time, one thread each, `minutes` of wall time. A variant is a method, or `cvsct` with one setting
changed (ABLATIONS). What is in WORK already is used again, so that the study can be spread over
several sittings; the model of every validation is kept for `scripts/epochs_figure.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from real_pair import link, measure, run, table

from cvsct.methods import METHODS
from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE
from cvsct.runs import write_json
from cvsct.scanner.benchmark import GE, SIEMENS, TEST, TRAIN

ABLATIONS: dict[str, list[str]] = {
    "cvsct/sigmoid": ["discriminator.sigmoid=true"],
    "cvsct/lambdas": ["weight_adversarial=1", "weight_identity=0.5", "weight_domain=1"],
    "cvsct/layers": ['domain.layers=["relu4_1","relu5_1"]'],
    "cvsct/norm": ["generator.norm=instance"],
    "cvsct/direct": ["generator.residual=false", "generator.hold_low_px=0"],
}
"""`cvsct` with the paper's reading of one thing in place of the preset's."""

KEEP_EVERY = 100
"""Steps between validations; each one's model is kept."""

DIRECTIONS = (("GE to Siemens", GE, SIEMENS, []), ("Siemens to GE", SIEMENS, GE, ["--reverse"]))


def simulate(work: Path, bodies: int) -> dict[str, Path]:
    """The simulations, and the folders of training scans by scanner."""
    train = {scanner: work / "train" / scanner for scanner in (GE, SIEMENS)}
    for seed in range(bodies):
        scans = work / "scans" / f"seed-{seed}"
        if not (scans / "manifest.json").exists():
            run("simulate", "--out", scans, "--scale", "demo", "--seed", seed)
        for scanner, folder in train.items():
            for series in sorted((scans / TRAIN / scanner).iterdir()):
                link(sorted(series.glob("*.dcm")), folder / f"{seed}-{series.name}")
    return train


def place_of(variant: str, seed: int) -> str:
    return f"{variant.replace('/', '-with-')}-{seed}"


def train(job: tuple[str, int], work: Path, scans: dict[str, Path], minutes: float) -> str:
    """One training in a process of its own; goes on where an earlier one stopped."""
    variant, seed = job
    method = variant.partition("/")[0]
    model = work / "models" / place_of(variant, seed)
    if (model / SUMS_FILE).exists():
        return ""
    words = [
        *(sys.executable, "-m", "cvsct.cli", "train", method, "--source", scans[GE]),
        *("--target", scans[SIEMENS], "--out", model, "--seed", seed),
    ]
    if METHODS[method].kind != "classical":
        words += ["--max-minutes", minutes, "--set", "schedule.keep_models=true"]
        words += ["--set", f"schedule.validate_steps={KEEP_EVERY}"]
        for setting in ["max_steps=100000", *ABLATIONS.get(variant, [])]:
            words += ["--set", setting]
        if (model / CHECKPOINT_FILE).exists():
            words.append("--resume")
    model.parent.mkdir(parents=True, exist_ok=True)
    with (model.parent / f"{model.name}.log").open("a") as log:
        code = subprocess.run(
            [str(word) for word in words],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        ).returncode
    return f"{variant} seed {seed}: exit {code}, see {log.name}" if code else ""


def score(variant: str, seed: int, work: Path) -> list[dict[str, Any]]:
    """Harmonise the test scans both ways and evaluate."""
    test = work / "scans" / "seed-0" / TEST
    rows = []
    for direction, source, target, reverse in DIRECTIONS:
        place = work / "results" / place_of(variant, seed) / direction.replace(" ", "-")
        model = work / "models" / place_of(variant, seed)
        rows.append(
            measure(
                {"protocol": f"seed {seed}", "method": variant, "direction": direction},
                (test / source, test / target, model),
                place,
                reverse,
                seeds=1,
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--variants", nargs="+", choices=[*METHODS, *ABLATIONS], default=list(METHODS)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--bodies", type=int, default=3, help="simulations to train on")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--train-only", action="store_true", help="score later")
    args = parser.parse_args()
    scans = simulate(args.work, args.bodies)
    jobs = [
        (variant, seed)
        for seed in args.seeds
        for variant in args.variants
        if seed == args.seeds[0] or variant in ABLATIONS or METHODS[variant].kind != "classical"
    ]
    with ThreadPoolExecutor(args.parallel) as pool:
        failed = list(pool.map(lambda job: train(job, args.work, scans, args.minutes), jobs))
    if any(failed):
        sys.exit("; ".join(filter(None, failed)))
    if args.train_only:
        return
    rows = [row for variant, seed in jobs for row in score(variant, seed, args.work)]
    write_json(args.work / "table.json", {"minutes": args.minutes, "rows": rows})
    (args.work / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
