"""What separates each method's images from the target's, as in the paper's Fig. 3.

    python notebook/scripts/residual_figure.py --data DATA --benchmark OUT --out FIGURE.png \
        [--methods spectrum-plain spectrum cvsct] [--slice N]

DATA is what `cvsct benchmark --data DATA --out OUT` was given. For each direction a row of images
(input, each method, target) and under it a row of their absolute differences from the target; 1 on
the scale is 200 HU, which the paper does not say. Only for simulated scans: a picture of a patient
must not leave its place.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.evaluation.figures import draw_slice, new_figure
from cvsct.evaluation.metrics import load_extra
from cvsct.io.dicom import read_all
from cvsct.volume import CTVolume

FULL_SCALE_HU = 200.0

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


def draw(directions: list[tuple[str, list[Panel]]]) -> Any:
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
            off = np.abs(hu - target) / FULL_SCALE_HU
            heat = axis.imshow(off, cmap="turbo", vmin=0, vmax=1, interpolation="none")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"mean {off.mean() * FULL_SCALE_HU:.1f} HU", fontsize=8)
        grid[2 * i, 0].set_ylabel(name, fontsize=9)
        grid[2 * i + 1, 0].set_ylabel("difference", fontsize=9)
        figure.colorbar(
            heat, ax=grid[2 * i + 1, -1], fraction=0.5, label=f"1 is {FULL_SCALE_HU:g} HU"
        )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "benchmark", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["spectrum-plain", "spectrum", "cvsct"])
    parser.add_argument("--slice", type=int, default=0, help="number by z")
    args = parser.parse_args()
    about = json.loads((args.benchmark / "results.json").read_text())
    a, b = sorted(folder.name for folder in (args.data / "test").iterdir())
    shown = [
        (name, rows(args.data, args.benchmark, sides, direction, args.methods, args.slice))
        for name, sides, direction in zip(
            about["directions"], ((a, b), (b, a)), ("a2b", "b2a"), strict=True
        )
    ]
    figure = draw(shown)
    figure.set_dpi(90)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    canvas = load_extra("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.print_png(str(args.out), metadata={"Software": None})
    print(args.out)


if __name__ == "__main__":
    main()
