"""Noise of one side, measured in the most homogeneous of its soft tissue.

They are few and still hold texture; how much is told by rougher patches, and taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError
from cvsct.core.moments import Form, Moments, centered, lowest, mean_and_variance, mean_value
from cvsct.methods.spectrum.matched_tissue import smooth_log_gain
from cvsct.methods.spectrum.noise_law import OVERLAP, NoiseLaw
from cvsct.methods.spectrum.texture import HOMOGENEOUS_PATCH_MM, Texture

HOMOGENEOUS_SHARE = 0.05
"""Share of the patches of soft tissue, the most homogeneous ones, in which noise is measured."""

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
    """Soft tissue of one side: share of each stratum in tissue of three kinds.

    Roughness without texture is noise alone: the least rough patches are then those that happen to
    have less of it. The level of noise is therefore read where roughness over noise is least. That
    choice depends on noise by place, which is read where roughness is least.

    Args:
        texture: statistics of the side.
        homogeneous: of the least roughness over their own noise.
        smooth: of the least roughness.
        textured: of more roughness over noise.
        n_homogeneous: patches of homogeneous tissue.
    """

    texture: Texture
    homogeneous: Float[np.ndarray, " ratio_strata"]
    smooth: Float[np.ndarray, " roughness_strata"]
    textured: Float[np.ndarray, " ratio_strata"]
    n_homogeneous: int

    @classmethod
    def of(cls, texture: Texture, side: str) -> SoftTissue:
        """Select the most homogeneous tissue, and rougher one.

        Raises:
            TrainingError: if there is too little.
        """
        by_ratio, by_roughness = texture.by_ratio.patches, texture.by_roughness.patches
        total = float(by_ratio.sum())
        if total < MIN_PATCHES:
            raise TrainingError(
                f"the {side} scans hold {total:.0f} regions of {HOMOGENEOUS_PATCH_MM:g} mm of soft "
                f"tissue to measure noise in, of {MIN_PATCHES} needed; give more slices of the "
                "trunk, or train spectrum-plain"
            )
        count = max(float(MIN_HOMOGENEOUS), HOMOGENEOUS_SHARE * total)
        first, last = (share * total for share in TEXTURE_SHARE)
        return cls(
            texture,
            homogeneous=lowest(by_ratio, 0.0, count),
            smooth=lowest(by_roughness, 0.0, count),
            textured=lowest(by_ratio, max(first, count), max(last, count)),
            n_homogeneous=round(min(count, total)),
        )

    @property
    def noise_of_body(self) -> tuple[float, float]:
        """Expected log noise of slices of homogeneous tissue: mean and standard deviation."""
        mean, variance = self._of_homogeneous("slice_noise")
        return mean, float(np.sqrt(variance))

    @property
    def mean_radius_sq(self) -> float:
        """Mean squared distance of homogeneous tissue from the middle of the image."""
        return self._of_homogeneous("radius")[0]

    def _of_homogeneous(self, covariate: str) -> tuple[float, float]:
        """Mean and variance of a covariate in homogeneous tissue."""
        by_ratio = self.texture.by_ratio
        return mean_and_variance(
            by_ratio.weighted(self.homogeneous)[1], by_ratio.form(**{covariate: 1.0})
        )


def at_reference(moments: Moments, law: NoiseLaw, reference: float) -> Form:
    """Log power less what attenuation makes of noise, as a linear form of a patch's terms."""
    return moments.form(
        one=law.between * reference,
        noise=-law.within,
        slice_noise=law.within - law.between,
        value=1.0,
    )


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
    f, by_ratio = frequencies_per_mm, soft.texture.by_ratio
    form = at_reference(by_ratio, law, reference)
    power = mean_value(by_ratio.weighted(soft.homogeneous), form)
    textured = mean_value(by_ratio.weighted(soft.textured), form)
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
        _by_radius(side, law, reference) for side, law in zip(soft, laws, strict=True)
    )
    leaked = doubt * np.maximum(np.abs(a), np.abs(b)) * np.minimum(texture_over_noise(f), 1.0)
    sd = np.sqrt(0.25 * (variance_a + variance_b) + leaked**2)
    kept = RADIAL_SD**2 / (RADIAL_SD**2 + sd**2)  # before it is measured, no change is expected
    return smooth_log_gain(
        0.5 * kept * (b - a), np.hypot(sd, RADIAL_FLOOR_SD), stiffness, free_at_zero=True
    )


def _by_radius(
    soft: SoftTissue, law: NoiseLaw, reference: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Change of log power per (100 mm)² of squared radius, and its variance."""
    by_ratio = soft.texture.by_ratio
    apart = by_ratio.weighted(soft.homogeneous + soft.textured)
    enough = apart[:, 0, 0] >= MIN_PATCHES
    enough[0] = False
    count = np.where(enough, apart[:, 0, 0], 1.0)
    forms = np.stack([by_ratio.form(radius=1.0), at_reference(by_ratio, law, reference)])
    scatter = forms @ centered(apart) @ forms.T
    spread = np.where(enough & (scatter[:, 0, 0] > 0), scatter[:, 0, 0], 1.0)
    slope = scatter[:, 0, 1] / spread
    rest = np.maximum(scatter[:, 1, 1] - slope * scatter[:, 0, 1], 0.0) / count
    known = enough & (scatter[:, 0, 0] > 0)
    return np.where(known, slope, 0.0), np.where(known, OVERLAP * rest / spread, 1.0)


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
