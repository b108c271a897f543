"""Seconds of `cvsct features` and of PyRadiomics' own batch command on the same files.

`python -m benchmarks.features [--scans N] [--regions N] [--size N] [--filters] [--out FILE]`. The
full size is 5 scans of 50 regions, two processes each, without a cache. Both get the same NIfTI
scans, label maps and parameter file, and their values are compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage

from cvsct.core.files import write_json
from cvsct.core.seeding import random_stream

SPACING_MM = (2.5, 0.75, 0.75)
"""Numbers that 32-bit fractions, which NIfTI stores, hold exactly."""
SLICES = 40
REGION = (6, 16, 16)
"""Voxels of the box around a region, which is an ellipsoid."""

SETTINGS = "setting:\n  binWidth: 25\nimageType:\n  Original: {}\n"
FILTERS = "  LoG:\n    sigma: [2.0]\n  Wavelet: {}\n"
CLASSES = "featureClass:\n" + "".join(
    f"  {name}:\n" for name in ("shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
)


def write_cohort(folder: Path, scans: int, regions: int, size: int, seed: int) -> list[Any]:
    """Write scans of soft tissue with noise and a label map each; returns PyRadiomics' rows."""
    rows = []
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0])  # as DICOM counts axes
    for name in ("scans", "masks"):
        (folder / name).mkdir()
    for number in range(scans):
        rng = random_stream(seed, "features", str(number))
        noise = ndimage.gaussian_filter(rng.normal(size=(SLICES, size, size)), 1.0)
        hu = np.rint(40 + 60 * noise / noise.std()).astype(np.int16)
        labels = labels_in(hu.shape, regions, rng)
        paths = []
        for kind, array in (("scans", hu), ("masks", labels)):
            path = folder / kind / f"case{number}.nii.gz"
            image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, path)
            paths.append(str(path))
        rows += [(*paths, label) for label in range(1, regions + 1)]
    return rows


def labels_in(
    shape: tuple[int, ...], regions: int, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Ellipsoids in cells of a lattice, in random order, so that none overlap."""
    corners = [
        np.array(corner)
        for corner in np.ndindex(*(n // step for n, step in zip(shape, REGION, strict=True)))
    ]
    if len(corners) < regions:
        raise SystemExit(f"{regions} regions do not fit into {shape} voxels")
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in REGION]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    ellipsoid = z**2 + y**2 + x**2 <= 1
    labels = np.zeros(shape, dtype=np.int16)
    for label, index in enumerate(rng.permutation(len(corners))[:regions], start=1):
        start = corners[index] * REGION
        box = tuple(slice(a, a + n) for a, n in zip(start, REGION, strict=True))
        labels[box][ellipsoid] = label
    return labels


def timed(command: Sequence[str]) -> float:
    """Run a command; returns its wall time in seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def largest_difference(ours: Path, theirs: Path) -> float:
    """Largest relative difference of a value between both tables."""
    with ours.open(encoding="utf-8") as stream:
        rows = {(row["patient"], row["region"]): row for row in csv.DictReader(stream)}
    worst = 0.0
    with theirs.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            own = rows[Path(row["Image"]).name.removesuffix(".nii.gz"), row["Label"]]
            for name, text in row.items():
                if name.startswith("diagnostics") or name in ("Image", "Mask", "Label"):
                    continue
                expected = float(text)
                if np.isfinite(expected):
                    scale = abs(expected) or 1.0
                    worst = max(worst, abs(float(own[name]) - expected) / scale)
    return worst


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=5)
    parser.add_argument("--regions", type=int, default=50, help="of each scan")
    parser.add_argument("--size", type=int, default=256, help="rows and columns")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--filters", action="store_true", help="LoG and wavelets too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_cohort(folder, options.scans, options.regions, options.size, options.seed)
        settings = folder / "params.yaml"
        settings.write_text(
            SETTINGS + (FILTERS if options.filters else "") + CLASSES,
            encoding="utf-8",
            newline="\n",
        )
        batch = folder / "batch.csv"
        with batch.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("Image", "Mask", "Label"), *rows])
        ours_s = timed(
            [sys.executable, "-m", "cvsct", "features", str(folder / "scans"), "--masks",
             str(folder / "masks"), "--settings", str(settings), "--workers", str(options.jobs),
             "--no-cache", "--out", str(folder / "ours")]
        )  # fmt: skip
        theirs_s = timed(
            [str(Path(sys.executable).with_name("pyradiomics")), str(batch), "-o",
             str(folder / "theirs.csv"), "-f", "csv", "--param", str(settings), "--jobs",
             str(options.jobs), "--verbosity", "1"]
        )  # fmt: skip
        worst = largest_difference(folder / "ours" / "features_wide.csv", folder / "theirs.csv")
    record = {
        "what": "features of regions of whole scans",
        "regions": len(rows),
        "scans": options.scans,
        "voxels_of_a_scan": [SLICES, options.size, options.size],
        "filters": options.filters,
        "jobs": options.jobs,
        "cores": os.cpu_count(),
        "cvsct_s": round(ours_s, 2),
        "pyradiomics_s": round(theirs_s, 2),
        "ratio": round(theirs_s / ours_s, 2),
        "largest_relative_difference": worst,
    }
    if options.out:
        write_json(options.out, record)
    print(json.dumps(record, indent=2))
    print(
        f"{len(rows)} regions: PyRadiomics takes {record['ratio']} times as long as cvsct features"
    )


if __name__ == "__main__":
    main()
