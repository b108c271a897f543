from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import MissingExtraError, UsageError
from cvsct.inference.engines.load import load_network
from cvsct.methods.base import Loader, Trainer, TrainingRequest
from cvsct.methods.registry import METHODS, TRAIN_OPTIONS, find_method
from cvsct.model.bundle import Bundle, Domain
from tests.conftest import make_volume


@pytest.mark.parametrize("name", list(METHODS))
def test_every_row_names_parts_that_exist(name: str) -> None:
    row = METHODS[name]
    assert row.name == name
    assert isinstance(row.train, Trainer)
    assert isinstance(row.load, Loader)
    assert set(row.uses) <= set(TRAIN_OPTIONS)


def test_one_method_is_recommended() -> None:
    assert [row.name for row in METHODS.values() if row.recommended] == ["spectrum"]


def test_unknown_methods_are_refused_with_the_list() -> None:
    with pytest.raises(
        UsageError,
        match=r"no method 'cvs-ct'; did you mean 'cvsct'\? choose one of input, histogram",
    ):
        find_method("cvs-ct")


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = TrainingRequest("cvsct", tmp_path / "out")
    monkeypatch.delitem(sys.modules, "cvsct.training.cyclegan.train", raising=False)
    with (
        monkeypatch.context() as without,
        pytest.raises(MissingExtraError, match=r"cvsct needs torch.*\[train\]"),
    ):
        without.setitem(sys.modules, "torch", None)
        METHODS["cvsct"].train([], [], request)
    domain = Domain.of([make_volume(np.zeros((1, 4, 4)))])
    bundle = Bundle("cvsct", {}, {}, domain, domain)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"cvsct needs PyTorch.*\[train\]"):
        load_network(bundle, False, "auto")


def test_engines_that_a_model_cannot_run_on_are_refused() -> None:
    domain = Domain.of([make_volume(np.zeros((1, 4, 4)))])
    bundle = Bundle("cvsct", {}, {}, domain, domain)
    with pytest.raises(UsageError, match="no engine 'tensorrt'"):
        load_network(bundle, False, "tensorrt")
    with pytest.raises(UsageError, match="holds no ONNX"):
        load_network(bundle, False, "openvino")
