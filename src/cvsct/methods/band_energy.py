"""Method `band-energy`: local energy of frequency bands scaled to the target scanner's.

After Gallardo-Estrella et al. 2016 (Eur Radiol 26:478, doi 10.1007/s00330-015-3824-y), who split
a scan into frequency bands and scale the energy of each to a reference's. What differs here, and
why (figures in notebook/log.md):

- The bands part what the one gain of `methods.spectrum.kernel_ratio` leaves: within a band of their
  width the ratio of two kernels changes several-fold, and energies of two bodies differ by more
  than that.
- Energies are compared between *matched tissue*: a robust regression a band of log local energy on
  the domain, at equal structure, mean HU, noise to expect, and energy of the band above the lowest.
- The domains may differ by a constant and by the squared distance from the middle of the image:
  resolution and noise change from the isocentre, which lies near it, outwards. Gains that follow
  the anatomy lose once the bodies differ.

Gains are limited, leave the two lowest bands alone, and change soft tissue only, where they were
measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field
from scipy import ndimage

from cvsct.core.volume import AIR_FLOOR_HU, CTVolume, Scans
from cvsct.methods.band_statistics import (
    UNSCALED,
    Bands,
    RadialFilter,
    TissueSamples,
    finest_pixel_mm,
    measure_samples,
    radius_sq,
    tissue_mask,
)
from cvsct.methods.base import (
    TrainingRequest,
    bundle_settings,
    bundle_weights,
    make_bundle,
    require_consistent,
    require_curves,
    require_scans,
)
from cvsct.methods.settings import read_settings
from cvsct.methods.spectrum.kernel_ratio import fit_kernel_ratio
from cvsct.methods.spectrum.settings import RatioSettings
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle

MIN_SAMPLES = 100
"""Fewest tissue samples a side; with fewer, a band keeps the gain of the filter."""

MAX_SLICES = 100
"""Most slices a side in which local energy is measured."""

EDGE_MM = 3.0
"""Standard deviation of the blur over which gains fade at the edge of soft tissue."""

HUBER, ROUNDS = 1.345, 10

INDEPENDENT_SAMPLES = 1000
"""Number of independent samples that the samples of both sides count as together."""

PRIOR_SD = {"gain": 0.2, "radial_gain": 0.15, "radius": 2.0, "linear": 1.0, "square": 0.2}
"""Prior standard deviations of the regression's coefficients, whose prior mean is 0.

Bodies without matched tissue say nothing about the scanners; without a prior the regression
would extrapolate. Gains are of amplitude, for each (100 mm)² of radius; others of log energy, for
a unit of log structure, 100 HU, log noise or log energy.
"""


class BandEnergySettings(RatioSettings):
    """Settings of `band-energy`: those of its filter, and how bands are measured and limited."""

    band_per_mm: float = Field(default=0.15, ge=0.05, le=0.5)
    """Distance between the centers of neighboring bands, in cycles/mm."""

    local_mm: float = Field(default=5.6, ge=2, le=20)
    """Standard deviation of the Gaussian over which energy is measured."""

    max_band_gain: float = Field(default=1.6, ge=1, le=4)
    """Largest gain of a band beside that of the filter; 1 applies the filter alone."""


@dataclass(frozen=True)
class BandGains:
    """Log gains of frequency bands in soft tissue, added to the log gain of the filter.

    Args:
        log_gain: of the bands from `UNSCALED` on: level at the mean squared radius, and slope per
            (100 mm)² of squared radius.
        radius_sq: mean, smallest and largest squared radius in (100 mm)²; gains are constant
            beyond.
    """

    log_gain: Float[np.ndarray, "bands 2"]
    radius_sq: Float[np.ndarray, " 3"]

    def at(
        self, squared: Float[np.ndarray, "rows columns"]
    ) -> Float[np.ndarray, "bands rows columns"]:
        """Log gain of each band at every pixel, by its squared radius in (100 mm)²."""
        mean, least, largest = self.radius_sq
        offset = np.clip(squared, least, largest) - mean
        level, slope = self.log_gain.T[:, :, None, None]
        return np.asarray(level + slope * offset)


def fit_band_gains(source: TissueSamples, target: TissueSamples) -> BandGains:
    """Fit the gain of each band by robust regression of log energy between matched tissue samples.

    Args:
        source: samples of the source, measured after the filter.
        target: samples of the target.

    Returns:
        Gains with log 0 for bands with fewer than `MIN_SAMPLES` samples on a side.
    """
    sides = source, target
    log_energy = np.concatenate([side.log_energy for side in sides])
    gains = np.zeros((max(log_energy.shape[1] + 1 - UNSCALED, 0), 2))
    if len(gains) == 0 or min(len(side.radius_sq) for side in sides) < MIN_SAMPLES:
        return BandGains(gains, np.zeros(3))
    radii = np.concatenate([side.radius_sq for side in sides])
    mean = float(radii.mean())
    least, largest = (
        float(pick([np.quantile(side.radius_sq, share) for side in sides]))
        for pick, share in ((max, 0.02), (min, 0.98))
    )
    domain = np.repeat([-0.5, 0.5], [len(side.radius_sq) for side in sides])
    covariates = np.column_stack(
        [*(np.concatenate([side.tissue for side in sides]).T), log_energy[:, UNSCALED - 2]]
    )
    covariates -= covariates.mean(axis=0)
    offset = radii - mean
    design = np.column_stack(
        [domain, domain * offset, np.ones_like(offset), offset, covariates, covariates**2]
    )
    n_covariates = covariates.shape[1]
    prior_sd = np.array(
        [
            2 * PRIOR_SD["gain"],
            2 * PRIOR_SD["radial_gain"],
            np.inf,
            PRIOR_SD["radius"],
            *[PRIOR_SD["linear"]] * n_covariates,
            *[PRIOR_SD["square"]] * n_covariates,
        ]
    )
    for band, energy in enumerate(log_energy.T[UNSCALED - 1 :]):
        reached = np.isfinite(energy)
        if min(np.sum(reached & (domain == side)) for side in (-0.5, 0.5)) >= MIN_SAMPLES:
            gains[band] = 0.5 * _robust_fit(design[reached], energy[reached], prior_sd)[:2]
    return BandGains(gains, np.array([mean, least, max(least, largest)]))


def _robust_fit(
    design: Float[np.ndarray, "rows columns"],
    values: Float[np.ndarray, " rows"],
    prior_sd: Float[np.ndarray, " columns"],
) -> Float[np.ndarray, " columns"]:
    """Coefficients of a linear model by Huber's robust regression (1964) with a Gaussian prior.

    Residuals beyond 1.345 standard deviations weigh less.
    """
    weight = np.ones_like(values)
    coefficients = np.zeros(design.shape[1])
    share = min(1.0, INDEPENDENT_SAMPLES / len(values))
    variance = float(np.var(values))
    for _ in range(ROUNDS):
        weighted = design * weight[:, None]
        prior = np.diag(variance / share / prior_sd**2)
        coefficients = np.linalg.solve(design.T @ weighted + prior, weighted.T @ values)
        residual = np.abs(values - design @ coefficients)
        sd = 1.4826 * float(np.median(residual)) + 1e-9
        variance = sd**2
        weight = 1 / np.maximum(residual / (HUBER * sd), 1.0)
    return coefficients


def train_band_energy(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Train `band-energy`: the filter of `methods.spectrum.kernel_ratio`, then gains of its bands.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows too little of a patient, or the sides share no
            similar tissue.
    """
    settings = read_settings(BandEnergySettings, request.settings)
    require_scans(source, target)
    ratio = fit_kernel_ratio(source, target, settings, request.progress)
    frequencies = ratio.frequencies_per_mm
    pixel_mm = finest_pixel_mm(source, target)
    bands = Bands.of(pixel_mm, settings.band_per_mm)
    if bands.count <= UNSCALED:
        request.note(
            f"pixels of {pixel_mm:.3g} mm reach no band above {settings.band_per_mm:g} cycles/mm: "
            "no band is scaled, the filter alone is learned"
        )
    slices = min(MAX_SLICES, settings.max_slices)
    filters = (_limited(ratio.log_gain, settings.max_gain), np.zeros_like(frequencies))
    samples = [
        measure_samples(
            scans,
            RadialFilter(frequencies, log_gain),
            bands,
            settings.local_mm,
            slices,
            name,
            request.progress,
        )
        for scans, log_gain, name in zip(
            (source, target), filters, ("source", "target"), strict=True
        )
    ]
    gains = fit_band_gains(*samples)
    centres = [band * settings.band_per_mm for band in range(UNSCALED, bands.count)]
    figures = {
        "patches_alike": round(ratio.overlap, 1),
        "places_source": len(samples[0].radius_sq),
        "places_target": len(samples[1].radius_sq),
        **{
            f"band_gain_at_{centre:.3g}_per_mm": round(float(np.exp(gain)), 4)
            for centre, gain in zip(centres, gains.log_gain[:, 0], strict=True)
        },
    }
    weights = {
        "frequencies_per_mm": frequencies,
        "log_gain": ratio.log_gain,
        "band_log_gain": gains.log_gain,
        "radius_sq": gains.radius_sq,
    }
    return make_bundle(source, target, request, settings, weights, figures)


def load_band_energy(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """Load a `band-energy` model; the reverse direction has the inverse gains, equally limited."""
    frequencies, log_gain, band_log_gain, radii = bundle_weights(
        bundle, "frequencies_per_mm", "log_gain", "band_log_gain", "radius_sq"
    )
    require_curves(bundle, frequencies, log_gain)
    require_consistent(bundle, band_log_gain.shape[1:] == (2,) and radii.shape == (3,))
    settings = bundle_settings(BandEnergySettings, bundle)
    sign = -1.0 if reverse else 1.0
    before = RadialFilter(frequencies, _limited(sign * log_gain, settings.max_gain))
    gains = BandGains(sign * band_log_gain, radii)
    bands = Bands(len(band_log_gain) + UNSCALED, settings.band_per_mm)
    limits = _limits(before, bands, settings)
    return VolumeMapping(lambda volume: _apply(volume, before, bands, gains, limits))


def _limited(log_gain: Float[np.ndarray, " n"], max_gain: float) -> Float[np.ndarray, " n"]:
    return np.asarray(np.clip(log_gain, -np.log(max_gain), np.log(max_gain)))


def _limits(
    before: RadialFilter, bands: Bands, settings: BandEnergySettings
) -> Float[np.ndarray, "2 bands"]:
    """Smallest and largest log gain of each scaled band; with the filter at most `max_gain`."""
    most = np.full(bands.count - UNSCALED, np.log(settings.max_band_gain))
    beyond = (
        np.append(before.frequencies_per_mm, np.inf),
        np.append(before.log_gain, before.log_gain[-1]),
    )
    for index, band in enumerate(range(UNSCALED, bands.count)):
        begin, end = bands.reach(band)
        within = (beyond[0] >= begin) & (beyond[0] <= end)
        room = np.log(settings.max_gain) - beyond[1][within].max()
        most[index] = min(most[index], room)
    return np.stack([np.full_like(most, -np.log(settings.max_band_gain)), most])


def _apply(
    volume: CTVolume,
    before: RadialFilter,
    bands: Bands,
    gains: BandGains,
    limits: Float[np.ndarray, "2 bands"],
) -> Float32[np.ndarray, "slices rows columns"]:
    """Filter each slice and scale its bands in soft tissue; the result is floored at -1024 HU."""
    log_gain = np.clip(gains.at(radius_sq(volume)), *limits[:, :, None, None])
    change = np.expm1(log_gain).astype(np.float32)
    sigma_px = EDGE_MM / np.array(volume.geometry.pixel_mm)
    slice_bands = bands.split(volume, before.frequencies_per_mm, before.log_gain, UNSCALED)
    result = np.empty(volume.hu.shape, dtype=np.float32)
    for index, (mask, parts) in enumerate(zip(tissue_mask(volume), slice_bands, strict=True)):
        added = np.zeros(mask.shape, dtype=np.float32)
        for part, extra_gain in zip(parts[1:], change, strict=True):
            added += part * extra_gain
        added *= ndimage.gaussian_filter(mask.astype(np.float32), sigma_px, mode="nearest")
        np.maximum(sum(parts) + added, np.float32(AIR_FLOOR_HU), out=result[index])
    return result
