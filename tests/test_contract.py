"""The contract that every row of METHODS keeps, through the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cvsct.core.sampling import read_sample
from cvsct.core.volume import HUWindow
from cvsct.guard.apply import Guard, scan_facts
from cvsct.guard.scan_verdict import ScanVerdict
from cvsct.inference.harmonize_volume import harmonize_volume
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.read import find_series, read_all
from cvsct.io.series import open_series
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import METHODS
from cvsct.model.bundle import CHECKPOINT_FILE, DIRECTIONS, Bundle
from tests.conftest import phantom_hu
from tests.support.commands import Run, options, sides
from tests.support.dicom_files import write_series
from tests.training.test_resume import equal

ALL = pytest.mark.parametrize("method", list(METHODS), scope="module")
"""All tests of a method one after another: two workers do not both train it."""
ALIKE = ("cyclegan", "cvsct-1", "cvsct-2", "cgan", "stan-ct", "radiomicgan")
"""Methods that train as another one does: what takes two trainings is tried with them by hand."""
LEARNED = [name for name, row in METHODS.items() if "resume" in row.uses]
PAIRED = [name for name, row in METHODS.items() if row.kind == "paired"]


def unlike(methods: Iterable[str]) -> list[Any]:
    """Methods, of which those that train as another one are slow."""
    return [pytest.param(m, marks=pytest.mark.slow) if m in ALIKE else m for m in methods]


class Model(NamedTuple):
    """A trained model's folder, and what was said on the way."""

    folder: Path
    told: str


Trained = Callable[[str], Model]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Model]]:
    return tmp_path_factory.mktemp("models"), {}


@pytest.fixture
def trained(run: Run, scans: Path, models: tuple[Path, dict[str, Model]]) -> Trained:
    """A method's model, trained once; methods are given options that mean nothing to them too."""
    root, found = models

    def find(method: str) -> Model:
        if method not in found:
            words = ["train", method, *sides(method, scans), "--out", root / method]
            more = [] if method in LEARNED else ["--resume", "--max-steps", 2, "--seed", 3]
            code, _, err = run(*words, *options(method), *more)
            assert code == 0, err
            found[method] = Model(root / method, err)
        return found[method]

    return find


pytestmark = pytest.mark.usefixtures("small_sample")


def derived(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.dcm"))}


def checked(guard: Guard, series: SeriesFiles) -> ScanVerdict | None:
    """What a guard says of a series."""
    scan = open_series(series)
    return guard.check_scan(scan_facts(scan), read_sample(scan))


@ALL
def test_geometry_and_series_come_back(
    run: Run, method: str, trained: Trained, scans: Path, tmp_path: Path
) -> None:
    model = Bundle.read(trained(method).folder)
    assert model.method == method
    source = read_all(scans / "pair/sharp")[0]
    for reverse in [[], ["--reverse"]] if METHODS[method].reversible else [[]]:
        out = tmp_path / f"out{len(reverse)}"
        code, printed, err = run(
            "harmonize",
            scans / "pair/sharp",
            "--model",
            trained(method).folder,
            "--out",
            out,
            *reverse,
        )
        assert code == 0, err
        assert "1 series, 6 slices" in printed
        assert re.search(r"harmonizing (\d+)/\1(,|\n)", err)
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
    words = [
        "harmonize",
        scans / "pair/soft",
        "--model",
        trained(method).folder,
        "--reverse",
        "--out",
    ]
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
    bundle = Bundle.read(trained(method).folder)
    volume = read_all(scans / "pair/sharp")[0].select([2, 3])
    hu = volume.hu.copy()
    hu[0, 100:104, 60], hu[1, 110, 90:94] = 2500.0, 1200.0
    padding = np.zeros(hu.shape, bool)
    padding[:, :20] = True
    hu[padding] = -2000.0
    volume = replace(volume, hu=hu, padding=padding)
    found = harmonize_volume(volume, METHODS[method].load(bundle, "a2b", RunOptions())).hu
    assert np.array_equal(found[padding], hu[padding])
    if METHODS[method].kind != "classical":
        window = HUWindow(*bundle.settings["window_hu"])
        outside = (hu < window.low_hu) | (hu > window.high_hu)
        assert outside[~padding].sum() == 8
        assert np.array_equal(found[outside], hu[outside])
        assert window.low_hu <= found[~outside].min() <= found[~outside].max() <= window.high_hu


@pytest.mark.parametrize("method", unlike(METHODS), scope="module")
@pytest.mark.usefixtures("without_graphs")
def test_the_same_words_give_the_same_bytes(
    run: Run, method: str, trained: Trained, scans: Path, tmp_path: Path
) -> None:
    """Of weights and images; graphs have their own test."""
    seed = [] if method in LEARNED else ["--seed", 3]
    words = ["train", method, *sides(method, scans), "--out", tmp_path / "again"]
    assert run(*words, *options(method), *seed)[0] == 0
    again = Bundle.read(tmp_path / "again")
    first = Bundle.read(trained(method).folder)
    assert first.weights.keys() == again.weights.keys()
    for name, array in first.weights.items():
        assert array.dtype == again.weights[name].dtype
        assert np.array_equal(array, again.weights[name]), name
    words = ["harmonize", scans / "pair/sharp", "--model", trained(method).folder, "--out"]
    for out in ("o1", "o2"):
        assert run(*words, tmp_path / out)[0] == 0
    files = derived(tmp_path / "o1")
    assert len(files) == 6
    assert files == derived(tmp_path / "o2")


@ALL
def test_a_model_comes_back_as_it_was(method: str, trained: Trained, tmp_path: Path) -> None:
    bundle = Bundle.read(trained(method).folder)
    assert bundle.write(tmp_path / "copy").sha256 == bundle.sha256
    assert Bundle.read(tmp_path / "copy").training == bundle.training
    card = (trained(method).folder / "card.md").read_text()
    paired = METHODS[method].kind == "paired"
    assert ("paired, 6 slices" in card, "; unpaired" in card) == (paired, not paired)
    if METHODS[method].kind != "classical":
        ways = list(DIRECTIONS) if METHODS[method].reversible else ["a2b"]
        assert {name.partition(".")[0] for name in bundle.weights} == set(ways)
        assert list(bundle.graphs) == ways


@ALL
def test_a_guard_knows_the_scans_that_a_model_is_made_for(
    run: Run, method: str, trained: Trained, scans: Path, tmp_path: Path
) -> None:
    """Its own kind passes, one that is 1000 HU too high does not, until the user says so."""
    row, model = METHODS[method], trained(method).folder
    bundle = Bundle.read(model)
    if not row.guarded:
        assert bundle.guard == {}
        return
    ways = list(DIRECTIONS) if row.reversible else ["a2b"]
    assert list(bundle.guard["limits"]) == ["source", "target", *ways]
    for reverse in (False, True)[: len(ways)]:
        (own,) = find_series(scans / ("pair/soft" if reverse else "pair/sharp"))
        verdict = checked(Guard.of(bundle, reverse), own)
        assert verdict is not None
        assert verdict.kind == "in_domain"
    stored = (phantom_hu(3, 0.0, 2) + 2024).astype("<u2")
    bad = write_series(tmp_path / "bad", stored=stored, series="1.2.66")
    words = ["harmonize", bad, "--model", model, "--out", tmp_path / "out"]
    code, _, err = run(*words)
    assert code == 1
    assert "CT numbers of tissue" in err
    suggested = err.rpartition("--guard tissue_nats=")[2].split()[0]
    assert run(*words, "--guard", "scan=off")[0] == 0
    limits = [f"{name}=off" for name in ("noise_db", "sharpness_db")]
    passed = Guard.of(bundle, False, [f"tissue_nats={suggested}", *limits])
    verdict = checked(passed, find_series(bad)[0])
    assert verdict is not None
    assert verdict.reasons == ()


@ALL
def test_progress_and_options_without_meaning_are_told(method: str, trained: Trained) -> None:
    """Every option is accepted; one that a method has no use for is noted."""
    told, uses = trained(method).told, METHODS[method].uses
    for option in ("resume", "max_steps", "seed"):
        note = f"note: --{option.replace('_', '-')} means nothing to {method}"
        assert (note in told) == (option not in uses)
    assert ("training 2/2" in told) == (method in LEARNED)
    if method != "input":
        assert "source 1/1" in told


@pytest.mark.parametrize("method", unlike(LEARNED), scope="module")
@pytest.mark.usefixtures("without_graphs")
def test_a_resumed_training_equals_an_uninterrupted_one(
    run: Run, method: str, trained: Trained, scans: Path, tmp_path: Path
) -> None:
    """Bit for bit: networks, averages, optimisers, whose turn it is, and the random stream."""
    for steps, more in ((1, []), (2, ["--resume"])):
        words = ["train", method, *sides(method, scans), "--out", tmp_path / "m", *more]
        code, _, err = run(*words, *options(method, steps))
        assert code == 0, err
    whole, parts = (
        torch.load(folder / CHECKPOINT_FILE, weights_only=True)
        for folder in (trained(method).folder, tmp_path / "m")
    )
    assert whole["steps"] == parts["steps"] == 2
    assert whole["rng"] == parts["rng"]
    assert equal(whole["step"], parts["step"])


@pytest.mark.parametrize("method", PAIRED, scope="module")
def test_unpaired_scans_are_refused(run: Run, method: str, scans: Path, tmp_path: Path) -> None:
    """Another body, which lies in a space of its own."""

    def elsewhere(dataset: Any, _: int) -> None:
        dataset.FrameOfReferenceUID = "1.2.99.1"

    stored = (phantom_hu(2, 0.8) + 1024).astype("<u2")
    write_series(tmp_path / "soft", stored=stored, series="1.2.2.9", change=elsewhere)
    code, _, err = run(
        "train", method, "--source", scans / "sharp", "--target", tmp_path / "soft",
        "--out", tmp_path / "m", *options(method),
    )  # fmt: skip
    assert code == 1
    assert "unpaired" in err
    assert "take an unpaired method such as cvsct or spectrum" in err
    assert len(err.strip().splitlines()[-1]) < 500
    assert not (tmp_path / "m").exists()
