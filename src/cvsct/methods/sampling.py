"""Slices spread evenly over the scans of a domain, which are read one at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from cvsct.core.progress import Progress
from cvsct.core.volume import CTVolume, Scans, facts_of

Found = TypeVar("Found")


def over_slices(
    scans: Scans,
    max_slices: int,
    measure: Callable[[CTVolume, Int[np.ndarray, " slices"]], Found],
    what: str,
    progress: Progress,
) -> list[Found]:
    """What is measured on each scan that has a slice among those chosen.

    Args:
        max_slices: slices chosen in all.
        measure: takes the chosen slices of one scan, and their numbers through all scans.
        what: is measured, for progress.
    """
    lengths = [scan.shape[0] for scan in facts_of(scans)]
    stride = -(-sum(lengths) // max_slices)

    def one(whole: CTVolume, before: int) -> list[Found]:
        chosen = list(range(-before % stride, len(whole.hu), stride))
        return [measure(whole.select(chosen), before + np.array(chosen))] if chosen else []

    found: list[Found] = []
    progress(what, 0, len(scans))
    for done, part in enumerate(map(one, scans, accumulate(lengths, initial=0)), 1):
        found += part
        progress(what, done, len(scans))
    return found
