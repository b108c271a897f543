"""Modulation transfer of a disc's edge in CT images.

Definitions follow ICRU Report 87 (2012) and AAPM Report 233 (task group 233, 2019). Images are
in HU; frequencies in cycles per mm (lp/mm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import EvaluationError
from cvsct.core.fourier import tukey

STEPS_PER_PX = 10
"""Number of bins of the edge spread function in a pixel."""

REACH = 0.8
"""Distance to which the edge profile reaches on both sides, as a share of the disc's radius."""

MIN_CONTRAST_TO_NOISE = 10.0
"""Smallest contrast over noise at which an edge is measured. At this value white noise moves the
50 % frequency by 7 % (one deviation; a disc of 15 mm in pixels of 0.35 mm), twice it by 1.5 %."""

FREQUENCIES = 201
"""Number of frequencies of a curve."""

CENTRING_ROUNDS = 5
"""Number of times that the disc's middle is computed, each around the one before."""


@dataclass(frozen=True)
class ModulationTransfer:
    """Modulation transfer function of an edge, the task transfer function of AAPM Report 233.

    Args:
        f_per_mm: frequencies from 0 to the inverse of the pixel, twice the Nyquist frequency.
        mtf: the curve, 1 at frequency 0.
        contrast_hu: HU of the object less HU of its surroundings.
    """

    f_per_mm: Float[np.ndarray, " frequencies"]
    mtf: Float[np.ndarray, " frequencies"]
    contrast_hu: float

    @property
    def mtf50_per_mm(self) -> float:
        """Frequency at which the curve first falls to 0.5, in cycles/mm; NaN if it does not."""
        return first_below(self.f_per_mm, self.mtf, 0.5)

    @property
    def mtf10_per_mm(self) -> float:
        """Frequency at which the curve first falls to 0.1, in cycles/mm; NaN if it does not."""
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
) -> ModulationTransfer:
    """Measure modulation transfer from the edge of a disc in uniform surroundings.

    Pixels are sorted by their distance from the disc's centre of mass into bins of a tenth of a
    pixel, for `edge_transform`. There is no other smoothing. The disc's curvature is neglected, so
    its radius should be ten times the blur.

    Args:
        image: image in HU; the mean of repeated scans where noise is high.
        pixel_mm: size of a pixel.
        radius_mm: radius of the disc. No other object may lie within 1.8 radii of its middle.
        centre_px: row and column of its middle, accurate to a quarter of the radius; None for the
            middle of the image.

    Raises:
        EvaluationError: if the disc and its surroundings reach beyond the image, have too few
            pixels, or do not stand out from the noise.
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
    contrast = _contrast(
        hu, distance <= radius - reach / 2, _surrounding_ring(distance, radius, reach)
    )
    steps = round(reach * STEPS_PER_PX)
    edges = radius + np.arange(-steps, steps + 1) / STEPS_PER_PX
    profile = _profile(hu, distance, edges)
    f, curve = edge_transform(profile, pixel_mm)
    return ModulationTransfer(f, curve, contrast)


def edge_transform(
    profile: Float[np.ndarray, "*profiles bins"], pixel_mm: float
) -> tuple[Float[np.ndarray, " frequencies"], Float[np.ndarray, "*profiles frequencies"]]:
    """Frequencies and modulation transfer of an edge spread function, or of each of several.

    The profile, of `STEPS_PER_PX` bins in a pixel, is differentiated and tapered at its ends. The
    modulus of its Fourier transform is corrected for the bins and the difference, and divided by
    its value at frequency 0.
    """
    bins = profile.shape[-1] - 1
    line = np.diff(profile) * tukey(bins, 0.5)
    position_mm = np.arange(bins) * (pixel_mm / STEPS_PER_PX)
    f = np.linspace(0, 1 / pixel_mm, FREQUENCIES)
    curve = np.abs(line @ np.exp(-2j * np.pi * np.outer(position_mm, f)))
    curve /= np.sinc(f * pixel_mm / STEPS_PER_PX) ** 2
    return f, curve / curve[..., :1]


def _distance(
    shape: tuple[int, ...], centre: tuple[float, float]
) -> Float[np.ndarray, "rows columns"]:
    """Distance of each pixel from a point, in pixels."""
    return np.asarray(
        np.hypot((np.arange(shape[0]) - centre[0])[:, None], np.arange(shape[1]) - centre[1])
    )


def _surrounding_ring(
    distance: Float[np.ndarray, "rows columns"], radius: float, reach: float
) -> Bool[np.ndarray, "rows columns"]:
    """Mask of the ring around the disc, clear of its edge."""
    return (distance > radius + reach / 2) & (distance <= radius + reach)


def _refuse_beyond(shape: tuple[int, ...], centre: tuple[float, float], limit: float) -> None:
    """Refuse a disc whose surroundings, up to `limit` pixels from its middle, leave the image."""
    room = min(*centre, shape[0] - 1 - centre[0], shape[1] - 1 - centre[1])
    if room < limit:
        raise EvaluationError(
            f"the disc at row {centre[0]:.0f}, column {centre[1]:.0f} has {room:.0f} px to the "
            f"image's border, expected {limit:.0f} px around its middle; give a larger image"
        )


def _centre_of_mass(
    hu: Float[np.ndarray, "rows columns"],
    radius: float,
    reach: float,
    start: tuple[float, float],
) -> tuple[float, float]:
    """Row and column of the disc's middle, weighted by contrast, computed in several rounds."""
    centre = start
    for _ in range(CENTRING_ROUNDS):
        _refuse_beyond(hu.shape, centre, radius + reach)
        distance = _distance(hu.shape, centre)
        weight = hu - hu[_surrounding_ring(distance, radius, reach)].mean()
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
    """Mean HU of the disc less that of its surroundings.

    Raises:
        EvaluationError: if noise is too high for an edge to be measured.
    """
    contrast = float(hu[inside].mean() - hu[around].mean())
    noise = float(hu[around].std())
    if not abs(contrast) > MIN_CONTRAST_TO_NOISE * noise:
        raise EvaluationError(
            f"the disc stands {contrast:.0f} HU out of its surroundings with noise of {noise:.0f} "
            f"HU; expected {MIN_CONTRAST_TO_NOISE:g} times the noise: average repeated scans"
        )
    return contrast


def _profile(
    hu: Float[np.ndarray, "rows columns"],
    distance: Float[np.ndarray, "rows columns"],
    edges: Float[np.ndarray, " edges"],
) -> Float[np.ndarray, " bins"]:
    """Edge spread function: mean HU of each bin of distances, interpolated to its middle."""
    near = (distance >= edges[0]) & (distance < edges[-1])
    index = np.searchsorted(edges, distance[near], side="right") - 1
    count = np.bincount(index, minlength=len(edges) - 1)
    filled = count > 0
    mean_distance = np.bincount(index, distance[near], len(edges) - 1)[filled] / count[filled]
    mean_hu = np.bincount(index, hu[near], len(edges) - 1)[filled] / count[filled]
    return np.asarray(np.interp((edges[1:] + edges[:-1]) / 2, mean_distance, mean_hu))
