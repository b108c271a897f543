"""Grid artefacts: power at the frequencies of a lattice of two or four pixels.

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
"""White noise below which a change is taken to be of this strength."""

AROUND = 2
"""A lattice frequency is compared with those around it up to so many bins."""


def lattice_ratio(change: Float32[np.ndarray, "rows columns"]) -> float:
    """The largest ratio of the change's power at a lattice frequency to that around it, in root.

    1 where there is none; a slice smaller than a few tiles has none to tell.
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
    return float(np.sqrt(max(_ratio(power, *place) for place in _places())))


def _places() -> list[tuple[int, int]]:
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
    near = power[np.ix_(rows, columns)]
    ring = np.ones(near.shape, dtype=bool)
    ring[AROUND:-AROUND, AROUND:-AROUND] = False
    return float(power[row, column] / np.median(near[ring]))
