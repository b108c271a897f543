"""The step of the paired family: what each method's terms are, who learns when, what is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from cvsct.core.errors import TrainingError, UsageError
from cvsct.core.volume import HUWindow
from cvsct.methods.registry import METHODS
from cvsct.networks.vgg_unet import VGGUNet
from cvsct.training.paired.alternation import Alternation, AlternationConfig
from cvsct.training.paired.settings import PAIRED_PRESETS, paired_config
from cvsct.training.paired.step import PairedStep, narrowed
from tests.support.commands import TINY_PAIRED

PAIRED = [name for name, row in METHODS.items() if row.kind == "paired"]
TINY: dict[str, Any] = {
    "patch_px": 24,
    "batch": 4,
    "precision": "fp32",
    "discriminator.widths": [8, 8],
    "discriminator.strides": [2, 1],
}


def settings(method: str, **more: Any) -> dict[str, Any]:
    row = METHODS[method].settings
    sizes = dict(pair.split("=") for pair in TINY_PAIRED[row["generator.architecture"]])
    shaped = {key: value if "[" in value else int(value) for key, value in sizes.items()}
    if "generator.layers" in shaped:
        shaped["generator.layers"] = ["relu1_2", "relu2_1"]
    return {**row, **TINY, **shaped, **more}


def built(method: str, preset: str = "cpu", **more: Any) -> PairedStep:
    torch.manual_seed(0)
    return PairedStep(paired_config(preset, settings(method, **more)), pairs()[0])


def pairs(count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, and the same noise as a softer kernel shows it."""
    noise = np.random.default_rng(seed).normal(0, 0.06, (count, 1, 24, 24)).astype(np.float32)
    soft = ndimage.gaussian_filter(noise, (0, 0, 0.7, 0.7))
    return torch.from_numpy(noise), torch.from_numpy(soft)


def copies(step: PairedStep) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in step.nets.state_dict().items()}


def changed(step: PairedStep, before: dict[str, Tensor]) -> set[str]:
    """Names of the networks whose weights are no longer what they were."""
    now = step.nets.state_dict()
    return {name.partition(".")[0] for name in now if not torch.equal(now[name], before[name])}


@pytest.mark.parametrize("preset", list(PAIRED_PRESETS))
@pytest.mark.parametrize("method", PAIRED)
def test_presets_are_valid_for_every_row_and_settings_reach_into_them(
    method: str, preset: str
) -> None:
    config = paired_config(preset, {**METHODS[method].settings, "batch": 3, "vgg.weights": "x"})
    assert config.batch == 3
    assert config.generator.architecture == METHODS[method].settings["generator.architecture"]
    assert (preset == "paper") == (config.adversarial == "cross-entropy")
    if config.critics:
        assert config.discriminator.map_size(config.patch_px) >= 1
    assert "weights" not in config.fingerprint()["vgg"]


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        (
            "cgan",
            {"bacth": 3},
            r"no setting 'bacth'; did you mean 'batch'\? choose from .*weight_pixels",
        ),
        ("cgan", {"generator.heads": 2}, "no setting 'generator.heads'; .*generator.depth"),
        ("choe-cnn", {"generator.widht": 2}, r"did you mean 'generator.width'\?.*convolutions"),
        ("cgan", {"generator.depth": 9}, "setting generator.depth: .*less than or equal to 8"),
        ("cgan", {"generator.architecture": "cvs-ct"}, "is no generator of paired methods; choose"),
        ("cgan", {"critics": ["conditional", "conditional"]}, "critics has one twice"),
        ("cgan", {"discriminator.sigmoid": True}, "end without a sigmoid"),
        ("choe-cnn", {"weight_latent": 1}, "weight_latent needs a U-Net's innermost features"),
        ("choe-cnn", {"alternation.phase_steps": 5}, "nobody takes turns with the generator"),
        ("radiomicgan", {"window_stages": [0.5]}, "end with 1, the whole"),
        ("radiomicgan", {"window_stages": [0, 1]}, "shares of the window"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    method: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        paired_config("cpu", {**METHODS[method].settings, **given})


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("choe-cnn", {"pixels"}),
        ("cgan", {"pixels", "adversarial_conditional", "critic_conditional"}),
        ("radiomicgan", {"pixels", "adversarial_conditional", "critic_conditional"}),
        ("stan-ct", {"pixels", "latent", "adversarial_plain", "critic_plain", "features_plain"}),
        ("ganai", {"critic_conditional", "critic_plain"}),
    ],
)
def test_each_method_has_its_terms(method: str, terms: set[str]) -> None:
    """Of the first step, where GANai's generator rests."""
    said = built(method)(*pairs(), 0.0, np.random.default_rng(0))
    read = ("gradient_", "rate_", "real_", "fake_", "fools_")
    assert {name for name in said if not name.startswith(read)} == terms
    assert all(np.isfinite(value) for value in said.values())


@pytest.mark.parametrize("method", ["choe-cnn", "cgan"])
def test_a_soft_kernel_is_learned(method: str) -> None:
    """On places that were not seen."""
    step = built(method, learning_rate=5e-3, average=0.0)
    rng = np.random.default_rng(0)
    for seed in range(40):
        step(*pairs(8, seed + 1), 0.0, rng)
    a, b = pairs(8, 0)
    before, after = (float((x - b).square().mean()) for x in (a, step.translate("a2b", a)))
    assert after < 0.5 * before


def test_alternating_networks_learn_in_turns_and_the_others_rest() -> None:
    step = built("ganai", **{"alternation.phase_steps": 2, "generator.residual": False})
    rng, critics = np.random.default_rng(0), {"critic_conditional", "critic_plain"}
    whose = []
    for seed in range(6):
        before = copies(step)
        step(*pairs(4, seed), 0.0, rng)
        whose.append(changed(step, before))
    assert whose == [critics, critics, {"a2b"}, {"a2b"}, critics, critics]


def test_a_generator_must_fool_kept_discriminators_too() -> None:
    """The adversarial term is the mean over the current one and the one of the phase before."""
    step = built("ganai", **{"alternation.phase_steps": 1, "generator.residual": False})
    rng = np.random.default_rng(0)
    for seed in range(3):  # discriminators, generator, discriminators
        step(*pairs(4, seed), 0.0, rng)
    a, b = pairs(4, 9)
    (held,) = step.alternation.earlier("critic_plain")
    critic = step.nets["critic_plain"]
    with torch.no_grad():
        fake = step.nets["a2b"](a)
        scores = [critic(fake), torch.func.functional_call(critic, held, (fake,))]
        by_hand = torch.stack([(1 - each).square().mean() for each in scores]).mean()
        fooled = min(float(each.mean()) for each in scores)
    assert not torch.allclose(scores[0], scores[1], atol=1e-4)
    said = step(a, b, 0.0, rng)
    assert said["adversarial_plain"] == pytest.approx(float(by_hand), rel=1e-4)
    assert said["fools_plain"] == pytest.approx(fooled, rel=1e-3)


def test_discriminators_are_sometimes_shown_an_earlier_generator() -> None:
    turns = Alternation(AlternationConfig(phase_steps=3, earlier_share=0.3))
    rng = np.random.default_rng(0)
    assert turns.generator_to_show("a2b", rng) is None
    held = {"w": torch.zeros(1)}
    turns.kept = {"a2b": [held]}
    shown = [turns.generator_to_show("a2b", rng) is held for _ in range(1000)]
    assert 0.25 < np.mean(shown) < 0.35


def test_a_phase_ends_when_discriminators_are_sure_or_after_its_steps() -> None:
    turns = Alternation(AlternationConfig(phase_steps=4, enough=0.95, keep=1))
    layer = torch.nn.Linear(1, 1)
    assert turns.turn == "critics"
    assert not turns.convinced(0.96, 0.1)
    assert turns.convinced(0.96, 0.04)
    assert not turns.end_step(False, {"a2b": layer})
    assert turns.end_step(True, {"a2b": layer})
    assert (turns.turn, turns.steps) == ("generator", 0)
    assert turns.convinced(0.0, 0.96)
    ends = [turns.end_step(False, {"critic": layer}) for _ in range(4)]
    assert ends == [False, False, False, True]
    assert turns.turn == "critics"
    torch.nn.init.zeros_(layer.weight)
    turns.end_step(True, {"a2b": layer})
    (kept,) = turns.earlier("a2b")
    assert float(kept["weight"]) == 0.0
    assert Alternation(AlternationConfig()).turn == "both"


def test_windows_widen_to_the_whole_and_are_clipped_and_stretched() -> None:
    window = HUWindow(-1000.0, 1000.0)
    hu = torch.tensor([-1000.0, -150.0, 50.0, 150.0, 700.0]).view(1, 1, 1, 5)
    found = narrowed(hu / 1000, 0.2, window, 50.0)
    assert found.flatten().tolist() == pytest.approx([-1.0, -1.0, 0.0, 0.5, 1.0], abs=1e-6)
    low = narrowed(hu / 1000, 0.2, window, None)  # -1000 to -600
    assert low.flatten().tolist() == pytest.approx([-1.0, 1.0, 1.0, 1.0, 1.0])
    moved = narrowed(hu / 1000, 0.5, window, 900.0)  # it would reach to 1400: 0 to 1000
    assert moved.flatten()[-1].item() == pytest.approx(0.4)
    whole = narrowed(hu / 1000, 1.0, window, 50.0)
    assert torch.equal(whole, hu / 1000)


def test_a_step_trains_on_the_window_of_its_stage() -> None:
    step = built("radiomicgan", window_stages=[0.4, 1.0], window_centre_hu=-62.0)
    a, b = pairs()
    said = [step(a, b, done, np.random.default_rng(0))["pixels"] for done in (0.0, 0.9)]
    assert float(a.abs().max()) < 0.4  # nothing is clipped
    whole = 100 * float((a - b).abs().mean())
    assert said[0] == pytest.approx(whole / 0.4, rel=1e-4)
    assert said[1] == pytest.approx(whole, rel=0.2)  # one step later


def test_the_encoder_is_the_files_stays_frozen_and_is_kept_in_half_precision(
    vgg_weights: Path,
) -> None:
    step = built("radiomicgan", "paper")
    before = copies(step)
    for seed in range(2):
        step(*pairs(4, seed), 0.0, np.random.default_rng(0))
    now = step.nets.state_dict()
    moved = {name for name in now if not torch.equal(now[name], before[name])}
    assert moved
    assert not any("encoder" in name for name in moved)
    weights = step.weights()
    with np.load(vgg_weights) as arrays:
        for n, name in enumerate(("block1_conv1", "block1_conv2", "block2_conv1")):
            kernel = weights[f"a2b.encoder.convolutions.{n}.weight"]
            assert kernel.dtype == torch.float16
            assert np.array_equal(kernel.numpy(), arrays[f"{name}/kernel"])
    assert weights["a2b.head.weight"].dtype == torch.float32
    network = step.nets["a2b"]
    assert isinstance(network, VGGUNet)
    scaled = network._encoded(pairs()[0])
    assert [float(each.square().mean()) for each in scaled] == pytest.approx([1.0, 1.0], rel=1e-4)
    assert float(network.encoder.mean.flatten()[0]) == pytest.approx(103.939)
    assert step.weights_origin is not None
    assert step.weights_origin["sha256"] == hashlib.sha256(vgg_weights.read_bytes()).hexdigest()


def test_without_vgg_weights_the_error_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CVSCT_VGG_WEIGHTS")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(TrainingError, match=r"vgg\.download=True.*--set vgg\.weights=FILE"):
        built("radiomicgan")


def test_a_dead_discriminator_ends_the_training() -> None:
    step = built("cgan", **{"health.dead_steps": 2, "health.dead_loss": 10.0})
    step(*pairs(), 0.0, np.random.default_rng(0))
    with pytest.raises(TrainingError, match="critic_conditional has won"):
        step(*pairs(), 0.0, np.random.default_rng(0))
