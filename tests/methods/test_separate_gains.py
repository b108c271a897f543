"""Noise and structure told apart, against worlds in which each has its own kernel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from scipy import ndimage

from cvsct.core.errors import TrainingError
from cvsct.core.volume import CTVolume
from cvsct.methods.base import TrainingRequest
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum.block_filter import filter_blocks
from cvsct.methods.spectrum.block_gains import BlockGains
from cvsct.methods.spectrum.expected_noise import WATER_PER_MM, expected_noise
from cvsct.methods.spectrum.noise_law import fit_noise_law
from cvsct.methods.spectrum.soft_tissue_noise import SoftTissue
from cvsct.methods.spectrum.texture import TextureLayout, measure_patches
from cvsct.methods.spectrum.train import train_spectrum
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume

PIXEL_MM = 0.7
SIDE = 330


def kernel(f: np.ndarray, sigma_mm: float) -> np.ndarray:
    return np.exp(-2 * (np.pi * sigma_mm * f) ** 2)


def through(planes: np.ndarray, sigma_mm: float) -> np.ndarray:
    f = scipy.fft.fftfreq(SIDE, PIXEL_MM)
    shape = kernel(np.hypot(f[:, None], f), sigma_mm)
    return np.asarray(scipy.fft.ifft2(scipy.fft.fft2(planes) * shape).real)


def away_mm() -> np.ndarray:
    y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) * PIXEL_MM
    return np.asarray(np.hypot(y, x))


@cache
def expected_in_disc(radius_mm: float) -> np.ndarray:
    """Log noise power that attenuation makes in a disc of water, less its mean."""
    disc = make_volume(np.where(away_mm() < radius_mm, 20.0, -1000.0)[None], pixel_mm=PIXEL_MM)
    expected = expected_noise(disc)
    coarse = (expected.log_power - expected.slice_mean[:, None, None])[0]
    return np.asarray(
        ndimage.zoom(coarse, SIDE / len(coarse), order=1, grid_mode=True, mode="nearest")
    )


@cache
def world(
    seed: int,
    structure_mm: float,
    noise_mm: float,
    noise_hu_mm: float,
    louder_outside: float = 0.0,
    slices: int = 10,
    radius_mm: float = 100.0,
    structure_hu: float = 120.0,
) -> CTVolume:
    """A body half homogeneous and half of fine structure; its noise has a kernel of its own.

    Noise rises with frequency, as the ramp filter makes it. Its power follows attenuation within a
    slice, not between bodies, as with modulated current.

    Args:
        louder_outside: log power of noise grows by this for each (100 mm)² of the radius squared.
    """
    rng = np.random.default_rng(seed)
    inside = away_mm() < radius_mm
    textured = np.mgrid[:SIDE, :SIDE][1] > SIDE / 2
    coarse = scipy.fft.ifft2(
        scipy.fft.fft2(rng.normal(size=(slices, SIDE, SIDE))) / _falling()
    ).real
    fine = np.where(textured, coarse * (structure_hu / coarse.std()), 0)
    body = np.where(inside, 20 + fine, -1000)
    noise = through(_ramp(rng.normal(0, noise_hu_mm / PIXEL_MM, body.shape)), noise_mm)
    noise *= np.exp(0.5 * louder_outside * ((away_mm() / 100) ** 2 - 1))
    noise *= np.exp(0.5 * expected_in_disc(radius_mm))
    return make_volume(through(body, structure_mm) + noise, pixel_mm=PIXEL_MM)


def _ramp(white: np.ndarray) -> np.ndarray:
    """Noise whose power grows with frequency: that of white noise at 0.4 cycles/mm."""
    f = scipy.fft.fftfreq(SIDE, PIXEL_MM)
    amplitude = np.sqrt(np.hypot(f[:, None], f) / 0.4)
    return np.asarray(scipy.fft.ifft2(scipy.fft.fft2(white) * amplitude).real)


def _falling() -> np.ndarray:
    f = scipy.fft.fftfreq(SIDE, PIXEL_MM)
    radius = np.hypot(f[:, None], f)
    radius[0, 0] = 1e9
    return (radius**2 + 0.02**2) ** 0.6


def train(source: CTVolume, target: CTVolume, **settings: object) -> Bundle:
    return train_spectrum(
        [source], [target], TrainingRequest("spectrum", Path("unused"), settings=settings)
    )


@cache
def two_vendors() -> Bundle:
    """Structure gets a little softer, noise much: what no single gain can do."""
    return train(world(1, 0.15, 0.15, 25.0), world(2, 0.3, 0.5, 18.0), refine=False)


def fitted(bundle: Bundle, name: str, f: np.ndarray) -> np.ndarray:
    return np.interp(f, bundle.weights["frequencies_per_mm"], bundle.weights[name])


def test_each_kernel_is_recovered_from_different_bodies() -> None:
    f = np.arange(0.2, 0.66, 0.05)
    noise = np.log(18 / 25 * kernel(f, 0.5) / kernel(f, 0.15))
    assert np.abs(fitted(two_vendors(), "noise_log_gain", f) - noise).max() < 0.06
    f = np.arange(0.1, 0.41, 0.05)  # beyond, this structure is drowned in noise
    structure = np.log(kernel(f, 0.3) / kernel(f, 0.15))
    assert np.abs(fitted(two_vendors(), "structure_log_gain", f) - structure).max() < 0.07
    wrong = np.log(18 / 25 * kernel(f, 0.5) / kernel(f, 0.15))[-1] - structure[-1]
    assert abs(wrong) > 0.5  # the two differ by far more than the bounds


def test_where_both_are_one_kernel_the_two_gains_agree() -> None:
    bundle = train(world(3, 0.15, 0.15, 25.0), world(4, 0.4, 0.4, 25.0))
    f = np.arange(0.2, 0.46, 0.05)
    truth = np.log(kernel(f, 0.4) / kernel(f, 0.15))
    for name in ("noise_log_gain", "structure_log_gain"):
        assert np.abs(fitted(bundle, name, f) - truth).max() < 0.08, name


def test_swapping_the_domains_inverts_the_gains() -> None:
    a, b = world(1, 0.15, 0.15, 25.0, slices=5), world(2, 0.3, 0.5, 18.0, slices=5)
    forth, back = train(a, b), train(b, a)
    for name in ("noise_log_gain", "noise_radial_log_gain", "structure_log_gain"):
        assert np.allclose(back.weights[name], -forth.weights[name], atol=1e-6), name


def test_noise_that_falls_off_otherwise_is_kept() -> None:
    bundle = train(
        world(5, 0.2, 0.2, 25.0), world(6, 0.2, 0.2, 25.0, louder_outside=-0.6), refine=False
    )
    f = np.arange(0.25, 0.66, 0.05)
    assert np.abs(fitted(bundle, "noise_radial_log_gain", f) + 0.3).max() < 0.08


def test_the_dose_law_is_read_off_the_scans() -> None:
    """Slices of different thickness; noise power as the law makes it of what is expected."""
    volumes = []
    rng = np.random.default_rng(0)
    truth = 0.8
    for radius_mm in np.linspace(60, 110, 8):
        body = np.where(away_mm() < radius_mm, 20.0, -1000.0)
        louder = np.exp(0.5 * truth * WATER_PER_MM * 2 * (radius_mm - 80))
        noise = through(rng.normal(0, 20 / PIXEL_MM, (2, SIDE, SIDE)), 0.2)
        volumes.append(make_volume(body + noise * louder, pixel_mm=PIXEL_MM))
    texture = measure_patches(volumes, TextureLayout(), 99, "source").texture()
    soft = SoftTissue.of(texture, "source")
    strata = soft.smooth, soft.homogeneous + soft.textured
    law = fit_noise_law(texture, *strata, (0.5, 1.0))
    assert law.between == pytest.approx(truth, abs=0.12)
    assert law.between_sd < 0.15
    assert fit_noise_law(texture, *strata, (0.5, 0.0)).between == 0.5


def test_a_wrong_dose_law_is_corrected_by_what_is_left_after_filtering() -> None:
    """Noise that follows no law at all, bodies of two sizes, and a law of a half in vain."""
    thick = world(7, 0.2, 0.2, 25.0, structure_hu=20.0)
    thin = world(8, 0.2, 0.4, 25.0, radius_mm=75.0, structure_hu=20.0)
    f = np.arange(0.3, 0.56, 0.05)
    truth = np.log(kernel(f, 0.4) / kernel(f, 0.2))
    wrong, right = (
        np.abs(fitted(train(thick, thin, refine=refine), "noise_log_gain", f) - truth).mean()
        for refine in (False, True)
    )
    assert wrong > 0.15
    assert right < 0.7 * wrong


def test_scans_without_even_tissue_are_refused_with_a_remedy() -> None:
    lung = make_volume(np.full((40, 128, 128), -800.0))
    texture = measure_patches([lung], TextureLayout(), 99, "target").texture()
    with pytest.raises(TrainingError, match=r"target scans hold 0 regions.*spectrum-plain"):
        SoftTissue.of(texture, "target")


def gains(noise: float, structure: float, log_power: float = 4.0) -> BlockGains:
    """Constant gains above 0.05/mm; the mean is kept."""
    f = np.array([0.0, 0.05, 1.5])
    return BlockGains(
        frequencies_per_mm=f,
        noise=np.array([0.0, noise, noise]),
        noise_radial=np.zeros(3),
        structure=np.array([0.0, structure, structure]),
        noise_log_power=np.full(3, log_power),
        max_gain=16.0,
    )


@pytest.mark.parametrize("shape", [(64, 64), (61, 45), (128, 96), (12, 300), (5, 7)])
def test_gains_of_one_leave_every_image_as_it_is(shape: tuple[int, int]) -> None:
    volume = make_volume(np.random.default_rng(1).normal(0, 300, (2, *shape)))
    assert np.abs(filter_blocks(volume, gains(0, 0)) - np.maximum(volume.hu, -1024)).max() < 0.01


def test_a_constant_stays_exactly() -> None:
    volume = make_volume(np.full((1, 150, 90), -1000.0))
    assert np.abs(filter_blocks(volume, gains(-2, 1)) + 1000).max() < 0.01


def test_noise_gets_the_noises_gain_and_an_edge_the_structures() -> None:
    rng = np.random.default_rng(2)
    power = float(np.log(10.0**2 * PIXEL_MM**2))
    step = np.zeros((1, 256, 256))
    step[:, :, 128:] = 1000.0
    noisy = make_volume(step + rng.normal(0, 10, step.shape), pixel_mm=PIXEL_MM)
    made = filter_blocks(noisy, gains(-1.0, 0.0, power))
    flat = np.s_[0, 40:-40, 30:80]
    assert made[flat].std() == pytest.approx(10 * np.exp(-1.0), rel=0.1)
    profile = made[0, 40:-40].mean(axis=0)
    assert profile[129] - profile[126] > 0.9 * 1000  # an edge of noise's gain would be 0.4
    assert abs(profile[128] + profile[127] - 1000) < 20  # and it has not moved


def test_the_level_of_the_noise_is_the_images_own() -> None:
    """Twice the noise of the training's scans is still noise."""
    rng = np.random.default_rng(3)
    quiet = float(np.log(10.0**2 * PIXEL_MM**2))
    for sd in (5.0, 10.0, 40.0):
        noise = make_volume(rng.normal(0, sd, (1, 200, 200)), pixel_mm=PIXEL_MM)
        made = filter_blocks(noise, gains(-1.0, 0.0, quiet))
        assert made.std() / sd == pytest.approx(np.exp(-1.0), rel=0.1)


def test_nothing_is_amplified_beyond_the_cap() -> None:
    impulse = np.zeros((1, 128, 128))
    impulse[0, 64, 64] = 1000
    f = np.array([0.0, 0.05, 1.5])
    wild = BlockGains(f, f * 0 + 9, f * 0, f * 0 + 9, f * 0, max_gain=2.0)
    response = np.abs(scipy.fft.fft2(filter_blocks(make_volume(impulse), wild)[0] / 1000))
    assert response.max() < 2.05


def test_a_model_without_two_gains_is_still_read() -> None:
    plain = train(world(1, 0.15, 0.15, 25.0), world(2, 0.3, 0.5, 18.0), gains="one")
    assert "noise_log_gain" not in plain.weights
    assert load_spectrum(plain, False)(world(1, 0.15, 0.15, 25.0)).shape == (10, SIDE, SIDE)


def test_a_difference_of_tone_is_told_and_corrected_only_on_request() -> None:
    a = world(1, 0.15, 0.15, 25.0)
    moved = world(2, 0.15, 0.15, 25.0)
    moved = moved.with_hu(moved.hu + 0.012 * (moved.hu + 1000))
    kept, matched = (train(a, moved, tone=tone, refine=False) for tone in ("keep", "match"))
    assert kept.training["soft_tissue_hu"].startswith("20 to 3")
    flat = make_volume(np.full((1, 64, 64), 20.0))
    assert load_spectrum(kept, False)(flat) == pytest.approx(20.0, abs=0.01)
    assert load_spectrum(matched, False)(flat) == pytest.approx(32.0, abs=2.0)
    assert load_spectrum(matched, True)(flat) == pytest.approx(8.0, abs=2.0)
    air = make_volume(np.full((1, 64, 64), -1000.0))
    assert load_spectrum(matched, False)(air) == pytest.approx(-1000.0, abs=0.01)


def test_too_little_soft_tissue_to_match_its_tone_is_refused() -> None:
    fat = make_volume(world(1, 0.15, 0.15, 25.0, structure_hu=20.0).hu - 130, pixel_mm=PIXEL_MM)
    with pytest.raises(TrainingError, match=r"match its CT number.*tone=keep"):
        train(fat, world(2, 0.15, 0.15, 25.0), tone="match")
