"""Whether a tone curve between two scanners is told from patients, and none where there is none.

    python notebook/scripts/tone_study.py --data SCANS/kernels --sides Bl64 Br40
           [--scanner siemens-somatom-force-toned]

SCANS/kernels comes from `scripts/bundled_scans.py --out SCANS`, eight bodies of each side.
`spectrum` is trained on them, as they are and with the tone curve of a virtual scanner applied to
the second side's CT numbers. Printed: what is told of fat and soft tissue, and the difference of
the test bodies' mean CT number by tissue from the toned target, before and after.
"""

from __future__ import annotations

import argparse
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float

from body_draws import by_patient
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.tissues import TissueMap, bias_by_tissue
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method

DEFINITIONS = files("cvsct.simulation.physics") / "definitions"
TISSUES = ("fat", "soft", "bone", "lung")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sides", nargs=2, required=True, help="folders below train and test")
    parser.add_argument("--scanner", default="siemens-somatom-force-toned")
    args = parser.parse_args()
    definition = tomllib.loads((DEFINITIONS / f"{args.scanner}.toml").read_text(encoding="utf-8"))
    curve = np.array(definition["tone_hu"], dtype=np.float64)
    train, test = (
        [by_patient(args.data / part / side) for side in args.sides] for part in ("train", "test")
    )
    row = find_method("spectrum")
    print("| target | tone told | direction | " + " | ".join(f"HU {t}" for t in TISSUES) + " |")
    print("|---|---|---|" + "---|" * len(TISSUES))
    for name, tone in (("as it is", None), ("toned", curve)):
        learned = [train[0], [toned(volume, tone) for volume in train[1]]]
        shown = [test[0], [toned(volume, tone) for volume in test[1]]]
        bundle = row.train(*learned, TrainingRequest("spectrum", Path(), row.settings))
        for way in (0, 1):
            mapping = row.load(bundle, "b2a" if way else "a2b", RunOptions())
            target = shown[1 - way]
            before = biases(shown[way], target)
            after = biases([v.with_hu(np.rint(mapping(v))) for v in shown[way]], target)
            cells = " | ".join(f"{x:+.1f} → {y:+.1f}" for x, y in zip(before, after, strict=True))
            told = bundle.training["tone_by_patient"] if way == 0 else ""
            direction = f"{args.sides[way]} → {args.sides[1 - way]}"
            print(f"| {name} | {told} | {direction} | {cells} |", flush=True)


def toned(volume: CTVolume, curve: Float[np.ndarray, "points 2"] | None) -> CTVolume:
    """The volume with a tone curve's offsets added to its CT numbers."""
    if curve is None:
        return volume
    return volume.with_hu(np.rint(volume.hu + np.interp(volume.hu, curve[:, 0], curve[:, 1])))


def biases(made: list[CTVolume], target: list[CTVolume]) -> list[float]:
    """Difference of the mean CT number of each tissue from the target's, in HU."""
    maps = [TissueMap.of(volume) for volume in target]
    found = bias_by_tissue(list(zip(made, target, strict=True)), maps)
    return [float(found[tissue].mean_hu or 0) if tissue in found else np.nan for tissue in TISSUES]


if __name__ == "__main__":
    main()
