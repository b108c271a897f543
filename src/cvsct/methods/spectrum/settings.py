"""Settings of the filters that are fitted to the texture spectra of two scanners."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cvsct.core.settings import Settings


class RatioSettings(Settings):
    """Settings that fit and limit a single gain."""

    patch_mm: float = Field(default=40.0, ge=10, le=200)
    """Side of the patches whose spectra are compared."""

    frequency_step_per_mm: float = Field(default=0.025, ge=0.002, le=0.05)
    """Distance of the frequencies at which a gain is known, in cycles/mm."""

    low_frequency_per_mm: float = Field(default=0.075, ge=0.05, le=0.3)
    """Kernels are taken to agree up to this frequency; patches are classed by it."""

    classes: int = Field(default=12, ge=1, le=100)
    """Classes of equal low-frequency power."""

    dose_law: float = Field(default=0.5, ge=0, le=1)
    """How noise power grows with expected attenuation. 1 is a fixed tube current, 0 one that holds
    the noise constant; automatic exposure mostly lies halfway."""

    doubt: float = Field(default=0.25, ge=0, le=10)
    """Fraction of a correction for anatomy that is taken as its standard error."""

    stiffness: float = Field(default=1e5, ge=0, le=1e12)
    """Weight of the bending of a log gain: its third differences over 0.025/mm."""

    max_gain: float = Field(default=16.0, ge=1, le=1000)
    """Largest amplification of any frequency, in either direction."""

    max_slices: int = Field(default=300, ge=1)
    """Slices used from each side, spread evenly over the scans."""


class SpectrumSettings(RatioSettings):
    """Settings of `spectrum`: a single gain or two, and how they are applied."""

    gains: Literal["two", "one"] = "two"
    """`two` tells noise from structure; `one` is a single gain for all, to which none of the
    following settings applies."""

    refine: bool = True
    """Correct two gains once by what is left after filtering."""

    tone: Literal["keep", "match"] = "keep"
    """`match` also moves soft tissue by the difference of its most frequent CT numbers; of
    different patients it may be theirs. `keep` only tells it, in the model card."""

    pass_through: bool = True
    """Leave a scan alone that reads like the target already, and take one that reads as if on the
    way the rest of it."""

    restore_clipped: float = Field(default=0.6, ge=0, le=1)
    """Share of the estimate that is put back of noise cut off below what the file can hold, where
    noise is to be taken away (`methods.spectrum.clipped_noise`)."""

    dose_law_sd: float = Field(default=0.2, ge=0, le=10)
    """How far scans may be from the dose law: it is read off them as far as they tell it. 0 takes
    it as given."""
