"""What separates each method's images from the target's, as in the paper's Fig. 3.

    python notebook/scripts/residual_figure.py --data DATA --benchmark OUT --out FIGURE.png \
        [--methods spectrum-plain spectrum cvsct] [--slice N] [--full-scale 200] [--crop Y X SIDE]

DATA is what `cvsct benchmark --data DATA --out OUT` was given. For each direction a row of images
(input, each method, target) and under it a row of their absolute differences from the target; 1 on
the scale is 200 HU, which the paper does not say. With --crop a square of the slice is shown, by
its first row and column and its side in pixels. Only for simulated scans: a picture of a patient
must not leave its place.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.volume import CTVolume
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.report.figures import draw_slice, new_figure
from cvsct.io.read import read_all

Panel = tuple[str, Float[np.ndarray, "rows columns"]]


def rows(
    data: Path, benchmark: Path, sides: tuple[str, str], direction: str, methods: list[str], n: int
) -> list[Panel]:
    """Input, what each method made of it, and the target: one slice of the first test body."""
    source, target = (first(data / "test" / side) for side in sides)
    made = [first(benchmark / "results" / f"{name}-0" / direction / "images") for name in methods]
    titles = ["input", *methods, "target"]
    return [(title, v.hu[n]) for title, v in zip(titles, [source, *made, target], strict=True)]


def first(folder: Path) -> CTVolume:
    """The series of the patient whose hash comes first: the same one in every folder."""
    return min(read_all(folder), key=lambda volume: volume.patient)


def draw(directions: list[tuple[str, list[Panel]]], full_scale_hu: float) -> Any:
    """Two rows a direction: images, residuals."""
    columns = len(directions[0][1])
    figure = new_figure(2.0 * columns, 4.3 * len(directions))
    grid = figure.subplots(2 * len(directions), columns, squeeze=False)
    heat = None
    for i, (name, panels) in enumerate(directions):
        target = panels[-1][1]
        for j, (title, hu) in enumerate(panels):
            draw_slice(grid[2 * i, j], hu).set_title(title, fontsize=9)
            axis = grid[2 * i + 1, j]
            if j == columns - 1:
                axis.set_axis_off()
                continue
            off = np.abs(hu - target) / full_scale_hu
            heat = axis.imshow(off, cmap="turbo", vmin=0, vmax=1, interpolation="none")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"mean {off.mean() * full_scale_hu:.1f} HU", fontsize=8)
        grid[2 * i, 0].set_ylabel(name, fontsize=9)
        grid[2 * i + 1, 0].set_ylabel("difference", fontsize=9)
        figure.colorbar(
            heat, ax=grid[2 * i + 1, -1], fraction=0.5, label=f"1 is {full_scale_hu:g} HU"
        )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "benchmark", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["spectrum-plain", "spectrum", "cvsct"])
    parser.add_argument("--slice", type=int, default=0, help="number by z")
    parser.add_argument("--full-scale", type=float, default=200.0, help="in HU")
    parser.add_argument("--crop", type=int, nargs=3, default=[0, 0, 10_000])
    args = parser.parse_args()
    about = json.loads((args.benchmark / "results.json").read_text())
    a, b = sorted(folder.name for folder in (args.data / "test").iterdir())
    shown = [
        (name, rows(args.data, args.benchmark, sides, direction, args.methods, args.slice))
        for name, sides, direction in zip(
            about["directions"], ((a, b), (b, a)), ("a2b", "b2a"), strict=True
        )
    ]
    y, x, side = args.crop
    cut = slice(y, y + side), slice(x, x + side)
    cropped = [(name, [(title, hu[cut]) for title, hu in panels]) for name, panels in shown]
    figure = draw(cropped, args.full_scale)
    figure.set_dpi(90)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    canvas = load_extra("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.print_png(str(args.out), metadata={"Software": None})
    print(args.out)


if __name__ == "__main__":
    main()
