from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import ModelError
from cvsct.model.bundle import Bundle, Domain
from cvsct.model.pretrained import bundled, bundled_names
from tests.conftest import make_volume


@pytest.fixture
def bundle() -> Bundle:
    volumes = [make_volume(np.zeros((2, 4, 4)), pixel_mm=p) for p in (0.6, 0.8)]
    return Bundle(
        method="spectrum",
        settings={"cap": 4.0},
        weights={"gain": np.linspace(1, 2, 5), "b": np.ones((2, 2), dtype=np.float32).T},
        source=Domain.of(volumes),
        target=Domain.of(volumes[:1]),
        training={"seed": 0, "losses": {"cycle": 0.5, "domain": 0.25}},
    )


def test_a_model_comes_back_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    written = bundle.write(tmp_path / "m")
    found = Bundle.read(tmp_path / "m")
    assert found.sha256 == written.sha256 != ""
    assert (found.method, found.settings, found.training) == (
        "spectrum",
        {"cap": 4.0},
        bundle.training,
    )
    assert found.source == bundle.source
    assert found.source.pixel_mm == (0.6, 0.8)
    for name, array in bundle.weights.items():
        assert np.array_equal(found.weights[name], array)
        assert found.weights[name].dtype == array.dtype
    assert bundle.write(tmp_path / "n").sha256 == written.sha256


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "card.md"])
def test_an_altered_file_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    bundle.write(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content.replace(b"1", b"2", 1) if b"1" in content else b"")
    with pytest.raises(ModelError, match=rf"{name} does not match its hash"):
        Bundle.read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        Bundle.read(tmp_path)


def test_missing_and_unfinished_models_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        Bundle.read(tmp_path / "nowhere")
    bundle.write(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(ModelError, match="not a finished model"):
        Bundle.read(tmp_path)


def test_the_card_names_the_scanners_and_the_limits(bundle: Bundle) -> None:
    card = bundle.card()
    assert "Research use only" in card
    assert "Maker Scanner, kernel K1, 120 kVp" in card
    assert "0.6 to 0.8" in card
    assert "`_per_mm` is cycles/mm" in card
    assert "| losses | cycle 0.5, domain 0.25 |" in card


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_card_is_what_this_version_writes(name: str) -> None:
    """`python scripts/make_bundled.py --cards-only` renews them."""
    card = (bundled(name) / "card.md").read_text(encoding="utf-8")
    assert card == Bundle.read(bundled(name)).card()
