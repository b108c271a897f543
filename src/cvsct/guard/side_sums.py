"""What the guard knows of one side, as sums over scans that add up.

Where images of a side are at hand, its scans are known one by one and the nearest counts
(`guard.input_check`). Sums know their mean and their spread alone: a scan is compared with the
mean, and limits follow from two standard deviations in place of the largest distance seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cvsct.core.moments import Moments, mean_value, numbered, squares_about_mean
from cvsct.guard.descriptor import (
    FREQUENCIES_PER_MM,
    N_ANATOMY,
    TISSUE_EDGES_HU,
    UNSEEN_SHARE,
    Descriptor,
    Distance,
)
from cvsct.guard.input_check import FLOORS, MARGIN, PIXEL_LIMITS, Headers, SideReference

MOST_TIMES = 3.0
"""A limit is at most so many times its floor: sums of several kernels or doses must not let all
pass."""

LARGEST_SD = 2.0
"""Standard deviations from the mean at which the largest of some scans is expected."""


@dataclass(frozen=True)
class GuardSums:
    """Sums over the descriptors of scans.

    Args:
        noise: power of noise in dB at the descriptor's frequencies, with its mean as `level`.
        tissue: share of tissue in each bin of CT numbers.
    """

    noise: Moments
    tissue: Moments

    @classmethod
    def of(cls, descriptors: Sequence[Descriptor], patients: Sequence[str]) -> GuardSums:
        """Sum descriptors, each of one scan, whose patients are given."""
        patient = numbered(patients)
        noise = np.stack([d.noise_db for d in descriptors])
        knows = np.array([d.knows_noise for d in descriptors])
        noise = np.where(knows[:, None], noise, np.nan)
        level = np.array([float(np.nanmean(d.noise_db)) if d.knows_noise else 0.0
                          for d in descriptors])  # fmt: skip
        one = np.zeros(len(descriptors), dtype=np.int64)
        return cls(
            noise=Moments.of({"level": level}, noise, one, 1, patient),
            tissue=Moments.of({}, np.stack([d.tissue for d in descriptors]), one, 1, patient),
        )

    @classmethod
    def nothing(cls) -> GuardSums:
        """Sums over no scans."""
        return cls(
            noise=Moments.nothing(["level"], 1, len(FREQUENCIES_PER_MM) - N_ANATOMY),
            tissue=Moments.nothing([], 1, len(TISSUE_EDGES_HU) - 1),
        )

    def __add__(self, other: GuardSums) -> GuardSums:
        """Sums over the scans of both."""
        return GuardSums(self.noise + other.noise, self.tissue + other.tissue)

    def reference(self, headers: Headers, description: str) -> SideReference:
        """Reference of a side with which scans are compared.

        Args:
            description: of the scans, for the model card.
        """
        noise, tissue = self.noise.total, self.tissue.total
        value = self.noise.form(value=1.0)
        mean = Descriptor(mean_value(noise, value), mean_value(tissue, self.tissue.form(value=1.0)))
        level = _variance(noise, self.noise.form(level=1.0))
        shape = _variance(noise, value - self.noise.form(level=1.0))
        share = (1 - UNSEEN_SHARE) * mean.tissue + UNSEEN_SHARE / len(mean.tissue)
        spread = _variance(tissue, self.tissue.form(value=1.0))
        held_out = Distance(
            noise_db=LARGEST_SD * float(np.sqrt(_mean(level))),
            sharpness_db=LARGEST_SD * float(np.sqrt(_mean(shape))),
            # To second order, the divergence of scans from their mean; it goes as the square.
            tissue_nats=LARGEST_SD**2 * float(np.sum(np.nan_to_num(spread) / (2 * share)))
            if mean.knows_tissue
            else 0.0,
        )
        learned = {
            name: float(
                np.clip(
                    round(MARGIN * getattr(held_out, name), 2),
                    getattr(FLOORS, name),
                    MOST_TIMES * getattr(FLOORS, name),
                )
            )
            for name in PIXEL_LIMITS
        }
        return SideReference(headers, (mean,), replace(FLOORS, **learned), held_out, description)


def _variance(
    sums: Float[np.ndarray, "n terms terms"], form: Float[np.ndarray, " terms"]
) -> Float[np.ndarray, " n"]:
    """Variance of a linear form over scans, at each frequency; NaN for fewer than two."""
    count = sums[:, 0, 0]
    squares = squares_about_mean(sums, form)
    return np.where(count > 1, squares / np.maximum(count - 1, 1.0), np.nan)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0
