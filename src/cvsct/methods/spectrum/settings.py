"""Settings of the filters that are fitted to the texture spectra of two scanners."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cvsct.core.settings import Settings


class RatioSettings(Settings):
    """Settings of the fit of gains to the spectra of two scanners, and their limits."""

    patch_mm: float = Field(default=40.0, ge=10, le=200)
    """Side of the patches whose spectra are compared, in mm."""

    frequency_step_per_mm: float = Field(default=0.025, ge=0.002, le=0.05)
    """Distance between the frequencies at which a gain is computed, in cycles/mm."""

    low_frequency_per_mm: float = Field(default=0.075, ge=0.05, le=0.3)
    """Highest frequency, in cycles/mm, up to which the kernels of both scanners are assumed to
    agree. Patches are matched by their power up to this frequency."""

    dose_law: float = Field(default=0.5, ge=0, le=1)
    """Exponent with which noise power grows with the attenuation by the body. 1 is a fixed tube
    current, 0 is a current that keeps the noise constant; automatic exposure control mostly
    lies halfway."""

    doubt: float = Field(default=0.25, ge=0, le=10)
    """Relative standard error of the corrections for anatomy and for the change of noise with
    the distance from the center. A larger value smooths a gain more where it was corrected
    much."""

    stiffness: float = Field(default=1e5, ge=0, le=1e12)
    """Weight of the smoothness of a log gain in its fit: of its squared third differences over
    steps of 0.025 cycles/mm. A larger value gives a smoother gain."""

    max_gain: float = Field(default=16.0, ge=1, le=1000)
    """Largest amplification of any frequency, as a ratio of amplitudes, in either direction."""

    max_slices: int = Field(default=300, ge=1)
    """Largest number of slices used from each side, spread evenly over its scans."""


class SpectrumSettings(RatioSettings):
    """Settings of `spectrum`: number of gains, their fit, and how they are applied."""

    gains: Literal["two", "one"] = "two"
    """Number of gains of the filter. `two` fits separate gains for noise and for structure;
    `one` fits a single gain for both, and the settings refine, tone, pass_through,
    restore_clipped, dose_law_sd, dose_level and synthesis have no effect."""

    refine: bool = True
    """Whether the gains for noise and structure are corrected once by the difference that
    remains between the filtered training scans and the other side. Without effect where a side is
    a profile."""

    tone: Literal["auto", "keep", "match"] = "auto"
    """Treatment of differences in CT numbers. `auto` corrects fat and soft tissue where at least
    eight patients of each side, without contrast agent, differ by three standard errors and 1 HU;
    `match` shifts soft tissue by the difference of its most frequent CT numbers whoever the
    patients are, and is for phantoms; `keep` only reports differences in the model card."""

    pass_through: bool = True
    """Whether the filter is reduced for scans whose texture lies between the two sides: a scan
    like the target stays unchanged, a scan between source and target gets a part of the gains.
    If false, all scans get the whole gains."""

    restore_clipped: float = Field(default=0.6, ge=0, le=1)
    """Share, 0 to 1, of the estimated clipped noise that is restored before a filter that
    reduces noise. Noise below the lowest CT number of a file (mostly -1024 HU) was clipped,
    which would leave lung and air too bright after the filter; 0 restores nothing."""

    dose_law_sd: float = Field(default=0.4, ge=0, le=10)
    """Standard deviation of the prior for the exponent dose_law when it is estimated from the
    scans of each side. A larger value lets the scans change the exponent more; 0 keeps it at
    dose_law. Where headers tell the tube current of every slice, they take the prior's place."""

    dose_level: Literal["fixed", "target-law"] = "fixed"
    """Noise level of each scan's output. `fixed` changes all scans by the same gains, so that a
    patient at half the dose stays noisier than others; `target-law` measures the noise of each
    scan that is filtered in full and brings it to the level that the target scanner would show in
    that body."""

    repeated_fits: bool = True
    """Whether the fit is repeated without a quarter of each side's patients in turn, so that
    `harmonize --uncertainty` can tell how much the output depends on who was learned from.
    Without effect where a side is a profile."""

    synthesis: Literal["auto", "off"] = "auto"
    """Whether noise is added where amplification must not make it. `auto` adds noise where the
    gains of noise and structure show that one linear kernel does not explain both scanners: the
    source is then denoised, or its dose higher. `off` amplifies the noise of the source in full."""
