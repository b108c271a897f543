"""The contract that every row of METHODS keeps, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.inference.harmonizer import harmonize_volume
from cvsct.io.dicom import read_all
from cvsct.methods import METHODS
from cvsct.models.bundle import DIRECTIONS, Bundle
from cvsct.training import trainer
from cvsct.volume import HUWindow
from tests.commands import Run, options, sides, train

Trained = Callable[[str], Path]
ALL = pytest.mark.parametrize("method", list(METHODS))
LEARN_ON = [name for name, row in METHODS.items() if "resume" in row.uses]
PAIRED = [name for name, row in METHODS.items() if row.kind == "paired"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def trained(run: Run, scans: Path, models: Path) -> Trained:
    """A method's model folder; each is trained once."""

    def find(method: str) -> Path:
        if not (models / method).exists():
            train(run, method, scans, models / method)
        return models / method

    return find


@pytest.fixture
def without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings end without their ONNX export, which takes longer than they do."""
    monkeypatch.setattr(trainer, "with_graphs", lambda bundle: bundle)


def derived(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.dcm"))}


@ALL
def test_geometry_and_series_come_back(
    run: Run, method: str, trained: Trained, scans: Path, tmp_path: Path
) -> None:
    model = Bundle.read(trained(method))
    assert model.method == method
    source = read_all(scans / "pair/sharp")[0]
    for reverse in [[], ["--reverse"]] if METHODS[method].reversible else [[]]:
        out = tmp_path / f"out{len(reverse)}"
        code, printed, err = run(
            "harmonize", scans / "pair/sharp", "--model", trained(method), "--out", out, *reverse
        )
        assert code == 0, err
        assert "1 series, 6 slices" in printed
        assert "harmonising 1/1" in err
        (found,) = read_all(out)
        assert np.array_equal(found.geometry.positions_mm, source.geometry.positions_mm)
        assert found.geometry.pixel_mm == source.geometry.pixel_mm
        assert found.geometry.frame_of_reference == source.geometry.frame_of_reference
        assert found.hu.shape == source.hu.shape
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["model_sha256"] == model.sha256
        assert manifest["inputs"]["series"] == [source.series_uid]
        if method == "input":
            assert np.array_equal(found.hu, source.hu)


@ALL
def test_the_other_direction_is_served_or_refused(
    run: Run, method: str, trained: Trained, scans: Path, tmp_path: Path
) -> None:
    words = ["harmonize", scans / "pair/soft", "--model", trained(method), "--reverse", "--out"]
    code, _, err = run(*words, tmp_path / "back")
    if METHODS[method].reversible:
        assert code == 0, err
    else:
        assert code == 2
        assert f"{method} maps only from A to B; train it with the scans swapped" in err
        assert not (tmp_path / "back").exists()


@ALL
def test_padding_and_what_lies_outside_the_window_come_back_unchanged(
    method: str, trained: Trained, scans: Path
) -> None:
    """The window is the networks'; classical methods have none and are never clipped to one."""
    bundle = Bundle.read(trained(method))
    volume = read_all(scans / "pair/sharp")[0].select([2, 3])
    hu = volume.hu.copy()
    hu[0, 100:104, 60], hu[1, 110, 90:94] = 2500.0, 1200.0
    padding = np.zeros(hu.shape, bool)
    padding[:, :20] = True
    hu[padding] = -2000.0
    volume = replace(volume, hu=hu, padding=padding)
    found = harmonize_volume(volume, METHODS[method].load("loader")(bundle, False, "auto")).hu
    assert np.array_equal(found[padding], hu[padding])
    if METHODS[method].kind != "classical":
        window = HUWindow(*bundle.settings["window_hu"])
        outside = (hu < window.low_hu) | (hu > window.high_hu)
        assert outside[~padding].sum() == 8
        assert np.array_equal(found[outside], hu[outside])
        assert window.low_hu <= found[~outside].min() <= found[~outside].max() <= window.high_hu


@ALL
@pytest.mark.usefixtures("without_graphs")
def test_the_same_words_give_the_same_bytes(
    run: Run, method: str, trained: Trained, scans: Path, tmp_path: Path
) -> None:
    """Of weights and images; graphs have their own test."""
    again = train(run, method, scans, tmp_path / "again")
    first = Bundle.read(trained(method))
    assert first.weights.keys() == again.weights.keys()
    for name, array in first.weights.items():
        assert array.dtype == again.weights[name].dtype
        assert np.array_equal(array, again.weights[name]), name
    for out in ("o1", "o2"):
        run("harmonize", scans / "pair", "--model", trained(method), "--out", tmp_path / out)
    files = derived(tmp_path / "o1")
    assert len(files) == 12
    assert files == derived(tmp_path / "o2")


@ALL
def test_a_model_comes_back_as_it_was(method: str, trained: Trained, tmp_path: Path) -> None:
    bundle = Bundle.read(trained(method))
    assert bundle.write(tmp_path / "copy").sha256 == bundle.sha256
    assert Bundle.read(tmp_path / "copy").training == bundle.training
    card = (trained(method) / "card.md").read_text()
    paired = METHODS[method].kind == "paired"
    assert ("paired, 6 slices" in card, "; unpaired" in card) == (paired, not paired)
    if METHODS[method].kind != "classical":
        ways = list(DIRECTIONS) if METHODS[method].reversible else ["a2b"]
        assert {name.partition(".")[0] for name in bundle.weights} == set(ways)
        assert list(bundle.graphs) == ways


@ALL
@pytest.mark.usefixtures("without_graphs")
def test_progress_and_options_without_meaning_are_told(
    run: Run, method: str, scans: Path, tmp_path: Path
) -> None:
    """Every option is accepted; one that a method has no use for is noted."""
    out = tmp_path / "m"
    words = ["train", method, *sides(method, scans), "--out", out, *options(method, steps=1)]
    code, _, err = run(*words, "--seed", 3, "--max-minutes", 5, "--preset", "cpu")
    assert code == 0, err
    uses = METHODS[method].uses
    assert ("note: --seed means nothing" in err) == ("seed" not in uses)
    if "max_steps" in uses:
        assert "training 1/1" in err
    if method != "input":
        assert "source 1/1" in err
    if "resume" not in uses:
        code, _, err = run(*words[:-1], tmp_path / "n", "--resume")
        assert code == 0, err
        assert f"note: --resume means nothing to {method}" in err


@pytest.mark.parametrize("method", LEARN_ON)
@pytest.mark.usefixtures("without_graphs")
def test_a_resumed_training_equals_an_uninterrupted_one(
    run: Run, method: str, scans: Path, tmp_path: Path
) -> None:
    def go(out: str, steps: int, *more: str) -> Bundle:
        words = ["train", method, *sides(method, scans), "--out", tmp_path / out]
        often = ["--set", "schedule.validate_steps=1", "--set", "average=0.5"]
        code, _, err = run(*words, *options(method, steps), *often, *more)
        assert code == 0, err
        return Bundle.read(tmp_path / out)

    whole = go("whole", 3)
    go("parts", 1)  # with 2 the learning rate would have begun to fall
    parts = go("parts", 3, "--resume")
    assert parts.weights.keys() == whole.weights.keys()
    for name, array in whole.weights.items():
        assert np.array_equal(parts.weights[name], array), name
    assert parts.training["kept"] == whole.training["kept"]
    assert parts.training["last"] == whole.training["last"]


@pytest.mark.parametrize("method", PAIRED)
def test_unpaired_scans_are_refused(run: Run, method: str, scans: Path, tmp_path: Path) -> None:
    code, _, err = run(
        "train", method, "--source", scans / "sharp", "--target", scans / "soft",
        "--out", tmp_path / "m", *options(method),
    )  # fmt: skip
    assert code == 1
    assert "unpaired" in err
    assert "take an unpaired method such as cvsct or spectrum" in err
    assert len(err.strip().splitlines()[-1]) < 500
    assert not (tmp_path / "m").exists()
