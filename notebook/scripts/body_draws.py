"""How far a classical method's figures depend on the bodies it happened to learn from.

    python notebook/scripts/body_draws.py --data DATA --sides A B --out TABLE.json
           [--methods spectrum-plain spectrum] [--draws 5] [--bodies 4] [--rois 120]

DATA holds `train/SIDE` and `test/SIDE` as for `cvsct benchmark`. Each draw takes `bodies` training
series of each side at random, fits the method, maps the test scans both
ways and compares them with their partners over the same regions. Printed: the mean over draws with
the 95 % interval of Student's t, the least and the largest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cvsct.core.files import write_json
from cvsct.core.masks import Region, sample_regions, soft_tissue
from cvsct.core.seeding import random_stream
from cvsct.core.volume import CTVolume, HUWindow
from cvsct.evaluation.agreement import concordance
from cvsct.evaluation.features import radiomics
from cvsct.evaluation.features.roi import patch_of
from cvsct.evaluation.image.edge_mtf import edge_transfer
from cvsct.evaluation.image.noise import tissue_noise
from cvsct.evaluation.image.quality import image_quality
from cvsct.evaluation.image.tissues import TissueMap, bias_by_tissue
from cvsct.io.read import read_all
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method

ROI_PX = 32

Sides = tuple[list[CTVolume], list[CTVolume]]


def by_patient(folder: Path) -> list[CTVolume]:
    """Every series of a folder, in the same order of bodies for each side."""
    return sorted(read_all(folder), key=lambda volume: volume.patient)


def figures(made: list[CTVolume], target: list[CTVolume], rois: int) -> dict[str, float]:
    """Concordance across and within, mean of the classes, the worst class, PSNR and bias."""
    mine, theirs = (_features(side, target, rois) for side in (made, target))
    across = concordance.across_regions(mine, theirs, bootstrap=1)
    within = [each.mean for each in concordance.within_regions(mine, theirs).values() if each]
    planes = [
        pair for a, b in zip(made, target, strict=True) for pair in zip(a.hu, b.hu, strict=True)
    ]
    quality = image_quality(planes, HUWindow())
    return {
        "ccc_across": across.mean.ccc or 0.0,
        "worst_class": min(each.ccc or 0.0 for each in across.classes.values()),
        "ccc_within": float(np.mean(within)),
        "psnr_db": quality.psnr_db.mean,
        "hu_bias": quality.hu_bias or 0.0,
    }


def measured(made: list[CTVolume], target: list[CTVolume], rois: int) -> dict[str, float]:
    """Concordance, PSNR, and of noise, lung edges and CT numbers the ratio to or difference from
    the target's.
    """
    noise = tissue_noise({"made": made, "target": target})
    edges = edge_transfer({"made": made, "target": target})
    maps = [TissueMap.of(volume) for volume in target]
    bias = bias_by_tissue(list(zip(made, target, strict=True)), maps)
    found = figures(made, target, rois)
    if noise:
        found["noise"] = noise["made"].level.value / noise["target"].level.value
    for kind, sides in edges.items():
        found[f"{kind}_mtf50"] = sides["made"].mtf50.value / sides["target"].mtf50.value
    found |= {f"{tissue}_hu": float(each.mean_hu or 0) for tissue, each in bias.items()}
    return found


def _features(
    volumes: list[CTVolume], target: list[CTVolume], rois: int
) -> radiomics.RegionFeatures:
    """Features of the target's regions; those of the last target are kept for the next image."""
    if volumes is target and _of_target and _of_target[0] is target and _of_target[1] == rois:
        return _of_target[2]
    placed = [_regions(volume, rois // len(target), i) for i, volume in enumerate(target)]
    patches = [
        patch_of(volume, region)
        for volume, regions in zip(volumes, placed, strict=True)
        for region in regions
    ]
    found = radiomics.extract(patches, workers=1)
    if volumes is target:
        _of_target[:] = target, rois, found
    return found


_of_target: list[Any] = []
"""The last target, the number of its regions, and their features."""


def _regions(volume: CTVolume, count: int, body: int) -> list[Region]:
    rng = random_stream(0, "body draws", str(body))
    return sample_regions(soft_tissue(volume.hu), ROI_PX, count, rng)


def one_draw(
    method: str, train: Sides, test: Sides, bodies: int, draw: int, rois: int
) -> list[dict[str, float]]:
    """Fit on some bodies of each side; the figures of both directions."""
    row = find_method(method)
    rng = random_stream(draw, "draw of bodies", method)
    some = [[side[i] for i in rng.choice(len(side), bodies, replace=False)] for side in train]
    request = TrainingRequest(method=method, out=Path(), settings=row.settings)
    bundle = row.train(*some, request)
    found = []
    for reverse in (False, True):
        mapping = row.load(bundle, "b2a" if reverse else "a2b", RunOptions())
        source, target = test[::-1] if reverse else test
        made = [volume.with_hu(np.rint(mapping(volume))) for volume in source]
        found.append(figures(made, target, rois))
    return found


def summary(values: list[float]) -> dict[str, float]:
    """Mean, its interval, and the ends."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else 0
    return {"mean": mean, "low": mean - half, "high": mean + half,
            "least": min(values), "largest": max(values)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sides", nargs=2, required=True, metavar=("A", "B"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["spectrum-plain", "spectrum"])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--bodies", type=int, default=4, help="of each side")
    parser.add_argument("--rois", type=int, default=120)
    args = parser.parse_args()
    train, test = (
        tuple(by_patient(args.data / part / side) for side in args.sides)
        for part in ("train", "test")
    )
    table: dict[str, Any] = {}
    print("| method | direction | CCC across | worst class | within | PSNR dB | bias HU |")
    print("|---|---|---|---|---|---|---|")
    for method in args.methods:
        draws = [
            one_draw(method, train, test, args.bodies, draw, args.rois)
            for draw in range(args.draws)
        ]
        for reverse in (0, 1):
            found = [draw[reverse] for draw in draws]
            name = f"{args.sides[reverse]} to {args.sides[1 - reverse]}"
            one = {key: summary([figure[key] for figure in found]) for key in found[0]}
            table[f"{method}, {name}"] = {**one, "draws": found}
            cells = [
                f"{one[key]['mean']:.{digits}f} ({one[key]['low']:.{digits}f} to "
                f"{one[key]['high']:.{digits}f})"
                for key, digits in (
                    ("ccc_across", 3), ("worst_class", 2), ("ccc_within", 3), ("psnr_db", 1),
                    ("hu_bias", 1),
                )
            ]  # fmt: skip
            print(f"| {method} | {name} | {' | '.join(cells)} |", flush=True)
    write_json(args.out, table)


if __name__ == "__main__":
    main()
