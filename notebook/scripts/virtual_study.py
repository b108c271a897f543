"""Compare methods on the virtual benchmark with equal budgets: the paper's tables, both directions.

    python notebook/scripts/virtual_study.py --work runs/virtual --minutes 30
           [--methods spectrum cyclegan cvsct-1 cvsct-2 cvsct] [--seeds 0] [--bodies 3]
    python notebook/scripts/virtual_study.py --work runs/ablation --minutes 8 --ablations

Trains GE Lung to Siemens Bl64 on `bodies` simulations of the demo scale (each two bodies a scanner,
all different: unpaired) and tests on the pairs of the first, both ways. Where a paired method is
among the methods, the same number of simulations with as many other bodies, each on both scanners,
are made for it to learn from (WORK/data/paired). Networks train two at a time, one thread each,
into WORK/benchmark/models: `minutes` of wall time where one model serves both directions, half of
that each where two are trained. `cvsct benchmark` does the rest. With `--ablations`, `cvsct` with
one setting changed (ABLATIONS) is trained into WORK/models and scored without the tables. What is
in WORK already is used again, so that a study can be spread over several sittings; the model of
every validation is kept for `epochs_figure.py` and `checkpoint_score.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvsct.methods import METHODS
from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE
from cvsct.runs import write_json
from cvsct.scanner.benchmark import GE, PAIRED, REPEAT, SIEMENS, TEST, TRAIN
from real_pair import link, measure, run, table

ABLATIONS: dict[str, list[str]] = {
    "cvsct": [],
    "cvsct-with-sigmoid": ["discriminator.sigmoid=true"],
    "cvsct-with-lambdas": ["weight_adversarial=1", "weight_identity=0.5", "weight_domain=1"],
    "cvsct-with-layers": ['domain.layers=["relu4_1","relu5_1"]'],
    "cvsct-with-norm": ["generator.norm=instance"],
    "cvsct-with-direct": ["generator.residual=false", "generator.hold_low_px=0"],
}
"""`cvsct` with the paper's reading of one thing in place of the preset's; without validation, so
that the last step is the model of each."""

UNCHOSEN = ["schedule.validate_steps=0"]

KEEP_EVERY = 100
"""Steps between validations; each one's model is kept."""

CHOSEN = ["schedule.keep_models=true", f"schedule.validate_steps={KEEP_EVERY}"]

ROIS = 60
DIRECTIONS = (("GE to Siemens", GE, SIEMENS, []), ("Siemens to GE", SIEMENS, GE, ["--reverse"]))


@dataclass(frozen=True)
class Job:
    """One training, from the first scanner of `sides` to the second."""

    method: str
    settings: list[str]
    seed: int
    model: Path
    minutes: float
    part: str = TRAIN
    sides: tuple[str, str] = (GE, SIEMENS)


def simulate(work: Path, bodies: int, paired: bool) -> Path:
    """The simulations, laid out as one benchmark folder of links to their files."""
    data = work / "data"
    for seed in range(bodies):
        parts = (TRAIN, TEST, REPEAT) if seed == 0 else (TRAIN,)
        _simulate(work / "scans" / f"seed-{seed}", seed, [], parts, data)
        if paired:
            scans = work / "scans" / f"seed-{seed}-{PAIRED}"
            _simulate(scans, seed, ["--parts", PAIRED], (PAIRED,), data)
    link([work / "scans" / "seed-0" / "nodules.csv"], data)
    return data


def _simulate(scans: Path, seed: int, only: list[str], parts: tuple[str, ...], data: Path) -> None:
    """One simulation, if it is not there, and links to some of its parts."""
    if not (scans / "manifest.json").exists():
        run("simulate", "--out", scans, "--scale", "demo", "--seed", seed, *only)
    for part in parts:
        for scanner in (GE, SIEMENS):
            for series in sorted((scans / part / scanner).iterdir()):
                files = sorted(series.glob("*.dcm"))
                link(files, data / part / scanner / f"{seed}-{series.name}")


def jobs_of(method: str, seed: int, models: Path, minutes: float) -> list[Job]:
    """A training of both ways, or two of one way and half the minutes each."""
    row, name = METHODS[method], f"{method}-{seed}"
    part = PAIRED if row.kind == "paired" else TRAIN
    if row.reversible:
        return [Job(method, CHOSEN, seed, models / name, minutes, part)]
    return [
        Job(method, CHOSEN, seed, models / name, minutes / 2, part),
        Job(method, CHOSEN, seed, models / f"{name}-b2a", minutes / 2, part, (SIEMENS, GE)),
    ]


def train(job: Job, data: Path) -> str:
    """One training in a process of its own; goes on where an earlier one stopped."""
    if (job.model / SUMS_FILE).exists():
        return ""
    words = [
        *(sys.executable, "-m", "cvsct.cli", "train", job.method, "--seed", job.seed),
        *("--source", data / job.part / job.sides[0]),
        *("--target", data / job.part / job.sides[1]),
        *("--out", job.model, "--max-minutes", job.minutes),
    ]
    for setting in ["max_steps=100000", *job.settings]:
        words += ["--set", setting]
    if (job.model / CHECKPOINT_FILE).exists():
        words.append("--resume")
    job.model.parent.mkdir(parents=True, exist_ok=True)
    with (job.model.parent / f"{job.model.name}.log").open("a") as log:
        code = subprocess.run(
            [str(word) for word in words],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        ).returncode
    return f"{job.model.name}: exit {code}, see {log.name}" if code else ""


def score(name: str, work: Path, data: Path) -> list[dict[str, Any]]:
    """Harmonise the test scans both ways and evaluate."""
    rows = []
    for direction, source, target, reverse in DIRECTIONS:
        place = work / "results" / name / direction.replace(" ", "-")
        paths = (data / TEST / source, data / TEST / target, work / "models" / name)
        about = {"protocol": "seed 0", "method": name, "direction": direction}
        rows.append(measure(about, paths, place, reverse, seeds=1, rois=ROIS))
    return rows


def _finished(models: Path, methods: list[str]) -> list[str]:
    """Methods with the number of seeds there are, counted from 0."""
    found = []
    for method in methods:
        seeds = 0
        while all((job.model / SUMS_FILE).exists() for job in jobs_of(method, seeds, models, 0)):
            seeds += 1
        found.append(f"{method}:{max(1, seeds)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="of a model of both ways; of one way half"
    )
    networks = [name for name, row in METHODS.items() if row.kind != "classical"]
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--bodies", type=int, default=3, help="simulations to train on")
    parser.add_argument("--ablations", action="store_true", help="cvsct with one thing changed")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--train-only", action="store_true", help="score later")
    args = parser.parse_args()
    paired = not args.ablations and any(METHODS[name].kind == "paired" for name in args.methods)
    data = simulate(args.work, args.bodies, paired)
    if args.ablations:
        models = args.work / "models"
        jobs = [
            Job("cvsct", [*UNCHOSEN, *changed], 0, models / name, args.minutes)
            for name, changed in ABLATIONS.items()
        ]
    else:
        models = args.work / "benchmark" / "models"
        jobs = [
            job
            for seed in args.seeds
            for method in args.methods
            if method in networks
            for job in jobs_of(method, seed, models, args.minutes)
        ]
    with ThreadPoolExecutor(args.parallel) as pool:
        failed = list(pool.map(lambda job: train(job, data), jobs))
    if any(failed):
        sys.exit("; ".join(filter(None, failed)))
    if args.train_only:
        return
    if args.ablations:
        rows = [row for job in jobs for row in score(job.model.name, args.work, data)]
        write_json(args.work / "table.json", {"minutes": args.minutes, "rows": rows})
        (args.work / "table.md").write_text(table(rows))
        print(table(rows))
    else:
        there = ",".join(_finished(models, args.methods))
        run("benchmark", "--data", data, "--methods", there, "--out", args.work / "benchmark",
            "--rois", ROIS, "--max-minutes", args.minutes / 2)  # fmt: skip


if __name__ == "__main__":
    main()
