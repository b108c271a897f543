from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from cvsct.core.errors import TrainingError, UsageError
from cvsct.core.progress import silent
from cvsct.core.volume import CTVolume, HUWindow
from cvsct.inference.engines.load import load_network
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import CHECKPOINT_FILE, THIRD_PARTY, Bundle
from cvsct.networks.export import with_graphs
from cvsct.training import loop, trainer
from cvsct.training.checkpoint import Run
from cvsct.training.cyclegan.settings import PRESETS, cycle_config
from cvsct.training.cyclegan.step import CycleStep, ImagePool, cycle_pass
from cvsct.training.cyclegan.train import train_cycle
from cvsct.training.data.prepare import CACHE
from cvsct.training.logging import LOG
from cvsct.training.texture_loss import TextureLoss, TextureLossConfig
from tests.conftest import make_volume
from tests.support.training_steps import NoBatches

TINY: dict[str, Any] = {
    "generator.width": 8,
    "generator.reduction": 4,
    "generator.hold_low_px": 2,
    "discriminator.widths": [8, 8],
    "discriminator.strides": [2, 1],
    "patch_px": 24,
    "batch": 2,
    "validation_patches": 8,
    "precision": "fp32",
}


@pytest.fixture(scope="session")
def scans() -> tuple[list[CTVolume], list[CTVolume]]:
    """Tissue with sharp noise, and other tissue with smooth noise."""
    volumes = []
    for seed, sigma_px in ((0, 0.4), (1, 1.0)):
        rng = np.random.default_rng(seed)
        noise = ndimage.gaussian_filter(rng.normal(0, 60, (3, 72, 72)), (0, sigma_px, sigma_px))
        volumes.append([make_volume(40 + noise)])
    return volumes[0], volumes[1]


@pytest.fixture
def request_for(tmp_path: Path, vgg_weights: Path) -> Any:
    def build(name: str = "m", steps: int = 4, **settings: Any) -> TrainingRequest:
        return TrainingRequest(
            method="cvsct",
            out=tmp_path / name,
            settings={
                "domain.weights": str(vgg_weights),
                "domain.layers": ["relu1_2", "relu2_1"],
                **TINY,
                **settings,
            },
            max_steps=steps,
        )

    return build


pytestmark = pytest.mark.usefixtures("small_sample", "without_graphs")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_are_valid_and_settings_reach_into_them(preset: str) -> None:
    config = cycle_config(preset, {"domain.layers": ["relu1_1"], "batch": 3})
    assert config.domain.layers == ("relu1_1",)
    assert config.batch == 3


def test_the_paper_preset_is_the_paper() -> None:
    config = cycle_config("paper", {})
    assert (config.patch_px, config.batch, config.learning_rate) == (80, 32, 1e-4)
    assert (config.beta1, config.beta2, config.pool, config.decay_from) == (0.5, 0.999, 0, 1.0)
    assert config.discriminator.sigmoid
    assert not config.generator.residual
    assert config.domain.layers == ("relu4_1", "relu5_1")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bacth": 3}, r"no setting 'bacth'; did you mean 'batch'\? choose from window_hu, "),
        ({"batch": "many"}, "setting batch"),
        ({"generator.depth": 2}, "no setting 'generator.depth'; .*choose from generator.arch"),
        ({"genrator.width": 2}, r"'genrator.width'; did you mean 'generator.width'\? choose"),
        ({"generator": {"widht": 2}}, r"'generator.widht'; did you mean 'generator.width'\?"),
        ({"batch.size": 2}, "batch has no parts"),
        ({"generator.architecture": "unet"}, "setting generator.architecture: .*'resnet-9'"),
        (
            {"generator.architecture": "resnet-9", "generator.attention": True},
            "setting generator: .*resnet-9 has no attention; train cyclegan or cvsct-1",
        ),
        ({"domain.network": "vgg11"}, "setting domain.network: .*'vgg19'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cycle_config("cpu", settings)
    with pytest.raises(
        UsageError, match=r"no preset 'gpu'; did you mean 'cpu'\? choose one of paper"
    ):
        cycle_config("gpu", {})


@pytest.mark.parametrize("average", [0.0, 0.5])
@pytest.mark.parametrize("options", [{}, {"weight_domain": 0.0}, {"generator.attention": False}])
def test_training_gives_a_model_that_maps_both_ways(
    scans: Any, request_for: Any, options: dict[str, Any], average: float
) -> None:
    request = request_for(average=average, **options)
    bundle = train_cycle(*scans, request).write(request.out)
    lines = [json.loads(line) for line in (request.out / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    terms = {"adversarial_a2b", "cycle_a", "identity_b", "critic_a"}
    assert terms <= lines[0].keys()
    assert ("domain_a2b" in lines[0]) == ("weight_domain" not in options)
    has_gates = any("mlp" in name for name in bundle.weights)
    assert has_gates == ("generator.attention" not in options)
    found = Bundle.read(request.out)
    forth, back = (load_network(found, reverse, "auto")(scans[0][0]) for reverse in (False, True))
    assert forth.shape == scans[0][0].hu.shape
    assert forth.dtype == np.float32
    assert not np.array_equal(forth, back)


@pytest.mark.parametrize("architecture", ["cvs-ct", "resnet-9"])
def test_a_training_ends_with_graphs_and_says_what_it_was_made_of(
    scans: Any,
    request_for: Any,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
) -> None:
    monkeypatch.setattr(trainer, "with_graphs", with_graphs)
    made_of = {"generator.architecture": architecture, "generator.width": 4}
    request = request_for(**made_of, **{"generator.attention": False})
    train_cycle(*scans, request).write(request.out)
    found = Bundle.read(request.out)
    assert list(found.graphs) == ["a2b", "b2a"]
    assert found.settings["generator"]["architecture"] == architecture
    mapped = load_network(found, True, "auto")(scans[0][0])
    assert mapped.shape == scans[0][0].hu.shape
    assert {"preset", "seed", "steps", "scans", "vgg_sha256", "graphs"} <= found.training.keys()


def test_voxels_outside_the_window_survive_the_network(scans: Any, request_for: Any) -> None:
    request = request_for()
    bundle = train_cycle(*scans, request)
    volume = scans[0][0]
    hu = volume.hu.copy()
    hu[0, 5, 5], hu[1, 7, 9] = 2500.0, -1100.0
    found = load_network(bundle, False, "torch")(volume.with_hu(hu))
    assert (found[0, 5, 5], found[1, 7, 9]) == (2500.0, -1100.0)


def test_a_killed_and_resumed_training_equals_an_uninterrupted_one(
    scans: Any, request_for: Any
) -> None:
    often = {"pool": 3, "average": 0.5, "schedule.save_steps": 1}

    def kill(_: str, done: int, __: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = train_cycle(*scans, request_for("whole", steps=6, **often))
    first = replace(request_for("parts", steps=6, **often), progress=kill)
    with pytest.raises(KeyboardInterrupt):
        train_cycle(*scans, first)
    second = replace(first, progress=silent, resume=True)
    parts = train_cycle(*scans, second)
    assert parts.weights.keys() == whole.weights.keys()
    for name, array in whole.weights.items():
        assert np.array_equal(parts.weights[name], array), name
    steps = [json.loads(line)["step"] for line in (first.out / LOG).read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_resuming_with_other_settings_names_the_difference(scans: Any, request_for: Any) -> None:
    train_cycle(*scans, request_for(steps=1))
    changed = replace(request_for(steps=2, weight_cycle=0.25), resume=True)
    with pytest.raises(TrainingError, match=r"weight_cycle 1\.0 -> 0\.25"):
        train_cycle(*scans, changed)
    other = [scans[0][0].select([0, 1])]
    with pytest.raises(TrainingError, match=r"scans\.a \w+ -> \w+"):
        train_cycle(other, scans[1], replace(request_for(steps=2), resume=True))
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_cycle(*scans, replace(request_for("new"), resume=True))


class Counting:
    """A step that counts, and breaks at the fifth."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, *_: Any) -> dict[str, float]:
        self.done += 1
        return {"loss": 1.0, "other": float("inf") if self.done == 5 else 0.0}

    def weights(self) -> dict[str, torch.Tensor]:
        return {"done": torch.tensor(float(self.done))}

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


def test_divergence_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, {}, np.random.default_rng(0))
    step = Counting()
    loop.train(run, step, NoBatches(), loop.Limits(3), silent)
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(TrainingError, match="diverged at step 5: other not finite"):
        loop.train(run, step, NoBatches(), loop.Limits(9), silent)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before
    again = Run(tmp_path, {}, np.random.default_rng(1))
    again.resume(step)
    assert (again.steps, step.done) == (3, 3)
    assert len((tmp_path / LOG).read_text().splitlines()) == 3


def test_training_ends_by_steps_or_minutes_whichever_is_first() -> None:
    limits = loop.Limits(100, minutes=10.0)
    assert limits.fraction_done(50, 1.0) == 0.5
    assert limits.fraction_done(50, 8.0) == 0.8
    assert limits.fraction_done(1, 11.0) == loop.Limits(100).fraction_done(100, 0.1) == 1.0
    assert limits.state(50, 1.0) == ("training", 50, 100)
    assert limits.state(5, 2.0) == ("training, seconds", 120, 600)  # never a share as steps
    assert loop.Limits(100).state(5, 2.0) == ("training", 5, 100)


def test_a_batched_pass_equals_separate_calls(scans: Any, request_for: Any) -> None:
    config = cycle_config("cpu", {**TINY, "weight_domain": 0})
    images = torch.randn(4, 1, 24, 24) * 0.1
    step = CycleStep(config, images, images)
    torch.nn.init.normal_(step.nets["a2b"].head.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    a, b = images[:2], images[2:]
    a2b, b2a = step.nets["a2b"], step.nets["b2a"]
    made = cycle_pass(a2b, b2a, a, b)
    assert torch.allclose(made.fake_b, a2b(a), atol=1e-5)
    assert torch.allclose(made.same_b, a2b(b), atol=1e-5)
    assert torch.allclose(made.back_a, b2a(a2b(a)), atol=1e-5)
    assert torch.allclose(made.same_a, b2a(a), atol=1e-5)


def test_the_domain_loss_is_nothing_for_the_same_texture(vgg_weights: Path) -> None:
    images = torch.randn(12, 1, 32, 32) * 0.05
    for against in ("batch", "domain"):
        config = TextureLossConfig(
            weights=str(vgg_weights), layers=("relu2_1",), against=against, scale="target"
        )
        loss = TextureLoss(config, HUWindow())
        loss.learn_target("b", images)
        assert float(loss(images, images, "b")) == pytest.approx(0, abs=1e-9)
        assert float(loss(images * 3, images, "b")) > 1e-3


def test_the_pool_shows_old_images_once_full() -> None:
    pool, rng = ImagePool(4), np.random.default_rng(0)
    images = torch.arange(8.0).view(8, 1, 1, 1)
    assert torch.equal(pool.exchange(images[:4], rng), images[:4])
    shown = pool.exchange(images[4:], rng)
    assert set(shown.flatten().tolist()) & {0.0, 1.0, 2.0, 3.0}
    assert torch.equal(ImagePool(0).exchange(images, rng), images)


def test_a_training_starts_from_the_networks_of_a_model(
    scans: tuple[list[CTVolume], list[CTVolume]], request_for: Any, tmp_path: Path
) -> None:
    first = train_cycle(*scans, request_for("first", steps=2))
    first.write(tmp_path / "initial")
    initial = str(tmp_path / "initial")
    request = request_for("second", steps=1, initial_model=initial, learning_rate=0.0)
    second = train_cycle(*scans, request)
    assert set(second.weights) == set(first.weights)
    for name, weights in second.weights.items():
        np.testing.assert_array_equal(weights, first.weights[name])
    started = second.training["initial_model"]
    assert started["method"] == "cvsct"
    assert started["sha256"] == Bundle.read(tmp_path / "initial").sha256
    assert started["steps"] == 2
    second.write(tmp_path / "next")
    third = train_cycle(*scans, request_for("third", steps=1, initial_model=str(tmp_path / "next")))
    assert third.training["initial_model"]["steps"] == 3
    assert third.training["steps"] == 1
    assert third.training[THIRD_PARTY] == first.training[THIRD_PARTY]
    plain = request_for("plain", steps=1, initial_model=initial, weight_domain=0)
    assert train_cycle(*scans, plain).training[THIRD_PARTY] == first.training[THIRD_PARTY]


def test_a_resumed_training_needs_its_initial_model_no_more(
    scans: tuple[list[CTVolume], list[CTVolume]], request_for: Any, tmp_path: Path
) -> None:
    train_cycle(*scans, request_for("first", steps=2)).write(tmp_path / "initial")
    request = request_for("second", steps=1, initial_model=str(tmp_path / "initial"))
    started = train_cycle(*scans, request).training["initial_model"]
    shutil.rmtree(tmp_path / "initial")
    resumed = train_cycle(*scans, replace(request, resume=True, max_steps=2))
    assert resumed.training["steps"] == 2
    assert resumed.training["initial_model"] == started
    without = {name: each for name, each in request.settings.items() if name != "initial_model"}
    with pytest.raises(TrainingError, match="started from a model"):
        train_cycle(*scans, replace(request, settings=without, resume=True, max_steps=3))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"generator.width": 16}, r"other settings \(generator.width=8\)"),
        ({"generator.attention": False}, r"weights are not those"),
        ({"window_hu": [-900.0, 900.0]}, r"window_hu="),
    ],
)
def test_a_model_of_other_networks_is_refused(
    settings: dict[str, Any],
    said: str,
    scans: tuple[list[CTVolume], list[CTVolume]],
    request_for: Any,
    tmp_path: Path,
) -> None:
    train_cycle(*scans, request_for("first", steps=1)).write(tmp_path / "initial")
    request = request_for("second", initial_model=str(tmp_path / "initial"), **settings)
    with pytest.raises(TrainingError, match=said):
        train_cycle(*scans, request)
    assert not (request.out / CACHE).exists()


def test_an_initial_model_may_hold_other_frequencies(
    scans: tuple[list[CTVolume], list[CTVolume]], request_for: Any, tmp_path: Path
) -> None:
    train_cycle(*scans, request_for("first", steps=1)).write(tmp_path / "initial")
    request = request_for(
        "second", steps=1, initial_model=str(tmp_path / "initial"), **{"generator.hold_low_px": 3}
    )
    assert train_cycle(*scans, request).settings["generator"]["hold_low_px"] == 3


def test_a_filter_is_no_initial_model(
    scans: tuple[list[CTVolume], list[CTVolume]], request_for: Any
) -> None:
    with pytest.raises(TrainingError, match="a spectrum model, whose weights are not"):
        train_cycle(*scans, request_for(initial_model="siemens-bl64-br40-spectrum"))


def test_an_initial_model_that_does_not_exist_is_refused(
    scans: tuple[list[CTVolume], list[CTVolume]], request_for: Any
) -> None:
    with pytest.raises(UsageError, match="no such model folder"):
        train_cycle(*scans, request_for(initial_model="elsewhere"))
