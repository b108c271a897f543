"""Simple objects for the virtual scanners: discs, wires, and what is measured on their images."""

from __future__ import annotations

import numpy as np
from scipy.special import j1

from cvsct.simulation.phantom.objects import disc_amounts

disc = disc_amounts


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
