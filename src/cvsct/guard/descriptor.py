"""Descriptor of a scan for the guard: its noise at each frequency and what its tissue is made of.

Both depend little on the patient. Noise is measured in the most homogeneous soft tissue, where
anatomy contributes little, as a function of cycles/mm. Tissue is the distribution of CT
numbers of soft tissue and bone on a blurred image: neither the share of lung in a slice nor noise
matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.masks import SOFT_TISSUE, blurred, body
from cvsct.core.spectra import DB_PER_NEPER, mean_over_patches, patch_spectra
from cvsct.core.volume import CTVolume

PATCH_MM = 20.0
FREQUENCIES_PER_MM = tuple(round(0.05 * step, 2) for step in range(1, 17))
N_HOMOGENEITY, N_ANATOMY = 2, 4
"""Number of first frequencies by which homogeneous tissue is chosen, and of those that hold anatomy
even there: only the others, from 0.25 /mm on, are compared."""

HOMOGENEOUS_SHARE = 1 / 3
MIN_HOMOGENEOUS_PATCHES, MIN_PATCH_PX = 8, 8
MIN_SHARED_FREQUENCIES = 4

FLOOR_HU2_MM2 = 1.0
"""Added to noise power: a soft kernel leaves hardly any noise at high frequencies, and the rest
is mostly rounding."""

TISSUE_EDGES_HU = np.append(np.arange(SOFT_TISSUE.low_hu, SOFT_TISSUE.high_hu + 1, 20.0), np.inf)
MIN_TISSUE_SHARE = 0.02
"""Smallest share of tissue in all pixels. In images that are not in HU hardly any pixel reads as
tissue."""

UNSEEN_SHARE = 0.02
"""Share of tissue spread evenly over all CT numbers, so that a number never seen before has a
bounded weight."""


@dataclass(frozen=True)
class Descriptor:
    """Noise spectrum and tissue histogram of some slices of one scan.

    Args:
        noise_db: power of noise at `FREQUENCIES_PER_MM` from `N_ANATOMY` on, in dB over
            1 HU² mm²; NaN where the pixel grid has no such frequency, everywhere where there is
            too little homogeneous tissue.
        tissue: share of tissue between each two of `TISSUE_EDGES_HU`; NaN where there is hardly
            any, and so no patient.
    """

    noise_db: Float[np.ndarray, " n"]
    tissue: Float[np.ndarray, " bins"]

    @property
    def knows_noise(self) -> bool:
        """Whether noise could be read."""
        return int(np.isfinite(self.noise_db).sum()) >= MIN_SHARED_FREQUENCIES

    @property
    def knows_tissue(self) -> bool:
        """Whether tissue could be read."""
        return bool(np.isfinite(self.tissue).all())

    def to_json(self) -> dict[str, Any]:
        """Noise and tissue as JSON values; null where unknown."""
        return {
            "noise_db": [round(v, 2) if np.isfinite(v) else None for v in self.noise_db.tolist()],
            "tissue": [round(v, 4) for v in self.tissue.tolist()] if self.knows_tissue else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Descriptor:
        """Descriptor from the values that `to_json` wrote."""
        tissue = value["tissue"] or [np.nan] * (len(TISSUE_EDGES_HU) - 1)
        noise = [np.nan if v is None else v for v in value["noise_db"]]
        return cls(np.array(noise, float), np.array(tissue, float))


def describe(slices: Iterable[CTVolume]) -> Descriptor:
    """Measure the descriptor of one scan's slices; only one slice is held in memory at a time."""
    frequencies = np.array(FREQUENCIES_PER_MM)
    power = [np.empty((0, len(frequencies)))]
    counts = np.zeros(len(TISSUE_EDGES_HU) - 1)

    def measure(volume: CTVolume) -> int:
        inside = body(volume.hu)
        if volume.padding is not None:
            inside &= ~volume.padding
        counts[:] += np.histogram(blurred(volume.hu)[inside], TISSUE_EDGES_HU)[0]
        size_px = round(PATCH_MM / volume.pixel_mm)
        if size_px >= MIN_PATCH_PX and min(volume.hu.shape[1:]) >= size_px:
            power.append(patch_spectra(volume, frequencies, size_px, "soft", 1.0).log_power)
        return volume.hu.size

    size = sum(map(measure, slices))
    enough = counts.sum() > MIN_TISSUE_SHARE * size
    shares = counts / counts.sum() if enough else np.full_like(counts, np.nan)
    return Descriptor(_homogeneous_noise_db(np.concatenate(power)), shares)


def _homogeneous_noise_db(log_power: Float[np.ndarray, "patches n"]) -> Float[np.ndarray, " m"]:
    """Mean noise power in dB over the most homogeneous patches (a geometric mean)."""
    count = round(HOMOGENEOUS_SHARE * len(log_power))
    if count < MIN_HOMOGENEOUS_PATCHES:
        return np.full(len(FREQUENCIES_PER_MM) - N_ANATOMY, np.nan)
    low_frequency_power = np.nanmean(log_power[:, :N_HOMOGENEITY], axis=1)
    homogeneous = np.argsort(low_frequency_power, kind="stable")[:count]
    mean = mean_over_patches(log_power[homogeneous])[N_ANATOMY:]
    noise_db: Float[np.ndarray, " m"] = DB_PER_NEPER * np.log(np.exp(mean) + FLOOR_HU2_MM2)
    return noise_db


@dataclass(frozen=True)
class Distance:
    """Distance of one descriptor from another, by three measures; NaN where one is unknown.

    Args:
        noise_db: difference of the mean level of noise.
        sharpness_db: rms difference of the shape of noise over frequency, level apart.
        tissue_nats: Kullback-Leibler divergence of the scan's tissue from the other's: large for
            CT numbers that the other seldom has, small for other shares of those it has.
    """

    noise_db: float
    sharpness_db: float
    tissue_nats: float


def distance(scan: Descriptor, known: Descriptor) -> Distance:
    """Distance of a scan's descriptor from a known one."""
    noise = scan.noise_db - known.noise_db
    noise = noise[np.isfinite(noise)]
    level = shape = np.nan
    if len(noise) >= MIN_SHARED_FREQUENCIES:
        level, shape = float(noise.mean()), float(noise.std())
    tissue = np.nan
    if scan.knows_tissue and known.knows_tissue:
        p, q = (
            (1 - UNSEEN_SHARE) * descriptor.tissue + UNSEEN_SHARE / len(descriptor.tissue)
            for descriptor in (scan, known)
        )
        tissue = float(np.sum(p * np.log(p / q)))
    return Distance(level, shape, tissue)


def mean_noise_db(descriptors: Iterable[Descriptor]) -> Float[np.ndarray, " n"]:
    """Mean over the descriptors that know their noise; NaN where none does."""
    return mean_over_patches(np.stack([descriptor.noise_db for descriptor in descriptors]))
