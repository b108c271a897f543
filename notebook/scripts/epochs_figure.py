"""One slice at several moments of a training, as in the paper's Fig. 4.

    python notebook/scripts/epochs_figure.py --model runs/virtual/models/cvsct-0 \
        --source SERIES_OF_A --target SERIES_OF_B \
        --out notebook/virtual_study/epochs.png [--reverse] [--count 5]

The model must have been trained with `--set schedule.keep_models=true`. Shown are a source slice,
what the model of several kept steps makes of it, and the target scanner's image of the same place.
Under each: the step, the distance of mean Gram matrices from the target domain's (what the domain
loss minimises, measured on held-out patches), and the slice's concordance over 24 regions. Only
for simulated scans: a picture of a patient must not leave its place.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.evaluation.figures import draw_slice, new_figure
from cvsct.evaluation.metrics import load_extra
from cvsct.evaluation.study import EvaluationSettings, evaluate
from cvsct.inference.engine import load_network
from cvsct.inference.harmonizer import harmonize_volume
from cvsct.io.dicom import read_all
from cvsct.models.bundle import Bundle
from cvsct.runs import write_json
from cvsct.training.checkpoint import kept_models
from cvsct.volume import CTVolume

CROP_PX = 160
SETTINGS = EvaluationSettings(bootstrap=1, workers=1)


@dataclass(frozen=True)
class Moment:
    """What one panel shows."""

    title: str
    volume: CTVolume
    gram: float | None
    across: float | None
    within: float | None

    @property
    def caption(self) -> str:
        """What stands under the panel."""
        parts = [f"Gram {self.gram:.3f}"] if self.gram is not None else []
        if self.across is not None and self.within is not None:
            parts += [f"CCC {self.across:.2f} across", f"{self.within:.2f} within"]
        return "\n".join(parts)


def agreement(made: CTVolume, target: CTVolume) -> tuple[float, float]:
    """Concordance across regions, mean of six classes; and within."""
    truth = evaluate([made], [target], None, SETTINGS).harmonized
    assert truth is not None
    within = [each.mean for each in truth.within.values() if each is not None]
    return truth.across.mean.ccc or 0.0, float(np.mean(within))


def moments(
    model: Path, source: CTVolume, target: CTVolume, count: int, reverse: bool
) -> list[Moment]:
    """The input, some kept models from the first to the last, and the target."""
    kept = kept_models(model)
    if not kept:
        sys.exit(f"{model}: holds no kept models; train with --set schedule.keep_models=true")
    bundle = Bundle.read(model)
    # what is learned is learned early: moments are spread over the logarithm of steps
    wanted = np.geomspace(kept[0].step, kept[-1].step, count)
    chosen = sorted({min(range(len(kept)), key=lambda i: abs(kept[i].step - w)) for w in wanted})
    shown = [Moment("input", source, None, *agreement(source, target))]
    direction = "b2a" if reverse else "a2b"
    for one in (kept[i] for i in chosen):
        weights = {name: value.numpy() for name, value in one.weights.items()}
        mapping = load_network(replace(bundle, weights=weights), reverse, "torch")
        made = harmonize_volume(source, mapping)
        gram = one.figures.get(f"gram_{direction}")
        shown.append(Moment(f"step {one.step:,}", made, gram, *agreement(made, target)))
    return [*shown, Moment("target", target, None, None, None)]


def draw(shown: list[Moment], index: int, centre: tuple[int, int]) -> Any:
    """One panel a moment: a whole slice would hide the texture, so a part of it."""
    figure = new_figure(2.1 * len(shown), 2.9)
    rows, columns = (slice(max(0, c - CROP_PX // 2), c + CROP_PX // 2) for c in centre)
    for axis, one in zip(figure.subplots(1, len(shown)), shown, strict=True):
        draw_slice(axis, one.volume.hu[index, rows, columns]).set_title(one.title, fontsize=9)
        axis.set_xlabel(one.caption, fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "source", "target", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("--count", type=int, default=5, help="kept models shown")
    parser.add_argument("--slice", type=int, default=-1, help="number by z; the middle one")
    parser.add_argument("--centre", type=int, nargs=2, default=(256, 256), metavar=("ROW", "COL"))
    args = parser.parse_args()
    (source,), (target,) = read_all(args.source), read_all(args.target)
    index = args.slice if args.slice >= 0 else len(source.hu) // 2
    one = slice(index, index + 1)
    shown = moments(args.model, source.select(one), target.select(one), args.count, args.reverse)
    figure = draw(shown, 0, tuple(args.centre))
    figure.set_dpi(110)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    canvas = load_extra("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.print_png(str(args.out), metadata={"Software": None})
    rows = [
        {"moment": m.title, "gram": m.gram, "ccc_across": m.across, "ccc_within": m.within}
        for m in shown
    ]
    write_json(args.out.with_suffix(".json"), rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
