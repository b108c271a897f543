"""What a medical physicist measures on CT images: noise power spectrum and modulation transfer.

Definitions follow ICRU Report 87 (2012) and AAPM Report 233 (task group 233, 2019). Images are
in HU; frequencies in cycles per mm (lp/mm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal.windows import hann, tukey

from cvsct.errors import EvaluationError

Detrend = Literal["polynomial", "repeats"]
Taper = Literal["none", "hann"]

PEAK_SHARE = 0.9
"""The peak is the top of a parabola through what lies above this share of the highest ring."""
STEPS_PER_PX = 10
"""Bins of the edge spread function a pixel."""
REACH = 0.8
"""How far the edge profile reaches to both sides, as a share of the disc's radius."""
LEAST_CONTRAST_TO_NOISE = 10.0
"""There white noise moves the frequency at half by 7 % (one deviation; a disc of 15 mm in pixels of
0.35 mm); at twice as much by 1.5 %."""
FREQUENCIES = 201
CENTRING_ROUNDS = 5


@dataclass(frozen=True)
class NoisePower:
    """Noise power spectrum of an ensemble of regions.

    Args:
        f_per_mm: middle of each ring of frequencies.
        power_hu2_mm2: mean over the ring.
        map_hu2_mm2: by frequency down and across, in the order of `numpy.fft.fft2`.
        pixel_mm: of the images, whose sampling folds what lies beyond half its inverse.
    """

    f_per_mm: Float[np.ndarray, " bins"]
    power_hu2_mm2: Float[np.ndarray, " bins"]
    map_hu2_mm2: Float[np.ndarray, "rows columns"]
    pixel_mm: float

    @property
    def sd_hu(self) -> float:
        """Standard deviation of the noise: root of the spectrum's integral (Parseval)."""
        return float(np.sqrt(self.map_hu2_mm2.mean()) / self.pixel_mm)

    @property
    def mean_per_mm(self) -> float:
        """Mean frequency, weighted with the radial spectrum (AAPM Report 233)."""
        between = (self.f_per_mm[1:] + self.f_per_mm[:-1]) / 2
        edges = np.concatenate([[0.0], between, self.f_per_mm[-1:]])
        middles = (edges[1:] + edges[:-1]) / 2
        return float(np.average(middles, weights=self.power_hu2_mm2 * np.diff(edges)))

    @property
    def peak_per_mm(self) -> float:
        """Frequency of the highest power."""
        top = int(self.power_hu2_mm2.argmax())
        low = np.flatnonzero(self.power_hu2_mm2 < PEAK_SHARE * self.power_hu2_mm2[top])
        first = int(low[low < top].max(initial=-1)) + 1
        last = int(low[low > top].min(initial=len(self.f_per_mm)))
        f, power = self.f_per_mm[first:last], self.power_hu2_mm2[first:last]
        bend, slope = np.polyfit(f - f.mean(), power, 2)[:2] if len(f) > 2 else (0.0, 0.0)
        if not bend < 0:
            return float(self.f_per_mm[top])
        return float(np.clip(f.mean() - slope / bend / 2, f[0], f[-1]))


def noise_power_spectrum(
    images: Float[np.ndarray, "images rows columns"],
    pixel_mm: float,
    bins: int,
    detrend: Detrend = "polynomial",
    taper: Taper = "none",
) -> NoisePower:
    """Noise power spectrum of regions of one uniform object.

    NPS(u, v) = pixel area / pixels * mean of |DFT(noise)|^2 (ICRU Report 87). A region's borders
    smear it over the inverse of the region's side.

    Args:
        images: regions of interest in HU, all of one size; they may overlap.
        bins: rings of frequencies, equally spaced up to the highest along a row; at most half the
            region's side, so that none is empty. Frequency 0, the mean, is no noise.
        detrend: what is taken off a region. `polynomial`: its own second-order fit in x and y,
            against cupping. `repeats`: the same region of a repeated scan, which takes anatomy off
            as well; then images 0 and 1, 2 and 3, ... are pairs.

    Raises:
        EvaluationError: if there are too few images or pixels for this.
    """
    count, rows, columns = images.shape
    if not 1 <= bins <= min(rows, columns) // 2:
        raise EvaluationError(
            f"{bins} rings of frequencies in regions of {columns} x {rows} pixels; expected 1 to "
            f"{min(rows, columns) // 2}, half the shorter side"
        )
    if count < 1 or (detrend == "repeats" and count % 2):
        wanted = "an even number, pairs of repeated scans" if detrend == "repeats" else "1 or more"
        raise EvaluationError(f"noise power of {count} images; expected {wanted}")
    hu = images.astype(np.float64)
    noise = (hu[0::2] - hu[1::2]) / np.sqrt(2) if detrend == "repeats" else _without_trend(hu)
    window = np.ones((rows, columns))
    if taper == "hann":
        window = hann(rows + 2)[1:-1, None] * hann(columns + 2)[1:-1]
    scale = pixel_mm**2 / float(np.sum(window**2))
    power = (np.abs(np.fft.fft2(noise * window)) ** 2).mean(axis=0) * scale
    f = np.hypot(np.fft.fftfreq(rows, pixel_mm)[:, None], np.fft.fftfreq(columns, pixel_mm))
    step = 0.5 / pixel_mm / bins
    rings = np.floor(f / step + 0.5).astype(int).ravel()
    used = (rings > 0) & (rings <= bins)
    sums = np.bincount(rings[used], power.ravel()[used])[1:]
    return NoisePower(
        f_per_mm=(np.arange(bins) + 1) * step,
        power_hu2_mm2=sums / np.bincount(rings[used])[1:],
        map_hu2_mm2=power,
        pixel_mm=pixel_mm,
    )


def _without_trend(
    images: Float[np.ndarray, "images rows columns"],
) -> Float[np.ndarray, "images rows columns"]:
    """Each image less its least-squares polynomial of second order in both coordinates."""
    count, rows, columns = images.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    terms = np.stack([x**0, x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    basis, _ = np.linalg.qr(terms)
    flat = images.reshape(count, -1)
    return np.asarray((flat - (flat @ basis) @ basis.T).reshape(images.shape))


@dataclass(frozen=True)
class Modulation:
    """Modulation transfer of an edge: what AAPM Report 233 calls the task transfer function.

    Args:
        f_per_mm: from 0 to the inverse of the pixel, twice what its own sampling could show.
        mtf: 1 at frequency 0.
        contrast_hu: the disc less what is around it.
    """

    f_per_mm: Float[np.ndarray, " frequencies"]
    mtf: Float[np.ndarray, " frequencies"]
    contrast_hu: float

    @property
    def mtf50_per_mm(self) -> float:
        """Where the curve first falls to a half; NaN if it does not."""
        return first_below(self.f_per_mm, self.mtf, 0.5)

    @property
    def mtf10_per_mm(self) -> float:
        """Where the curve first falls to a tenth; NaN if it does not."""
        return first_below(self.f_per_mm, self.mtf, 0.1)


def first_below(
    f_per_mm: Float[np.ndarray, " frequencies"],
    curve: Float[np.ndarray, " frequencies"],
    level: float,
) -> float:
    """Frequency at which a curve first falls below a level; NaN if it does not."""
    low = np.flatnonzero(curve < level)
    if not low.size or low[0] == 0:
        return float("nan")
    pair = [low[0], low[0] - 1]
    return float(np.interp(level, curve[pair], f_per_mm[pair]))


def modulation_transfer(
    image: Float[np.ndarray, "rows columns"],
    pixel_mm: float,
    radius_mm: float,
    centre_px: tuple[float, float] | None = None,
) -> Modulation:
    """Modulation transfer from the edge of a disc in uniform surroundings.

    Pixels are sorted by their distance from the disc's centre of mass into bins of a tenth of a
    pixel, for `edge_transform`. No other smoothing. The disc's curvature is neglected: its radius
    should be ten times the blur.

    Args:
        image: in HU, the mean of repeated scans where noise is high.
        radius_mm: of the disc. Nothing else may lie nearer than 1.8 times that to its middle.
        centre_px: row and column of its middle, to a quarter of the radius; None is the image's.

    Raises:
        EvaluationError: if the disc and its surroundings reach beyond the image, are too few
            pixels or do not stand out from the noise.
    """
    radius = radius_mm / pixel_mm
    reach = REACH * radius
    start = centre_px or ((image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2)
    if reach < 3:
        raise EvaluationError(
            f"a disc of {radius:.1f} px radius is too small for its edge; expected 4 px or more"
        )
    hu = image.astype(np.float64)
    centre = _centre_of_mass(hu, radius, reach, start)
    distance = _distance(hu.shape, centre)
    _refuse_beyond(hu.shape, centre, radius + reach)
    contrast = _contrast(hu, distance <= radius - reach / 2, _around(distance, radius, reach))
    steps = round(reach * STEPS_PER_PX)
    edges = radius + np.arange(-steps, steps + 1) / STEPS_PER_PX
    profile = _profile(hu, distance, edges)
    f, curve = edge_transform(profile, pixel_mm)
    return Modulation(f, curve, contrast)


def edge_transform(
    profile: Float[np.ndarray, " bins"], pixel_mm: float
) -> tuple[Float[np.ndarray, " frequencies"], Float[np.ndarray, " frequencies"]]:
    """Frequencies and modulation of an edge spread function of `STEPS_PER_PX` bins a pixel.

    It is differentiated, its ends are tapered, and the modulus of its Fourier transform is divided
    by its value at 0 and by what the bins and the difference take away.
    """
    line = np.diff(profile) * tukey(len(profile) - 1, 0.5)
    place_mm = np.arange(len(line)) * (pixel_mm / STEPS_PER_PX)
    f = np.linspace(0, 1 / pixel_mm, FREQUENCIES)
    curve = np.abs(np.exp(-2j * np.pi * np.outer(f, place_mm)) @ line)
    curve /= np.sinc(f * pixel_mm / STEPS_PER_PX) ** 2
    return f, curve / curve[0]


def _distance(
    shape: tuple[int, ...], centre: tuple[float, float]
) -> Float[np.ndarray, "rows columns"]:
    """Distance of each pixel from a point, in pixels."""
    return np.asarray(
        np.hypot((np.arange(shape[0]) - centre[0])[:, None], np.arange(shape[1]) - centre[1])
    )


def _around(
    distance: Float[np.ndarray, "rows columns"], radius: float, reach: float
) -> Bool[np.ndarray, "rows columns"]:
    """The ring of surroundings, clear of the edge."""
    return (distance > radius + reach / 2) & (distance <= radius + reach)


def _refuse_beyond(shape: tuple[int, ...], centre: tuple[float, float], limit: float) -> None:
    room = min(*centre, shape[0] - 1 - centre[0], shape[1] - 1 - centre[1])
    if room < limit:
        raise EvaluationError(
            f"the disc at row {centre[0]:.0f}, column {centre[1]:.0f} has {room:.0f} px to the "
            f"image's border; its edge needs {limit:.0f} px around the middle"
        )


def _centre_of_mass(
    hu: Float[np.ndarray, "rows columns"],
    radius: float,
    reach: float,
    start: tuple[float, float],
) -> tuple[float, float]:
    """The disc's middle, from its contrast as weight, found again around each new middle."""
    centre = start
    for _ in range(CENTRING_ROUNDS):
        _refuse_beyond(hu.shape, centre, radius + reach)
        distance = _distance(hu.shape, centre)
        weight = hu - hu[_around(distance, radius, reach)].mean()
        weight[distance > radius + reach / 2] = 0
        total = weight.sum()
        if total == 0:
            break
        down, across = weight.sum(axis=1), weight.sum(axis=0)
        centre = (
            float(down @ np.arange(len(down)) / total),
            float(across @ np.arange(len(across)) / total),
        )
    return centre


def _contrast(
    hu: Float[np.ndarray, "rows columns"],
    inside: Bool[np.ndarray, "rows columns"],
    around: Bool[np.ndarray, "rows columns"],
) -> float:
    """Disc less surroundings.

    Raises:
        EvaluationError: if noise is too high for an edge to be measured.
    """
    contrast = float(hu[inside].mean() - hu[around].mean())
    noise = float(hu[around].std())
    if not abs(contrast) > LEAST_CONTRAST_TO_NOISE * noise:
        raise EvaluationError(
            f"the disc stands {contrast:.0f} HU out of its surroundings with noise of {noise:.0f} "
            f"HU; expected {LEAST_CONTRAST_TO_NOISE:g} times the noise: average repeated scans"
        )
    return contrast


def _profile(
    hu: Float[np.ndarray, "rows columns"],
    distance: Float[np.ndarray, "rows columns"],
    edges: Float[np.ndarray, " edges"],
) -> Float[np.ndarray, " bins"]:
    """Edge spread function: mean of each bin of distances, moved to the bin's middle."""
    near = (distance >= edges[0]) & (distance < edges[-1])
    index = np.searchsorted(edges, distance[near], side="right") - 1
    count = np.bincount(index, minlength=len(edges) - 1)
    filled = count > 0
    mean_place = np.bincount(index, distance[near], len(edges) - 1)[filled] / count[filled]
    mean_hu = np.bincount(index, hu[near], len(edges) - 1)[filled] / count[filled]
    return np.asarray(np.interp((edges[1:] + edges[:-1]) / 2, mean_place, mean_hu))
