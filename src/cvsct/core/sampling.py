"""Slices that stand for a whole scan, read once and shared by the guard and the method."""

from __future__ import annotations

from cvsct.core.volume import CTVolume, OpenedScan, joined

SAMPLE_SLICES = 16
"""Enough for a scan's spectrum and tissue; read and measured in half a second."""


def spread(count: int, most: int) -> list[int]:
    """At most so many of `count` things in a row, spread evenly."""
    wanted = min(count, most)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


def sample_of(n_slices: int) -> list[int]:
    """Indices of the slices that stand for a scan: at most `SAMPLE_SLICES`, spread evenly."""
    return spread(n_slices, SAMPLE_SLICES)


def read_sample(scan: OpenedScan) -> CTVolume:
    """The slices that stand for a scan, as one volume of at most `SAMPLE_SLICES`.

    Raises:
        SeriesError: if one of them cannot be read.
    """
    return joined([scan.read(i, i + 1) for i in sample_of(len(scan))])
