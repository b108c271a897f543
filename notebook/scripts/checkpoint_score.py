"""Does the score of unpaired validation know the better checkpoint? Ask pairs.

    python notebook/scripts/checkpoint_score.py --models MODEL ... --source TEST_A --target TEST_B \
        --out score.json [--every 3]

Every model was trained with `--set schedule.keep_models=true`. Each kept model is applied to some
slices of the test pair, both ways, and compared with the real ones: concordance and PSNR, beside
what validation said of it without pairs. Printed are rank correlations over a training's kept
models of every figure with the truth, and what choosing by the score costs: the concordance of the
best kept model, of the one that the score would choose, and of the last.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from cvsct.evaluation.study import EvaluationSettings, evaluate
from cvsct.inference.engine import load_network
from cvsct.io.dicom import read_all
from cvsct.models.bundle import Bundle
from cvsct.runs import write_json
from cvsct.training.checkpoint import kept_models
from cvsct.volume import CTVolume

CROP = slice(96, 416)
SETTINGS = EvaluationSettings(bootstrap=1, workers=1)


def cropped(volume: CTVolume, slices: int) -> CTVolume:
    """The middle of some slices; what is outside the body tells little and takes long."""
    places = np.linspace(0, len(volume.hu) - 1, slices).round().astype(int)
    some = volume.select(sorted(set(places.tolist())))
    return replace(some, hu=np.ascontiguousarray(some.hu[:, CROP, CROP]), padding=None)


def truth_of(bundle: Bundle, a: CTVolume, b: CTVolume) -> dict[str, float]:
    """The paired truth of one set of weights, both ways."""
    found: dict[str, float] = {}
    for way, source, target, reverse in (("a2b", a, b, False), ("b2a", b, a, True)):
        made = source.with_hu(load_network(bundle, reverse, "torch")(source))
        truth = evaluate([made], [target], None, SETTINGS).harmonized
        assert truth is not None
        found[f"psnr_{way}"] = truth.quality.psnr_db.mean
        found[f"ccc_{way}"] = truth.across.mean.ccc or 0.0
    found["ccc"] = (found["ccc_a2b"] + found["ccc_b2a"]) / 2
    found["psnr"] = (found["psnr_a2b"] + found["psnr_b2a"]) / 2
    return found


def measure(model: Path, a: CTVolume, b: CTVolume, every: int) -> list[dict[str, Any]]:
    """One row a kept model: what validation said, and what is true."""
    bundle = Bundle.read(model)
    rows = []
    for one in kept_models(model)[every - 1 :: every]:
        weights = {name: value.numpy() for name, value in one.weights.items()}
        rows.append(
            {
                "model": model.name,
                "step": one.step,
                **one.figures,
                **truth_of(replace(bundle, weights=weights), a, b),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Rank correlations and what choosing costs, a training at a time."""
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        truth = [row["ccc"] for row in own]
        both_ways = {name.removesuffix("_a2b") for name in own[0] if name.endswith("_a2b")}
        names = ["score", *sorted(both_ways - {"ccc", "psnr"})]
        said = []
        for name in names:
            values = [
                row["score"] if name == "score" else (row[f"{name}_a2b"] + row[f"{name}_b2a"]) / 2
                for row in own
            ]
            said.append(f"{name} {-spearmanr(values, truth).statistic:+.2f}")
        chosen = min(own, key=lambda row: row["score"])
        print(
            f"{model}: rank correlation of (less of) each with concordance: {', '.join(said)}; "
            f"concordance of the best {max(truth):.3f}, of the chosen (step {chosen['step']}) "
            f"{chosen['ccc']:.3f}, of the last {truth[-1]:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--source", type=Path, required=True, help="test scan of scanner A")
    parser.add_argument("--target", type=Path, required=True, help="of B, the same slices")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="take each so many-th kept model")
    parser.add_argument("--slices", type=int, default=4)
    args = parser.parse_args()
    (a,), (b,) = (read_all(path) for path in (args.source, args.target))
    a, b = cropped(a, args.slices), cropped(b, args.slices)
    rows = [row for model in args.models for row in measure(model, a, b, args.every)]
    write_json(args.out, rows)
    report(rows)


if __name__ == "__main__":
    main()
