"""Noise of soft tissue: the ramp, and the choice of homogeneous patches."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.methods.spectrum.gain_relation import GainRelation
from cvsct.methods.spectrum.patches import Patches
from cvsct.methods.spectrum.separate_gains import _all_noise_gain
from cvsct.methods.spectrum.soft_tissue_noise import noise_ramp, split_soft_tissue

F = np.arange(0.0, 0.9, 0.025)


def kernel_noise(sharpness: float, level: float = 3.0) -> np.ndarray:
    """Log power of ramp noise through a smooth kernel."""
    return level + np.log(np.maximum(F, 1e-3)) + sharpness * F**2 - 1.5 * F**4


@pytest.mark.parametrize("sharpness", [-8.0, 0.0, 5.0])
def test_noise_at_low_frequencies_follows_from_that_at_higher_ones(sharpness: float) -> None:
    truth = kernel_noise(sharpness)
    texture = 6.0 - 2.7 * np.log(np.maximum(F, 0.025) / 0.05)
    ramp = noise_ramp(F, np.logaddexp(truth, np.where(F < 0.35, texture, -np.inf)))
    below = (F > 0.02) & (F < 0.35)
    np.testing.assert_allclose(ramp[below], truth[below], atol=0.02)
    assert np.all(np.isinf(ramp[F >= 0.35]))


def test_coarse_pixels_tell_no_ramp() -> None:
    f = F[F < 0.4]
    assert np.all(np.isinf(noise_ramp(f, f * 0)))


def patches(log_power: np.ndarray, roughness: np.ndarray) -> Patches:
    n = len(roughness)
    zeros = np.zeros(n)
    return Patches(
        log_power, zeros, zeros, zeros, zeros, zeros, roughness, zeros, np.arange(n)
    )  # fmt: skip


def test_patches_that_happen_to_have_less_noise_are_not_taken_for_homogeneous() -> None:
    """Without texture roughness is noise; the level must not be that of the quietest places."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, 4000)
    log_power = noise[:, None] + rng.normal(0, 0.05, (4000, len(F)))
    roughness = np.exp(0.5 * noise + rng.normal(0, 0.05, 4000))
    split = split_soft_tissue(patches(log_power, roughness), F, "source")
    assert split.homogeneous.log_power.mean() == pytest.approx(0, abs=0.05)
    assert split.smooth.log_power.mean() < -0.4


def test_texture_is_left_out_of_homogeneous_patches() -> None:
    rng = np.random.default_rng(1)
    textured = np.arange(4000) >= 300
    log_power = rng.normal(0, 0.1, (4000, len(F)))
    roughness = np.exp(rng.normal(0, 0.1, 4000)) + 10 * textured
    split = split_soft_tissue(patches(log_power, roughness), F, "source")
    assert split.homogeneous.roughness_hu.max() < 2
    assert split.textured.roughness_hu.min() > 5


def relation(same_scanner: bool, alike: float) -> GainRelation:
    return GainRelation(0.8, 0.02, 0.02, alike, same_scanner)


def test_dose_lacks_noise_at_all_frequencies_and_denoising_not_at_the_lowest() -> None:
    before, after = np.zeros_like(F), np.full_like(F, 1.6)
    dose = _all_noise_gain(F, before, after, relation(same_scanner=True, alike=0.9))
    np.testing.assert_allclose(dose, 0.8)
    for other in (relation(False, 0.9), relation(True, 0.2)):
        denoised = _all_noise_gain(F, before, after, other)
        np.testing.assert_allclose(denoised[F >= 0.2], 0.8)
        assert denoised[0] == 0
        assert np.all(np.diff(denoised) >= 0)
