"""Whether noise that is made hides or feigns small nodules: an observer's AUC, and false alarms.

    python notebook/scripts/detectability.py --data SCANS/pairs/NAME [--contrast 10] [--size 8]
           [--places 120] [--method spectrum] [--set key=value ...]

SCANS comes from `cvsct simulate --scale demo --parts pairs/NAME`. A nodule of a Gaussian profile is
added to scans at places in soft tissue; a matched filter scores each place with and without it, on
the difference from a repeated scan, so that anatomy is known. AUC is the chance that a place with a
nodule scores higher than one without: in the source, after the method (scan, nodule and repeated
scan go through it), and in the target. *False* is how often, in soft tissue, the score
without nodules exceeds 4 standard deviations of the target's, in places per 100 cm²: what a reader
would take for a nodule. *Mottle* is the standard deviation of that score over the target's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import ndimage, stats

from body_draws import by_patient
from cvsct.cli.train import parse_settings
from cvsct.core.masks import Region, sample_regions, soft_tissue
from cvsct.core.seeding import random_stream
from cvsct.core.volume import CTVolume
from cvsct.methods.base import RunOptions, TrainingRequest
from cvsct.methods.registry import find_method

ROI_PX = 32
FALSE_SD = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--contrast", type=float, default=10.0, help="peak in HU")
    parser.add_argument("--size", type=float, default=8.0, help="full width at half maximum in mm")
    parser.add_argument("--places", type=int, default=120)
    parser.add_argument("--method", default="spectrum")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    sides = sorted(folder.name for folder in (args.data / "test").iterdir() if folder.is_dir())
    train, test, repeat = (
        [by_patient(args.data / part / side) for side in sides]
        for part in ("train", "test", "repeat")
    )
    row = find_method(args.method)
    settings = {**row.settings, **parse_settings(args.set)}
    bundle = row.train(*train, TrainingRequest(row.name, Path(), settings))
    print("| direction | AUC source | after | target | false after | target | mottle |")
    print("|---|---|---|---|---|---|---|")
    for way in (0, 1):
        pairs = [(test[side][0], repeat[side][0]) for side in (way, 1 - way)]
        mapping = row.load(bundle, "b2a" if way else "a2b", RunOptions())
        target = pairs[1][0]
        tissue = ndimage.binary_erosion(soft_tissue(target.hu), np.ones((1, 9, 9)))
        rng = random_stream(0, "detectability")
        places = sample_regions(tissue, ROI_PX, args.places, rng)
        nodule = profile(args.size / target.pixel_mm)
        planted_hu = args.contrast * nodule
        differences = []
        for (scan, again), mapped in ((pairs[0], False), (pairs[0], True), (pairs[1], False)):
            images = [planted(scan, places, planted_hu), scan, again]
            present, absent, other = (mapping(x) if mapped else x.hu for x in images)
            differences.append((present - other, absent - other))
        areas = [
            auc(*([float(np.sum(nodule * place.cut(hu))) for place in places] for hu in both))
            for both in differences
        ]
        made, own = (scores(differences[index][1], nodule) for index in (1, 2))
        limit, cm2 = FALSE_SD * float(own[tissue].std()), tissue.sum() * target.pixel_mm**2 / 100
        false = [100 * peaks(np.where(tissue, x, 0), limit) / cm2 for x in (made, own)]
        mottle = float(made[tissue].std() / own[tissue].std())
        cells = [f"{x:.3f}" for x in areas] + [f"{x:.2f}" for x in (*false, mottle)]
        print(f"| {sides[way]} → {sides[1 - way]} | {' | '.join(cells)} |", flush=True)


def profile(width_px: float) -> Float[np.ndarray, "n n"]:
    """Gaussian of a full width at half maximum, with a peak of 1, in a region."""
    y, x = np.mgrid[:ROI_PX, :ROI_PX] - (ROI_PX - 1) / 2
    return np.asarray(np.exp(-4 * np.log(2) * (x**2 + y**2) / width_px**2))


def planted(
    volume: CTVolume, places: list[Region], nodule_hu: Float[np.ndarray, "n n"]
) -> CTVolume:
    """The volume with a nodule at each place."""
    hu = volume.hu.copy()
    for place in places:
        place.cut(hu)[...] += nodule_hu.astype(np.float32)
    return volume.with_hu(hu)


def auc(present: list[float], absent: list[float]) -> float:
    """Area under the observer's curve: Mann and Whitney's statistic over its largest value."""
    statistic = stats.mannwhitneyu(present, absent).statistic
    return float(statistic / (len(present) * len(absent)))


def scores(
    difference: Float[np.ndarray, "slices rows columns"], nodule: Float[np.ndarray, "n n"]
) -> Float[np.ndarray, "slices rows columns"]:
    """Matched filter's score at each place, without what is wider than two nodules."""
    width = float(np.sqrt(np.sum(nodule) / np.pi))
    near, far = (
        ndimage.gaussian_filter(difference, (0, scale * width, scale * width)) for scale in (0.7, 2)
    )
    return np.asarray(near - far)


def peaks(score: Float[np.ndarray, "slices rows columns"], limit: float) -> int:
    """Number of separate places beyond a limit, either way."""
    return int(ndimage.label(np.abs(score) > limit)[1])


if __name__ == "__main__":
    main()
