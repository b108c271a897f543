"""Steps of a benchmark that invent their result, for tests of what it does around them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvsct.benchmarking import train_and_evaluate
from tests.support.benchmarks import evaluate_nothing


@pytest.fixture
def no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of invented figures: what is asked is what a benchmark does around them."""
    evaluate_nothing(monkeypatch)


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def harmonize(scans: Path, out: Path, **_: object) -> None:
        out.mkdir(parents=True)
        (out / "manifest.json").write_text(json.dumps({"figures": {"slices_per_s": 4.0}}))

    monkeypatch.setattr(train_and_evaluate, "harmonize", harmonize)
