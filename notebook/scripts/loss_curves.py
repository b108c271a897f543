"""The loss terms of a training as a table of means over tenths of its steps, and as a picture.

python notebook/scripts/loss_curves.py MODEL [--png FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np


def read(model: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the terms, steps, and one row of terms a step."""
    lines = [json.loads(line) for line in (model / "train.jsonl").read_text().splitlines()]
    names = sorted(lines[0].keys() - {"step", "minutes"})
    return (
        names,
        np.array([line["step"] for line in lines]),
        np.array([[line[name] for name in names] for line in lines]),
    )


def table(names: list[str], steps: np.ndarray, values: np.ndarray) -> str:
    """Means over tenths, as Markdown."""
    rows = [f"| steps | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for part in np.array_split(np.arange(len(steps)), 10):
        means = " | ".join(f"{value:.4f}" for value in values[part].mean(axis=0))
        rows.append(f"| {steps[part[0]]}-{steps[part[-1]]} | {means} |")
    return "\n".join(rows)


def draw(names: list[str], steps: np.ndarray, values: np.ndarray, path: Path) -> None:
    """Each term against the step, smoothed over 25 steps, on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    width = min(25, len(steps))
    for name, column in zip(names, values.T, strict=True):
        smooth = np.convolve(column, np.ones(width) / width, mode="valid")
        axis.plot(steps[width - 1 :], smooth, label=name, linewidth=1)
    axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel("weighted loss term")
    axis.legend(frameon=False, fontsize=8, ncols=2)
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    names, steps, values = read(arguments.model)
    print(table(names, steps, values))
    if arguments.png:
        draw(names, steps, values, arguments.png)


if __name__ == "__main__":
    main()
