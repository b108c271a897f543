"""Estimates with their bootstrap values, so that ratios and differences have intervals too."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from cvsct.core.seeding import random_stream

RESAMPLES = 400
"""Number of bootstrap resamples."""

LEVELS_PERCENT = (2.5, 97.5)
"""Ends of the 95 % percentile interval."""

MIN_DEFINED = 0.95
"""Smallest share of resamples with a finite value from which an interval is told."""

MIN_PARTS = 3
"""Smallest number of parts that are resampled: one part alone would have an interval of no width,
whatever its error."""


def draw_weights(n: int, seed: int, name: str) -> Float[np.ndarray, "resamples n"]:
    """Draw bootstrap resamples: the number of times that each of `n` parts is in each of them.

    The same `n`, seed and name give the same draws, so that two sides that were measured on the
    same parts can be compared resample by resample. Fewer than `MIN_PARTS` parts have weights of
    NaN, so that nothing that is computed from them has an interval.
    """
    if n < MIN_PARTS:
        return np.full((RESAMPLES, n), np.nan)
    rng = random_stream(seed, name, "bootstrap")
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


@dataclass(frozen=True)
class Resampled:
    """An estimate with its bootstrap values.

    Args:
        value: the estimate.
        samples: its value in each resample, NaN where it is undefined; empty without a bootstrap.
    """

    value: float
    samples: Float[np.ndarray, " resamples"] = field(repr=False)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % percentile interval; None where too many resamples are undefined."""
        defined = self.samples[np.isfinite(self.samples)]
        if not len(defined) or len(defined) < MIN_DEFINED * len(self.samples):
            return None
        low, high = np.percentile(defined, LEVELS_PERCENT)
        return float(low), float(high)

    @property
    def magnitude(self) -> Resampled:
        """Its absolute value, resample by resample."""
        return Resampled(abs(self.value), np.abs(self.samples))

    def relative_to(self, other: Resampled) -> Resampled:
        """Relative difference from another estimate, resample by resample."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return Resampled(
                float(np.divide(self.value, other.value)) - 1, self.samples / other.samples - 1
            )

    def less(self, other: Resampled) -> Resampled:
        """Difference from another estimate, resample by resample."""
        return Resampled(self.value - other.value, self.samples - other.samples)
