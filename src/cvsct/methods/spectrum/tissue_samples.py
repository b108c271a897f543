"""Local energy of frequency bands in samples of soft tissue, compared between two sides' images.

Slices are split into bands that sum to the slice (`methods.bands`). The energy of each band is
measured in samples of soft tissue, with structure, mean CT number and expected noise, so that
matched tissue can be compared between bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from cvsct.core.masks import blurred, body_of
from cvsct.core.progress import Progress
from cvsct.core.volume import CTVolume, Scans
from cvsct.methods.bands import UNSCALED, Bands, radius_sq, tissue_mask
from cvsct.methods.sampling import measure_slices
from cvsct.methods.spectrum.expected_noise import expected_noise

SMALLEST_SIGMAS = 10
"""Images narrower than this many times `local_mm` give no samples."""

MIN_TISSUE_SHARE = 0.7
"""Smallest share of a sample's neighborhood that must be soft tissue."""

STRUCTURE_SIGMAS = 2.5
"""Width of the blur, in units of `local_mm`, whose residual in the lowest band is structure."""

ENERGY_FLOOR_HU2, STRUCTURE_FLOOR_HU2 = 1e-3, 1.0
"""Offsets added before logarithms: far below the rounding to 1 HU (0.08 HU²), and above it."""

UNFILTERED = np.array([0.0, 1.0]), np.zeros(2)
"""Frequencies and log gain of no filter."""

MIN_SAMPLES = 100
"""Fewest tissue samples a side; with fewer, a band keeps the gain of the filter."""

HUBER, ROUNDS = 1.345, 10

INDEPENDENT_SAMPLES = 1000
"""Number of independent samples that the samples of both sides count as together."""

PRIOR_SD = {"gain": 0.2, "radial_gain": 0.15, "radius": 2.0, "linear": 1.0, "square": 0.2}
"""Prior standard deviations of the regression's coefficients, whose prior mean is 0.

Bodies without matched tissue say nothing about the scanners; without a prior the regression
would extrapolate. Gains are of amplitude, for each (100 mm)² of radius; others of log energy, for
a unit of log structure, 100 HU, log noise or log energy.
"""


@dataclass(frozen=True)
class TissueSamples:
    """Local band energies at sample points in soft tissue, and covariates that match tissue.

    Args:
        log_energy: of each band but the lowest, in HU²; NaN where the pixel grid does not reach it.
        tissue: log of structure in HU², mean of 100 HU, log of the noise to expect.
        radius_sq: squared distance from the middle of the image, in (100 mm)².
    """

    log_energy: Float[np.ndarray, "places bands"]
    tissue: Float[np.ndarray, "places 3"]
    radius_sq: Float[np.ndarray, " places"]


def fit_energy_gains(
    source: TissueSamples, target: TissueSamples
) -> tuple[Float[np.ndarray, "bands 2"], float]:
    """Fit the gain of each band by robust regression of log energy between matched tissue samples.

    Args:
        source: samples of the source, measured after the filter.
        target: samples of the target.

    Returns:
        Log gain of each band from `UNSCALED` on, at the mean squared radius and its slope per
        (100 mm)² of squared radius, 0 for bands with fewer than `MIN_SAMPLES` samples on a side;
        and that mean.
    """
    sides = source, target
    log_energy = np.concatenate([side.log_energy for side in sides])
    gains = np.zeros((max(log_energy.shape[1] + 1 - UNSCALED, 0), 2))
    if len(gains) == 0 or min(len(side.radius_sq) for side in sides) < MIN_SAMPLES:
        return gains, 0.0
    radii = np.concatenate([side.radius_sq for side in sides])
    mean = float(radii.mean())
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
    return gains, mean


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


def unchanged(volume: CTVolume) -> CTVolume:
    """Return the volume as it is."""
    return volume


def measure_prepared_samples(
    scans: Scans,
    bands: Bands,
    local_mm: float,
    max_slices: int,
    side: str,
    progress: Progress,
    prepared: Sequence[Callable[[CTVolume], CTVolume]],
) -> list[TissueSamples]:
    """Measure tissue samples after several kinds of preprocessing, reading each scan once.

    Args:
        prepared: preprocessing steps, each applied to the chosen slices by itself.

    Returns:
        Samples for each preprocessing step, in their order.
    """

    def measure(volume: CTVolume, _: Int[np.ndarray, " slices"]) -> list[list[TissueSamples]]:
        return [list(_slice_samples(prepare(volume), bands, local_mm)) for prepare in prepared]

    scan_samples = measure_slices(
        scans, max_slices, measure, f"band energy of the {side}", progress
    )
    no_samples = TissueSamples(np.empty((0, bands.count - 1)), np.empty((0, 3)), np.empty(0))
    return [
        _concatenate(
            [
                no_samples,
                *(slice_samples for samples in scan_samples for slice_samples in samples[index]),
            ]
        )
        for index in range(len(prepared))
    ]


def _concatenate(parts: Sequence[TissueSamples]) -> TissueSamples:
    return TissueSamples(
        np.concatenate([part.log_energy for part in parts]),
        np.concatenate([part.tissue for part in parts]),
        np.concatenate([part.radius_sq for part in parts]),
    )


def _slice_samples(volume: CTVolume, bands: Bands, local_mm: float) -> Iterator[TissueSamples]:
    reached = Bands.of(max(volume.geometry.pixel_mm), bands.step_per_mm).count
    if (
        reached <= UNSCALED
        or min(volume.hu.shape[1:]) * volume.pixel_mm < SMALLEST_SIGMAS * local_mm
    ):
        return
    blocks = _Blocks.of(volume, local_mm)
    radii = blocks.mean(radius_sq(volume))
    slice_bands = bands.split(volume, *UNFILTERED)
    outline = blurred(volume.hu)
    expected = expected_noise(volume, inside=body_of(outline))
    for mask, noise, parts in zip(
        tissue_mask(volume, outline), expected.log_power, slice_bands, strict=True
    ):
        share = blocks.local(mask.astype(np.float32))
        sampled = blocks.every_third(share > MIN_TISSUE_SHARE)
        log_energy = np.full((int(sampled.sum()), bands.count - 1), np.nan)
        for band, part in list(enumerate(parts))[1:reached]:
            energy = blocks.local(part * part * mask)[sampled] / share[sampled]
            log_energy[:, band - 1] = np.log(energy + ENERGY_FLOOR_HU2)
        lowest = blocks.mean(parts[0])
        detail = lowest - ndimage.gaussian_filter(
            lowest, STRUCTURE_SIGMAS * blocks.sigma, mode="nearest"
        )
        inside = blocks.mean(mask.astype(np.float32))
        structure = blocks.smooth(detail**2 * inside)[sampled] / share[sampled]
        coarse = (np.argwhere(sampled) + 0.5) * (np.array(noise.shape) / sampled.shape) - 0.5
        tissue = np.column_stack(
            [
                np.log(structure + STRUCTURE_FLOOR_HU2),
                blocks.local(parts[0] * mask)[sampled] / share[sampled] / 100,
                ndimage.map_coordinates(noise, coarse.T, order=1, mode="nearest"),
            ]
        )
        yield TissueSamples(
            log_energy, tissue.astype(np.float64), radii[sampled].astype(np.float64)
        )


@dataclass(frozen=True)
class _Blocks:
    """Grid of blocks a third of `local_mm` wide, for fast local Gaussian means.

    Args:
        size: rows and columns of a block.
        sigma: of the Gaussian, in blocks.
    """

    size: tuple[int, int]
    sigma: Float[np.ndarray, " 2"]

    @classmethod
    def of(cls, volume: CTVolume, local_mm: float) -> _Blocks:
        rows, columns = (
            max(round(local_mm / 3 / spacing), 1) for spacing in volume.geometry.pixel_mm
        )
        size = np.array([rows, columns])
        return cls((rows, columns), local_mm / (size * volume.geometry.pixel_mm))

    def mean(self, plane: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "r c"]:
        """Mean of each complete block; incomplete blocks at the end are dropped."""
        down, across = self.size
        rows, columns = plane.shape[0] // down, plane.shape[1] // across
        complete = plane[: rows * down, : columns * across]
        return np.asarray(complete.reshape(rows, down, columns, across).mean(axis=(1, 3)))

    def smooth(self, blocks: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
        """Gaussian mean of block values around each block."""
        return np.asarray(ndimage.gaussian_filter(blocks, self.sigma, mode="nearest"))

    def local(self, plane: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "r c"]:
        """Gaussian mean of pixel values around each block."""
        return self.smooth(self.mean(plane))

    @staticmethod
    def every_third(candidates: Bool[np.ndarray, "r c"]) -> Bool[np.ndarray, "r c"]:
        """Thin a mask of blocks to every third row and column."""
        kept = np.zeros_like(candidates)
        kept[1::3, 1::3] = candidates[1::3, 1::3]
        return kept
