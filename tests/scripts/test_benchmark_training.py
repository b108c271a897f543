"""The benchmark of a training step: its plain step learns what the package's does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.machine import Convolution, peak_gflop_s
from benchmarks.plain_step import PlainStep
from benchmarks.step_configurations import CONFIGURATIONS, configured
from benchmarks.training import derived, table
from cvsct.training.cyclegan.settings import cycle_config
from cvsct.training.cyclegan.step import CRITICS, CycleStep

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "generator.width": 8,
    "generator.reduction": 4,
    "discriminator.widths": [8, 8],
    "discriminator.strides": [2, 1],
    "patch_px": 24,
    "domain.layers": ["relu1_2", "relu2_1"],
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"scale_to_data": True},
    "stable": {
        "generator.residual": False,
        "pool": 0,
        "domain.window_hu": [-1000.0, 900.0],
    },
}
"""With what the plain step has not switched off, and what leaves gradients next to rounding."""


def build(preset: str) -> CycleStep:
    torch.manual_seed(0)
    settings = {**TINY, "batch": 4, "precision": "fp32", **PRESETS[preset]}
    return CycleStep(cycle_config(preset, settings), *batches(8))


def batches(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    a, b = 0.3 * torch.randn(2, count, 1, 24, 24, generator=rng)
    return a, 0.5 * b


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("name", ["eager-fp32", "channels-last", "batched", "fused-adam"])
def test_the_batched_step_equals_the_unbatched(preset: str, name: str) -> None:
    how = CONFIGURATIONS[name].plain
    assert how
    own, plain = build(preset), PlainStep(build(preset), how)
    for step, bound in enumerate((1e-5, 1e-4)):  # in the second, both have moved their weights
        a, b = batches(4, seed=step + 1)
        terms, values = plain(a, b), own(a, b, 0.0, np.random.default_rng(0))
        assert set(terms) == {key for key in values if not key.startswith(("gradient", "rate"))}
        assert terms == pytest.approx(
            {key: values[key] for key in terms}, rel=bound, abs=bound / 10
        )
        for net in ("a2b", "b2a", *CRITICS):
            found, wanted = (
                torch.cat([p.grad.flatten() for p in each.nets[net].parameters()])
                for each in (plain, own)
            )
            assert wanted.norm() > 1e-5
            assert float((found - wanted).norm() / wanted.norm()) < bound, net


def test_every_configuration_has_settings_and_a_row_in_the_table() -> None:
    rows: list[dict[str, Any]] = [
        {
            "configuration": name,
            "what": row.what,
            "batch": configured(name, 8, {}).batch,
            "precision": "fp32",
            "wall_s": 2.0,
            "cpu_s": 4.0,
            "gflop": 100.0,
            "loss": 0.19,
            "peak_rss_gb": 1.0,
            "own_steps": 1500,
        }
        for name, row in CONFIGURATIONS.items()
    ]
    for row in rows:
        derived(row, rows, {"fp32": 200.0})
    assert rows[0]["share_of_peak"] == 0.25
    assert rows[0]["paper_schedule_h"] == pytest.approx(31_250 * 4 * 2 / 3600)
    lines = table([*rows, {"what": "bf16", "batch": 8, "skipped": "skipped: why"}]).splitlines()
    assert {line.count("|") for line in lines} == {12}
    assert len(lines) == len(rows) + 3


def test_operations_are_counted_by_hand_and_a_peak_is_positive() -> None:
    assert Convolution(2, 3, 5, 1).gflop * 1e9 == 2 * (2 * 2 * 9) * 9
    assert peak_gflop_s(torch.device("cpu"), "fp32", quick=True) > 0


def test_the_command_prints_a_table_and_json(tmp_path: Path, vgg_weights: Path) -> None:
    words = ["--quick", "--repeats", "1", "--batch", "2", "--configurations", "eager-fp32"]
    words += ["cudnn-search", "--out", str(tmp_path)]
    words += [word for key, value in TINY.items() for word in ("--set", f"{key}={_text(value)}")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CVSCT_VGG_WEIGHTS": str(vgg_weights)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "training.json").read_text())
    reference, search = report["rows"]
    assert reference["times_reference"] == 1
    assert reference["gflop"] > 0
    assert reference["peak_rss_gb"] > reference["rss_before_gb"] > 0
    assert "no GPU" in search["skipped"]
    assert "ImageNet" in report["vgg"]
    assert (tmp_path / "training.md").read_text().strip() in done.stdout


def test_a_setting_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--set", "bacth=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "no setting 'bacth'" in done.stderr


def _text(value: Any) -> str:
    return json.dumps(value)
