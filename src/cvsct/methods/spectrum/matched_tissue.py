"""Comparison of two scanners' spectra between patches of matched tissue.

In two bodies a ratio of power spectra is also a ratio of anatomies. Patches are therefore compared
within strata of equal low-frequency power, at equal low-frequency shape and mean HU, which kernels
hardly change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError
from cvsct.core.moments import Moments, mean_and_variance
from cvsct.methods.spectrum.texture import N_TISSUES, Texture

MIN_OVERLAP = 15.0
"""Smallest effective number of matched patches (half the harmonic mean in each stratum)."""

MIN_ROWS = 30
"""Fewest patches at a frequency for which the ratio of structure is fitted."""

SAMPLING_VARIANCE = 0.03
"""Variance of a patch's log power about its mean: a circle holds some sixty coefficients."""

ROUNDS, LARGEST_STEP, RIDGE = 8, 1.0, 1e-3
LEAST_STRUCTURE = 0.05
FIRST_SPREAD, SPREAD_SQ = 0.5, (0.01, 4.0)
"""Steps of the fit of structure; its start, as a share of noise; the spread of its log power."""

NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()

MIN_SOFT, PATCH_OVERLAP = 100, 4
"""Fewest patches of soft tissue a side; overlapping by half, each way, so many count as one."""

NOISE_TERMS = ("noise", "slice_noise")
"""Covariates that tell the noise of a patch, not its tissue."""


@dataclass(frozen=True)
class MatchedTissue:
    """Patches of the bodies of two scanners in strata of equal low-frequency power.

    Args:
        moments: of the strata of both that hold patches, the source's before the target's.
        regressors: of each of these strata: from the terms of a patch to the domain (source -.5,
            target .5), what no kernel changes, the stratum of low-frequency power, and log power.
        is_target: whether each stratum is the target's.
        overlap: effective number of matched patches.
    """

    moments: Float[np.ndarray, "cells n terms terms"]
    regressors: Float[np.ndarray, "cells columns terms"]
    is_target: Float[np.ndarray, " cells"]
    overlap: float

    @classmethod
    def of(cls, source: Texture, target: Texture) -> MatchedTissue:
        """Match the tissue of two scanners.

        Raises:
            TrainingError: if they share too little.
        """
        sides = source.body, target.body
        a, b = (side.body_patches.sum(axis=1) for side in (source, target))
        overlap = float(np.sum(a * b / np.maximum(a + b, 1)))
        if overlap < MIN_OVERLAP:
            raise TrainingError(
                f"source and target show too little similar tissue ({overlap:.0f} regions to "
                f"compare, of {MIN_OVERLAP:.0f} needed); give scans of the same part of the body"
            )
        names = sides[0].names
        tissue = [i for i, name in enumerate(names, 1) if name not in NOISE_TERMS]
        used = np.flatnonzero(a + b > 0)
        moments, regressors, is_target = [], [], []
        for index, side in enumerate(sides):
            for cell in np.flatnonzero(side.patches > 0):
                to = np.zeros((2 + len(tissue) + len(used), len(names) + 2))
                to[0, 0] = index - 0.5
                to[1 + np.arange(len(tissue)), tissue] = 1
                energy = cell // N_TISSUES
                to[1 + len(tissue) + np.searchsorted(used, energy), 0] = 1
                to[-1, -1] = 1
                moments.append(side.sums[cell])
                regressors.append(to)
                is_target.append(float(index))
        return cls(np.stack(moments), np.stack(regressors), np.array(is_target), overlap)

    def log_ratio(self) -> Float[np.ndarray, " n"]:
        """Log ratio of power, target over source, by least squares at each frequency.

        Returns:
            NaN at zero frequency.
        """
        gram = np.einsum(
            "cit,cntu,cju->nij", self.regressors, self.moments, self.regressors, optimize=True
        )
        ratio = np.full(len(gram), np.nan)
        for index in range(1, len(gram)):
            x, y = gram[index, :-1, :-1], gram[index, :-1, -1]
            ratio[index] = np.linalg.lstsq(x, y, rcond=None)[0][0]
        return ratio

    def structure_log_ratio(
        self,
        source_noise: Float[np.ndarray, "n terms"],
        target_noise: Float[np.ndarray, "n terms"],
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Log ratio of the power of structure, target over source, and its standard error.

        The power of a patch is that of its noise and that of its structure, whose log follows the
        same regression as in `log_ratio` with a normal spread. The mean of the log of such a sum is
        not the log of the sum of means; the more noise, the more they differ, so that a noisier
        side would seem to have more structure. The mean is taken over the spread, and fitted by
        Gauss and Newton's method, linear within each stratum about its mean.

        Args:
            source_noise, target_noise: expected log noise power of a patch at each frequency, as
                linear forms of its terms; NaN where noise is not known.

        Returns:
            NaN, and infinity, at frequencies that too few patches reach.
        """
        n = self.moments.shape[1]
        noise = np.where(self.is_target[:, None, None] == 1, target_noise, source_noise)
        ratio, sd = np.full(n, np.nan), np.full(n, np.inf)
        for index in range(1, n):
            counts = self.moments[:, index, 0, 0]
            known = np.flatnonzero((counts > 0) & np.isfinite(noise[:, index]).all(axis=1))
            if counts[known].sum() >= MIN_ROWS:
                ratio[index], sd[index] = _structure_ratio(
                    self.regressors[known], self.moments[known, index], noise[known, index]
                )
        return ratio, sd


def _structure_ratio(
    regressors: Float[np.ndarray, "cells columns terms"],
    moments: Float[np.ndarray, "cells terms terms"],
    noise: Float[np.ndarray, "cells terms"],
) -> tuple[float, float]:
    """Coefficient of the first regressor in the log power of structure, and its standard error."""
    x_of, y_of = regressors[:, :-1], regressors[:, -1]
    n_patches = moments[:, 0, 0]
    means = moments[:, 0] / n_patches[:, None]
    mean_x = np.einsum("cit,ct->ci", x_of, means)
    mean_y = np.sum(y_of * means, axis=1)
    mean_noise = np.sum(noise * means, axis=1)
    xx = np.einsum("cit,ctu,cju->cij", x_of, moments, x_of, optimize=True)
    ridge = RIDGE * np.eye(x_of.shape[1])
    above = np.exp(mean_y) - np.exp(mean_noise)
    start = np.log(np.maximum(above, LEAST_STRUCTURE * np.exp(mean_noise)))
    coefficients = np.linalg.solve(xx.sum(axis=0) + ridge, mean_x.T @ (n_patches * start))
    spread, gram = FIRST_SPREAD, ridge
    for _ in range(ROUNDS):
        structure = (mean_x @ coefficients)[:, None] + spread * NODES
        total = np.logaddexp(mean_noise[:, None], structure)
        expected = total @ NODE_WEIGHTS
        share = np.exp(structure - total) @ NODE_WEIGHTS
        precision = 1 / (SAMPLING_VARIANCE + (share * spread) ** 2)
        # What is left of a patch's log power, as a linear form of its terms.
        along = share[:, None] * np.einsum("i,cit->ct", coefficients, x_of)
        along += (1 - share[:, None]) * noise
        left = y_of - along
        left[:, 0] -= expected - np.sum(along * means, axis=1)
        residuals = np.einsum("cit,ctu,cu->ci", x_of, moments, left, optimize=True)
        squares = np.einsum("ct,ctu,cu->c", left, moments, left, optimize=True)
        gram = np.tensordot(precision * share**2, xx, axes=1) + ridge
        step = np.linalg.solve(gram, (precision * share) @ residuals)
        coefficients = coefficients + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        weight = (share * precision) ** 2
        excess = float(
            weight @ (squares - SAMPLING_VARIANCE * n_patches)
            / max(weight @ (n_patches * share**2), 1e-12)
        )  # fmt: skip
        spread = float(np.sqrt(np.clip(excess, *SPREAD_SQ)))
    return float(coefficients[0]), float(np.sqrt(np.linalg.inv(gram)[0, 0]))


@dataclass(frozen=True)
class SoftTissueRatio:
    """Log ratio of power of matched soft tissue, target over source, at each frequency.

    Args:
        level: at the mean squared radius; NaN at frequencies that too few patches reach.
        slope: change per (100 mm)² of squared radius.
        level_sd, slope_sd: their standard errors.
        radius_sq: mean squared radius, and the range that both sides show, in (100 mm)².
    """

    level: Float[np.ndarray, " n"]
    slope: Float[np.ndarray, " n"]
    level_sd: Float[np.ndarray, " n"]
    slope_sd: Float[np.ndarray, " n"]
    radius_sq: tuple[float, float, float]


def soft_tissue_ratio(source: Texture, target: Texture) -> SoftTissueRatio:
    """Compare soft tissue within strata of equal roughness, at equal CT number and expected noise.

    Domains may differ by a constant and by the squared distance from the middle of the image:
    resolution and noise change from the isocenter, which lies near it, outwards.
    """
    sides = source.by_roughness, target.by_roughness
    n = sides[0].sums.shape[1]
    ends = np.array([_radius_range(side) for side in sides])
    middle = float(ends[:, 0].mean())
    names = sides[0].names
    one, *covariates, value = np.eye(len(names) + 2)
    columns = dict(zip(names, covariates, strict=True))
    offset = columns["radius"] - middle * one
    shared = [offset, columns["noise"], columns["hu"], columns["roughness"]]
    used = np.flatnonzero(sides[0].patches + sides[1].patches > 0)
    width = 2 + len(shared) + len(used)
    gram = np.zeros((n, width + 1, width + 1))
    for domain, side in zip((-0.5, 0.5), sides, strict=True):
        for stratum in np.flatnonzero(side.patches > 0):
            to = np.zeros((width + 1, len(names) + 2))
            to[: 2 + len(shared)] = [domain * one, domain * offset, *shared]
            to[2 + len(shared) + np.searchsorted(used, stratum)] = one
            to[-1] = value
            gram += to @ side.sums[stratum] @ to.T
    counts = np.minimum(*(side.counts.sum(axis=0) for side in sides))
    found = np.full((4, n), np.nan)
    for index in range(1, n):
        if counts[index] < MIN_SOFT:
            continue
        x, y = gram[index, :-1, :-1], gram[index, :-1, -1]
        inverse = np.linalg.pinv(x, hermitian=True)
        coefficients = inverse @ y
        total = sum(float(side.counts[:, index].sum()) for side in sides)
        rest = max(float(gram[index, -1, -1] - coefficients @ y), 0.0) / max(total - width, 1.0)
        sd = np.sqrt(PATCH_OVERLAP * rest * np.diag(inverse)[:2].clip(0))
        found[:, index] = *coefficients[:2], *sd
    least, largest = float(ends[:, 1].max()), float(ends[:, 2].min())
    level, slope, level_sd, slope_sd = found
    return SoftTissueRatio(level, slope, level_sd, slope_sd, (middle, least, max(least, largest)))


def _radius_range(side: Moments) -> tuple[float, float, float]:
    """Mean squared radius of patches, and two standard deviations below and above it."""
    mean, variance = mean_and_variance(side.total[1], side.form(radius=1.0))
    sd = float(np.sqrt(variance))
    return mean, max(mean - 2 * sd, 0.0), mean + 2 * sd


def smooth_log_gain(
    log_gain: Float[np.ndarray, " n"],
    sd: Float[np.ndarray, " n"],
    stiffness: float,
    free_at_zero: bool = False,
) -> Float[np.ndarray, " n"]:
    """Smooth a log gain into an even function of frequency that is 0 at zero frequency.

    Whittaker's smoother (1923) on third differences of the curve mirrored at zero.

    Args:
        free_at_zero: leave the value at zero frequency to the smoothness of the curve.
    """
    n, first = len(log_gain), 0 if free_at_zero else 1
    even = np.concatenate([np.eye(n)[:0:-1], np.eye(n)])
    bends = np.diff(even, 3, axis=0)[:, first:]
    precision = 1 / sd[first:] ** 2
    system = np.diag(precision) + stiffness * bends.T @ bends
    return np.concatenate([np.zeros(first), np.linalg.solve(system, precision * log_gain[first:])])
