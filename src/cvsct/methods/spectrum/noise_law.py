"""Law by which the noise of one scanner follows the noise that attenuation leads one to expect.

With a fixed tube current the power of noise follows expected noise (`expected_noise`) with the
exponent 1, between slices and within one. Tube current that is modulated along z lowers the
exponent between slices, to 0 where the noise is held; denoising lowers both. The law is therefore
fitted to the scans of each side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.moments import Form, Moments, centered
from cvsct.methods.spectrum.texture import Texture

WITHIN_PRIOR = (0.9, 0.3)
"""Exponent within a slice to expect before scans are looked at, and its standard deviation."""

FIXED_CURRENT_PRIOR = (0.8, 0.25)
"""Exponent between slices to expect of a fixed tube current, and its standard deviation: 1 in
physics, .7 on a real scanner, which smooths readings of few photons."""

MIN_SLICES = 4
"""Fewest slices that tell whether the tube current is modulated."""

SAME_LOAD_SD = 0.015
"""Standard deviation of log tube load up to which the current is taken to be fixed."""

OVERLAP = 4
"""Patches that overlap by half, each way, count as one of so many."""

SLOPE_FLOOR = 0.1
"""Smallest standard error of an exponent: slices of one body are not independent."""

LEAST_SPREAD = 1e-6
"""Sum of squares of expected log noise below which it does not vary."""


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


def fit_noise_law(
    texture: Texture,
    smooth: Float[np.ndarray, " roughness_strata"],
    soft: Float[np.ndarray, " ratio_strata"],
    between_prior: tuple[float, float],
) -> NoiseLaw:
    """Fit the law of one side by least squares, averaged with the priors by their precision.

    Args:
        texture: statistics of the side.
        smooth: share of each stratum of roughness in the least rough tissue, in which places of a
            slice are compared.
        soft: share of each stratum of roughness over noise in the tissue in which slices are
            compared.
        between_prior: exponent between slices to expect, and its standard deviation; 0 keeps both
            exponents as they are expected.
    """
    mean, sd = between_prior
    if sd == 0:
        return NoiseLaw(mean, WITHIN_PRIOR[0])
    places, slices = texture.within_slices, texture.slices
    offset = places.form(noise=1.0, slice_noise=-1.0)
    within, within_sd = _slope(
        places.weighted(smooth)[0],
        np.stack([offset, places.form(radius=1.0)]),
        places.form(value=1.0),
        WITHIN_PRIOR,
        independent=float(smooth @ places.counts[:, 0]) / OVERLAP,
    )
    current = _exponent_of_current(texture.load)
    if current is not None:
        between_prior = FIXED_CURRENT_PRIOR[0] - current, FIXED_CURRENT_PRIOR[1]
    between, between_sd = _slope(
        centered(slices.weighted(soft))[0],
        slices.form(slice_noise=1.0)[None],
        slices.form(value=1.0) - within * offset,
        between_prior,
        independent=float(texture.load.counts.sum()),
    )
    return NoiseLaw(between, within, between_sd, within_sd)


def _exponent_of_current(load: Moments) -> float | None:
    """Exponent with which the tube current follows expected noise; None where it is not known."""
    known, unknown = load.counts[:, 0]
    if known < MIN_SLICES or unknown > 0:
        return None
    spread = centered(load.sums[0, 0])
    if spread[2, 2] <= known * SAME_LOAD_SD**2:
        return 0.0
    return float(spread[1, 2] / spread[1, 1]) if spread[1, 1] > 0 else None


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
    scatter: Float[np.ndarray, "terms terms"],
    x: Float[np.ndarray, "m terms"],
    y: Form,
    prior: tuple[float, float],
    independent: float,
) -> tuple[float, float]:
    """Slope of y on the first of x, the others held, and its standard error.

    Args:
        scatter: sums of products of the terms about their means.
        x, y: linear forms of the terms.
        independent: number of independent observations.
    """
    mean, sd = prior
    gram = x @ scatter @ x.T
    if independent <= len(x) + 1 or gram[0, 0] <= LEAST_SPREAD:
        return mean, sd
    inverse = np.linalg.pinv(gram)
    slopes = inverse @ (x @ scatter @ y)
    left = y - slopes @ x
    rest = max(float(left @ scatter @ left), 0.0)
    variance = rest * float(inverse[0, 0]) / (independent - len(x) - 1) + SLOPE_FLOOR**2
    precision = np.array([sd**-2, 1 / variance])
    return float(np.average([mean, slopes[0]], weights=precision)), float(precision.sum() ** -0.5)
