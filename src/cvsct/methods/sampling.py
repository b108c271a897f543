"""Measurement of slices spread evenly over the scans of a domain."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from cvsct.core.progress import Progress
from cvsct.core.volume import CTVolume, Scans, facts_of

Measurement = TypeVar("Measurement")


def measure_slices(
    scans: Scans,
    max_slices: int,
    measure: Callable[[CTVolume, Int[np.ndarray, " slices"]], Measurement],
    label: str,
    progress: Progress,
) -> list[Measurement]:
    """Measure chosen slices of every scan, one scan in memory at a time.

    Args:
        max_slices: slices chosen in all.
        measure: takes the chosen slices of one scan, and their numbers through all scans.
        label: what is measured, for progress.

    Returns:
        One value for each scan that has a slice among those chosen.
    """
    lengths = [scan.shape[0] for scan in facts_of(scans)]
    stride = -(-sum(lengths) // max_slices)

    def measure_scan(volume: CTVolume, first_slice: int) -> list[Measurement]:
        chosen = list(range(-first_slice % stride, len(volume.hu), stride))
        return [measure(volume.select(chosen), first_slice + np.array(chosen))] if chosen else []

    measurements: list[Measurement] = []
    progress(label, 0, len(scans))
    for done, scan_measurements in enumerate(
        map(measure_scan, scans, accumulate(lengths, initial=0)), 1
    ):
        measurements += scan_measurements
        progress(label, done, len(scans))
    return measurements
