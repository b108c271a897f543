"""Relation between the gains of noise and structure: one linear kernel, or two scanners.

Filtered back-projection shapes noise and structure with one kernel. Between two such images the
log gains of both have one shape, and differ by a level that dose sets. Denoising takes the shapes
apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

COMPARED_PER_MM = (0.15, 0.6)
"""Frequencies at which the gains of noise and structure are compared."""

SAME_KERNEL_SD, OTHER_SD = 0.03, 0.5
"""Standard deviation of the structure's log gain about the noise's, where one kernel shapes both,
and where denoising separates them."""

SAME_LEVEL_SD = 0.06
"""Standard deviation of the level between kernels of one scanner, before it is measured."""

SAME_LEVEL = (0.1, 0.2)
"""Largest log level of noise over structure that one kernel explains, beside twice its standard
error: of two scanners, and of one."""

ONE_FAMILY = 0.15
"""Root mean square difference of both log gains' shapes at which the two are equally likely."""


@dataclass(frozen=True)
class GainRelation:
    """Difference between the log gains of noise and structure.

    Args:
        level: of noise over structure, the same at all frequencies, as dose makes it.
        level_sd: its standard error.
        deviation: root mean square of what a level does not explain.
        alike: how likely it is that one kernel shapes both, 0 to 1.
        same_scanner: whether headers name one scanner for both sides.
    """

    level: float
    level_sd: float
    deviation: float
    alike: float
    same_scanner: bool

    @property
    def prior_sd(self) -> float:
        """Standard deviation of the structure's log gain about the noise's less the level."""
        return float(np.sqrt(self.alike * SAME_KERNEL_SD**2 + (1 - self.alike) * OTHER_SD**2))

    @property
    def expected_level(self) -> float:
        """Level, nearer to none where one kernel of one scanner explains both gains."""
        if not (self.same_scanner and self.one_kernel):
            return self.level
        variance = SAME_LEVEL_SD**2
        return self.level * variance / (variance + self.level_sd**2)

    @property
    def one_kernel(self) -> bool:
        """Whether one linear kernel explains both gains."""
        most = SAME_LEVEL[self.same_scanner] + 2 * self.level_sd
        return self.alike > 0.5 and abs(self.level) <= most


def relate(
    frequencies_per_mm: Float[np.ndarray, " n"],
    difference: Float[np.ndarray, " n"],
    sd: Float[np.ndarray, " n"],
    level_sd: float,
    same_scanner: bool,
) -> GainRelation:
    """Compare the log gains of noise and structure.

    Args:
        difference: log gain of noise less that of structure.
        sd: its standard error at each frequency.
        level_sd: standard error that all frequencies share.
        same_scanner: whether headers name one scanner for both sides.
    """
    low, high = COMPARED_PER_MM
    band = (frequencies_per_mm >= low) & (frequencies_per_mm <= high)
    if not band.any():
        return GainRelation(0.0, level_sd, 0.0, 0.0, same_scanner)
    difference, weight = difference[band], sd[band] ** -2
    level = float(np.average(difference, weights=weight))
    deviation = float(np.sqrt(np.average((difference - level) ** 2, weights=weight)))
    alike = 1 / (1 + (deviation / ONE_FAMILY) ** 4)
    return GainRelation(level, level_sd, deviation, alike, same_scanner)
