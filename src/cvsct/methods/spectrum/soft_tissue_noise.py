"""Noise of one side, measured in the most homogeneous patches of its soft tissue.

They are few and still hold texture; how much is told by rougher patches, and taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError
from cvsct.core.spectra import mean_over_patches
from cvsct.methods.spectrum.matched_patches import smooth_log_gain
from cvsct.methods.spectrum.noise_law import OVERLAP, NoiseLaw, in_noise_band
from cvsct.methods.spectrum.patches import Patches

HOMOGENEOUS_PATCH_MM = 20.0
HOMOGENEOUS_SHARE = 0.05
"""Patches in which noise is measured: their side, and the most homogeneous share of them."""

MIN_PATCHES, MIN_HOMOGENEOUS = 30, 120
"""Fewest patches of soft tissue, and of homogeneous ones where there are as many."""

TEXTURE_SHARE = (0.1, 0.4)
"""Shares of the patches, by roughness, whose power beyond the most homogeneous ones' is texture."""

TEXTURE_PER_MM = (0.1, 0.2)
"""Frequencies from which residual texture is told: noise does not fall from one to the other."""

RAMP_POWER = 0.4
"""Least power of frequency with which noise of patches rises from zero: 1 for the ramp filter, .55
to .85 through a patch's window, and .3 to .5 after denoising, on simulated scanners."""

RAMP_FROM_PER_MM, RAMP_ORDER = (0.35, 0.8), 2
"""Frequencies at which homogeneous tissue is noise, from which its power below is extrapolated, and
the highest power of squared frequency of its log over the ramp's."""

LEAST_NOISE_SHARE = 0.1
"""Smallest share of the power of homogeneous tissue that is left as noise."""

RADIAL_SD, RADIAL_FLOOR_SD = 0.4, 0.02
"""Standard deviation of the change of a log noise gain per (100 mm)² before it is measured, and its
smallest standard error after."""


@dataclass(frozen=True)
class SoftTissue:
    """Patches of one side's soft tissue.

    Roughness without texture is noise alone: the least rough patches are then those that happen to
    have less of it. The level of noise is therefore read where roughness over noise is least. That
    choice depends on noise by place, which is read where roughness is least.

    Args:
        homogeneous: of the least roughness over their own noise.
        smooth: of the least roughness.
        textured: of more roughness over noise.
    """

    homogeneous: Patches
    smooth: Patches
    textured: Patches


def split_soft_tissue(
    soft: Patches, frequencies_per_mm: Float[np.ndarray, " n"], side: str
) -> SoftTissue:
    """Select the most homogeneous patches of soft tissue, and rougher ones.

    Raises:
        TrainingError: if there are too few.
    """
    count = max(MIN_HOMOGENEOUS, round(HOMOGENEOUS_SHARE * len(soft)))
    if len(soft) < MIN_PATCHES:
        raise TrainingError(
            f"the {side} scans hold {len(soft)} regions of {HOMOGENEOUS_PATCH_MM:g} mm of soft "
            f"tissue to measure noise in, of {MIN_PATCHES} needed; give more slices of the "
            "trunk, or train spectrum-plain"
        )
    order = np.argsort(_roughness_over_noise(soft, frequencies_per_mm), kind="stable")
    first, last = (round(share * len(soft)) for share in TEXTURE_SHARE)
    return SoftTissue(
        homogeneous=soft.take(order[:count]),
        smooth=soft.take(np.argsort(soft.roughness_hu, kind="stable")[:count]),
        textured=soft.take(order[max(first, count) : last]),
    )


def _roughness_over_noise(
    soft: Patches, frequencies_per_mm: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " patches"]:
    """Roughness of patches over the root of their power at high frequencies."""
    band = in_noise_band(frequencies_per_mm)
    if not band.any():  # of coarse pixels: the highest third
        band = frequencies_per_mm >= frequencies_per_mm[-1] * 2 / 3
    log_noise = mean_over_patches(soft.log_power[:, band].T)
    known = np.isfinite(log_noise)  # not where a grid is coarser than that of other scans
    typical = np.median(log_noise[known]) if known.any() else 0.0
    noise_hu = np.exp(0.5 * np.where(known, log_noise, typical))
    ratio: Float[np.ndarray, " patches"] = soft.roughness_hu / noise_hu
    return ratio


@dataclass(frozen=True)
class SideNoise:
    """Noise of one side.

    Args:
        level: log power at the reference of the laws, at the mean radius of homogeneous tissue.
        most: log of the power that may be noise: where texture hides it, `level` is the power that
            noise at higher frequencies tells.
        texture: log of the power before residual texture was taken from it, less that after.
    """

    level: Float[np.ndarray, " n"]
    most: Float[np.ndarray, " n"]
    texture: Float[np.ndarray, " n"]


def side_noise(
    soft: SoftTissue,
    law: NoiseLaw,
    reference: float,
    frequencies_per_mm: Float[np.ndarray, " n"],
) -> SideNoise:
    """Log noise power at the reference, at the mean radius of homogeneous tissue."""
    f = frequencies_per_mm
    power = mean_over_patches(_at_reference(soft.homogeneous, law, reference))
    textured = mean_over_patches(_at_reference(soft.textured, law, reference))
    most = without_texture(f, power, textured)
    least = most + np.log(LEAST_NOISE_SHARE)
    level = np.minimum(most, np.maximum(noise_ramp(f, power), least))
    return SideNoise(level, most, np.nan_to_num(power - level))


def texture_over_noise(frequencies_per_mm: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Power of texture over that of noise, up to a factor: 1 at the higher of `TEXTURE_PER_MM`.

    It falls with the cube of frequency (2.7 in soft tissue of simulated scans).
    """
    f = np.maximum(frequencies_per_mm, frequencies_per_mm[1])
    falling: Float[np.ndarray, " n"] = (TEXTURE_PER_MM[1] / f) ** 3
    return falling


def radial_noise_gain(
    frequencies_per_mm: Float[np.ndarray, " n"],
    soft: tuple[SoftTissue, SoftTissue],
    laws: tuple[NoiseLaw, NoiseLaw],
    reference: float,
    doubt: float,
    stiffness: float,
) -> Float[np.ndarray, " n"]:
    """Change of the log noise gain with squared radius.

    Kernels lose resolution away from the middle, each its own share. Rougher tissue is measured as
    well: its texture changes with radius on both sides alike, but for what is doubted.
    """
    f = frequencies_per_mm
    (a, variance_a), (b, variance_b) = (
        _by_radius(_at_reference(patches, law, reference), patches.radius_sq)
        for patches, law in zip(
            (side.homogeneous.joined(side.textured) for side in soft), laws, strict=True
        )
    )
    leaked = doubt * np.maximum(np.abs(a), np.abs(b)) * np.minimum(texture_over_noise(f), 1.0)
    sd = np.sqrt(0.25 * (variance_a + variance_b) + leaked**2)
    kept = RADIAL_SD**2 / (RADIAL_SD**2 + sd**2)  # before it is measured, no change is expected
    return smooth_log_gain(
        0.5 * kept * (b - a), np.hypot(sd, RADIAL_FLOOR_SD), stiffness, free_at_zero=True
    )


def _by_radius(
    log_power: Float[np.ndarray, "patches n"],
    radius_sq: Float[np.ndarray, " patches"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Change of log power per (100 mm)² of squared radius, and its variance."""
    n = log_power.shape[1]
    slope, variance = np.zeros(n), np.ones(n)
    for index in range(1, n):
        rows = np.isfinite(log_power[:, index])
        if rows.sum() < MIN_PATCHES:
            continue
        offset = radius_sq[rows] - 1
        x = np.column_stack([np.ones(len(offset)), offset])
        y = log_power[rows, index]
        inverse = np.linalg.pinv(x.T @ x)
        coefficients = inverse @ x.T @ y
        slope[index] = coefficients[1]
        variance[index] = OVERLAP * np.var(y - x @ coefficients) * inverse[1, 1]
    return slope, variance


def _at_reference(
    patches: Patches, law: NoiseLaw, reference: float
) -> Float[np.ndarray, "patches n"]:
    """Log power of patches, less what attenuation makes of noise."""
    by_attenuation = law.log_power(patches.log_noise, patches.slice_log_noise, reference)
    log_power: Float[np.ndarray, "patches n"] = patches.log_power - by_attenuation[:, None]
    return log_power


def without_texture(
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_power: Float[np.ndarray, " n"],
    textured_log_power: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Log noise power, from the log power of homogeneous and of rougher tissue.

    Homogeneous tissue is not free of texture, whose power is known but for a factor: it is what
    rougher tissue has more. Filtered back-projection makes noise that rises with frequency, as the
    ramp filter does, and denoised noise is flat at most. Where power falls from the lower of
    `TEXTURE_PER_MM` to the higher, so much texture is taken away that it does not. Below the higher
    one noise rises at least with a power of frequency, `RAMP_POWER`.
    """
    f = frequencies_per_mm
    power, texture = np.exp(log_power), np.exp(textured_log_power) - np.exp(log_power)
    known = np.isfinite(power) & np.isfinite(texture)
    if known.sum() < 2 or f[known][0] > TEXTURE_PER_MM[0]:
        return log_power
    texture = np.maximum(texture, 0.0)
    (low, high), (low_texture, high_texture) = (
        np.interp(TEXTURE_PER_MM, f[known], curve[known]) for curve in (power, texture)
    )
    falls, texture_falls = low - high, low_texture - high_texture
    share = falls / texture_falls if min(falls, texture_falls) > 0 else 0.0
    noise = np.maximum(power - share * np.where(known, texture, 0.0), LEAST_NOISE_SHARE * power)
    high = max(high - share * high_texture, LEAST_NOISE_SHARE * high)
    ramp = high * (f / TEXTURE_PER_MM[1]) ** RAMP_POWER
    risen = np.where(f < TEXTURE_PER_MM[1], np.minimum(noise, ramp), noise)
    return np.where(np.isfinite(log_power), np.log(np.maximum(risen, 1e-9)), log_power)


def noise_ramp(
    frequencies_per_mm: Float[np.ndarray, " n"], log_power: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Log noise power below `RAMP_FROM_PER_MM`, from the log power there; infinite above.

    Noise of filtered back-projection is frequency, which is the ramp filter's share, times the
    square of the kernel's transfer (Kak and Slaney 1988, section 5.2): an even, smooth function.
    Its log is fitted as a polynomial of squared frequency. Noise that is not white any more follows
    it as well, for no reconstruction changes the lowest frequencies.
    """
    f = frequencies_per_mm
    low, high = RAMP_FROM_PER_MM
    used = (f >= low) & (f <= high) & np.isfinite(log_power)
    ramp: Float[np.ndarray, " n"] = np.full(len(f), np.inf)
    if used.sum() <= 2 * RAMP_ORDER:
        return ramp
    powers: Float[np.ndarray, "n m"] = (f[:, None] / low) ** (2 * np.arange(RAMP_ORDER + 1))
    over_ramp = log_power[used] - np.log(f[used])
    coefficients = np.linalg.lstsq(powers[used], over_ramp, rcond=None)[0]
    below = f < low
    ramp[below] = (powers @ coefficients)[below] + np.log(np.maximum(f, 0.5 * f[1]))[below]
    return ramp
