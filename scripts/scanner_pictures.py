"""Pictures of one slice on both virtual scanners, and of what separates them.

usage: scanner_pictures.py --out FOLDER [--body lungman|patient] [--z MM] [--thickness 5]
                           [--real SERIES]

Lung and soft-tissue windows of GE Lung, Siemens Bl64 and Br40, and the difference of the first two
on a symmetric scale. With --real a slice of a real series is shown beside them, for looking only:
such a picture is never committed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from cvsct.core.masks import LUNG_WINDOW, SOFT_TISSUE_WINDOW
from cvsct.core.seeding import random_stream
from cvsct.io.read import read_all
from cvsct.simulation.phantom.phantom import RasterGrid, lungman, patient
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.physics.scan import ImageGrid, VirtualScanner

WINDOWS = {"lung": LUNG_WINDOW.limits_hu, "soft tissue": SOFT_TISSUE_WINDOW.limits_hu}
KVP, MAS = 120.0, 100.0
SCANS = (("ge-revolution-evo", ("Lung",)), ("siemens-somatom-force", ("Bl64", "Br40")))


def show(axis: Axes, image: np.ndarray, title: str, low: float, high: float, colours: str) -> Axes:
    """One image with a scale that says what its greys mean."""
    shown = axis.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
    axis.figure.colorbar(shown, ax=axis, shrink=0.7, label="HU")
    return axis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--body", choices=("lungman", "patient"), default="lungman")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--z", type=float, default=0.0, help="mm from the middle of the chest")
    parser.add_argument("--thickness", type=float, default=5.0)
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    body = {"lungman": lungman, "patient": patient}[args.body](args.seed)
    z_mm = float(np.mean(body.z_range_mm)) + args.z
    slab = body.slab(z_mm, args.thickness, RasterGrid())
    images: dict[str, np.ndarray] = {}
    for name, kernels in SCANS:
        found = VirtualScanner(load_definition(name)).images(
            slab,
            RasterGrid().extent_mm,
            {KVP: MAS},
            kernels,
            args.thickness,
            ImageGrid(),
            lambda kvp, name=name: random_stream(args.seed, name),
        )
        images |= {kernel: image for (_, kernel), image in found.items()}
    columns = [
        ("GE Lung", images["Lung"]),
        ("Siemens Bl64", images["Bl64"]),
        ("Siemens Br40", images["Br40"]),
    ]
    if args.real:
        volume = read_all(args.real)[0]
        columns.append(("real CT", volume.hu[len(volume.hu) // 2]))
    count = len(columns) + 1
    figure, axes = plt.subplots(2, count, figsize=(3.2 * count, 5.4), constrained_layout=True)
    for row, (window, (low, high)) in zip(axes, WINDOWS.items(), strict=True):
        for axis, (title, image) in zip(row, columns, strict=False):
            show(axis, image, f"{title}, {window}", low, high, "gray")
    difference = images["Lung"] - images["Bl64"]
    show(axes[0, -1], difference, "Lung - Bl64", -300, 300, "RdBu_r")
    show(axes[1, -1], difference, "Lung - Bl64, narrow scale", -60, 60, "RdBu_r")
    figure.suptitle(f"{args.body} {args.seed}, {KVP:g} kVp, {MAS:g} mAs, {args.thickness:g} mm")
    suffix = "_real" if args.real else ""
    figure.savefig(args.out / f"{args.body}{suffix}.png", dpi=80)


if __name__ == "__main__":
    main()
