"""Does the score of unpaired validation know the better checkpoint? Ask a real pair.

    python scripts/checkpoint_score.py --pair ../shared/real_ct/siemens_sensation10 \
        --work runs/score --protocol different-1 --every 25 -- --max-steps 400

Trains `cvsct` on unpaired slices of the lower half (scripts/real_pair.py's protocols) and keeps
the averaged weights of every validation. Each is then applied to slices of the upper half, both
ways, and compared with the real ones: PSNR, concordance and bias, beside what validation said.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_pair import lay_out, run
from scipy.stats import spearmanr

from cvsct.evaluation.study import EvaluationSettings, evaluate
from cvsct.inference.engine import load_network
from cvsct.io.dicom import read_all
from cvsct.models.bundle import Bundle
from cvsct.runs import write_json
from cvsct.training import cycle
from cvsct.training.record import VALIDATION_LOG
from cvsct.training.steps import CycleStep
from cvsct.training.validation import CycleValidator
from cvsct.volume import CTVolume

TEST_SLICES = [1, 4, 7, 10, 13]
CROP = slice(96, 416)


def train(work: Path, protocol: str, every: int, options: list[str]) -> Path:
    """A training that keeps the weights of every validation."""
    model = work / "model"
    kept = work / "kept"
    kept.mkdir(parents=True, exist_ok=True)

    class Keeping(CycleValidator):
        def __call__(self, step: CycleStep) -> dict[str, float]:
            figures = super().__call__(step)
            number = len(list(kept.iterdir()))
            torch.save({name: value.clone() for name, value in step.weights().items()},
                       kept / f"{number:04d}.pt")  # fmt: skip
            return figures

    cycle.CycleValidator = Keeping  # type: ignore[misc]
    scans = work.parent / "scans" / protocol
    run("train", "cvsct", "--source", scans / "sharp", "--target", scans / "soft", "--out", model,
        "--set", f"schedule.validate_steps={every}", *options)  # fmt: skip
    return model


def cropped(volume: CTVolume) -> CTVolume:
    """The middle of some slices; what is outside the body tells little and takes long."""
    some = volume.select(TEST_SLICES)
    return replace(some, hu=np.ascontiguousarray(some.hu[:, CROP, CROP]), padding=None)


def measure(bundle: Bundle, sharp: CTVolume, soft: CTVolume) -> dict[str, float]:
    """The paired truth of one set of weights, both ways."""
    found: dict[str, float] = {}
    for name, source, target, reverse in (("a2b", sharp, soft, False), ("b2a", soft, sharp, True)):
        made = source.with_hu(load_network(bundle, reverse, "torch")(source))
        settings = EvaluationSettings(bootstrap=1, workers=1)
        truth = evaluate([made], [target], [source], settings).harmonized
        assert truth is not None
        found[f"psnr_{name}"] = truth.quality.psnr_db.mean
        found[f"ccc_{name}"] = truth.across.mean.ccc or 0.0
        found[f"hu_bias_{name}"] = truth.quality.hu_bias
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--protocol", default="different-1")
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("options", nargs="*", help="for `cvsct train`, after --")
    arguments = parser.parse_args()
    work = arguments.work
    lay_out(arguments.pair, work.parent)
    model = work / "model"
    if not (model / "SHA256SUMS").exists():
        train(work, arguments.protocol, arguments.every, arguments.options)
    bundle = Bundle.read(model)
    (sharp,), (soft,) = (read_all(work.parent / "scans" / "test" / k) for k in ("sharp", "soft"))
    sharp, soft = cropped(sharp), cropped(soft)
    said = [json.loads(line) for line in (model / VALIDATION_LOG).read_text().splitlines()]
    rows: list[dict[str, Any]] = []
    for figures, path in zip(said, sorted((work / "kept").iterdir()), strict=True):
        weights = {n: t.numpy() for n, t in torch.load(path, weights_only=True).items()}
        rows.append({**figures, **measure(replace(bundle, weights=weights), sharp, soft)})
        print(json.dumps(rows[-1]), flush=True)
    write_json(work / "score.json", rows)
    for truth in ("psnr", "ccc"):
        quality = [row[f"{truth}_a2b"] + row[f"{truth}_b2a"] for row in rows]
        rank = spearmanr([-row["score"] for row in rows], quality).statistic
        print(f"rank correlation of the score with {truth}: {rank:.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
