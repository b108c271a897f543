"""The virtual scans that the bundled models learn from and are measured on.

    python scripts/bundled_scans.py --out DIR [--slices 24 16] [--workers N]

Two benchmark folders: DIR, GE Lung and Siemens Bl64 (5 mm), and DIR/kernels, Siemens Bl64 and Br40
(3 mm), all at 120 kVp. Each side has eight bodies of its own to learn from, 24 slices of each (the
first number of --slices); the test is two unseen bodies, 16 slices (the second), on both sides,
once more with other noise as the repeat. No body is one of `cvsct simulate`'s seeds below 90, so
that the demo's are new to the models. 1,024 images take two hours on two cores.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cvsct.cli.progress import progress
from cvsct.core.errors import need_extra
from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import BODIES_PER_SEED, KERNELS, TRAIN, BodyKind, Scan, Subject
from cvsct.simulation.plan import plan
from cvsct.simulation.run import run_simulation

SEED = 90
TRAIN_BODIES, TEST_BODIES = 8, 2
SLICES = (24, 16)
"""Of each body to learn from, and of each to be tested on."""

KINDS: dict[bool, tuple[BodyKind, ...]] = {False: ("lungman", "patient"), True: ("patient",)}
"""Of the two scanners, and of the two kernels, as in the paper."""


def scans(slices_of: tuple[int, int] = SLICES) -> list[Scan]:
    """Scans of the demo, with more bodies and slices in place of one each.

    Args:
        slices_of: each body to learn from, and each to be tested on.
    """
    templates: dict[tuple[str, str, tuple[str, ...]], Scan] = {}
    for scan in plan("demo", SEED):
        templates.setdefault((scan.part, scan.scanner, scan.kernels), scan)
    planned: list[Scan] = []
    for (part, _, _), scan in templates.items():
        train = part.endswith(TRAIN)
        kinds = KINDS[part.startswith(KERNELS)]
        count, slices = (TRAIN_BODIES if train else TEST_BODIES), slices_of[not train]
        for i in range(count):
            # Bodies of a test are the same on both sides; those learned from never are.
            number = len(planned) if train else 1000 + i + 100 * part.startswith(KERNELS)
            body = Subject(kinds[i % len(kinds)], BODIES_PER_SEED * SEED + number + 1)
            first_mm = -(slices - 1) / 2 * scan.thickness_mm
            planned.append(
                replace(scan, number=len(planned), body=body, slices=slices, first_mm=first_mm)
            )
    return planned


def make(out: Path, workers: int, slices_of: tuple[int, int] = SLICES) -> None:
    """Simulate the scans that the folder does not hold yet.

    Args:
        slices_of: each body to learn from, and each to be tested on.

    Raises:
        SystemExit: if a scan failed.
    """
    need_extra("simulate", "simulate")
    config = {"scans": "bundled", "seed": SEED, "slices": list(slices_of)}
    result = run_simulation(
        scans(slices_of), config, out, write_simulated, workers, progress(), note=print,
    )  # fmt: skip
    if result.failed:
        raise SystemExit("; ".join(f"{scan}: {reason}" for scan, reason in result.failed.items()))
    print(f"{out}: {result.n_images} images of {result.n_bodies} bodies")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, nargs=2, default=SLICES, metavar=("LEARN", "TEST"))
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    make(args.out, args.workers, tuple(args.slices))


if __name__ == "__main__":
    main()
