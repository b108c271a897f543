"""Scans at another dose than a model's, filtered by fixed gains and by each scan's own noise.

    python notebook/scripts/dose_level_study.py --data SCANS/pairs/NAME --other LOW/pairs/NAME

SCANS comes from `cvsct simulate --scale demo --parts pairs/NAME`, LOW from the same command with
`--parts pairs/NAME/test --mas 40`: the test bodies at 40 % of the dose. `spectrum` is trained on
SCANS with `dose_level` fixed and target-law; scans of both doses are mapped and compared with the
target's scan at the dose of SCANS. Printed: concordance, PSNR, and noise over the target's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from body_draws import by_patient, measured
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--rois", type=int, default=120)
    args = parser.parse_args()
    sides = sorted(path.name for path in (args.data / "test").iterdir() if path.is_dir())
    train, test, repeat = (
        [by_patient(args.data / part / side) for side in sides]
        for part in ("train", "test", "repeat")
    )
    other = [by_patient(args.other / "test" / side) for side in sides]
    row = find_method("spectrum")
    print("| direction | scans | dose_level | across | within | PSNR | noise |")
    print("|---|---|---|---|---|---|---|")
    bundles = {
        level: row.train(
            *train, TrainingRequest("spectrum", Path(), {**row.settings, "dose_level": level})
        )
        for level in ("fixed", "target-law")
    }
    for way in (0, 1):
        made = {("repeat", ""): repeat[1 - way]}
        for name, scans in (("same dose", test[way]), ("other dose", other[way])):
            for level, bundle in bundles.items():
                mapping = row.load(bundle, "b2a" if way else "a2b", RunOptions())
                made[name, level] = [v.with_hu(np.rint(mapping(v))) for v in scans]
        for (name, level), volumes in made.items():
            found = measured(volumes, test[1 - way], args.rois)
            cells = f"{found['ccc_across']:.3f} | {found['ccc_within']:.2f}"
            cells += f" | {found['psnr_db']:.1f} | {found['noise']:.2f}"
            print(f"| {sides[way]} → {sides[1 - way]} | {name} | {level} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
