"""Local energy of frequency bands scaled to the target's, from scans of different bodies.

After Gallardo-Estrella et al. 2016 (Eur Radiol 26:478, doi 10.1007/s00330-015-3824-y), who split
a scan into frequency bands and scale the energy of each to a reference's. What differs here, and
why (figures in notebook/log.md):

- The bands part what the one gain of `methods.spectrum.kernel_ratio` leaves: within a band of their
  width the ratio of two kernels changes several-fold, and energies of two bodies differ by more
  than that.
- Energies are compared *like with like*: a robust regression a band of log local energy on the
  domain, at equal structure, mean HU, noise to expect, and energy of the band above the lowest.
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
    Filter,
    Places,
    finest_pixel_mm,
    places_of,
    radius_sq,
    tissue_mask,
)
from cvsct.methods.base import (
    TrainingRequest,
    bundle_of,
    need_curves,
    need_fit,
    need_scans,
    settings_in,
    weights_of,
)
from cvsct.methods.settings import read_settings
from cvsct.methods.spectrum.kernel_ratio import fit_kernel_ratio
from cvsct.methods.spectrum.settings import RatioSettings
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle

MIN_PLACES = 100
"""Places on each side below which a band keeps the filter's gain."""

MAX_SLICES = 100
"""Slices a side whose local energies are measured."""

EDGE_MM = 3.0
"""Standard deviation of the blur over which gains fade at the edge of soft tissue."""

HUBER, ROUNDS = 1.345, 10

INDEPENDENT_PLACES = 1000
"""Places of a body are not independent: all of both sides together tell as much as so many."""

PRIOR_SD = {"gain": 0.2, "radial_gain": 0.15, "radius": 2.0, "linear": 1.0, "square": 0.2}
"""What effects are expected to be before the scans are looked at, as a standard deviation.

Bodies that share no like tissue tell nothing of the domains; without a prior their regression
would extrapolate. Gains are of amplitude, for each (100 mm)² of radius; others of log energy, for
a unit of log structure, 100 HU, log noise or log energy.
"""


class BandEnergySettings(RatioSettings):
    """How bands are measured and limited, beside the settings of the filter before them."""

    band_per_mm: float = Field(default=0.15, ge=0.05, le=0.5)
    """Distance between the centres of neighbouring bands, in cycles/mm."""

    local_mm: float = Field(default=5.6, ge=2, le=20)
    """Standard deviation of the Gaussian over which energy is measured."""

    max_band_gain: float = Field(default=1.6, ge=1, le=4)
    """No band is amplified or damped more beside the filter; 1 leaves the filter alone."""


@dataclass(frozen=True)
class BandGains:
    """What is added to the filter's log gain in soft tissue.

    Args:
        log_gain: of the bands from `UNSCALED` on: at the mean squared radius, and for each
            (100 mm)² more.
        radius_sq: mean, least and largest squared radius in (100 mm)²; beyond, gains stay.
    """

    log_gain: Float[np.ndarray, "bands 2"]
    radius_sq: Float[np.ndarray, " 3"]

    def at(
        self, squared: Float[np.ndarray, "rows columns"]
    ) -> Float[np.ndarray, "bands rows columns"]:
        """The log gains of each band at a squared radius."""
        mean, least, largest = self.radius_sq
        offset = np.clip(squared, least, largest) - mean
        level, slope = self.log_gain.T[:, :, None, None]
        return np.asarray(level + slope * offset)


def fit_band_gains(source: Places, target: Places) -> BandGains:
    """Half the difference of log energies at like tissue, and how it changes over squared radius.

    Args:
        source: measured after the filter.

    Returns:
        Gains of 1 for bands that too few places show.
    """
    sides = source, target
    log_energy = np.concatenate([side.log_energy for side in sides])
    gains = np.zeros((max(log_energy.shape[1] + 1 - UNSCALED, 0), 2))
    if len(gains) == 0 or min(len(side.radius_sq) for side in sides) < MIN_PLACES:
        return BandGains(gains, np.zeros(3))
    radii = np.concatenate([side.radius_sq for side in sides])
    mean = float(radii.mean())
    least, largest = (
        float(pick([np.quantile(side.radius_sq, share) for side in sides]))
        for pick, share in ((max, 0.02), (min, 0.98))
    )
    domain = np.repeat([-0.5, 0.5], [len(side.radius_sq) for side in sides])
    alike = np.column_stack(
        [*(np.concatenate([side.tissue for side in sides]).T), log_energy[:, UNSCALED - 2]]
    )
    alike -= alike.mean(axis=0)
    offset = radii - mean
    design = np.column_stack(
        [domain, domain * offset, np.ones_like(offset), offset, alike, alike**2]
    )
    each = alike.shape[1]
    prior_sd = np.array(
        [
            2 * PRIOR_SD["gain"],
            2 * PRIOR_SD["radial_gain"],
            np.inf,
            PRIOR_SD["radius"],
            *[PRIOR_SD["linear"]] * each,
            *[PRIOR_SD["square"]] * each,
        ]
    )
    for band, energy in enumerate(log_energy.T[UNSCALED - 1 :]):
        known = np.isfinite(energy)
        if min(np.sum(known & (domain == side)) for side in (-0.5, 0.5)) >= MIN_PLACES:
            gains[band] = 0.5 * _robust_fit(design[known], energy[known], prior_sd)[:2]
    return BandGains(gains, np.array([mean, least, max(least, largest)]))


def _robust_fit(
    design: Float[np.ndarray, "rows columns"],
    values: Float[np.ndarray, " rows"],
    prior_sd: Float[np.ndarray, " columns"],
) -> Float[np.ndarray, " columns"]:
    """Least squares with a Gaussian prior about 0, residuals beyond 1.345 standard deviations
    weighed down (Huber 1964).
    """
    weight = np.ones_like(values)
    found = np.zeros(design.shape[1])
    share = min(1.0, INDEPENDENT_PLACES / len(values))
    variance = float(np.var(values))
    for _ in range(ROUNDS):
        weighted = design * weight[:, None]
        prior = np.diag(variance / share / prior_sd**2)
        found = np.linalg.solve(design.T @ weighted + prior, weighted.T @ values)
        off = np.abs(values - design @ found)
        sd = 1.4826 * float(np.median(off)) + 1e-9
        variance = sd**2
        weight = 1 / np.maximum(off / (HUBER * sd), 1.0)
    return found


def train_band_energy(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Learn the filter of `methods.spectrum.kernel_ratio`, then gains of bands by radius.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows too little of a patient, or the two sides no like tissue.
    """
    settings = read_settings(BandEnergySettings, request.settings)
    need_scans(source, target)
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
    places = [
        places_of(
            scans,
            Filter(frequencies, log_gain),
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
    gains = fit_band_gains(*places)
    centres = [band * settings.band_per_mm for band in range(UNSCALED, bands.count)]
    figures = {
        "patches_alike": round(ratio.overlap, 1),
        "places_source": len(places[0].radius_sq),
        "places_target": len(places[1].radius_sq),
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
    return bundle_of(source, target, request, settings, weights, figures)


def load_band_energy(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """The filter and the gains of bands; the reverse has the inverses, under the same limits."""
    frequencies, log_gain, band_log_gain, radii = weights_of(
        bundle, "frequencies_per_mm", "log_gain", "band_log_gain", "radius_sq"
    )
    need_curves(bundle, frequencies, log_gain)
    need_fit(bundle, band_log_gain.shape[1:] == (2,) and radii.shape == (3,))
    settings = settings_in(BandEnergySettings, bundle)
    sign = -1.0 if reverse else 1.0
    before = Filter(frequencies, _limited(sign * log_gain, settings.max_gain))
    gains = BandGains(sign * band_log_gain, radii)
    bands = Bands(len(band_log_gain) + UNSCALED, settings.band_per_mm)
    limits = _limits(before, bands, settings)
    return VolumeMapping(lambda volume: _apply(volume, before, bands, gains, limits))


def _limited(log_gain: Float[np.ndarray, " n"], max_gain: float) -> Float[np.ndarray, " n"]:
    return np.asarray(np.clip(log_gain, -np.log(max_gain), np.log(max_gain)))


def _limits(
    before: Filter, bands: Bands, settings: BandEnergySettings
) -> Float[np.ndarray, "2 bands"]:
    """The least and largest log gain of each scaled band; none takes the filter past `max_gain`."""
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
    before: Filter,
    bands: Bands,
    gains: BandGains,
    limits: Float[np.ndarray, "2 bands"],
) -> Float32[np.ndarray, "slices rows columns"]:
    """Each slice filtered, its bands scaled in soft tissue, floored at -1024 HU."""
    log_gain = np.clip(gains.at(radius_sq(volume)), *limits[:, :, None, None])
    change = np.expm1(log_gain).astype(np.float32)
    sigma_px = EDGE_MM / np.array(volume.geometry.pixel_mm)
    parted = bands.split(volume, before.frequencies_per_mm, before.log_gain, UNSCALED)
    result = np.empty(volume.hu.shape, dtype=np.float32)
    for index, (mask, parts) in enumerate(zip(tissue_mask(volume), parted, strict=True)):
        added = np.zeros(mask.shape, dtype=np.float32)
        for part, more in zip(parts[1:], change, strict=True):
            added += part * more
        added *= ndimage.gaussian_filter(mask.astype(np.float32), sigma_px, mode="nearest")
        np.maximum(sum(parts) + added, np.float32(AIR_FLOOR_HU), out=result[index])
    return result
