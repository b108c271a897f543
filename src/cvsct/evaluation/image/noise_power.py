"""Noise power spectrum of uniform regions of CT images.

Definitions follow ICRU Report 87 (2012) and AAPM Report 233 (task group 233, 2019). Images are
in HU; frequencies in cycles per mm (lp/mm).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import EvaluationError

Detrend = Literal["polynomial", "repeats"]
Taper = Literal["none", "hann"]

PEAK_SHARE = 0.9
"""Share of the highest power above which rings are fitted by the parabola whose top is the peak."""


@dataclass(frozen=True)
class NoisePower:
    """Noise power spectrum of an ensemble of regions.

    Args:
        f_per_mm: middle of each ring of frequencies.
        power_hu2_mm2: mean power over each ring.
        map_hu2_mm2: power by frequency down rows and across columns, in the order of
            `numpy.fft.fft2`.
        pixel_mm: pixel size of the images; frequencies above half its inverse are aliased.
        regions_hu2_mm2: mean power over each ring of each region, or of each pair of regions.
    """

    f_per_mm: Float[np.ndarray, " bins"]
    power_hu2_mm2: Float[np.ndarray, " bins"]
    map_hu2_mm2: Float[np.ndarray, "rows columns"]
    pixel_mm: float
    regions_hu2_mm2: Float[np.ndarray, "regions bins"] = field(repr=False)

    @property
    def sd_hu(self) -> float:
        """Standard deviation of the noise: root of the spectrum's integral (Parseval)."""
        return float(np.sqrt(self.map_hu2_mm2.mean()) / self.pixel_mm)

    @property
    def mean_per_mm(self) -> float:
        """Mean frequency in cycles/mm, weighted with the radial spectrum (AAPM Report 233)."""
        return float(mean_frequency(self.f_per_mm, self.power_hu2_mm2))

    @property
    def peak_per_mm(self) -> float:
        """Frequency of the highest power in cycles/mm."""
        top = int(self.power_hu2_mm2.argmax())
        low = np.flatnonzero(self.power_hu2_mm2 < PEAK_SHARE * self.power_hu2_mm2[top])
        first = int(low[low < top].max(initial=-1)) + 1
        last = int(low[low > top].min(initial=len(self.f_per_mm)))
        f, power = self.f_per_mm[first:last], self.power_hu2_mm2[first:last]
        bend, slope = np.polyfit(f - f.mean(), power, 2)[:2] if len(f) > 2 else (0.0, 0.0)
        if not bend < 0:
            return float(self.f_per_mm[top])
        return float(np.clip(f.mean() - slope / bend / 2, f[0], f[-1]))


def mean_frequency(
    f_per_mm: Float[np.ndarray, " bins"], power: Float[np.ndarray, "*spectra bins"]
) -> Float[np.ndarray, "*spectra"]:
    """Mean frequency in cycles/mm of radial spectra; NaN without power."""
    middles, widths = _rings(f_per_mm)
    weights = power * widths
    with np.errstate(invalid="ignore"):
        return np.asarray(np.divide(weights @ middles, weights.sum(axis=-1)))


def standard_deviation(
    f_per_mm: Float[np.ndarray, " bins"], power: Float[np.ndarray, "*spectra bins"]
) -> Float[np.ndarray, "*spectra"]:
    """Standard deviation in HU of noise with a radial spectrum, or with each of several.

    It is the root of the integral over all directions up to the Nyquist frequency; the corners of
    the frequency plane beyond it are left out.
    """
    middles, widths = _rings(f_per_mm)
    return np.asarray(np.sqrt(2 * np.pi * (power @ (middles * widths))))


def _rings(
    f_per_mm: Float[np.ndarray, " bins"],
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Middle and width of each ring, between the midpoints of neighboring frequencies."""
    between = (f_per_mm[1:] + f_per_mm[:-1]) / 2
    edges = np.concatenate([[0.0], between, f_per_mm[-1:]])
    return (edges[1:] + edges[:-1]) / 2, np.diff(edges)


def noise_power_spectrum(
    images: Float[np.ndarray, "images rows columns"],
    pixel_mm: float,
    bins: int,
    detrend: Detrend = "polynomial",
    taper: Taper = "none",
) -> NoisePower:
    """Measure the noise power spectrum of regions of one uniform object.

    NPS(u, v) = pixel area / pixels * mean of |DFT(noise)|^2 (ICRU Report 87). A region's borders
    smear it over the inverse of the region's side.

    Args:
        images: regions of interest in HU, all of one size; they may overlap.
        pixel_mm: size of a pixel.
        bins: number of rings of frequencies, equally spaced up to the Nyquist frequency; at most
            half the region's side, so that none is empty. Frequency 0, the mean, is left out.
        detrend: what is subtracted from a region. `polynomial`: its own second-order fit in x and
            y, against cupping. `repeats`: the same region of a repeated scan, which removes anatomy
            too; then images 0 and 1, 2 and 3, ... are pairs.
        taper: window of a region; `hann` reduces the smear of its borders.

    Raises:
        EvaluationError: if there are too few images or pixels.
    """
    count, rows, columns = images.shape
    if not 1 <= bins <= min(rows, columns) // 2:
        raise EvaluationError(
            f"{bins} rings of frequencies in regions of {columns} x {rows} pixels; expected 1 to "
            f"{min(rows, columns) // 2}, half the shorter side; use fewer rings or larger regions"
        )
    if count < 1 or (detrend == "repeats" and count % 2):
        wanted = "an even number, pairs of repeated scans" if detrend == "repeats" else "1 or more"
        raise EvaluationError(
            f"noise power of {count} images; expected {wanted}: give other images or detrend"
        )
    hu = images.astype(np.float64)
    noise = (hu[0::2] - hu[1::2]) / np.sqrt(2) if detrend == "repeats" else _without_trend(hu)
    window = np.ones((rows, columns))
    if taper == "hann":
        window = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[1:-1]
    scale = pixel_mm**2 / float(np.sum(window**2))
    power = np.abs(np.fft.fft2(noise * window)) ** 2 * scale
    f = np.hypot(np.fft.fftfreq(rows, pixel_mm)[:, None], np.fft.fftfreq(columns, pixel_mm))
    step = 0.5 / pixel_mm / bins
    rings = np.floor(f / step + 0.5).astype(int).ravel()
    inside = rings[:, None] == np.arange(bins) + 1
    of_regions = power.reshape(len(power), -1) @ (inside / inside.sum(axis=0))
    return NoisePower(
        f_per_mm=(np.arange(bins) + 1) * step,
        power_hu2_mm2=of_regions.mean(axis=0),
        map_hu2_mm2=power.mean(axis=0),
        pixel_mm=pixel_mm,
        regions_hu2_mm2=of_regions,
    )


def _without_trend(
    images: Float[np.ndarray, "images rows columns"],
) -> Float[np.ndarray, "images rows columns"]:
    """Images less the polynomial of second order in x and y that fits each of them best."""
    count, rows, columns = images.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    terms = np.stack([x**0, x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    basis, _ = np.linalg.qr(terms)
    flat = images.reshape(count, -1)
    return np.asarray((flat - (flat @ basis) @ basis.T).reshape(images.shape))
