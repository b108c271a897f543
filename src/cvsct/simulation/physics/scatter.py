"""Scattered radiation on the detector, and its imperfect correction.

The scatter of a view is its scatter potential, the primary signal times its logarithmic
attenuation (Ohnesorge, Flohr and Klingenbeck-Regn, Eur Radiol 9, 1999), blurred along the arc:
photons scattered once stay close to their ray, photons scattered several times spread over the fan,
and the share of the latter grows with the thickness of the object. The scale follows from the
scatter-to-primary ratio of the scanner's definition, on the central ray behind a cylinder of 30 cm
of water.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64
from scipy import fft

from cvsct.simulation.physics.definition import Scatter

REFERENCE_WATER_MM = 300.0
"""Diameter of the water cylinder for which a definition states the scatter-to-primary ratio."""
COARSE_READINGS = 16
"""Number of readings averaged for one coarse reading; scatter is smooth, so it is computed on these
and interpolated linearly."""


@dataclass(frozen=True)
class ScatterModel:
    """Scattered radiation of one scanner at one tube voltage.

    Args:
        section: section `scatter` of the scanner's definition.
        fan_rad: fan angle of each reading of a view.
        blank: signal of each reading without an object.
        reference: signal behind the centred cylinder of 30 cm of water.
        log_per_water_mm: logarithmic attenuation per mm of water, which separates single from
            multiple scatter.
    """

    section: Scatter
    fan_rad: Float64[np.ndarray, " readings"]
    blank: Float64[np.ndarray, " readings"]
    reference: Float64[np.ndarray, " readings"]
    log_per_water_mm: float

    def signal(
        self, primary: Float32[np.ndarray, "views readings"]
    ) -> Float32[np.ndarray, "views readings"]:
        """Scattered signal that accompanies a primary signal, in the same units."""
        return self._fine(self._scale * self._blurred(primary)).astype(np.float32)

    def estimate(
        self, scatter: Float32[np.ndarray, "views readings"], rng: np.random.Generator | None
    ) -> Float32[np.ndarray, "views readings"]:
        """Estimate of the scatter that the correction subtracts; without `rng` it has no noise."""
        estimate = scatter * np.float32(1 - self.section.residue)
        if rng is not None and self.section.correction_noise > 0:
            white = rng.standard_normal((len(scatter), self._count))
            kernel = self._kernel(self.section.forward_rad)
            smooth = self._convolved(white, kernel) / np.sqrt((kernel**2).sum())
            estimate *= (1 + self.section.correction_noise * self._fine(smooth)).astype(np.float32)
        return estimate

    @cached_property
    def _scale(self) -> float:
        """Factor that gives the definition's scatter-to-primary ratio behind the cylinder."""
        reference = self.reference[None]
        middle = int(np.abs(self.fan_rad).argmin())
        unscaled = self._fine(self._blurred(reference))[0, middle]
        return float(self.section.ratio * reference[0, middle] / unscaled)

    @property
    def _count(self) -> int:
        """Number of coarse readings."""
        return -(-len(self.fan_rad) // COARSE_READINGS)

    def _blurred(
        self, primary: Float32[np.ndarray, "views readings"] | Float64[np.ndarray, "views readings"]
    ) -> Float64[np.ndarray, "views coarse"]:
        """Scatter potential, blurred separately for single and multiple scatter."""
        logs = np.log(self.blank / np.maximum(primary, 1e-6 * self.blank))
        potential = primary * np.maximum(logs, 0.0)
        single_share = np.exp(-np.maximum(logs, 0.0) / self._single_log)
        single = self._coarse(potential * single_share)
        multiple = self._coarse(potential) - single
        narrow = self._convolved(single, self._kernel(self.section.forward_rad))
        wide = self._convolved(multiple, self._kernel(self.section.multiple_rad))
        return np.asarray(narrow + wide)

    @property
    def _single_log(self) -> float:
        """Logarithmic attenuation behind which the share of single scatter has fallen to 1/e."""
        return self.section.multiple_water_mm * self.log_per_water_mm

    def _coarse(
        self, values: Float64[np.ndarray, "views readings"]
    ) -> Float64[np.ndarray, "views coarse"]:
        """Means over groups of neighboring readings; the last group may be smaller."""
        starts = np.arange(0, len(self.fan_rad), COARSE_READINGS)
        sums = np.add.reduceat(values, starts, axis=1, dtype=np.float64)
        return np.asarray(sums / np.diff(np.append(starts, len(self.fan_rad))))

    def _fine(
        self, coarse: Float64[np.ndarray, "views coarse"]
    ) -> Float64[np.ndarray, "views readings"]:
        """Interpolate linearly between the centres of the groups."""
        position = (np.arange(len(self.fan_rad)) - (COARSE_READINGS - 1) / 2) / COARSE_READINGS
        position = np.clip(position, 0, self._count - 1)
        left = np.minimum(position.astype(np.int64), self._count - 2)
        fraction = position - left
        return np.asarray(coarse[:, left] * (1 - fraction) + coarse[:, left + 1] * fraction)

    def _kernel(self, sigma_rad: float) -> Float64[np.ndarray, " taps"]:
        """Gaussian on the coarse readings, whose taps sum to 1."""
        step_rad = float(self.fan_rad[1] - self.fan_rad[0]) * COARSE_READINGS
        offsets = np.arange(1 - self._count, self._count) * step_rad
        taps = np.exp(-((offsets / sigma_rad) ** 2) / 2)
        return np.asarray(taps / (sigma_rad * np.sqrt(2 * np.pi) / step_rad))

    def _convolved(
        self, coarse: Float64[np.ndarray, "views coarse"], kernel: Float64[np.ndarray, " taps"]
    ) -> Float64[np.ndarray, "views coarse"]:
        """Convolution of each view with a kernel."""
        length = fft.next_fast_len(3 * self._count, real=True)
        product = fft.rfft(coarse, n=length, axis=1) * fft.rfft(kernel, n=length)
        middle = slice(self._count - 1, 2 * self._count - 1)
        return np.asarray(fft.irfft(product, n=length, axis=1)[:, middle])
