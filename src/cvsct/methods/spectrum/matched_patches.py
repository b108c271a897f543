"""Comparison of two domains' spectra between patches matched by low frequencies and mean HU.

In two bodies a ratio of power spectra is also a ratio of anatomies. Patches are therefore compared
within classes of equal low-frequency power, at equal low-frequency shape and mean HU, which
kernels hardly change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.errors import TrainingError
from cvsct.methods.spectrum.patches import Patches

MIN_OVERLAP = 15.0
"""Smallest effective number of matched patches (half the harmonic mean in each class)."""

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


@dataclass(frozen=True)
class MatchedPatches:
    """Patches of both domains in classes of equal low-frequency power, source before target.

    Args:
        domain: 0 for the source's patches, 1 for the target's.
        member: the class of low-frequency power of each.
        covariates: what else no kernel changes: mean HU, its square, low-frequency shape.
        overlap: effective number of matched patches.
    """

    log_power: Float[np.ndarray, "patches n"]
    log_noise: Float[np.ndarray, " patches"]
    slice_log_noise: Float[np.ndarray, " patches"]
    domain: Float[np.ndarray, " patches"]
    member: Int[np.ndarray, " patches"]
    covariates: Float[np.ndarray, "patches m"]
    overlap: float

    @classmethod
    def of(
        cls, source: Patches, target: Patches, low: Bool[np.ndarray, " n"], classes: int
    ) -> MatchedPatches:
        """Class the patches of two domains by their low-frequency power.

        Args:
            low: frequencies at which kernels are taken to agree.

        Raises:
            TrainingError: if they share too few classes.
        """
        log_power = np.concatenate([source.log_power, target.log_power])
        mean_hu = np.concatenate([source.mean_hu, target.mean_hu]) / 1000
        domain = np.repeat([0.0, 1.0], [len(source), len(target)])
        energy = log_power[:, low].mean(axis=1)
        shape = (log_power[:, low] - energy[:, None])[:, :-1]
        member = np.digitize(energy, np.quantile(energy, np.linspace(0, 1, classes + 1)[1:-1]))
        counts = [np.bincount(member[domain == side], minlength=classes) for side in (0, 1)]
        overlap = float(np.sum(counts[0] * counts[1] / np.maximum(counts[0] + counts[1], 1)))
        if overlap < MIN_OVERLAP:
            raise TrainingError(
                f"source and target show too little similar tissue ({overlap:.0f} regions to "
                f"compare, of {MIN_OVERLAP:.0f} needed); give scans of the same part of the body"
            )
        return cls(
            log_power=log_power,
            log_noise=np.concatenate([source.log_noise, target.log_noise]),
            slice_log_noise=np.concatenate([source.slice_log_noise, target.slice_log_noise]),
            domain=domain,
            member=member,
            covariates=np.column_stack([mean_hu, mean_hu**2, shape]),
            overlap=overlap,
        )

    def log_ratio(self) -> Float[np.ndarray, " n"]:
        """Log ratio of power, target over source, by least squares at each frequency.

        Classes weigh by half the harmonic mean of their counts, as least squares has it.

        Returns:
            NaN at zero frequency.
        """
        regressors = self._regressors()
        ratio = np.full(self.log_power.shape[1], np.nan)
        for index in range(1, len(ratio)):
            rows = np.isfinite(self.log_power[:, index])
            x, y = regressors[rows], self.log_power[rows, index]
            ratio[index] = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0][0]
        return ratio

    def structure_log_ratio(
        self, noise_log_power: Float[np.ndarray, "patches n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Log ratio of the power of structure, target over source, and its standard error.

        The power of a patch is that of its noise and that of its structure, whose log follows the
        same regression as in `log_ratio` with a normal spread. The mean of the log of such a sum is
        not the log of the sum of means; the more noise, the more they differ, so that a noisier
        side would seem to have more structure. The mean is taken over the spread, and fitted by
        Gauss and Newton's method.

        Args:
            noise_log_power: expected log noise power of each patch.

        Returns:
            NaN, and infinity, at frequencies that too few patches reach.
        """
        n = self.log_power.shape[1]
        ratio, sd = np.full(n, np.nan), np.full(n, np.inf)
        regressors = self._regressors()
        for index in range(1, n):
            rows = np.isfinite(self.log_power[:, index]) & np.isfinite(noise_log_power[:, index])
            if rows.sum() >= MIN_ROWS:
                ratio[index], sd[index] = _structure_ratio(
                    regressors[rows], self.log_power[rows, index], noise_log_power[rows, index]
                )
        return ratio, sd

    def _regressors(self) -> Float[np.ndarray, "patches m"]:
        """Domain, covariates, and the class of each patch."""
        member = self.member[:, None] == np.unique(self.member)
        return np.column_stack([self.domain - 0.5, self.covariates, member])


def _structure_ratio(
    x: Float[np.ndarray, "patches m"],
    log_power: Float[np.ndarray, " patches"],
    noise: Float[np.ndarray, " patches"],
) -> tuple[float, float]:
    """Coefficient of the first regressor in the log power of structure, and its standard error."""
    ridge = RIDGE * np.eye(x.shape[1])
    above = np.exp(log_power) - np.exp(noise)
    start = np.log(np.maximum(above, LEAST_STRUCTURE * np.exp(noise)))
    coefficients = np.linalg.solve(x.T @ x + ridge, x.T @ start)
    spread, gram = FIRST_SPREAD, ridge
    for _ in range(ROUNDS):
        structure = (x @ coefficients)[:, None] + spread * NODES
        total = np.logaddexp(noise[:, None], structure)
        residual = log_power - total @ NODE_WEIGHTS
        share = np.exp(structure - total) @ NODE_WEIGHTS
        precision = 1 / (SAMPLING_VARIANCE + (share * spread) ** 2)
        design = x * share[:, None]
        gram = design.T @ (precision[:, None] * design) + ridge
        step = np.linalg.solve(gram, design.T @ (precision * residual))
        coefficients = coefficients + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        weight = (share * precision) ** 2
        excess = weight @ (residual**2 - SAMPLING_VARIANCE) / max(weight @ share**2, 1e-12)
        spread = float(np.sqrt(np.clip(excess, *SPREAD_SQ)))
    return float(coefficients[0]), float(np.sqrt(np.linalg.inv(gram)[0, 0]))


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
