"""Whether a profile tells that a patient is in it, and what of one patient's images it gives away.

    python notebook/scripts/membership_study.py --scans FOLDER [--bodies 100] [--slices 3]
           [--out FIGURES.json]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cvsct.cli.progress import progress
from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import BODIES_PER_SEED, Subject
from cvsct.simulation.plan import plan
from cvsct.simulation.run import run_simulation

SEED, KERNEL = 70, "Br40"


def simulate_bodies(folder: Path, bodies: int, slices: int, workers: int) -> None:
    """Simulate so many patients on one scanner, 24 mm from slice to slice."""
    template = next(
        scan for scan in plan("demo", SEED, parts=["kernels/train"]) if KERNEL in scan.kernels
    )
    template = replace(template, kernels=(KERNEL,))
    scans = [
        replace(
            template, number=i, body=Subject("patient", BODIES_PER_SEED * SEED + i + 1),
            slices=slices, first_mm=-(slices - 1) * 12.0, spacing_mm=24.0,
        )
        for i in range(bodies)
    ]  # fmt: skip
    config = {"scans": "membership", "seed": SEED, "bodies": bodies, "slices": slices}
    run_simulation(scans, config, folder, write_simulated, workers, progress(), note=print)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=Path, required=True)
    parser.add_argument("--bodies", type=int, default=100)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    simulate_bodies(args.scans, args.bodies, args.slices, args.workers)


if __name__ == "__main__":
    main()
