"""Evaluations of a benchmark that are invented, for tests of what it does around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cvsct.benchmarking import train_and_evaluate
from cvsct.evaluation.features.radiomics import CLASSES


def metrics(ccc: float, psnr: float, sd: float = 0.1) -> dict[str, Any]:
    return {
        "psnr_db": psnr, "psnr_db_sd": sd, "ssim": 0.9, "ssim_sd": 0.0, "ncc": 0.99, "ncc_sd": 0.0,
        "hu_bias": -1.5, "n_slices": 8, "n_rois": 24,
        "ccc_within": dict.fromkeys(CLASSES, ccc), "ccc_within_sd": dict.fromkeys(CLASSES, sd),
        "ccc_across": dict.fromkeys(CLASSES, ccc), "ccc_across_mean": ccc,
        "ccc_across_mean_interval": [ccc - 0.1, ccc + 0.05],
        "shares": [{"threshold": 0.85, "share": ccc / 2}, {"threshold": 0.9, "share": ccc / 4}],
    }  # fmt: skip


def evaluate_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every evaluation of a benchmark write invented figures, and no features."""

    def evaluate(harmonized: Path, target: Path, *, out: Path, **_: object) -> None:
        out.mkdir()
        (out / "metrics.json").write_text(json.dumps(metrics(0.8, 30.0)))

    monkeypatch.setattr(train_and_evaluate, "evaluate", evaluate)
    for step in ("combat", "leader_tables"):
        monkeypatch.setattr(train_and_evaluate.BenchmarkSteps, step, lambda *_: [])
