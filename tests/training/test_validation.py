"""Figures of unpaired validation, on generators whose effect is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from cvsct.core.volume import HUWindow
from cvsct.evaluation.image.texture import texture_or_reason
from cvsct.training.cyclegan.validation import CycleValidator, DomainPatches
from cvsct.training.texture_loss import TextureLoss, TextureLossConfig
from tests.conftest import make_volume

WINDOW = HUWindow(-1024.0, 900.0)
SIZE_PX, PIXEL_MM = 48, 0.7
BLUR_PX = 0.8


def textures(seed: int, blur_px: float, count: int = 24) -> np.ndarray:
    """Soft tissue with noise of a kernel's sharpness, in HU."""
    noise = np.random.default_rng(seed).normal(0, 60, (count, 64, 64))
    cut = ndimage.gaussian_filter(noise, (0, blur_px, blur_px))[:, 8:56, 8:56]
    return (40 + cut).astype(np.float32)


def unit(hu: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(WINDOW.to_unit(hu))[:, None]


def validator() -> CycleValidator:
    sharp, soft = (
        DomainPatches(unit(textures(seed, blur)), PIXEL_MM) for seed, blur in ((0, 0.5), (1, 1.0))
    )
    return CycleValidator(sharp, soft, WINDOW)


def stepped(a2b: Callable[..., Any], b2a: Callable[..., Any], domain: Any = None) -> Any:
    """What validation asks of a step, with known generators."""
    ways = {"a2b": a2b, "b2a": b2a}
    return SimpleNamespace(translate=lambda way, images: ways[way](images), texture_loss=domain)


def nothing(images: torch.Tensor) -> torch.Tensor:
    return images


def shifted(hu: float) -> Callable[..., torch.Tensor]:
    return lambda images: images + hu / 962


def blurred(images: torch.Tensor) -> torch.Tensor:
    """The right answer from sharp to soft: sigma 0.5 to 1.0 px."""
    sigma = (0, 0, 0.75**0.5, 0.75**0.5)
    return torch.from_numpy(ndimage.gaussian_filter(images.numpy(), sigma))


def test_a_model_that_does_nothing_scores_1_and_errs_by_nothing() -> None:
    figures = validator()(stepped(nothing, nothing))
    assert figures["score"] == pytest.approx(1.0)
    assert figures["spectrum_db_a2b"] == pytest.approx(figures["spectrum_db_b2a"])
    for name in ("bias_hu", "bias_p95_hu", "idempotence_hu", "cycle_hu"):
        assert figures[f"{name}_a2b"] == figures[f"{name}_b2a"] == 0.0


def test_spectra_are_of_every_patient_and_the_rest_of_those_held_out() -> None:
    """A held-out body that is noisier than the others does not count against the model."""
    odd = DomainPatches(
        unit(1.5 * textures(0, 0.5)), PIXEL_MM, spectrum_patches=unit(textures(2, 0.5, 40))
    )
    soft = DomainPatches(
        unit(textures(1, 1.0)), PIXEL_MM, spectrum_patches=unit(textures(3, 1.0, 40))
    )
    judge, plain = CycleValidator(odd, soft, WINDOW), validator()
    assert judge.input_db == pytest.approx(plain.input_db, rel=0.1)
    assert judge.texture_hu == pytest.approx(plain.texture_hu, rel=0.1)
    figures = judge(stepped(shifted(12.0), nothing))
    assert figures["idempotence_hu_a2b"] == pytest.approx(12.0, rel=1e-3)
    assert figures["score"] == pytest.approx(1 + (1.2 + 12 / judge.texture_hu) / 2, rel=1e-3)


def test_the_spectrum_is_measured_as_the_report_measures_it() -> None:
    sides = {
        "source": [make_volume(textures(0, 0.5), pixel_mm=PIXEL_MM)],
        "target": [make_volume(textures(1, 1.0), pixel_mm=PIXEL_MM)],
    }
    reported, _ = texture_or_reason(sides, SIZE_PX)
    assert reported is not None
    assert validator().input_db == pytest.approx(reported.distance_db["source"], rel=1e-6)


def test_a_known_shift_is_the_bias_and_there_and_back_adds_up() -> None:
    figures = validator()(stepped(shifted(12.0), shifted(-5.0)))
    assert figures["bias_hu_a2b"] == pytest.approx(12.0, rel=1e-3)
    assert figures["bias_p95_hu_a2b"] == pytest.approx(12.0, rel=1e-3)
    assert figures["bias_hu_b2a"] == pytest.approx(5.0, rel=1e-3)
    assert figures["idempotence_hu_a2b"] == pytest.approx(12.0, rel=1e-3)
    assert figures["cycle_hu_a2b"] == pytest.approx(7.0, rel=1e-3)


def test_the_right_texture_beats_none_and_a_shift_costs() -> None:
    judge = validator()
    right = judge(stepped(blurred, nothing))
    worse = judge(stepped(lambda images: blurred(images) + 30 / 962, nothing))
    assert right["spectrum_db_a2b"] < 0.3 * judge.input_db
    assert right["score"] < 0.95
    assert worse["score"] > right["score"] + 0.5


def test_gram_is_measured_where_there_are_features(vgg_weights: Any) -> None:
    config = TextureLossConfig(
        weights=str(vgg_weights), layers=("relu1_2",), window_hu=(-150.0, 250.0)
    )
    domain = TextureLoss(config, WINDOW)
    judge = validator()
    still, right = (judge(stepped(way, nothing, domain)) for way in (nothing, blurred))
    assert right["gram_a2b"] < 0.3 * still["gram_a2b"]
    assert "gram_a2b" not in judge(stepped(nothing, nothing))


def test_pictures_show_source_translated_and_target_in_soft_tissue_grey() -> None:
    pictures = validator().pictures(stepped(shifted(40.0), nothing))
    assert len(pictures) == 6
    before, after = pictures["a2b/1_source"], pictures["a2b/2_translated"]
    assert before.shape == (SIZE_PX, SIZE_PX)
    inside = (after > 0) & (after < 1) & (before > 0)
    assert (after - before)[inside] == pytest.approx(0.1, abs=1e-3)
