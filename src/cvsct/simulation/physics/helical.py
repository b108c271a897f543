"""Slices of a helical scan: weighted sums of finely spaced readings along z.

The readings of one scan lie on a lattice along z, half a detector row apart, as conjugate rays or
a focal spot that flies in z give them. Each is a row wide and has noise of its own; photons are
shared among them by the pitch. A slice of any thickness at any position is a weighted sum of
them, so that thin and thick series of one scan share their noise, and so do slices that overlap.

The weights follow the slice sensitivity of a single row of the same width and pitch (Polacin,
Kalender and Marchal, Radiology 185, 1992): a triangle that reaches one feed (360LI) or half a feed
(180LI) to either side. A z-filter's triangle reaches half a row whatever the pitch. A thicker
slice is the mean of such over a width that makes the whole sensitivity's full width at half maximum
the nominal thickness.
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

SAMPLES_A_ROW = 2
THINNEST_SLACK = 1.05
"""The thinnest slice may be so much wider than asked before it is refused."""

Curve = Float64[np.ndarray, " places"]


@dataclass(frozen=True)
class SliceSensitivity:
    """The sensitivity along z of a slice of one nominal thickness.

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
        """Distance of the lattice's readings."""
        return self.row_mm / SAMPLES_A_ROW

    @property
    def photons_mm(self) -> float:
        """Thickness of an axial slice with as many photons as one reading of the lattice."""
        return self.sample_mm / self.helical.pitch

    @property
    def _reach_mm(self) -> float:
        """Half the base of the interpolation's triangle."""
        turns = {"360LI": 1.0, "180LI": 0.5}.get(self.helical.interpolation)
        return self.row_mm * (0.5 if turns is None else turns * self.helical.pitch)

    @cached_property
    def mean_mm(self) -> float:
        """Width over which interpolated slices are averaged; 0 for the thinnest.

        Raises:
            UsageError: if the scan's thinnest slice is thicker than the nominal thickness.
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
        """Weight of each reading of the lattice, by its number, for a slice at z; they sum to 1.

        Reading number k lies at `k * sample_mm`.
        """
        half = self._reach_mm + self.mean_mm / 2
        first = math.floor((z_mm - half) / self.sample_mm)
        last = math.ceil((z_mm + half) / self.sample_mm)
        numbers = np.arange(first, last + 1)
        borders = (np.arange(first, last + 2) - 0.5) * self.sample_mm - z_mm
        shares = np.diff(self._cumulated(borders))
        return {int(k): float(share) for k, share in zip(numbers, shares, strict=True) if share > 0}

    def variance_share(self) -> float:
        """Noise variance of a slice over that of one reading, the mean over its places."""
        places = np.linspace(0.0, self.sample_mm, 9)[:-1]
        return float(np.mean([sum(w**2 for w in self.weights(z).values()) for z in places]))

    def curve(self, z_mm: Curve) -> Curve:
        """Sensitivity at these distances from the slice, 1 mm^-1 in area, of a dense lattice."""
        return self._profile(z_mm, self.mean_mm)

    def _fwhm_mm(self, mean_mm: float) -> float:
        reach = self.row_mm + self._reach_mm + mean_mm
        z = np.linspace(0.0, reach, 4001)
        curve = self._profile(z, mean_mm)
        below = int(np.flatnonzero(curve < curve[0] / 2)[0])
        return 2 * float(np.interp(curve[0] / 2, curve[[below, below - 1]], z[[below, below - 1]]))

    def _profile(self, z_mm: Curve, mean_mm: float) -> Curve:
        """The row's own width over the cumulated weights' rise, lattice cells included."""
        cells = self.sample_mm
        fine = (np.arange(33) / 32 - 0.5) * cells
        rise = [
            self._cumulated(z_mm + shift + self.row_mm / 2, mean_mm)
            - self._cumulated(z_mm + shift - self.row_mm / 2, mean_mm)
            for shift in fine
        ]
        return np.asarray(np.mean(rise, axis=0) / self.row_mm)

    def _cumulated(self, z_mm: Curve, mean_mm: float | None = None) -> Curve:
        """Integral up to z of the triangle averaged over a width."""
        width = self.mean_mm if mean_mm is None else mean_mm
        if width < 1e-6 * self.row_mm:
            return self._triangle(z_mm, 1)
        upper, lower = (self._triangle(z_mm + side * width / 2, 2) for side in (1, -1))
        return np.asarray((upper - lower) / width)

    def _triangle(self, z_mm: Curve, times: int) -> Curve:
        """The triangle of area 1, integrated once or twice from far below."""
        x = np.clip(z_mm / self._reach_mm, -1.0, 1.0)
        if times == 1:
            return np.asarray(0.5 + x - np.sign(x) * x**2 / 2)
        inside = 0.5 * x + x**2 / 2 - np.abs(x) ** 3 / 6 + 1 / 6
        return np.asarray(self._reach_mm * inside + np.maximum(z_mm - self._reach_mm, 0.0))


class HelicalReader:
    """Water paths of slices from the lattice's readings, each of which is made once.

    Args:
        sensitivity: of the slices.
        read: makes reading number k of the lattice, by tube voltage.
        step_mm: from one slice to the next; tells which readings will be needed again.
    """

    def __init__(
        self,
        sensitivity: SliceSensitivity,
        read: Callable[[int], dict[float, WaterPaths]],
        step_mm: float,
    ) -> None:
        self._sensitivity, self._read, self._step_mm = sensitivity, read, step_mm
        self._kept: dict[int, dict[float, WaterPaths]] = {}

    def slice(self, z_mm: float) -> dict[float, WaterPaths]:
        """Water paths of the slice at z; keeps the readings that the slice a step on shares."""
        next_first = min(self._sensitivity.weights(z_mm + self._step_mm))
        parts: dict[float, list[tuple[np.float32, WaterPaths]]] = {}
        kept: dict[int, dict[float, WaterPaths]] = {}
        for number, weight in self._sensitivity.weights(z_mm).items():
            reading = self._kept.get(number) or self._read(number)
            for kvp, water in reading.items():
                parts.setdefault(kvp, []).append((np.float32(weight), water))
            if number >= next_first:
                kept[number] = reading
        self._kept = kept
        return {
            kvp: WaterPaths(
                _sum(weight * water.mm for weight, water in some), partial(_variance_mm2, some)
            )
            for kvp, some in parts.items()
        }


def _variance_mm2(parts: Sequence[tuple[np.float32, WaterPaths]]) -> Sinogram:
    """Variance of a weighted sum of independent readings."""
    return _sum(weight**2 * water.variance_mm2() for weight, water in parts)


def _sum(terms: Iterable[Sinogram]) -> Sinogram:
    return reduce(np.add, terms)
