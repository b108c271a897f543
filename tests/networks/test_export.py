"""Graphs of trained models: equal to the network, hash-listed, never at the cost of a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch

from cvsct.core.errors import ModelError, UsageError
from cvsct.inference.engines.load import load_network
from cvsct.model.bundle import GRAPH_FILES, Bundle, Domain
from cvsct.networks import export
from cvsct.networks.cvsct_generator import GeneratorConfig, build_generator, scale_to_data
from tests.conftest import make_volume

WINDOW_HU = [-1000.0, 900.0]
CVS_CT = {"width": 8, "reduction": 4}
RESNET = {"architecture": "resnet-9", "width": 4, "residual": True}


def trained(config: dict[str, Any]) -> Bundle:
    """A model as a training leaves it, with weights that do something."""
    generator = GeneratorConfig.model_validate(config)
    weights = {}
    for seed, direction in enumerate(GRAPH_FILES):
        torch.manual_seed(seed)
        network = build_generator(generator)
        scale_to_data(network, torch.randn(4, 1, 32, 32) * 0.3)
        torch.nn.init.normal_(network.head.weight, std=0.1)
        for name, tensor in network.state_dict().items():
            weights[f"{direction}.{name}"] = tensor.numpy()
    domain = Domain.of([make_volume(np.zeros((1, 4, 4)))])
    settings = {"generator": generator.model_dump(mode="json"), "window_hu": WINDOW_HU}
    return Bundle("cvsct", settings, weights, domain, domain, {"preset": "cpu"})


def run_graph(graph: bytes, image: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    found: np.ndarray = core.compile_model(core.read_model(graph), "CPU", exact)(image)[0]
    return found


@pytest.fixture(scope="module")
def with_graphs() -> Bundle:
    return export.with_graphs(trained(CVS_CT))


@pytest.mark.parametrize("config", [CVS_CT, RESNET])
def test_a_graph_gives_what_the_network_gives(config: dict[str, Any]) -> None:
    """Both ways, for sizes and batches it was not traced with, through the file and HU."""
    bundle = export.with_graphs(trained(config))
    assert list(bundle.graphs) == ["a2b", "b2a"]
    rng = np.random.default_rng(1)
    hu = rng.uniform(-900, 800, (3, 50, 47)).astype(np.float32)
    for direction, graph in bundle.graphs.items():
        image = (hu[:, None] + 50) / 950
        found = run_graph(graph, image.astype(np.float32))
        assert found.shape == (3, 1, 50, 47)
        mapped = load_network(bundle, direction == "b2a", "torch")(make_volume(hu))
        assert np.abs(found[:, 0] * 950 - 50 - mapped).max() < 1e-4 * 950
        assert np.abs(mapped - hu).std() > 10
        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model)
        about = {entry.key: entry.value for entry in model.metadata_props}
        assert about == {"direction": f'"{direction}"', "window_hu": "[-1000.0, 900.0]"}


def test_a_model_with_graphs_comes_back_with_them(with_graphs: Bundle, tmp_path: Path) -> None:
    written = with_graphs.write(tmp_path)
    found = Bundle.read(tmp_path)
    assert (found.graphs, found.sha256) == (with_graphs.graphs, written.sha256)
    assert "| graphs | ONNX opset 17, equal to PyTorch" in (tmp_path / "card.md").read_text()
    hu = np.random.default_rng(2).uniform(-900, 800, (2, 40, 44)).astype(np.float32)
    mapped = [
        load_network(found, False, engine)(make_volume(hu)) for engine in ("openvino", "torch")
    ]
    assert np.abs(mapped[0] - mapped[1]).max() < 0.01


def test_an_altered_or_missing_graph_is_refused(with_graphs: Bundle, tmp_path: Path) -> None:
    with_graphs.write(tmp_path)
    graph = tmp_path / "b2a.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError, match=r"b2a\.onnx does not match its hash"):
        Bundle.read(tmp_path)
    graph.unlink()
    with pytest.raises(ModelError, match=r"b2a\.onnx is missing"):
        Bundle.read(tmp_path)


def test_a_later_training_leaves_no_earlier_graph(with_graphs: Bundle, tmp_path: Path) -> None:
    with_graphs.write(tmp_path)
    trained(CVS_CT).write(tmp_path)
    assert not list(tmp_path.glob("*.onnx"))
    found = Bundle.read(tmp_path)
    assert found.graphs == {}
    (tmp_path / "a2b.onnx").write_bytes(b"not listed")
    assert Bundle.read(tmp_path).graphs == {}
    with pytest.raises(UsageError, match="holds no ONNX graph"):
        load_network(found, False, "openvino")


def test_the_same_weights_give_the_same_graph(with_graphs: Bundle) -> None:
    assert export.with_graphs(trained(CVS_CT)).graphs == with_graphs.graphs


def test_a_failed_export_leaves_the_model_and_a_note(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = trained(CVS_CT)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        found = export.with_graphs(bundle)
    assert found.graphs == {}
    assert found.weights == bundle.weights
    assert found.training["preset"] == "cpu"
    assert found.training["graphs"].startswith("none (import of onnx")
    assert "written without ONNX graphs" in caplog.text
    monkeypatch.setattr(export, "_difference", lambda *_: float("nan"))
    found = export.with_graphs(bundle)
    assert "OpenVINO differs from PyTorch by nan" in found.training["graphs"]
    assert "| graphs | none (OpenVINO differs" in found.card()


def test_a_large_network_gets_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    found = export.with_graphs(trained(CVS_CT))
    assert found.graphs == {}
    assert "--engine torch" in found.training["graphs"]


@pytest.mark.parametrize("settings", [{}, {"generator": {"width": 4}}])
def test_weights_that_do_not_fit_the_settings_are_refused(settings: dict[str, Any]) -> None:
    bundle = trained(CVS_CT)
    wrong = Bundle("cvsct", settings, bundle.weights, bundle.source, bundle.target)
    with pytest.raises(ModelError, match="weights do not fit its settings"):
        load_network(wrong, False, "torch")
    no_window = {"generator": bundle.settings["generator"]}
    wrong = Bundle("cvsct", no_window, bundle.weights, bundle.source, bundle.target)
    with pytest.raises(ModelError, match="no HU window"):
        load_network(wrong, False, "torch")
