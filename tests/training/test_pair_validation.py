"""Figures of paired validation, on generators whose effect is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from cvsct.core.volume import HUWindow
from cvsct.training.paired.validation import PairValidator

WINDOW = HUWindow(-1024.0, 976.0)
PIXEL_MM = 0.7


def pairs(count: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft tissue as a sharp and as a soft kernel show it."""
    noise = np.random.default_rng(0).normal(0, 120, (count, 64, 64))
    found = []
    for sigma_px in (0.5, 1.0):
        blurred = ndimage.gaussian_filter(noise, (0, sigma_px, sigma_px))[:, 8:56, 8:56]
        found.append(torch.from_numpy(WINDOW.to_unit((40 + blurred).astype(np.float32)))[:, None])
    return found[0], found[1]


def judged(way: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
    a, b = pairs()
    step: Any = SimpleNamespace(translate=lambda direction, images: way(images))
    return PairValidator(a, b, PIXEL_MM, WINDOW)(step)


def test_doing_nothing_scores_1_and_the_target_itself_0() -> None:
    still = judged(lambda images: images)
    assert still["score"] == pytest.approx(1.0)
    assert still["psnr_db"] == still["input_psnr_db"]
    perfect = judged(lambda _: pairs()[1])
    assert perfect["score"] == pytest.approx(0.0, abs=1e-6)
    assert perfect["error_hu"] == 0.0


def test_figures_by_hand() -> None:
    """A shift of the target by 20 HU of 2000."""
    shifted = judged(lambda _: pairs()[1] + 0.02)
    assert shifted["error_hu"] == pytest.approx(20.0, rel=1e-4)
    assert shifted["bias_hu"] == pytest.approx(20.0, rel=1e-4)
    assert shifted["psnr_db"] == pytest.approx(40.0, abs=1e-3)
    assert shifted["spectrum_db"] == pytest.approx(0.0, abs=1e-3)
    assert shifted["score"] == pytest.approx(10.0 / shifted["input_error_hu"], rel=1e-3)


def test_blur_that_lowers_the_error_alone_is_not_the_best() -> None:
    """Noise that nothing can foresee: left out it costs least, of the right kind it reads right."""
    rng = np.random.default_rng(1)

    def seen(sigma_px: float) -> torch.Tensor:
        noise = ndimage.gaussian_filter(rng.normal(0, 150, (24, 48, 48)), (0, sigma_px, sigma_px))
        return torch.from_numpy(WINDOW.to_unit((40 + noise).astype(np.float32)))[:, None]

    validator = PairValidator(seen(0.5), seen(0.8), PIXEL_MM, WINDOW)
    other, flat = seen(0.8), torch.full((24, 1, 48, 48), 64 / 1000)
    textured, blurred = (
        validator(SimpleNamespace(translate=lambda *_, made=made: made))  # type: ignore[misc]
        for made in (other, flat + 0.1 * (other - flat))
    )
    assert blurred["error_hu"] < 0.8 * textured["error_hu"]
    assert blurred["psnr_db"] > textured["psnr_db"] + 2
    assert textured["score"] < blurred["score"]


def test_pictures_show_source_translated_and_target() -> None:
    a, b = pairs()
    step: Any = SimpleNamespace(translate=lambda _, images: images + 40 / 1000)
    pictures = PairValidator(a, b, PIXEL_MM, WINDOW).pictures(step)
    assert list(pictures) == ["a2b/1_source", "a2b/2_translated", "a2b/3_target"]
    before, after = pictures["a2b/1_source"], pictures["a2b/2_translated"]
    inside = (after > 0) & (after < 1) & (before > 0)
    assert (after - before)[inside] == pytest.approx(0.1, abs=1e-3)
