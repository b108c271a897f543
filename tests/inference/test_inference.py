"""Engines: which one runs, that they agree, and what is said where one cannot."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from pydicom import dcmread

from cvsct.core.errors import MissingExtraError, ModelError, UsageError
from cvsct.core.platform import usable_cores
from cvsct.inference.engines import load as engine
from cvsct.inference.engines import torch as torch_engine
from cvsct.inference.engines.load import load_network
from cvsct.inference.engines.openvino import OpenVINONetwork, streams_for
from cvsct.model.bundle import Bundle
from cvsct.networks.export import rebuild_generator, with_graphs
from tests.conftest import make_volume
from tests.networks.test_export import trained
from tests.support.commands import Run
from tests.support.dicom_files import write_series

CVS_CT = {"width": 4, "reduction": 2, "residual": True, "hold_low_px": 8.0}
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def model() -> Bundle:
    """Changes images by some tens of HU, as trained models do."""
    bundle = trained(CVS_CT)
    weights = {
        name: array * np.float32(0.2 if ".head." in name else 1)
        for name, array in bundle.weights.items()
    }
    return with_graphs(replace(bundle, weights=weights))


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_gpu_is_there", lambda: False)


def ct(rows: int, columns: int, slices: int = 2, seed: int = 0) -> np.ndarray:
    """HU inside and outside the window, another image in each slice."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1200, 1400, (slices, rows, columns)).astype(np.float32)


@pytest.mark.parametrize("size", [(64, 64), (61, 45), (130, 96), (568, 652)])
def test_engines_give_what_the_network_gives(model: Bundle, size: tuple[int, int]) -> None:
    """Against the bare network in float64, to 0.01 HU; what is outside stays."""
    hu = ct(*size, slices=1 if max(size) > 500 else 3)
    low, high = model.settings["window_hu"]
    inside = (hu >= low) & (hu <= high)
    unit = torch.from_numpy((np.clip(hu, low, high).astype(float) - low) * (2 / (high - low)))
    for direction in ("a2b",) if max(size) > 500 else ("a2b", "b2a"):
        with torch.inference_mode():
            made = rebuild_generator(model, direction).double()(unit[:, None] - 1)[:, 0].numpy()
        wanted = np.where(inside, (made + 1) * ((high - low) / 2) + low, hu)
        assert np.abs(wanted - hu).mean() > 10
        for name in ("openvino", "torch"):
            mapping = load_network(model, direction == "b2a", name)
            assert mapping.engine is not None
            assert (mapping.engine.name, mapping.engine.precision) == (name, "fp32")
            assert np.abs(mapping(make_volume(hu)) - wanted).max() < 0.01


def test_slices_in_several_streams_come_back_in_order(model: Bundle) -> None:
    unit = np.random.default_rng(1).uniform(-1, 1, (11, 40, 44)).astype(np.float32)
    one, many = (OpenVINONetwork(model.graphs["a2b"], "fp32", cores) for cores in (1, 3))
    assert (one.engine.streams, many.engine.streams, many.engine.threads) == (1, 3, 3)
    alone = np.concatenate([one(image[None]) for image in unit])
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    assert np.abs(many(unit) - alone).max() < 1e-5
    turned = np.ascontiguousarray(unit.swapaxes(1, 2)[:, :, ::-1])
    again = np.concatenate([one(image[None]) for image in turned])
    assert np.abs(many(turned) - again).max() < 1e-5
    assert np.abs(many(unit) - alone).max() < 1e-5


def test_auto_takes_the_gpu_then_the_graph_then_pytorch(
    model: Bundle, monkeypatch: pytest.MonkeyPatch, without_gpu: None
) -> None:
    def chosen(bundle: Bundle, asked: str = "auto") -> tuple[str, str]:
        found = load_network(bundle, False, asked).engine
        assert found is not None
        return found.name, found.device

    bare = replace(model, graphs={})
    assert chosen(model) == ("openvino", "cpu")
    assert chosen(bare) == ("torch", "cpu")
    assert chosen(model, "torch") == ("torch", "cpu")

    class OnGPU(torch_engine.TorchNetwork):
        def __init__(self, network: Any, precision: str, device: torch.device) -> None:
            super().__init__(network, precision, torch.device("cpu"))
            self.engine = replace(self.engine, device=str(device))

    monkeypatch.setattr(torch_engine, "TorchNetwork", OnGPU)
    monkeypatch.setattr(engine, "_gpu_is_there", lambda: True)
    assert chosen(model) == chosen(bare) == chosen(model, "torch") == ("torch", "cuda")
    assert chosen(model, "openvino") == ("openvino", "cpu")


def test_a_model_with_graphs_needs_no_pytorch(
    model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    made = load_network(model, False, "auto")(make_volume(ct(40, 44)))
    assert np.isfinite(made).all()
    for bundle, asked, why in (
        (model, "torch", "cvsct needs PyTorch to run; install"),
        (replace(model, graphs={}), "auto", "PyTorch to run: the model holds no ONNX graph"),
    ):
        with pytest.raises(MissingExtraError, match=why):
            load_network(bundle, False, asked)


def test_what_no_engine_can_run_is_refused(model: Bundle) -> None:
    with pytest.raises(UsageError, match="no precision 'int8'; choose one of fp32, bf16"):
        load_network(model, False, "auto", "int8")
    with pytest.raises(ModelError, match=r"cannot read the model's graph.*--engine torch"):
        load_network(replace(model, graphs={"a2b": b"no graph"}), False, "openvino")
    for name in ("openvino", "torch"):
        with pytest.raises(ModelError, match="cannot run on images of 20 x 18"):
            load_network(model, False, name)(make_volume(ct(20, 18)))


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_bf16_is_near_and_only_where_it_is_computed(model: Bundle, name: str) -> None:
    if name == "openvino" and not HAS_BF16:
        with pytest.raises(UsageError, match="does not compute in bf16"):
            load_network(model, False, name, "bf16")
        return
    volume = make_volume(ct(64, 80))
    mapping = load_network(model, False, name, "bf16")
    assert mapping.engine is not None
    assert mapping.engine.precision == "bf16"
    off = np.abs(mapping(volume) - load_network(model, False, name)(volume))
    assert 0 < off.mean() < 2


def test_images_made_in_bf16_are_labelled(
    model: Bundle, run: Run, tmp_path: Path, without_gpu: None
) -> None:
    """In both descriptions, in the manifest, and by UIDs of their own."""
    model.write(tmp_path / "model")
    source = write_series(tmp_path / "source", 2)
    found = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        code, _, err = run(
            *("harmonize", source, "--model", tmp_path / "model", "--out", out),
            *("--engine", "torch", "--precision", precision),
        )
        assert code == 0, err
        assert f"engine: PyTorch {torch.__version__} on cpu, {precision}" in err
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["figures"]["engine"]["precision"] == precision
        assert manifest["config"].get("precision", "fp32") == precision
        found[precision] = dcmread(next(out.rglob("*.dcm")))
    exact, rough = found["fp32"], found["bf16"]
    assert rough.SeriesDescription.startswith("Research use only: cvsct in bf16 to")
    assert "method cvsct in bf16" in rough.DerivationDescription
    assert exact.SeriesInstanceUID != rough.SeriesInstanceUID
    assert "bf16" not in exact.SeriesDescription + exact.DerivationDescription


def test_precision_means_nothing_without_a_network(run: Run, scans: Path, tmp_path: Path) -> None:
    run(
        *("train", "input", "--source", scans / "sharp", "--target", scans / "soft"),
        *("--out", tmp_path / "model"),
    )
    code, _, err = run(
        *("harmonize", scans / "soft", "--model", tmp_path / "model", "--out", tmp_path / "out"),
        *("--precision", "bf16"),
    )
    assert code == 0, err
    assert "note: --precision means nothing to input" in err
    assert "engine:" not in err


def test_cores_are_what_affinity_quota_and_the_user_leave(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(24)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    quota = tmp_path / "cpu.max"
    assert usable_cores(quota) == 24
    for content, cores in (("max 100000\n", 24), ("250000 100000\n", 3), ("10000 100000\n", 1)):
        quota.write_text(content)
        assert usable_cores(quota) == cores
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    quota.write_text("800000 100000\n")
    assert usable_cores(quota) == 2


def test_slices_at_a_time_by_cores_and_size() -> None:
    assert [streams_for(cores, 512**2) for cores in (1, 2, 16)] == [1, 2, 4]
    assert [streams_for(16, side**2) for side in (256, 768, 1024, 2048)] == [4, 1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_cuda_graph_gives_what_the_processor_gives(model: Bundle) -> None:
    on_gpu = load_network(model, False, "torch")
    assert on_gpu.engine is not None
    assert on_gpu.engine.device != "cpu"
    for size in ((61, 45), (256, 256), (61, 45)):
        volume = make_volume(ct(*size, slices=3))
        wanted = load_network(model, False, "openvino")(volume)
        assert np.abs(on_gpu(volume) - wanted).max() < 0.01
        assert np.abs(load_network(model, False, "torch", "bf16")(volume) - wanted).mean() < 2
