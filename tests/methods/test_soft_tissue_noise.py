"""Noise of soft tissue: the ramp, and the choice of homogeneous patches."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.moments import Moments, mean_value
from cvsct.methods.spectrum.gain_relation import GainRelation
from cvsct.methods.spectrum.separate_gains import _all_noise_gain
from cvsct.methods.spectrum.soft_tissue_noise import SoftTissue, noise_ramp
from cvsct.methods.spectrum.texture import TextureLayout, soft_texture
from tests.support.patches import made_patches

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


def soft_tissue(log_power: np.ndarray, roughness_hu: np.ndarray) -> SoftTissue:
    patches = made_patches(log_power, roughness_hu=roughness_hu)
    return SoftTissue.of(soft_texture(patches, TextureLayout()), "source")


def mean_log_power(strata: Moments, share: np.ndarray) -> float:
    """Mean log power of the patches that are in a share of each stratum."""
    return float(mean_value(strata.weighted(share), strata.form(value=1.0)).mean())


def test_patches_that_happen_to_have_less_noise_are_not_taken_for_homogeneous() -> None:
    """Without texture roughness is noise; the level must not be that of the quietest places."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, 4000)
    log_power = noise[:, None] + rng.normal(0, 0.05, (4000, len(F)))
    roughness = np.exp(0.5 * noise + rng.normal(0, 0.05, 4000))
    soft = soft_tissue(log_power, roughness)
    texture = soft.texture
    assert mean_log_power(texture.by_ratio, soft.homogeneous) == pytest.approx(0, abs=0.05)
    assert mean_log_power(texture.by_roughness, soft.smooth) < -0.4


def test_texture_is_left_out_of_homogeneous_patches() -> None:
    rng = np.random.default_rng(1)
    textured = np.arange(4000) >= 300
    log_power = rng.normal(0, 0.1, (4000, len(F)))
    roughness = np.exp(rng.normal(0, 0.1, 4000)) + 10 * textured
    soft = soft_tissue(log_power, roughness)
    by_ratio = soft.texture.by_ratio
    log_roughness = by_ratio.sums[:, 1] @ by_ratio.form(roughness=1.0)
    mean = np.exp(log_roughness[:, 0] / np.maximum(by_ratio.patches, 1))
    assert mean[soft.homogeneous > 0].max() < 2
    assert mean[soft.textured > 0].min() > 5


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
