"""The benchmark of inference runs; its ratios, shares and errors are of what it says they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import inference
from benchmarks.inference import REFERENCE, RESNET, Row, compare, gflop_of, main
from benchmarks.streams import body_slices, memory, train_classical
from cvsct.core.volume import HUWindow
from cvsct.networks.cvsct_generator import GeneratorConfig, build_generator


def test_flops_of_the_generator_and_of_resnet() -> None:
    """By hand: a multiplication and an addition for each weight and pixel, gates apart."""
    per_pixel = 16 * (64 + 5 * 64 * 64) + 9 * 64 + 3 * 49 * 2
    with torch.device("meta"):
        network = build_generator(GeneratorConfig(last_kernel=3))
        resnet = build_generator(GeneratorConfig.model_validate({"architecture": "resnet-9"}))
    assert gflop_of(network, 512) == pytest.approx(2 * per_pixel * 512**2 / 1e9, rel=1e-4)
    assert gflop_of(resnet, 512) / gflop_of(network, 512) == pytest.approx(2.25, abs=0.05)


def test_ratios_shares_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that each engine moves by a known time; one adds 0.1 of the window's half."""
    now = [0.0]
    monkeypatch.setattr(inference.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(inference, "peak_gflop_s", lambda *_: 10.0)

    def engine(cost_s: float, shift: float) -> inference.Images:
        def run(images: np.ndarray) -> np.ndarray:
            now[0] += cost_s * len(images)
            return images + np.float32(shift)

        return run

    rows = [
        Row(REFERENCE, engine(4.0, 0.0), "fp32", 1, 8.0),
        Row("OpenVINO fp32", engine(1.0, 0.1), "fp32", 3, 8.0),
        Row(RESNET, engine(6.0, 0.0), "fp32", 1, 18.0),
    ]
    hu = np.linspace(-1200, 1000, 64).reshape(1, 8, 8)
    found = compare(rows, HUWindow(), hu, rounds=3, quick=True)
    assert [row["s_a_slice"] for row in found] == [4.0, 1.0, 6.0]
    assert [row["times_reference"] for row in found] == [1.0, 4.0, 0.67]
    assert [row["times_resnet"] for row in found] == [1.5, 6.0, 1.0]
    assert [row["share_of_peak"] for row in found] == [0.2, 0.8, 0.3]
    assert found[1]["error_hu"]["max"] == pytest.approx(95, abs=1e-3)
    assert "error_hu" not in found[2]


def test_a_small_run(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    words = ["--quick", "--rounds", "1", "--slices", "0", "--memory-slices", "--out", str(tmp_path)]
    try:
        main(words)
    finally:
        torch.set_num_threads(threads)
    report = json.loads((tmp_path / "inference.json").read_text())
    assert report["model"] == "cvsct, RANDOM weights: errors mean nothing"
    errors = {row["engine"]: row["error_hu"]["max"] for row in report["engines"][:-1]}
    assert errors[REFERENCE] == 0
    assert all(error < 0.01 for name, error in errors.items() if "fp32" in name)
    assert "| OpenVINO fp32" in (tmp_path / "inference.md").read_text()


def test_the_command_is_measured_from_outside(tmp_path: Path) -> None:
    hu = body_slices(1, 64)[0]
    assert hu[32, 32] > -200
    assert hu[0, 0] < -900
    model = train_classical("histogram", tmp_path / "model")
    (row,) = memory([model], tmp_path, [3], 64)
    assert (row["method"], row["slices"]) == ("histogram", 3)
    assert 0.02 < row["peak_rss_gb"] < 1.5
    assert row["cpu_s"] > 0
    assert row["wall_s"] > 0
