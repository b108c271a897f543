"""Slices sampled from a scan to represent it, read once for the guard and the method."""

from __future__ import annotations

from cvsct.core.volume import CTVolume, OpenedScan, join_slices

SAMPLE_SLICES = 16
"""Largest number of sampled slices: enough for spectrum and tissue, and read in half a second."""


def spread(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` items, spread evenly."""
    wanted = min(count, most)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


def sample_of(n_slices: int) -> list[int]:
    """Indices of the slices sampled from a scan: at most `SAMPLE_SLICES`, spread evenly."""
    return spread(n_slices, SAMPLE_SLICES)


def read_sample(scan: OpenedScan) -> CTVolume:
    """Read the slices sampled from a scan as one volume of at most `SAMPLE_SLICES` slices.

    Raises:
        SeriesError: if one of them cannot be read.
    """
    return join_slices([scan.read(i, i + 1) for i in sample_of(len(scan))])
