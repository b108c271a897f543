"""Slices of a helical scan, computed as weighted sums of finely spaced readings along z.

The readings of a scan are half a detector row apart along z, as conjugate rays or a focal spot that
flies in z give them. Each reading is a row wide and has independent noise; the pitch determines how
many photons it gets. A slice of any thickness at any position is a weighted sum of readings, so
that thin and thick series of one scan share their noise, and so do overlapping slices.

The weights follow the slice sensitivity of a single row of the same width and pitch (Polacin,
Kalender and Marchal, Radiology 185, 1992): a triangle that extends one feed (360LI) or half a feed
(180LI) to either side. The triangle of a z-filter extends half a row at any pitch. A thicker slice
is the mean of such triangles over a width at which the full width at half maximum of the whole
sensitivity equals the nominal thickness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce

import numpy as np
from jaxtyping import Float64

from cvsct.core.errors import UsageError
from cvsct.simulation.physics.definition import Helical
from cvsct.simulation.physics.detector import Sinogram, WaterPaths

SAMPLES_PER_ROW = 2
"""Number of readings per detector row along z."""
THINNEST_SLACK = 1.05
"""Largest accepted ratio of the thinnest possible slice to the nominal thickness."""

Curve = Float64[np.ndarray, " places"]


@dataclass(frozen=True)
class SliceSensitivity:
    """Sensitivity along z of a slice of a nominal thickness.

    Args:
        helical: pitch and interpolation.
        row_mm: height of a detector row at the isocentre.
        thickness_mm: nominal slice thickness.
    """

    helical: Helical
    row_mm: float
    thickness_mm: float

    @property
    def sample_mm(self) -> float:
        """Distance between readings along z."""
        return self.row_mm / SAMPLES_PER_ROW

    @property
    def photons_mm(self) -> float:
        """Thickness of an axial slice that gets as many photons as one reading."""
        return self.sample_mm / self.helical.pitch

    @property
    def _half_base_mm(self) -> float:
        """Half the base of the interpolation's triangle."""
        turns = {"360LI": 1.0, "180LI": 0.5}.get(self.helical.interpolation)
        return self.row_mm * (0.5 if turns is None else turns * self.helical.pitch)

    @cached_property
    def mean_mm(self) -> float:
        """Width over which interpolated slices are averaged; 0 for the thinnest possible slice.

        Raises:
            UsageError: if the thinnest possible slice is thicker than the nominal thickness.
        """
        thinnest = self._fwhm_mm(0.0)
        if self.thickness_mm < thinnest / THINNEST_SLACK:
            raise UsageError(
                f"a slice of {self.thickness_mm:g} mm asked for, but rows of {self.row_mm:g} mm at "
                f"a pitch of {self.helical.pitch:g} with {self.helical.interpolation} give no less "
                f"than {thinnest:.2f} mm"
            )
        low, high = 0.0, 2 * self.thickness_mm
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if self._fwhm_mm(middle) < self.thickness_mm else (low, middle)
            )
        return low

    def weights(self, z_mm: float) -> dict[int, float]:
        """Weights of the readings for a slice at z, by the number of the reading; they sum to 1.

        Reading number k lies at `k * sample_mm`.
        """
        half = self._half_base_mm + self.mean_mm / 2
        first = math.floor((z_mm - half) / self.sample_mm)
        last = math.ceil((z_mm + half) / self.sample_mm)
        numbers = np.arange(first, last + 1)
        boundaries_mm = (np.arange(first, last + 2) - 0.5) * self.sample_mm - z_mm
        weights = np.diff(self._cumulative(boundaries_mm))
        return {int(k): float(w) for k, w in zip(numbers, weights, strict=True) if w > 0}

    def variance_share(self) -> float:
        """Ratio of a slice's noise variance to that of one reading, averaged over positions."""
        positions_mm = np.linspace(0.0, self.sample_mm, 9)[:-1]
        return float(np.mean([sum(w**2 for w in self.weights(z).values()) for z in positions_mm]))

    def curve(self, z_mm: Curve) -> Curve:
        """Sensitivity in mm^-1 at these distances from the slice; its integral over z is 1."""
        return self._sensitivity(z_mm, self.mean_mm)

    def _fwhm_mm(self, mean_mm: float) -> float:
        """Full width at half maximum of the sensitivity."""
        reach = self.row_mm + self._half_base_mm + mean_mm
        z = np.linspace(0.0, reach, 4001)
        curve = self._sensitivity(z, mean_mm)
        below = int(np.flatnonzero(curve < curve[0] / 2)[0])
        return 2 * float(np.interp(curve[0] / 2, curve[[below, below - 1]], z[[below, below - 1]]))

    def _sensitivity(self, z_mm: Curve, mean_mm: float) -> Curve:
        """Weights convolved with the width of a row and with the distance between readings."""
        shifts_mm = (np.arange(33) / 32 - 0.5) * self.sample_mm
        rises = [
            self._cumulative(z_mm + shift + self.row_mm / 2, mean_mm)
            - self._cumulative(z_mm + shift - self.row_mm / 2, mean_mm)
            for shift in shifts_mm
        ]
        return np.asarray(np.mean(rises, axis=0) / self.row_mm)

    def _cumulative(self, z_mm: Curve, mean_mm: float | None = None) -> Curve:
        """Integral up to z of the triangle averaged over a width, by default `mean_mm`."""
        width = self.mean_mm if mean_mm is None else mean_mm
        if width < 1e-6 * self.row_mm:
            return self._triangle(z_mm, 1)
        upper, lower = (self._triangle(z_mm + side * width / 2, 2) for side in (1, -1))
        return np.asarray((upper - lower) / width)

    def _triangle(self, z_mm: Curve, times: int) -> Curve:
        """Triangle of area 1, integrated once or twice from minus infinity."""
        x = np.clip(z_mm / self._half_base_mm, -1.0, 1.0)
        if times == 1:
            return np.asarray(0.5 + x - np.sign(x) * x**2 / 2)
        inside = 0.5 * x + x**2 / 2 - np.abs(x) ** 3 / 6 + 1 / 6
        return np.asarray(self._half_base_mm * inside + np.maximum(z_mm - self._half_base_mm, 0.0))


class HelicalReader:
    """Water paths of slices as weighted sums of readings, each of which is simulated once.

    Args:
        sensitivity: sensitivity of the slices.
        read: function that simulates reading number k, by tube voltage.
        step_mm: distance from one slice to the next, from which it follows which readings will be
            needed again.
    """

    def __init__(
        self,
        sensitivity: SliceSensitivity,
        read: Callable[[int], dict[float, WaterPaths]],
        step_mm: float,
    ) -> None:
        self._sensitivity, self._read, self._step_mm = sensitivity, read, step_mm
        self._readings: dict[int, dict[float, WaterPaths]] = {}

    def slice(self, z_mm: float) -> dict[float, WaterPaths]:
        """Water paths of a slice by tube voltage; keeps readings that the next slice needs."""
        next_first = min(self._sensitivity.weights(z_mm + self._step_mm))
        parts: dict[float, list[tuple[np.float32, WaterPaths]]] = {}
        kept: dict[int, dict[float, WaterPaths]] = {}
        for number, weight in self._sensitivity.weights(z_mm).items():
            reading = self._readings.get(number) or self._read(number)
            for kvp, water in reading.items():
                parts.setdefault(kvp, []).append((np.float32(weight), water))
            if number >= next_first:
                kept[number] = reading
        self._readings = kept
        return {
            kvp: WaterPaths(
                _sum(weight * water.mm for weight, water in weighted),
                partial(_variance_mm2, weighted),
            )
            for kvp, weighted in parts.items()
        }


def _variance_mm2(parts: Sequence[tuple[np.float32, WaterPaths]]) -> Sinogram:
    """Variance of a weighted sum of independent readings."""
    return _sum(weight**2 * water.variance_mm2() for weight, water in parts)


def _sum(terms: Iterable[Sinogram]) -> Sinogram:
    return reduce(np.add, terms)
