"""Estimation of separate gains for noise and structure from scans of different bodies.

Two scanners differ in how sharp they are and in how they are noisy, and the two need not go
together: a power spectrum confounds them. Two kernels of one acquisition change both alike; two
vendors do not (notebook/decisions/010-two-gains.md has the figures).

*Noise* is measured where there is little else: in the most homogeneous patches of soft tissue. A
thick body is noisier than a thin one; the noise expected from attenuation is taken out with an
exponent fitted to the scans (tube current modulation makes it less than 1). How noise falls off
from the center of the image outward differs between kernels and is kept.

*Structure* is what is left of the other patches' power when their noise is accounted for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import TrainingError
from cvsct.core.spectra import mean_over_patches
from cvsct.methods.spectrum.hu_offset import soft_tissue_mode_hu
from cvsct.methods.spectrum.matched_patches import MatchedPatches, smooth_log_gain
from cvsct.methods.spectrum.patches import Patches

HOMOGENEOUS_PATCH_MM = 20.0
HOMOGENEOUS_SHARE = 0.3
"""Patches in which noise is measured: their side, and the most homogeneous share of them."""

MIN_HOMOGENEOUS = 30

NOISE_FROM_PER_MM = 3 / HOMOGENEOUS_PATCH_MM
"""Lowest frequency at which the noise gain is measured; below, homogeneous patches hold anatomy."""

NOISE_BAND_PER_MM = (0.3, 0.65)
"""Frequencies at which the dose law is fitted: noise is strong and anatomy weak on any kernel."""

MIN_SLICES, MIN_IN_SLICE = 4, 4
SLOPE_FLOOR = 0.1
"""Smallest standard error of a dose law: slices of one body are not independent."""

NOISE_SD, STRUCTURE_SD, UNKNOWN_SD = 0.02, 0.01, 0.5
"""Standard errors of a log gain: of noise, smallest of structure, and where nothing is measured."""

PATCH_SD = 0.3
"""Standard error of a log gain from one pair of patches that overlap their neighbors."""


@dataclass(frozen=True)
class SeparateGains:
    """Log gains of noise and structure from source to target, and both domains' noise power.

    Args:
        noise: natural log of the amplitude gain of noise at each frequency, 100 mm from the
            middle of the image.
        noise_radial: change of the log noise gain per (100 mm)² of squared distance from the middle
            of the image, relative to 100 mm.
        structure: natural log of the amplitude gain of structure.
        source_noise: log noise power of the source in HU² mm² at the mean expected attenuation.
        target_noise: log noise power of the target, likewise.
        dose_law: exponent with which noise power follows expected attenuation between slices.
        dose_law_sd: standard error of the dose law.
        noise_sd: standard error of the noise gain's level.
        n_homogeneous: numbers of patches of source and target in which noise was measured.
        soft_tissue_hu: most frequent CT number of those patches in source and target.
    """

    noise: Float[np.ndarray, " n"]
    noise_radial: Float[np.ndarray, " n"]
    structure: Float[np.ndarray, " n"]
    source_noise: Float[np.ndarray, " n"]
    target_noise: Float[np.ndarray, " n"]
    dose_law: float
    dose_law_sd: float
    noise_sd: float
    n_homogeneous: tuple[int, int]
    soft_tissue_hu: tuple[float | None, float | None]


@dataclass(frozen=True)
class _DomainNoise:
    """Log noise power of one domain: level, change with squared radius, and its variance."""

    level: Float[np.ndarray, " n"]
    radial: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]


def homogeneous_patches(soft: Patches, side: str) -> Patches:
    """Select the most homogeneous patches of soft tissue.

    Raises:
        TrainingError: if there are too few.
    """
    count = max(MIN_HOMOGENEOUS, round(HOMOGENEOUS_SHARE * len(soft)))
    if len(soft) < MIN_HOMOGENEOUS:
        raise TrainingError(
            f"the {side} scans hold {len(soft)} regions of {HOMOGENEOUS_PATCH_MM:g} mm of soft "
            f"tissue to measure noise in, of {MIN_HOMOGENEOUS} needed; give more slices of the "
            "trunk, or train spectrum-plain"
        )
    return soft.take(np.argsort(soft.roughness_hu, kind="stable")[:count])


def fit_separate_gains(
    frequencies_per_mm: Float[np.ndarray, " n"],
    homogeneous: tuple[Patches, Patches],
    bodies: MatchedPatches,
    dose_prior: tuple[float, float],
    doubt: float,
    stiffness: float,
) -> SeparateGains:
    """Fit the gains of noise and structure; swapping source and target inverts them.

    Args:
        homogeneous: most homogeneous soft tissue of source and target.
        bodies: all patches of the bodies, side by side.
        dose_prior: dose law expected before the scans are looked at, and its standard deviation.
        doubt: part of the fall-off of noise with radius that is taken as its standard error.
        stiffness: see `smooth_log_gain`.
    """
    f = frequencies_per_mm
    law, law_sd = dose_law(homogeneous, f, dose_prior)
    thickness = [float(side.log_noise.mean()) for side in homogeneous]
    reference = 0.5 * sum(thickness)
    noise_sd = float(np.hypot(NOISE_SD, 0.5 * law_sd * (thickness[1] - thickness[0])))
    a, b = (_domain_noise(side, law, reference) for side in homogeneous)
    measured = np.isfinite(a.level) & np.isfinite(b.level) & (f >= NOISE_FROM_PER_MM)
    noise_raw = np.where(measured, 0.5 * (b.level - a.level), 0.0)
    noise = smooth_log_gain(noise_raw, np.where(measured, NOISE_SD, UNKNOWN_SD), stiffness)
    leaked = doubt * np.maximum(np.abs(a.radial), np.abs(b.radial))
    radial_sd = np.sqrt(0.25 * (a.variance + b.variance) + 1e-4 + leaked**2)
    radial = smooth_log_gain(0.5 * (b.radial - a.radial), radial_sd, stiffness)

    level_a, level_b = _fill_gaps(a.level), _fill_gaps(b.level)
    target_side = bodies.domain[:, None] == 1
    expected = np.where(target_side, level_b, level_a)
    expected = expected + law * (bodies.log_noise - reference)[:, None]
    share = bodies.share(expected)
    # Of a patch's log power the noise moves its share: by the domain's gain, and by attenuation.
    attenuation_effect = law * (bodies.log_noise - bodies.log_noise.mean())[:, None]
    explained = share * (2 * noise_raw * target_side + attenuation_effect)
    ratio = bodies.log_ratio(share, explained)
    structure_power = np.maximum(np.mean((1 - share) ** 2, axis=0), 1e-9)
    # An error of the noise's gain comes back the larger, the more of the power is noise.
    error_transfer = np.mean(share * (1 - share), axis=0) / structure_power
    measured_ratio = np.isfinite(ratio)
    sampling = np.maximum(PATCH_SD / np.sqrt(bodies.effective_pairs(share) + 1e-9), STRUCTURE_SD)
    sd = np.hypot(sampling, noise_sd * error_transfer)
    # Where structure is drowned in noise the best guess is that one kernel shapes both.
    precision = np.where(measured_ratio, sd**-2, 0.0)
    prior_precision = UNKNOWN_SD**-2
    weighted_sum = precision * np.where(measured_ratio, 0.5 * ratio, 0.0) + prior_precision * noise
    structure = smooth_log_gain(
        weighted_sum / (precision + prior_precision),
        (precision + prior_precision) ** -0.5,
        stiffness,
    )
    return SeparateGains(
        noise=noise,
        noise_radial=radial,
        structure=structure,
        source_noise=level_a,
        target_noise=level_b,
        dose_law=law,
        dose_law_sd=law_sd,
        noise_sd=noise_sd,
        n_homogeneous=(len(homogeneous[0]), len(homogeneous[1])),
        soft_tissue_hu=(
            soft_tissue_mode_hu(homogeneous[0].mean_hu),
            soft_tissue_mode_hu(homogeneous[1].mean_hu),
        ),
    )


def dose_law(
    homogeneous: tuple[Patches, Patches],
    frequencies_per_mm: Float[np.ndarray, " n"],
    prior: tuple[float, float],
) -> tuple[float, float]:
    """Fit the exponent with which noise power follows expected attenuation between slices.

    1 is a fixed tube current, 0 one that holds the noise constant. Each domain's slices give an
    estimate by least squares; they are averaged with the prior by their precision.

    Returns:
        The law and its standard error.
    """
    low, high = NOISE_BAND_PER_MM
    band = (frequencies_per_mm >= low) & (frequencies_per_mm <= high)
    mean, sd = prior
    if sd == 0 or not band.any():
        return mean, sd
    estimates, precision = [mean], [sd**-2]
    for side in homogeneous:
        power = _band_mean(side.log_power, band)
        reached = np.isfinite(power)  # coarse pixels may show none of the band
        if not reached.any():
            continue
        slices, member = np.unique(side.slice_number[reached], return_inverse=True)
        count = np.bincount(member, minlength=len(slices))
        used = count >= MIN_IN_SLICE
        if used.sum() < MIN_SLICES:
            continue
        y, x = (
            (np.bincount(member, values) / count)[used]
            for values in (power[reached], side.log_noise[reached])
        )
        weight = count[used] / count[used].sum()
        x, y = x - weight @ x, y - weight @ y
        spread = float(weight @ x**2)
        if spread == 0:
            continue
        slope = float(weight @ (x * y)) / spread
        variance = float(weight @ (y - slope * x) ** 2) / spread / max(int(used.sum()) - 2, 1)
        estimates.append(slope)
        precision.append(1 / (variance + SLOPE_FLOOR**2))
    total = sum(precision)
    return float(np.dot(estimates, precision)) / total, float(total**-0.5)


def _band_mean(
    log_power: Float[np.ndarray, "patches n"], band: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " patches"]:
    return mean_over_patches(log_power[:, band].T)


def _domain_noise(homogeneous: Patches, law: float, reference: float) -> _DomainNoise:
    """Fit log power by squared radius, at the reference attenuation."""
    log_power = homogeneous.log_power - law * (homogeneous.log_noise - reference)[:, None]
    n = log_power.shape[1]
    level, radial, variance = np.full(n, np.nan), np.zeros(n), np.ones(n)
    for index in range(1, n):
        rows = np.isfinite(log_power[:, index])
        if rows.sum() < MIN_HOMOGENEOUS:
            continue
        offset = homogeneous.radius_sq[rows] - 1
        x = np.column_stack([np.ones(len(offset)), offset])
        y = log_power[rows, index]
        inverse = np.linalg.pinv(x.T @ x)
        level[index], radial[index] = inverse @ x.T @ y
        variance[index] = np.var(y - x @ inverse @ x.T @ y) * inverse[1, 1]
    return _DomainNoise(level, radial, variance)


def _fill_gaps(level: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Interpolate the level at frequencies where it is not known."""
    known = np.flatnonzero(np.isfinite(level))
    filled: Float[np.ndarray, " n"] = np.interp(np.arange(len(level)), known, level[known])
    return filled
