"""What of a profile may be shared: no sum of few patches or patients, nor any difference of two.

Strata of few are added to their neighbors, so that nothing is lost that fits read from the least
rough tissue, and totals tell nothing of what was left out. Scans of different pixels reach
different frequencies: where a sum differs from that at the next frequency by few patches or
patients, the difference of the two would be theirs, and the higher frequency is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from cvsct.core.moments import Moments

MIN_PATCHES, MIN_PATIENTS = 30, 3
"""Fewest patches and patients behind any sum, and any difference of two, of a shared profile."""

MIN_FOR_SPREAD = 8
"""Fewest patients whose values are squared: with fewer, mean and spread give the values away."""

MOST_OF_ONE = 0.7
"""Largest share of one patient in the patches of a sum."""


@dataclass(frozen=True)
class Minimum:
    """What must stand behind a sum.

    Args:
        patches, patients: fewest of each.
        most_of_one: largest share of one patient.
        for_spread: fewest patients whose own values are squared.
    """

    patches: int = MIN_PATCHES
    patients: int = MIN_PATIENTS
    most_of_one: float = MOST_OF_ONE
    for_spread: int = MIN_FOR_SPREAD

    def met(self, by_patient: Int[np.ndarray, " people"]) -> bool:
        """Whether so many patches of each patient are enough."""
        total = int(by_patient.sum())
        return (
            total >= self.patches
            and int((by_patient > 0).sum()) >= self.patients
            and int(by_patient.max(initial=0)) <= self.most_of_one * total
        )


SHARED = Minimum()
OF_FEW = Minimum(patients=1, most_of_one=1.0, for_spread=1)
"""Minimum of a profile that is shared, and of one that may hold sums of one and two patients."""


def pooled(part: Moments, chains: Iterable[Int[np.ndarray, " strata"]], least: Minimum) -> Moments:
    """Sums over patches of which each has enough behind it.

    Args:
        chains: strata in the order in which one may be added to the next.
    """
    highest = part.by_patient.max(axis=2, initial=0)
    to = np.arange(len(part.sums))
    dropped = np.zeros(len(part.sums), dtype=bool)
    for chain in chains:
        waiting: list[int] = []
        last = -1
        for k in chain:
            waiting.append(int(k))
            if least.met(highest[:, waiting].sum(axis=1)):
                to[waiting] = last = int(k)
                waiting = []
        if last >= 0:
            to[waiting] = last
        else:
            dropped[waiting] = True
    joined = part.kept_where(~dropped[:, None] & np.ones_like(part.patients, bool)).moved(to)
    return joined.kept_where(_shareable_frequencies(joined, least))


def _shareable_frequencies(part: Moments, least: Minimum) -> Bool[np.ndarray, "strata n"]:
    """Cells with enough behind them, that differ from the last kept one by enough or nothing."""
    keep = np.zeros_like(part.patients, dtype=bool)
    for k in range(len(part.sums)):
        before = None
        for index in range(part.sums.shape[1]):
            here = part.by_patient[:, k, index]
            if not least.met(here):
                continue
            change = here - here if before is None else before - here
            gone = replace(least, most_of_one=1.0)
            if change.any() and not ((change >= 0).all() and gone.met(change)):
                continue
            keep[k, index], before = True, here
    return keep


def all_or_nothing(part: Moments, patients: int, patches: int) -> Moments:
    """Sums whose strata tell a thing together: all are kept, or none.

    Args:
        patients, patches: fewest of each in a stratum that holds any.
    """
    few = (part.counts > 0) & ((part.patients < patients) | (part.counts < patches))
    return part.kept_where(np.full_like(part.patients, not few.any(), dtype=bool))


def without_spread(part: Moments) -> Moments:
    """Sums with the products of two terms as if all items were alike: their means alone."""
    counts = np.where(part.counts > 0, part.counts, 1.0)[:, :, None, None]
    first = part.sums[:, :, 0, :]
    return replace(part, sums=first[..., :, None] * first[..., None, :] / counts)
