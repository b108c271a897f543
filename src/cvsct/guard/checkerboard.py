"""Checkerboard artifacts: power at the frequencies of a lattice of two or four pixels.

Strided and transposed convolutions leave patterns that repeat with their stride (Odena et al.
2016, "Deconvolution and checkerboard artifacts"). Anatomy and noise have no such preference.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32

TILE_PX = 64
PERIODS_PX = (2, 4)
FLOOR_HU = 1.0
"""Standard deviation of white noise added to a change, so that tiny changes give no ratio."""

AROUND = 2
"""Half width in bins of the gap around a lattice frequency; the ring beyond it is compared."""


def checkerboard_ratio(change: Float32[np.ndarray, "rows columns"]) -> float:
    """Largest ratio of a change's amplitude at a lattice frequency to that of nearby frequencies.

    1 means no checkerboard, and is given for slices smaller than four tiles.
    """
    down, across = (n // TILE_PX for n in change.shape)
    if down * across < 4:
        return 1.0
    tiles = change[: down * TILE_PX, : across * TILE_PX]
    tiles = tiles.reshape(down, TILE_PX, across, TILE_PX).swapaxes(1, 2)
    window = np.hanning(TILE_PX + 1)[:-1].astype(np.float32)
    spectra = scipy.fft.rfft2(tiles * (window[:, None] * window), workers=1)
    power = (spectra.real**2 + spectra.imag**2).mean(axis=(0, 1))
    power += FLOOR_HU**2 * float(np.sum(window**2)) ** 2
    return float(np.sqrt(max(_ratio(power, *frequency) for frequency in _lattice_bins())))


def _lattice_bins() -> list[tuple[int, int]]:
    """Bins of the lattice frequencies in a half spectrum."""
    step = TILE_PX // max(PERIODS_PX)
    return [
        (i, k)
        for i in range(0, TILE_PX, step)
        for k in range(0, TILE_PX // 2 + 1, step)
        if (i, k) != (0, 0)
    ]


def _ratio(power: Float[np.ndarray, "rows half"], row: int, column: int) -> float:
    rows = np.arange(row - 2 * AROUND, row + 2 * AROUND + 1) % TILE_PX
    columns = np.arange(column - 2 * AROUND, column + 2 * AROUND + 1)
    columns = np.minimum(np.abs(columns), TILE_PX - np.abs(columns))
    neighborhood = power[np.ix_(rows, columns)]
    ring = np.ones(neighborhood.shape, dtype=bool)
    ring[AROUND:-AROUND, AROUND:-AROUND] = False
    return float(power[row, column] / np.median(neighborhood[ring]))
