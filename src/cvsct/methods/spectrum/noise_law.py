"""Law by which the noise of one scanner follows the noise that attenuation leads one to expect.

With a fixed tube current the power of noise follows expected noise (`expected_noise`) with the
exponent 1, between slices and within one. Tube current that is modulated along z lowers the
exponent between slices, to 0 where the noise is held; denoising lowers both. The law is therefore
fitted to the scans of each side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.spectra import mean_over_patches
from cvsct.methods.spectrum.patches import Patches

BAND_PER_MM = (0.45, 0.75)
"""Frequencies at which the law is fitted: noise is strong and anatomy weak on any kernel."""

WITHIN_PRIOR = (0.9, 0.3)
"""Exponent within a slice to expect before scans are looked at, and its standard deviation."""

FIXED_CURRENT_PRIOR = (0.8, 0.25)
"""Exponent between slices to expect of a fixed tube current, and its standard deviation: 1 in
physics, .7 on a real scanner, which smooths readings of few photons."""

MIN_SLICES, MIN_IN_SLICE = 4, 4
"""Fewest slices, and fewest patches in a slice whose mean counts."""

SAME_LOAD = 0.05
"""Range of log tube load up to which the current is taken to be fixed."""

OVERLAP = 4
"""Patches that overlap by half, each way, count as one of so many."""

SLOPE_FLOOR = 0.1
"""Smallest standard error of an exponent: slices of one body are not independent."""


@dataclass(frozen=True)
class NoiseLaw:
    """Exponents with which noise power follows expected noise, and their standard errors.

    Args:
        between: from the mean of one slice's body to that of another.
        within: from place to place in a slice.
    """

    between: float
    within: float
    between_sd: float = 0.0
    within_sd: float = 0.0

    def log_power(
        self,
        log_noise: Float[np.ndarray, "*shape"],
        slice_mean: Float[np.ndarray, "*shape"] | float,
        reference: float,
    ) -> Float[np.ndarray, "*shape"]:
        """Log of noise power at places, relative to that at the reference.

        Args:
            log_noise: expected log noise power at each place.
            slice_mean: its mean over the body in the slice of each place.
            reference: expected log noise power at which the result is 0.
        """
        along = self.between * (slice_mean - reference)
        law: Float[np.ndarray, "*shape"] = along + self.within * (log_noise - slice_mean)
        return law


NO_LAW = NoiseLaw(0.0, 0.0)

BEYOND = 0.5
"""How far beyond the training's slices, in log noise, a law is followed; it is held from there."""


@dataclass(frozen=True)
class SideLaws:
    """Laws of both sides of a model.

    Args:
        source, target: the law of each.
        reference: expected log noise to which levels of noise belong.
        least, most: expected log noise of the training's slices.
    """

    source: NoiseLaw = NO_LAW
    target: NoiseLaw = NO_LAW
    reference: float = 0.0
    least: float = 0.0
    most: float = 0.0

    def log_power(
        self,
        law: NoiseLaw,
        log_noise: Float[np.ndarray, "*shape"],
        slice_mean: Float[np.ndarray, "*shape"] | float,
    ) -> Float[np.ndarray, "*shape"]:
        """`NoiseLaw.log_power` of one side's law, at most `BEYOND` outside the training's slices.

        Args:
            log_noise: expected log noise power at each place.
            slice_mean: its mean over the body in the slice of each place.
        """
        held = np.clip(slice_mean, self.least - BEYOND, self.most + BEYOND)
        return law.log_power(log_noise + (held - slice_mean), held, self.reference)


NO_LAWS = SideLaws()


def in_noise_band(frequencies_per_mm: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether each frequency lies in `BAND_PER_MM`."""
    low, high = BAND_PER_MM
    inside: Bool[np.ndarray, " n"] = (frequencies_per_mm >= low) & (frequencies_per_mm <= high)
    return inside


def fit_noise_law(
    smooth: Patches,
    soft: Patches,
    frequencies_per_mm: Float[np.ndarray, " n"],
    between_prior: tuple[float, float],
) -> NoiseLaw:
    """Fit the law of one side by least squares, averaged with the priors by their precision.

    Args:
        smooth: the least rough patches of soft tissue: places in a slice are compared in them.
        soft: rougher ones as well, of which the means of slices are taken.
        between_prior: exponent between slices to expect, and its standard deviation; 0 keeps both
            exponents as they are expected.
    """
    mean, sd = between_prior
    if sd == 0:
        return NoiseLaw(mean, WITHIN_PRIOR[0])
    band = in_noise_band(frequencies_per_mm)
    even = _BandPower.of(smooth, band)
    within, within_sd = _slope(
        even.power - even.mean(even.power)[even.member],
        [x - even.mean(x)[even.member] for x in (even.offset, even.patches.radius_sq)],
        np.ones(len(even.power)),
        WITHIN_PRIOR,
        independent=len(even.power) / OVERLAP,
    )
    every = _BandPower.of(soft, band)
    enough = every.count >= MIN_IN_SLICE
    current = _exponent_of_current(every, enough)
    if current is not None:
        between_prior = FIXED_CURRENT_PRIOR[0] - current, FIXED_CURRENT_PRIOR[1]
    between, between_sd = _slope(
        every.mean(every.power - within * every.offset)[enough],
        [every.mean(every.patches.slice_log_noise)[enough]],
        every.count[enough].astype(np.float64),
        between_prior,
        independent=float(enough.sum()),
    )
    return NoiseLaw(between, within, between_sd, within_sd)


def _exponent_of_current(every: _BandPower, enough: Bool[np.ndarray, " slices"]) -> float | None:
    """Exponent with which the tube current follows expected noise; None where it is not known."""
    load = every.mean(every.patches.log_tube_load)[enough]
    if len(load) < MIN_SLICES or not np.isfinite(load).all():
        return None
    expected = every.mean(every.patches.slice_log_noise)[enough]
    expected = expected - expected.mean()
    if np.ptp(load) < SAME_LOAD:
        return 0.0
    spread = float(expected @ expected)
    return float(expected @ load) / spread if spread > 0 else None


@dataclass(frozen=True)
class _BandPower:
    """Log power of patches in a band, and the slice of each.

    Args:
        member: index of each patch's slice.
        count: patches of each slice.
    """

    patches: Patches
    power: Float[np.ndarray, " patches"]
    member: Int[np.ndarray, " patches"]
    count: Int[np.ndarray, " slices"]

    @classmethod
    def of(cls, patches: Patches, band: Bool[np.ndarray, " n"]) -> _BandPower:
        """Power in the band; coarse pixels may show none of it."""
        power = mean_over_patches(patches.log_power[:, band].T)
        used = np.flatnonzero(np.isfinite(power))
        patches = patches.take(used)
        _, member, count = np.unique(patches.slice_number, return_inverse=True, return_counts=True)
        return cls(patches, power[used], member, count)

    @property
    def offset(self) -> Float[np.ndarray, " patches"]:
        """Expected noise of each patch less the mean of its slice."""
        offset: Float[np.ndarray, " patches"] = (
            self.patches.log_noise - self.patches.slice_log_noise
        )
        return offset

    def mean(self, values: Float[np.ndarray, " patches"]) -> Float[np.ndarray, " slices"]:
        """Mean of each slice."""
        mean: Float[np.ndarray, " slices"] = (
            np.bincount(self.member, values, minlength=len(self.count)) / self.count
        )
        return mean


def shared_laws(first: NoiseLaw, second: NoiseLaw) -> tuple[NoiseLaw, NoiseLaw]:
    """Both laws, nearer to their mean the less their difference stands out of its error.

    Two kernels of one scanner follow one law; that two estimates differ must not make gains differ
    from place to place.
    """

    def drawn(a: float, b: float, a_sd: float, b_sd: float) -> tuple[float, float]:
        half, variance = 0.5 * (b - a), a_sd**2 + b_sd**2
        square = (b - a) ** 2
        kept = square / (square + variance) if square else 0.0
        precision = (max(a_sd, 1e-9) ** -2, max(b_sd, 1e-9) ** -2)
        mean = float(np.average([a, b], weights=precision))
        middle = mean + (0.5 * (a + b) - mean) * kept
        return middle - half * kept, middle + half * kept

    between = drawn(first.between, second.between, first.between_sd, second.between_sd)
    within = drawn(first.within, second.within, first.within_sd, second.within_sd)
    return (
        NoiseLaw(between[0], within[0], first.between_sd, first.within_sd),
        NoiseLaw(between[1], within[1], second.between_sd, second.within_sd),
    )


def _slope(
    y: Float[np.ndarray, " n"],
    x: list[Float[np.ndarray, " n"]],
    weight: Float[np.ndarray, " n"],
    prior: tuple[float, float],
    independent: float,
) -> tuple[float, float]:
    """Slope of y on the first of x, the others held, and its standard error.

    Args:
        independent: number of independent observations.
    """
    mean, sd = prior
    weight = weight / weight.sum() if len(weight) else weight
    design = np.column_stack(x) if len(y) else np.empty((0, len(x)))
    design = design - weight @ design
    y = y - weight @ y
    gram = design.T @ (weight[:, None] * design)
    if independent <= len(x) + 1 or gram[0, 0] == 0:
        return mean, sd
    inverse = np.linalg.pinv(gram)
    slopes = inverse @ design.T @ (weight * y)
    rest = float(weight @ (y - design @ slopes) ** 2)
    variance = rest * float(inverse[0, 0]) / (independent - len(x) - 1) + SLOPE_FLOOR**2
    precision = np.array([sd**-2, 1 / variance])
    return float(np.average([mean, slopes[0]], weights=precision)), float(precision.sum() ** -0.5)
