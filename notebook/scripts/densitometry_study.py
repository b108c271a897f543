"""Lung densitometry of a simulated kernel pair before and after `spectrum`: LAA-950 with a truth.

    python notebook/scripts/densitometry_study.py --out runs/densitometry --slices 6 --mas 60

Bodies with a known share of emphysema are scanned and reconstructed with a sharp and a soft kernel;
`spectrum` is trained on other bodies. The truth is the share of the same voxels in the body itself
that lies below -950 HU. The log has the figures.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import cvsct
from cvsct.core.files import write_json
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.densitometry import FIGURES, LAA_HU, densitometry
from cvsct.evaluation.image.lungs import lung_mask
from cvsct.io.dicom.simulated import write_simulated
from cvsct.simulation.benchmark import SIEMENS, ImageSize, Scan, SimulationOptions, Subject
from cvsct.simulation.pairs import FIRST_NUMBER, Technique
from cvsct.simulation.phantom.materials import BASIS, WATER
from cvsct.simulation.phantom.phantom import RasterGrid, patient
from cvsct.simulation.phantom.tissues import EFFECTIVE_KEV
from cvsct.simulation.run import run_simulation

SHARP, SOFT = "Bl64", "Br40"
SPACING_MM = 15.0
TRAIN_BODIES = {SHARP: 6101, SOFT: 6201}
TEST_BODY = 6001


def true_laa950(target: CTVolume, scan: Scan) -> float:
    """Percentage of the lung mask's area that is below -950 HU in the body."""
    body = patient(scan.body.seed, emphysema=scan.body.emphysema)
    energy = np.array([EFFECTIVE_KEV])
    soft, bone, water = (float(m.attenuation_per_mm(energy)[0]) for m in (*BASIS, WATER))
    grid = RasterGrid(scan.raster_px, 400.0)
    at_mm = grid.first_mm + grid.pixel_mm * np.arange(grid.size_px)
    low = total = 0
    lungs = lung_mask(target).mask
    for mask, (x_mm, y_mm, z_mm) in zip(lungs, target.geometry.positions_mm, strict=True):
        index = [
            np.rint((at_mm - first) / pixel).astype(int)
            for first, pixel in zip((y_mm, x_mm), target.geometry.pixel_mm, strict=True)
        ]
        inside = [(i >= 0) & (i < size) for i, size in zip(index, mask.shape, strict=True)]
        fine = np.zeros((grid.size_px, grid.size_px), bool)
        fine[np.ix_(*inside)] = mask[np.ix_(*(i[k] for i, k in zip(index, inside, strict=True)))]
        for offset_mm in (-0.5, 0.0, 0.5):
            amounts = body.raster(float(z_mm) + offset_mm, grid)
            hu = 1000 * ((amounts[0] * soft + amounts[1] * bone) / water - 1)
            low += int((hu[fine] < LAA_HU).sum())
            total += int(fine.sum())
    return 100 * low / total


def main() -> None:
    """Simulate, train, harmonize and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--mas", type=float, default=60.0)
    parser.add_argument("--thickness-mm", type=float, default=1.5)
    parser.add_argument("--emphysema", type=float, default=0.15)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    settings = SimulationOptions(emphysema=options.emphysema)
    scans = []
    for kernel in (SHARP, SOFT):
        technique = Technique(
            kernel, SIEMENS, kernel, thickness_mm=options.thickness_mm, mas=options.mas
        )
        for part, seed in (
            ("train", TRAIN_BODIES[kernel]), ("test", TEST_BODY), ("repeat", TEST_BODY),
        ):  # fmt: skip
            body = Subject("patient", seed, emphysema=options.emphysema)
            scan = technique.scan(
                part, FIRST_NUMBER + len(scans), body, options.slices, SPACING_MM, 0, settings,
                ImageSize(),
            )  # fmt: skip
            if part != "train":
                scan = replace(scan, acquisition=f"{part}/{body.name}")
            scans.append(scan)
    folder = options.out / "scans"
    run_simulation(
        scans,
        {"seed": 0, **settings.record()},
        folder,
        write_simulated,
        options.workers,
        note=print,
    )
    model, images = options.out / "model", options.out / "harmonized"
    if not model.exists():
        cvsct.train("spectrum", folder / "train" / SHARP, folder / "train" / SOFT, model)
    if not images.exists():
        cvsct.harmonize(folder / "test" / SHARP, images, model=model, guard=["scan=note"])
    paths = {
        "source": folder / "test" / SHARP,
        "harmonized": images,
        "retest": folder / "repeat" / SOFT,
        "target": folder / "test" / SOFT,
    }
    sides = {side: [cvsct.read_series(path)] for side, path in paths.items()}
    measured = densitometry(sides, paired=True)
    test = next(scan for scan in scans if scan.part == "test")
    record = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "true_laa950_percent": true_laa950(sides["target"][0], test),
        **{side: {f: density.mean(f) for f in FIGURES} for side, density in measured.items()},
    }
    write_json(options.out / "densitometry.json", record)
    for name, value in record.items():
        print(name, value)


if __name__ == "__main__":
    main()
