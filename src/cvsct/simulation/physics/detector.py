"""From line integrals to water paths: tube, bowtie, scintillator, noise, beam-hardening correction.

Only this step depends on the tube voltage. The projection before it serves every voltage, every
noise seed and every kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64

from cvsct.simulation.phantom.materials import BASIS, WATER, Material, material_named
from cvsct.simulation.physics import ray_kernels as rays
from cvsct.simulation.physics.definition import ScannerProfile
from cvsct.simulation.physics.spectrum import Spectrum

LONGEST_WATER_MM = 450.0
"""Water paths that the calibration covers."""
REFERENCE_SCAN = (250.0, 100.0, 5.0)
"""Water in mm, mAs and slice thickness in mm for which strengths of noise reduction are told."""
CALIBRATION_ORDER = 5
CALIBRATION_PATHS = 91


@dataclass(frozen=True)
class Detector:
    """The detector of one scanner at one tube voltage.

    Args:
        profile: tube, bowtie and scintillator.
        kvp: one of the definition's.
        fan_rad: fan angle of each reading of a view.
        readings_per_rotation: among which the rotation's mAs are shared.
        basis: the materials whose paths it is given.
    """

    profile: ScannerProfile
    kvp: float
    fan_rad: Float64[np.ndarray, " readings"]
    readings_per_rotation: int
    basis: tuple[Material, Material] = BASIS

    @cached_property
    def _photons(self) -> Float64[np.ndarray, "energies readings"]:
        """Photons one reading detects without an object, per mAs of the rotation and mm of slice.

        Fluence on the central ray at 1 m, thinned by the square of the distance, through the
        bowtie, onto an element as wide as a channel, times what the scintillator absorbs.
        """
        geometry, energies = self.profile.geometry, self._spectrum.energies_kev
        distance = geometry.source_detector_mm
        width_mm = geometry.channel_rad * distance
        height_per_slice_mm = distance / geometry.source_isocentre_mm
        area = width_mm * height_per_slice_mm * (1000.0 / distance) ** 2
        bowtie = material_named(self.profile.bowtie.material).attenuation_per_mm(energies)
        through = np.exp(-np.outer(bowtie, self.profile.bowtie_mm(self.fan_rad)))
        photons = self._spectrum.photons * self.profile.detector.absorbed_share(energies)
        result: Float64[np.ndarray, "energies readings"] = photons[:, None] * through
        return result * (area / self.readings_per_rotation)

    @cached_property
    def _spectrum(self) -> Spectrum:
        return self.profile.spectrum(self.kvp)

    @cached_property
    def _attenuation(self) -> tuple[Float32[np.ndarray, " energies"], ...]:
        return tuple(
            material.attenuation_per_mm(self._spectrum.energies_kev).astype(np.float32)
            for material in self.basis
        )

    @cached_property
    def _weights(self) -> tuple[Float32[np.ndarray, "energies readings"], ...]:
        """Energy, and energy squared, that each bin brings per mAs and mm."""
        energies = self._spectrum.energies_kev[:, None]
        return tuple((self._photons * energies**power).astype(np.float32) for power in (1, 2))

    @cached_property
    def _blank(self) -> Float64[np.ndarray, " readings"]:
        blank: Float64[np.ndarray, " readings"] = (
            self._photons * self._spectrum.energies_kev[:, None]
        ).sum(axis=0)
        return blank

    @cached_property
    def _calibration(self) -> Float64[np.ndarray, "readings order"]:
        """For each channel the polynomial from -log(reading / blank) to mm of water.

        The bowtie hardens the beam differently in each channel, so each has its own (the water
        correction of Hsieh, Computed Tomography, section 7.6).
        """
        paths = np.linspace(0.0, LONGEST_WATER_MM, CALIBRATION_PATHS)
        water = WATER.attenuation_per_mm(self._spectrum.energies_kev)
        weights = self._photons * self._spectrum.energies_kev[:, None]
        through = np.exp(-np.outer(paths, water)) @ weights
        logs = -np.log(through / self._blank)
        powers = np.arange(1, CALIBRATION_ORDER + 1)
        longest = logs[-1]
        columns = (logs / longest).T[:, :, None] ** powers
        normal = columns.transpose(0, 2, 1)
        solved = np.linalg.solve(normal @ columns, (normal @ paths)[:, :, None])[:, :, 0]
        result: Float64[np.ndarray, "readings order"] = solved / longest[:, None] ** powers
        return result

    def readings(
        self,
        paths_mm: Float32[np.ndarray, "2 views readings"],
        mas: float,
        thickness_mm: float,
        rng: np.random.Generator | None,
    ) -> Float32[np.ndarray, "views readings"]:
        """Detected energy of each reading in keV, with noise unless `rng` is None.

        Compound Poisson noise of an energy-integrating detector: variance is the sum of E^2 N
        (Whiting et al., Med Phys 33, 2006), to which the electronics add theirs.
        """
        shape = paths_mm.shape[1:]
        signal, spread = np.empty(shape, np.float32), np.empty(shape, np.float32)
        rays.detected(paths_mm[0], paths_mm[1], *self._attenuation, *self._weights, signal, spread)
        exposure = np.float32(mas * thickness_mm)
        signal *= exposure
        if rng is not None:
            spread *= exposure
            spread += np.float32(self._dark_kev(thickness_mm) ** 2)
            signal += np.sqrt(spread, out=spread) * rng.standard_normal(shape, np.float32)
        return signal

    def _dark_kev(self, thickness_mm: float) -> float:
        """Electronic noise of a reading: its rows' variances add."""
        detector = self.profile.detector
        return detector.electronic_noise_kev * float(np.sqrt(thickness_mm / detector.row_mm))

    def water_mm(
        self,
        readings: Float32[np.ndarray, "views readings"],
        mas: float,
        thickness_mm: float,
    ) -> Float32[np.ndarray, "views readings"]:
        """Readings as mm of water: logarithm and water correction.

        A starved reading counts as the electronic noise's standard deviation, as a scanner clips
        what has no logarithm.
        """
        result = np.empty_like(readings)
        rays.water_paths(
            readings,
            (self._blank * mas * thickness_mm).astype(np.float32),
            np.float32(self._dark_kev(thickness_mm)),
            self._calibration.astype(np.float32),
            result,
        )
        return result

    @cached_property
    def _kev_of_noise(self) -> Float64[np.ndarray, " readings"]:
        """Variance that each detected keV brings without an object: sum E^2 N over sum E N."""
        energies = self._spectrum.energies_kev[:, None]
        result: Float64[np.ndarray, " readings"] = (self._photons * energies**2).sum(axis=0)
        return np.asarray(result / self._blank)

    def water_variance_mm2(
        self,
        readings: Float32[np.ndarray, "views readings"],
        mas: float,
        thickness_mm: float,
    ) -> Float32[np.ndarray, "views readings"]:
        """Variance of each water path as a scanner can know it: from its one noisy reading.

        Photons' and electronic noise, through the logarithm and the water correction. The energy
        of a photon is taken as the blank beam's, since the object's hardening is not known.
        """
        result = np.empty_like(readings)
        dark_kev = self._dark_kev(thickness_mm)
        rays.water_variances(
            readings,
            (self._blank * mas * thickness_mm).astype(np.float32),
            np.float32(dark_kev),
            self._kev_of_noise.astype(np.float32),
            np.float32(dark_kev**2),
            self._calibration.astype(np.float32),
            result,
        )
        return result

    @cached_property
    def reference_variance_mm2(self) -> float:
        """Variance of a central ray's water path in the reference scan."""
        water_mm, mas, thickness_mm = REFERENCE_SCAN
        middle = len(self.fan_rad) // 2
        energies = self._spectrum.energies_kev
        through = np.exp(-water_mm * WATER.attenuation_per_mm(energies))
        signal = float((self._photons[:, middle] * energies * through).sum())
        reading = np.full((1, len(self.fan_rad)), signal * mas * thickness_mm, np.float32)
        return float(self.water_variance_mm2(reading, mas, thickness_mm)[0, middle])
