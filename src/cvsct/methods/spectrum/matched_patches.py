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
            domain=domain,
            member=member,
            covariates=np.column_stack([mean_hu, mean_hu**2, shape]),
            overlap=overlap,
        )

    def share(self, log_part: Float[np.ndarray, "patches n"]) -> Float[np.ndarray, "patches n"]:
        """Share of one part, such as noise, in the power of each class, mean of both domains.

        1 in a class that one domain has not: nothing can be told from it.

        Args:
            log_part: log power that is expected of the part in each patch.
        """
        share = np.ones(self.log_power.shape)
        for index in np.unique(self.member):
            inside = self.member == index
            side_shares = []
            for side in (0.0, 1.0):
                excess = (log_part - self.log_power)[inside & (self.domain == side)]
                if len(excess):
                    known = np.isfinite(excess)
                    total = np.where(known, excess, 0.0).sum(axis=0)
                    side_shares.append(
                        np.exp(np.minimum(total / np.maximum(known.sum(axis=0), 1), 0.0))
                    )
            if len(side_shares) == 2:
                share[inside] = np.mean(side_shares, axis=0)
        return share

    def effective_pairs(self, share: Float[np.ndarray, "patches n"]) -> Float[np.ndarray, " n"]:
        """Effective number of matched patches for the rest of the power, at each frequency."""
        total = np.zeros(share.shape[1])
        for index in np.unique(self.member):
            inside = self.member == index
            a, b = (int(np.sum(inside & (self.domain == side))) for side in (0, 1))
            total += a * b / max(a + b, 1) * np.mean((1 - share[inside]) ** 2, axis=0)
        return total

    def log_ratio(
        self,
        share: Float[np.ndarray, "patches n"] | None = None,
        explained: Float[np.ndarray, "patches n"] | None = None,
    ) -> Float[np.ndarray, " n"]:
        """Log ratio of power, target over source, by least squares at each frequency.

        Classes weigh by half the harmonic mean of their counts, as least squares has it.

        Args:
            share: part of each patch's power that follows a law of its own.
            explained: what that law makes of each patch's log power. The ratio is then that of
                the rest of the power.

        Returns:
            NaN at zero frequency.
        """
        other_share = np.ones(self.log_power.shape) if share is None else 1 - share
        log_power = self.log_power if explained is None else self.log_power - explained
        member = self.member[:, None] == np.unique(self.member)
        ratio = np.full(self.log_power.shape[1], np.nan)
        for index in range(1, self.log_power.shape[1]):
            rows = np.isfinite(log_power[:, index])
            x = np.column_stack([self.domain * other_share[:, index], self.covariates, member])[
                rows
            ]
            y = log_power[rows, index]
            ratio[index] = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0][0]
        return ratio


def smooth_log_gain(
    log_gain: Float[np.ndarray, " n"], sd: Float[np.ndarray, " n"], stiffness: float
) -> Float[np.ndarray, " n"]:
    """Smooth a log gain into an even function of frequency that is 0 at zero frequency.

    Whittaker's smoother (1923) on third differences of the curve mirrored at zero.
    """
    n = len(log_gain)
    even = np.concatenate([np.eye(n)[:0:-1], np.eye(n)])
    bends = np.diff(even, 3, axis=0)[:, 1:]
    precision = 1 / sd[1:] ** 2
    system = np.diag(precision) + stiffness * bends.T @ bends
    return np.concatenate([[0.0], np.linalg.solve(system, precision * log_gain[1:])])
