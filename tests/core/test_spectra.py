"""Power spectra against signals whose spectrum is known in advance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft

from cvsct.core.errors import EvaluationError, GeometryError
from cvsct.core.masks import body
from cvsct.core.spectra import mean_over_patches, patch_spectra, texture_spectrum
from cvsct.core.volume import CTVolume
from tests.conftest import make_volume


def noise_volume(
    seed: int = 0, sd_hu: float = 12.0, pixel_mm: float = 0.7, side: int = 256
) -> CTVolume:
    rng = np.random.default_rng(seed)
    return make_volume(rng.normal(40, sd_hu, (4, side, side)), pixel_mm=pixel_mm)


def frequencies(volume: CTVolume, size_px: int = 64) -> np.ndarray:
    step = 1 / (size_px * volume.pixel_mm)
    return np.arange(0, 0.5 / volume.pixel_mm, step)


@pytest.mark.parametrize("size_px", [32, 64, 47])
def test_white_noise_is_flat_at_its_variance_times_the_pixel_area(size_px: int) -> None:
    volume = noise_volume()
    f = frequencies(volume, size_px)
    power = np.exp(texture_spectrum([volume], f, size_px))
    truth = 12.0**2 * 0.7**2
    assert power[3:] == pytest.approx(truth, rel=0.08)
    assert np.mean(power[3:]) == pytest.approx(truth, rel=0.02)


def test_power_integrates_to_the_variance() -> None:
    """Parseval in the plane: the variance is the integral of S(f) 2 pi f df, corners included."""
    rng = np.random.default_rng(3)
    volume = noise_volume(3)
    hu = scipy.fft.ifft2(
        scipy.fft.fft2(rng.normal(0, 30, volume.hu.shape)) * gaussian(volume, 1.2)
    ).real
    volume = volume.with_hu((hu + 40).astype(np.float32))
    f = np.linspace(0, 0.7, 141)
    power = np.nan_to_num(np.exp(texture_spectrum([volume], f)), nan=0.0)
    power[0] = power[1]
    assert np.trapezoid(power * 2 * np.pi * f, f) == pytest.approx(hu.var(), rel=0.05)


def gaussian(volume: CTVolume, sigma_mm: float) -> np.ndarray:
    rows, columns = volume.hu.shape[1:]
    rows_mm, columns_mm = volume.geometry.pixel_mm
    radius = np.hypot(
        scipy.fft.fftfreq(rows, rows_mm)[:, None], scipy.fft.fftfreq(columns, columns_mm)
    )
    return np.exp(-2 * (np.pi * sigma_mm * radius) ** 2)


@pytest.mark.parametrize("pixel_mm", [0.5, 0.9])
def test_a_kernel_in_mm_reads_the_same_on_any_pixel_grid(pixel_mm: float) -> None:
    volume = noise_volume(1, pixel_mm=pixel_mm, side=320)
    shaped = scipy.fft.ifft2(scipy.fft.fft2(volume.hu - 40) * gaussian(volume, 0.5)).real + 40
    f = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    power = texture_spectrum([volume.with_hu(shaped.astype(np.float32))], f)
    truth = np.log(12.0**2 * pixel_mm**2) - 4 * (np.pi * 0.5 * f) ** 2
    assert power == pytest.approx(truth, abs=0.08)


def test_pixels_that_are_not_square_keep_their_own_frequencies() -> None:
    square = noise_volume(5)
    wide = replace(square, geometry=replace(square.geometry, pixel_mm=(0.5, 1.0)))
    shaped = scipy.fft.ifft2(scipy.fft.fft2(wide.hu - 40) * gaussian(wide, 0.5)).real + 40
    f = np.array([0.15, 0.3, 0.45])
    truth = np.log(12.0**2 * 0.5) - 4 * (np.pi * 0.5 * f) ** 2
    power = texture_spectrum([wide.with_hu(shaped.astype(np.float32))], f)
    assert power == pytest.approx(truth, abs=0.12)


def test_frequencies_no_grid_reaches_are_nan_and_a_finer_scan_fills_them() -> None:
    coarse, fine = noise_volume(pixel_mm=1.0), noise_volume(pixel_mm=0.5)
    f = np.array([0.0, 0.3, 0.6, 0.9])
    assert np.isnan(texture_spectrum([coarse], f)).tolist() == [True, False, False, True]
    assert np.isnan(texture_spectrum([coarse, fine], f)).tolist() == [True, False, False, False]


def test_nothing_is_clipped() -> None:
    """The spectrum of noise far outside the network's window scales with its variance."""
    f = np.array([0.2, 0.4])
    quiet, loud = (texture_spectrum([noise_volume(2, sd)], f) for sd in (10.0, 100.0))
    assert loud - quiet == pytest.approx(np.log(100), abs=0.02)


def test_patches_come_from_soft_tissue_and_not_from_padding() -> None:
    volume = noise_volume()
    hu = volume.hu.copy()
    hu[:, :128] = -1000
    half = volume.with_hu(hu)
    f = frequencies(volume)
    corners = patch_spectra(half, f).corners
    assert len(corners) > 0
    assert corners[:, 1].min() >= 120
    padded = replace(half, padding=np.ones(hu.shape, dtype=bool))
    assert len(patch_spectra(padded, f).corners) == 0


def test_no_soft_tissue_says_so_with_a_remedy() -> None:
    lung = make_volume(np.full((2, 128, 128), -850.0))
    with pytest.raises(EvaluationError, match=r"no 64x64 px region of soft tissue.*trunk"):
        texture_spectrum([lung], np.array([0.1, 0.2]))
    with pytest.raises(GeometryError, match="hold no region"):
        texture_spectrum([make_volume(np.zeros((1, 32, 32)))], np.array([0.1, 0.2]))


def test_the_body_includes_its_lungs_and_leaves_the_table_out() -> None:
    y, x = np.mgrid[:200, :200]
    hu = np.full((1, 200, 200), -1000.0)
    hu[0][np.hypot((y - 95) / 1.0, (x - 100) / 1.2) < 70] = 40
    hu[0][np.hypot(y - 95, x - 60) < 25] = -850
    hu[0, 180:184, 20:180] = 200
    inside = body(hu.astype(np.float32))
    assert inside[0, 95, 60]
    assert inside[0, 95, 100]
    assert not inside[0, 182].any()
    assert not inside[0, 5, 5]
    assert not body(np.full((1, 64, 64), -1000.0, dtype=np.float32)).any()


def test_means_skip_what_a_patch_does_not_reach() -> None:
    values = np.array([[np.nan, 1.0, np.nan], [np.nan, 3.0, 5.0]])
    assert mean_over_patches(values)[1:].tolist() == [2.0, 5.0]
    assert np.isnan(mean_over_patches(values)[0])
