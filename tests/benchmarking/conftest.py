"""Steps of a benchmark that invent their result, for tests of what it does around them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvsct.benchmarking import train_and_evaluate
from tests.benchmarking.test_benchmark_tables import metrics


@pytest.fixture
def no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of invented figures: what is asked here is who learns from what, and for how long."""

    def evaluate(harmonized: Path, target: Path, *, out: Path, **_: object) -> None:
        out.mkdir()
        (out / "metrics.json").write_text(json.dumps(metrics(0.8, 30.0)))

    monkeypatch.setattr(train_and_evaluate, "evaluate", evaluate)
    for step in ("combat", "leader_tables"):
        monkeypatch.setattr(train_and_evaluate.BenchmarkSteps, step, lambda *_: [])


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def harmonize(scans: Path, out: Path, **_: object) -> None:
        out.mkdir(parents=True)
        (out / "manifest.json").write_text(json.dumps({"figures": {"slices_per_s": 4.0}}))

    monkeypatch.setattr(train_and_evaluate, "harmonize", harmonize)
