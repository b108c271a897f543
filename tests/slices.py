"""Simple objects for the virtual scanners: discs, wires, and what is measured on their images."""

from __future__ import annotations

import numpy as np
from scipy.special import j1

FINE = 8


def disc(
    size: int, extent_mm: float, radius_mm: float, centre_mm: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """A disc of amount 1; each pixel holds the part of it that is covered (8 x 8 samples)."""
    pixel = extent_mm / size
    covered = np.zeros((size, size), np.float32)
    low = [max(int((c - radius_mm + extent_mm / 2) / pixel) - 1, 0) for c in centre_mm]
    count = int(2 * radius_mm / pixel) + 4
    place = (np.arange(count * FINE) + 0.5) / FINE * pixel - extent_mm / 2
    across = (place + low[0] * pixel - centre_mm[0]) ** 2
    for row in range(count):
        down = place[row * FINE : (row + 1) * FINE] + low[1] * pixel - centre_mm[1]
        inside = across[None] + down[:, None] ** 2 < radius_mm**2
        part = inside.reshape(FINE, count, FINE).mean(axis=(0, 2))
        if part.any():
            covered[low[1] + row, low[0] : low[0] + count] = part
    return covered


def disc_spectrum(f: np.ndarray, radius_mm: float) -> np.ndarray:
    """Fourier transform of a disc of height 1, in mm^2, at these radial frequencies per mm."""
    x = 2 * np.pi * np.maximum(f, 1e-9) * radius_mm
    return np.pi * radius_mm**2 * 2 * j1(x) / x


def radial(values: np.ndarray, f: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Mean of a map over rings around `bins`, half a step to either side."""
    half = (bins[1] - bins[0]) / 2
    return np.array([values[np.abs(f - each) < half].mean() for each in bins])


def crossing(f: np.ndarray, curve: np.ndarray, level: float) -> float:
    """Frequency at which a curve, past its peak, first falls below a level."""
    top = int(curve.argmax())
    after = top + int(np.flatnonzero(curve[top:] < level)[0])
    return float(np.interp(level, curve[[after, after - 1]], f[[after, after - 1]]))
