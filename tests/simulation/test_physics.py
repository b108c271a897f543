"""Noise power and modulation transfer against images whose truth is an analytic formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ncx2

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.image.mtf import first_below, modulation_transfer
from cvsct.evaluation.image.noise_power import noise_power_spectrum
from cvsct.simulation.phantom.objects import disc_amounts

PIXEL_MM = 0.4


def bump(f_per_mm: np.ndarray) -> np.ndarray:
    """A spectrum like a CT kernel's: power 0 at 0, its peak at 0.45 / mm; in HU^2 mm^2."""
    return 80.0 * (f_per_mm / 0.45) ** 2 * np.exp(1 - (f_per_mm / 0.45) ** 2)


def noise_fields(count: int, size: int, seed: int) -> np.ndarray:
    """White noise shaped in the Fourier domain so that its power spectrum is `bump`."""
    white = np.random.default_rng(seed).standard_normal((count, size, size))
    f = np.hypot(np.fft.fftfreq(size, PIXEL_MM)[:, None], np.fft.fftfreq(size, PIXEL_MM))
    return np.fft.ifft2(np.fft.fft2(white) * np.sqrt(bump(f)) / PIXEL_MM).real


def tiles(fields: np.ndarray, size: int) -> np.ndarray:
    """Cut images into squares side by side."""
    per_side = fields.shape[1] // size
    cut = fields.reshape(len(fields), per_side, size, per_side, size)
    return cut.transpose(0, 1, 3, 2, 4).reshape(-1, size, size)


def test_white_noise_is_flat_and_its_integral_is_its_variance() -> None:
    images = 30 + np.random.default_rng(0).normal(scale=12.0, size=(200, 64, 64))
    spectrum = noise_power_spectrum(images, PIXEL_MM, 16)
    assert spectrum.power_hu2_mm2[1:] == pytest.approx(144 * PIXEL_MM**2, rel=0.03)
    assert spectrum.sd_hu == pytest.approx(12.0, rel=0.003)
    assert spectrum.mean_per_mm == pytest.approx(0.25 / PIXEL_MM, rel=0.02)
    assert spectrum.f_per_mm[-1] == pytest.approx(0.5 / PIXEL_MM)


def test_known_spectrum_comes_back_in_level_shape_peak_and_integral() -> None:
    fields = noise_fields(8, 512, seed=1)
    spectrum = noise_power_spectrum(tiles(fields, 128), PIXEL_MM, 32)
    truth = bump(spectrum.f_per_mm)
    # A region's borders smear the spectrum a little: 1 % of its peak.
    assert spectrum.power_hu2_mm2[1:] == pytest.approx(truth[1:], rel=0.05, abs=1.5)
    assert spectrum.peak_per_mm == pytest.approx(0.45, abs=0.01)
    fine = np.linspace(0, 0.5 / PIXEL_MM, 4001)
    centroid = np.sum(fine * bump(fine)) / np.sum(bump(fine))
    assert spectrum.mean_per_mm == pytest.approx(centroid, rel=0.01)
    assert spectrum.sd_hu == pytest.approx(fields.std(), rel=0.01)  # Parseval, here and on the ring
    integral = 2 * np.pi * np.sum(fine * bump(fine)) * (fine[1] - fine[0])
    assert spectrum.sd_hu == pytest.approx(np.sqrt(integral), rel=0.01)
    rings = (
        2
        * np.pi
        * np.sum(spectrum.f_per_mm * spectrum.power_hu2_mm2)
        * np.diff(spectrum.f_per_mm)[0]
    )
    assert np.sqrt(rings) == pytest.approx(spectrum.sd_hu, rel=0.01)


def test_cupping_is_no_noise_and_repeats_take_anatomy_off() -> None:
    noise = tiles(noise_fields(4, 256, seed=2), 64)
    plain = noise_power_spectrum(noise, PIXEL_MM, 32)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    cupped = noise + 40 * x**2 - 30 * x * y + 25 * y + 100
    assert noise_power_spectrum(cupped, PIXEL_MM, 32).map_hu2_mm2 == pytest.approx(
        plain.map_hu2_mm2, abs=1e-6
    )
    anatomy = np.repeat(np.random.default_rng(3).normal(0, 200, (32, 64, 64)), 2, axis=0)
    repeated = noise_power_spectrum(noise + anatomy, PIXEL_MM, 32, "repeats")
    assert repeated.sd_hu == pytest.approx(plain.sd_hu, rel=0.02)
    assert repeated.peak_per_mm == pytest.approx(0.45, abs=0.03)


def test_noise_power_says_what_it_needs() -> None:
    images = np.zeros((3, 32, 48))
    with pytest.raises(EvaluationError, match=r"17 rings .* 48 x 32 pixels; expected 1 to 16"):
        noise_power_spectrum(images, PIXEL_MM, 17)
    with pytest.raises(EvaluationError, match="3 images; expected an even number"):
        noise_power_spectrum(images, PIXEL_MM, 16, "repeats")
    with pytest.raises(EvaluationError, match="0 images; expected 1 or more"):
        noise_power_spectrum(images[:0], PIXEL_MM, 16)


def blurred_disc(
    size: int, pixel_mm: float, radius_mm: float, sigma_mm: float, middle_px: tuple[float, float]
) -> np.ndarray:
    """A disc of height 1 under a Gaussian blur, exactly: a non-central chi-squared distribution."""
    place = np.hypot((np.arange(size) - middle_px[0])[:, None], np.arange(size) - middle_px[1])
    return ncx2.cdf((radius_mm / sigma_mm) ** 2, 2, (place * pixel_mm / sigma_mm) ** 2)


@pytest.mark.parametrize(
    ("radius_mm", "sigma_mm", "pixel_mm", "contrast_hu"),
    [(15.0, 0.4, 0.35, 100.0), (12.5, 0.6, 0.7, -35.0), (15.0, 0.3, 0.68, 900.0)],
)
def test_gaussian_blur_has_its_analytic_modulation(
    radius_mm: float, sigma_mm: float, pixel_mm: float, contrast_hu: float
) -> None:
    size = int(4 * radius_mm / pixel_mm)
    middle = (size / 2 + 0.37, size / 2 - 0.61)
    image = contrast_hu * blurred_disc(size, pixel_mm, radius_mm, sigma_mm, middle) + 40
    mtf = modulation_transfer(image, pixel_mm, radius_mm)
    truth = np.exp(-2 * (np.pi * sigma_mm * mtf.f_per_mm) ** 2)
    seen = truth > 0.02
    assert mtf.mtf[seen] == pytest.approx(truth[seen], abs=0.003)
    assert mtf.mtf50_per_mm == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / sigma_mm, rel=5e-3)
    assert mtf.mtf10_per_mm == pytest.approx(np.sqrt(np.log(10) / 2) / np.pi / sigma_mm, rel=5e-3)
    assert mtf.contrast_hu == pytest.approx(contrast_hu, rel=1e-3)


def test_noise_within_reason_leaves_the_modulation_within_three_percent() -> None:
    image = 100 * blurred_disc(180, 0.35, 15.0, 0.4, (90.2, 89.4))
    noisy = image + np.random.default_rng(5).normal(scale=3.0, size=image.shape)
    mtf = modulation_transfer(noisy, 0.35, 15.0, (87.0, 92.0))
    assert mtf.mtf50_per_mm == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / 0.4, rel=0.03)


def test_modulation_says_what_it_needs() -> None:
    image = 100 * blurred_disc(100, 0.5, 15.0, 0.5, (50.0, 50.0))
    with pytest.raises(EvaluationError, match="expected 54 px around its middle"):
        modulation_transfer(image, 0.5, 15.0)
    with pytest.raises(EvaluationError, match=r"2\.0 px radius is too small"):
        modulation_transfer(image, 0.5, 1.0)
    noisy = np.random.default_rng(0).normal(scale=30.0, size=(160, 160))
    noisy += 100 * blurred_disc(160, 0.5, 15.0, 0.5, (80.0, 80.0))
    with pytest.raises(EvaluationError, match="average repeated scans"):
        modulation_transfer(noisy, 0.5, 15.0)
    with pytest.raises(EvaluationError, match="stands 0 HU out"):
        modulation_transfer(np.full((160, 160), 7.0), 0.5, 15.0)


def test_a_curve_that_never_falls_has_no_crossing() -> None:
    f = np.linspace(0, 1, 11)
    assert first_below(f, 1 - f, 0.25) == pytest.approx(0.75)
    assert np.isnan(first_below(f, np.ones(11), 0.5))


def test_a_raster_disc_holds_its_area_wherever_it_lies() -> None:
    for middle in ((0.0, 0.0), (13.3, -20.1), (0.03, 39.0)):
        disc = disc_amounts(200, 100.0, 7.0, middle)
        assert disc.sum() * 0.25 == pytest.approx(np.pi * 49, rel=2e-3)
        place = (np.arange(200) + 0.5) * 0.5 - 50
        assert disc.sum(axis=0) @ place / disc.sum() == pytest.approx(middle[0], abs=0.01)
        assert disc.sum(axis=1) @ place / disc.sum() == pytest.approx(middle[1], abs=0.01)
    assert disc_amounts(64, 32.0, 60.0).min() == 1
    cut = disc_amounts(200, 100.0, 7.0, (50.0, 0.0))
    assert cut.sum() * 0.25 == pytest.approx(np.pi * 49 / 2, rel=2e-3)
    assert disc_amounts(200, 100.0, 7.0, (90.0, 0.0)).max() == 0
