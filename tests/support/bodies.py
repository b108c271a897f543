"""An analytic trunk for tests of image quality: known edges, known blur, noise of known power."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SIZE_PX = 256
FINE = 4


def trunk(seed: int = 0, size_px: int = SIZE_PX) -> np.ndarray:
    """One slice in HU, without noise, `FINE` times oversampled: skin, fat, muscle, lungs, ribs."""
    rng = np.random.default_rng(seed)
    n = size_px * FINE
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j].astype(np.float32)

    def ellipse(cx: float, cy: float, width: float, height: float) -> np.ndarray:
        return ((x - cx) / width) ** 2 + ((y - cy) / height) ** 2 < 1

    hu = np.full((n, n), -1000.0, np.float32)
    hu[ellipse(0, 0, 0.86, 0.68)] = -100
    hu[ellipse(0, 0, 0.78, 0.60)] = 40
    for side in (-1, 1):
        hu[ellipse(0.42 * side, -0.06, 0.24, 0.36)] = -850
        hu[ellipse(0.70 * side, 0.1, 0.03, 0.10)] = 700
        for _ in range(12):
            cx, cy = 0.42 * side + rng.uniform(-0.14, 0.14), rng.uniform(-0.28, 0.16)
            hu[ellipse(cx, cy, *rng.uniform(0.006, 0.02, 2))] = 40
    hu[ellipse(0, 0.42, 0.07, 0.06)] = 500
    return hu


def seen(fine: np.ndarray, sigma_px: float) -> np.ndarray:
    """A slice as a scanner with a Gaussian point spread sees it: blurred, then sampled."""
    smooth = ndimage.gaussian_filter(fine, sigma_px * FINE, mode="nearest")
    return smooth[FINE // 2 :: FINE, FINE // 2 :: FINE].astype(np.float64)


def shifted(fine: np.ndarray, sigma_px: float, down_px: float, across_px: float) -> np.ndarray:
    """`seen` after a shift of a fraction of a pixel."""
    smooth = ndimage.gaussian_filter(fine, sigma_px * FINE, mode="nearest")
    there = np.fft.ifft2(
        ndimage.fourier_shift(np.fft.fft2(smooth), (down_px * FINE, across_px * FINE))
    )
    return there.real[FINE // 2 :: FINE, FINE // 2 :: FINE]


def noise(
    shape: tuple[int, ...], sd_hu: float, peak_per_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise of known power: as f at first, as behind a ramp filter, with its peak where asked."""
    f = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1]))
    shape_only = _shape(f, peak_per_px)
    amplitude = np.sqrt(shape_only / np.mean(shape_only)) * sd_hu
    return np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * amplitude).real


def noise_power(f_per_px: np.ndarray, sd_hu: float, peak_per_px: float) -> np.ndarray:
    """The power of `noise` in HU^2 px^2 at these radial frequencies."""
    f = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512))
    return sd_hu**2 * _shape(f_per_px, peak_per_px) / np.mean(_shape(f, peak_per_px))


def _shape(f_per_px: np.ndarray, peak_per_px: float) -> np.ndarray:
    return f_per_px * np.exp(-((f_per_px / peak_per_px) ** 2) / 2)
