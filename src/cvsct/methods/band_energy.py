"""Method `band-energy`: local energy of frequency bands scaled to the target scanner's.

After Gallardo-Estrella et al. 2016 (Eur Radiol 26:478, doi 10.1007/s00330-015-3824-y), who split
a scan into frequency bands and scale the energy of each to a reference's. What differs here, and
why (figures in notebook/log.md):

- The bands part what the one gain of `methods.spectrum.kernel_ratio` leaves: within a band of their
  width the ratio of two kernels changes several-fold, and energies of two bodies differ by more
  than that.
- Energies are compared between *matched tissue*: a regression a frequency of the log power of
  patches of soft tissue on the domain, within strata of equal roughness, at equal mean HU and noise
  to expect.
- The domains may differ by a constant and by the squared distance from the middle of the image:
  resolution and noise change from the isocenter, which lies near it, outwards. Gains that follow
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

from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.methods.bands import UNSCALED, Bands, RadialFilter, radius_sq, tissue_mask
from cvsct.methods.base import (
    TrainingRequest,
    bundle_settings,
    bundle_weights,
    make_bundle,
    require_consistent,
    require_curves,
)
from cvsct.methods.settings import read_settings
from cvsct.methods.spectrum.kernel_ratio import fit_kernel_ratio
from cvsct.methods.spectrum.matched_tissue import SoftTissueRatio, soft_tissue_ratio
from cvsct.methods.spectrum.settings import RatioSettings
from cvsct.methods.spectrum.side import Side, measured_sides
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle

EDGE_MM = 3.0
"""Standard deviation of the blur over which gains fade at the edge of soft tissue."""

LEAST_SHARE = 1e-6
"""Sum of a band's shares up to which no frequency that is known lies in it."""

PRIOR_SD = np.array([0.2, 0.15])
"""Prior standard deviations of a band's log gain, and of its change per (100 mm)² of radius, whose
prior mean is 0: bodies without matched tissue say nothing about the scanners."""


class BandEnergySettings(RatioSettings):
    """Settings of `band-energy`: those of its filter, and how bands are measured and limited."""

    band_per_mm: float = Field(default=0.15, ge=0.05, le=0.5)
    """Distance between the centers of neighboring bands, in cycles/mm."""

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


def fit_band_gains(
    bands: Bands,
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_gain: Float[np.ndarray, " n"],
    ratio: SoftTissueRatio,
) -> BandGains:
    """Fit the gain of each band: what the filter leaves of the ratio of matched soft tissue.

    Args:
        log_gain: of the filter that comes first.

    Returns:
        Gains with log 0 for bands that too few patches reach.
    """
    gains = np.zeros((max(bands.count - UNSCALED, 0), 2))
    left = np.stack([0.5 * ratio.level - log_gain, 0.5 * ratio.slope])
    error = 0.5 * np.stack([ratio.level_sd, ratio.slope_sd])
    kept = PRIOR_SD[:, None] ** 2 / (PRIOR_SD[:, None] ** 2 + error**2)
    known = np.isfinite(left).all(axis=0)
    for index in range(len(gains)):
        share = np.where(known, bands.share(index + UNSCALED, frequencies_per_mm), 0.0)
        if share.sum() > LEAST_SHARE:
            gains[index] = np.nan_to_num(kept * left) @ share / share.sum()
    return BandGains(gains, np.array(ratio.radius_sq))


def train_band_energy(source: Side, target: Side, request: TrainingRequest) -> Bundle:
    """Train `band-energy`: the filter of `methods.spectrum.kernel_ratio`, then gains of its bands.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows too little of a patient, or the sides share no
            similar tissue.
    """
    settings = read_settings(BandEnergySettings, request.settings)
    sides = measured_sides(source, target, settings, request.progress)
    a, b = (side.texture for side in sides)
    fit = fit_kernel_ratio(a, b, settings)
    frequencies = fit.frequencies_per_mm
    pixel_mm = max(side.domain.pixel_mm[0] for side in sides)
    bands = Bands.of(pixel_mm, settings.band_per_mm)
    if bands.count <= UNSCALED:
        request.note(
            f"pixels of {pixel_mm:.3g} mm reach no band above {settings.band_per_mm:g} cycles/mm: "
            "no band is scaled, the filter alone is learned"
        )
    n = len(frequencies)
    limited = _limited(fit.log_gain, settings.max_gain)
    gains = fit_band_gains(bands, frequencies, limited, soft_tissue_ratio(a.up_to(n), b.up_to(n)))
    centres = [band * settings.band_per_mm for band in range(UNSCALED, bands.count)]
    figures = {
        "patches_alike": round(fit.overlap, 1),
        "soft_patches_source": a.n_soft,
        "soft_patches_target": b.n_soft,
        **{
            f"band_gain_at_{centre:.3g}_per_mm": round(float(np.exp(gain)), 4)
            for centre, gain in zip(centres, gains.log_gain[:, 0], strict=True)
        },
    }
    weights = {
        "frequencies_per_mm": frequencies,
        "log_gain": fit.log_gain,
        "band_log_gain": gains.log_gain,
        "radius_sq": gains.radius_sq,
    }
    return make_bundle(sides[0].domain, sides[1].domain, request, settings, weights, figures)


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
