"""Detector model: from path lengths through materials to noisy readings and water paths.

It covers tube, bowtie, scintillator, noise and the correction of beam hardening. Of the steps of a
scan this one alone depends on the tube voltage: one projection serves every voltage, noise seed and
kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64

from cvsct.simulation.phantom.materials import BASIS, WATER, Material, material_named
from cvsct.simulation.physics import ray_kernels as rays
from cvsct.simulation.physics.definition import BeamHardening, ScannerDefinition
from cvsct.simulation.physics.scatter import REFERENCE_WATER_MM, ScatterModel
from cvsct.simulation.physics.spectrum import Spectrum
from cvsct.simulation.physics.tube_current import CENTRAL_MM, CentralNoise

LONGEST_WATER_MM = 450.0
"""Longest water path that the calibration covers."""
REFERENCE_SCAN = (250.0, 100.0, 5.0)
"""Water path in mm, mAs and slice thickness in mm of the reference scan, to which the strengths of
noise reduction refer."""
CALIBRATION_PATHS = 91
"""Number of path lengths that the calibration is fitted to."""
CALIBRATION_ANCHOR_MM = 200.0
"""Water path that reads correctly whatever the material of the calibration."""
AMPLE_MAS = 1e6
"""Tube load at which no reading is starved of photons."""

Sinogram = Float32[np.ndarray, "views readings"]
Paths = Float32[np.ndarray, "2 views readings"]


@dataclass(frozen=True)
class Readings:
    """Readings of one rotation at one tube voltage.

    Args:
        energy_kev: detected energy of each reading, corrected for scatter.
        mas: tube load of the rotation.
        thickness_mm: slice thickness.
        shares: tube load of each view over the mean; None for a constant current.
        scatter_kev: scatter that the correction has subtracted; None without scatter.
    """

    energy_kev: Sinogram
    mas: float
    thickness_mm: float
    shares: Float64[np.ndarray, " views"] | None = None
    scatter_kev: Sinogram | None = None


@dataclass(frozen=True)
class WaterPaths:
    """Readings as path lengths through water.

    Args:
        mm: water path of each reading.
        variance_mm2: function that estimates the variance of each path from the readings. Only
            reconstructions that weight their data call it.
    """

    mm: Sinogram
    variance_mm2: Callable[[], Sinogram]


@dataclass(frozen=True)
class DetectorModel:
    """Detector of one scanner at one tube voltage, with tube, bowtie and calibration.

    Args:
        definition: definition of the scanner.
        kvp: tube voltage, one of the definition's.
        fan_rad: fan angle of each reading of a view.
        readings_per_rotation: number of readings of a channel that share the mAs of a rotation.
        basis: basis materials of the path lengths.
    """

    definition: ScannerDefinition
    kvp: float
    fan_rad: Float64[np.ndarray, " readings"]
    readings_per_rotation: int
    basis: tuple[Material, Material] = BASIS

    @cached_property
    def _photons(self) -> Float64[np.ndarray, "energies readings"]:
        """Photons that a reading detects without an object, per mAs of a rotation and mm of slice.

        They are the fluence on the central ray at 1 m, reduced by the square of the distance and
        by the bowtie, times the area of a channel, times the share that the scintillator absorbs.
        """
        geometry, energies = self.definition.geometry, self._spectrum.energies_kev
        distance = geometry.source_detector_mm
        width_mm = geometry.channel_rad * distance
        height_per_slice_mm = distance / geometry.source_isocentre_mm
        area = width_mm * height_per_slice_mm * (1000.0 / distance) ** 2
        bowtie = material_named(self.definition.bowtie.material).attenuation_per_mm(energies)
        transmitted = np.exp(-np.outer(bowtie, self.definition.bowtie_mm(self.fan_rad)))
        photons = self._spectrum.photons * self.definition.detector.absorbed_share(energies)
        result: Float64[np.ndarray, "energies readings"] = photons[:, None] * transmitted
        return result * (area / self.readings_per_rotation)

    @cached_property
    def _spectrum(self) -> Spectrum:
        return self.definition.spectrum(self.kvp)

    @cached_property
    def _attenuation(self) -> tuple[Float32[np.ndarray, " energies"], ...]:
        """Attenuation of the basis materials per mm, in each energy bin."""
        return tuple(
            material.attenuation_per_mm(self._spectrum.energies_kev).astype(np.float32)
            for material in self.basis
        )

    @cached_property
    def _weights(self) -> tuple[Float32[np.ndarray, "energies readings"], ...]:
        """Energy, and squared energy, that each bin adds to a reading without an object."""
        """Energy, and energy squared, that each bin brings per mAs and mm."""
        energies = self._spectrum.energies_kev[:, None]
        return tuple((self._photons * energies**power).astype(np.float32) for power in (1, 2))

    @cached_property
    def _blank(self) -> Float64[np.ndarray, " readings"]:
        """Signal of each reading without an object, in keV per mAs and mm of slice."""
        blank: Float64[np.ndarray, " readings"] = (
            self._photons * self._spectrum.energies_kev[:, None]
        ).sum(axis=0)
        return blank

    @property
    def _hardening(self) -> BeamHardening:
        return self.definition.beam_hardening or BeamHardening()

    @cached_property
    def _calibration(self) -> Float64[np.ndarray, "readings order"]:
        """Coefficients of each channel's polynomial from -log(reading / blank) to mm of water.

        The bowtie hardens the beam differently in each channel, so each has a polynomial of its own
        (the water correction of Hsieh, Computed Tomography, section 7.6).
        """
        material = material_named(self._hardening.calibration_material)
        paths = np.linspace(0.0, LONGEST_WATER_MM, CALIBRATION_PATHS)
        logs = self._logs_behind(material, paths)
        powers = np.arange(1, self._hardening.calibration_order + 1)
        longest = logs[-1]
        columns = (logs / longest).T[:, :, None] ** powers
        normal = columns.transpose(0, 2, 1)
        solved = np.linalg.solve(normal @ columns, (normal @ paths)[:, :, None])[:, :, 0]
        result: Float64[np.ndarray, "readings order"] = solved / longest[:, None] ** powers
        if self._hardening != BeamHardening():
            anchor = self._logs_behind(WATER, np.array([CALIBRATION_ANCHOR_MM]))[0]
            read_mm = (result * anchor[:, None] ** powers).sum(axis=1)
            result *= CALIBRATION_ANCHOR_MM / read_mm[:, None]
        return result

    def _logs_behind(
        self, material: Material, paths_mm: Float64[np.ndarray, " paths"]
    ) -> Float64[np.ndarray, "paths readings"]:
        """Value of -log(reading / blank) behind these paths of a material, in every channel."""
        per_mm = material.attenuation_per_mm(self._spectrum.energies_kev)
        weights = self._photons * self._spectrum.energies_kev[:, None]
        signal = np.exp(-np.outer(paths_mm, per_mm)) @ weights
        result: Float64[np.ndarray, "paths readings"] = -np.log(signal / self._blank)
        return result

    @cached_property
    def _scatter(self) -> ScatterModel | None:
        """Model of the scatter, if the definition has one."""
        section = self.definition.scatter
        if section is None:
            return None
        distance_mm = self.definition.geometry.source_isocentre_mm * np.sin(self.fan_rad)
        half_mm = np.sqrt(np.maximum((REFERENCE_WATER_MM / 2) ** 2 - distance_mm**2, 0))
        per_mm = WATER.attenuation_per_mm(self._spectrum.energies_kev)
        transmitted = np.exp(-np.outer(per_mm, 2 * half_mm))
        energies_kev = self._spectrum.energies_kev[:, None]
        reference = (self._photons * energies_kev * transmitted).sum(axis=0)
        middle = int(np.abs(self.fan_rad).argmin())
        log = float(np.log(self._blank[middle] / reference[middle]))
        return ScatterModel(section, self.fan_rad, self._blank, reference, log / REFERENCE_WATER_MM)

    def _detected_energy(self, paths_mm: Sequence[Paths]) -> tuple[Sinogram, Sinogram]:
        """Primary signal and the variance of its noise, in keV and keV^2 per mAs and mm of slice.

        Args:
            paths_mm: path lengths of each sub-view. The gantry turns while a reading is taken, so
                that the intensities of its sub-views are averaged.
        """
        signal, spread = self._sub_view_energy(paths_mm[0], self._weights)
        for sub_view in paths_mm[1:]:
            sub_signal, sub_spread = self._sub_view_energy(sub_view, self._weights)
            signal += sub_signal
            spread += sub_spread
        if len(paths_mm) > 1:
            signal /= np.float32(len(paths_mm))
            spread /= np.float32(len(paths_mm))
        return signal, spread

    def _sub_view_energy(
        self, paths_mm: Paths, weights: tuple[Float32[np.ndarray, "energies readings"], ...]
    ) -> tuple[Sinogram, Sinogram]:
        """Primary signal and variance of one sub-view."""
        shape = paths_mm.shape[1:]
        signal, spread = np.empty(shape, np.float32), np.empty(shape, np.float32)
        rays.detected_energy(paths_mm[0], paths_mm[1], *self._attenuation, *weights, signal, spread)
        return signal, spread

    def readings(
        self,
        paths_mm: Sequence[Paths],
        mas: float,
        thickness_mm: float,
        rng: np.random.Generator | None,
        shares: Float64[np.ndarray, " views"] | None = None,
    ) -> Readings:
        """Simulate readings, corrected for scatter.

        The noise of an energy-integrating detector is compound Poisson noise, whose variance is the
        sum of E^2 N (Whiting et al., Med Phys 33, 2006), plus electronic noise.

        Args:
            paths_mm: path lengths through the two basis materials, of each sub-view.
            mas: tube load of the rotation.
            thickness_mm: slice thickness.
            rng: random stream of the noise; None for readings without noise.
            shares: tube load of each view over the mean; None for a constant current.
        """
        signal, spread = self._detected_energy(paths_mm)
        exposure = self._exposure(mas, thickness_mm, shares)
        scatter = self._scatter.signal(signal) if self._scatter else None
        if scatter is not None:
            signal += scatter
            spread += scatter * self._mean_energy_kev
            scatter *= exposure
        signal *= exposure
        if rng is not None:
            spread *= exposure
            spread += np.float32(self._dark_kev(thickness_mm) ** 2)
            signal += np.sqrt(spread, out=spread) * rng.standard_normal(signal.shape, np.float32)
        estimate = None
        if self._scatter and scatter is not None:
            estimate = self._scatter.estimate(scatter, rng)
            signal -= estimate
        return Readings(signal, mas, thickness_mm, shares, estimate)

    @property
    def _mean_energy_kev(self) -> Float32[np.ndarray, " readings"]:
        """Energy-weighted mean energy of the photons detected without an object."""
        energy, squared = self._weights
        return np.asarray(squared.sum(axis=0) / energy.sum(axis=0))

    @staticmethod
    def _exposure(
        mas: float, thickness_mm: float, shares: Float64[np.ndarray, " views"] | None
    ) -> np.float32 | Float32[np.ndarray, "views 1"]:
        """Tube load times mm of slice: of the rotation, or for each view that of its current."""
        if shares is None:
            return np.float32(mas * thickness_mm)
        return (mas * thickness_mm * shares).astype(np.float32)[:, None]

    def _dark_kev(self, thickness_mm: float) -> float:
        """Standard deviation of a reading's electronic noise; the variances of its rows add."""
        detector = self.definition.detector
        return detector.electronic_noise_kev * float(np.sqrt(thickness_mm / detector.row_mm))

    def water_mm(self, readings: Readings) -> Sinogram:
        """Convert readings to mm of water by logarithm and water correction.

        Readings below the standard deviation of the electronic noise are raised to it, so that all
        have a logarithm.
        """
        energy_kev = readings.energy_kev
        result = np.empty_like(energy_kev)
        floor = np.float32(self._dark_kev(readings.thickness_mm))
        if readings.shares is not None:  # the reference detector measures the load of a view
            energy_kev = np.maximum(energy_kev, floor) / readings.shares.astype(np.float32)[:, None]
            floor = energy_kev.min()
        rays.water_paths(
            energy_kev,
            (self._blank * readings.mas * readings.thickness_mm).astype(np.float32),
            floor,
            self._calibration.astype(np.float32),
            result,
        )
        return result

    def water_variance_mm2(self, readings: Readings) -> Sinogram:
        """Estimate the variance of each water path from its noisy reading, as a scanner can.

        Photon noise and electronic noise are propagated through the logarithm and the water
        correction. The energy of a photon is taken as that of the blank beam, since the hardening
        by the object is unknown. The noise of scattered photons stays when a correction subtracts
        their mean; the noise of the correction itself, smooth along a view, is not counted.
        """
        shape = readings.energy_kev.shape
        shares, scatter = readings.shares, readings.scatter_kev
        dark_kev = self._dark_kev(readings.thickness_mm)
        result = np.empty_like(readings.energy_kev)
        rays.water_variances(
            readings.energy_kev,
            np.zeros(shape, np.float32) if scatter is None else scatter,
            (np.ones(shape[0]) if shares is None else shares).astype(np.float32),
            (self._blank * readings.mas * readings.thickness_mm).astype(np.float32),
            np.float32(dark_kev),
            self._mean_energy_kev,
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
        transmitted = np.exp(-water_mm * WATER.attenuation_per_mm(energies))
        signal = float((self._photons[:, middle] * energies * transmitted).sum())
        energy_kev = np.full((1, len(self.fan_rad)), signal * mas * thickness_mm, np.float32)
        variance = self.water_variance_mm2(Readings(energy_kev, mas, thickness_mm))
        return float(variance[0, middle])

    def bone_hardening_mm(self, paths_mm: Sequence[Paths]) -> Sinogram:
        """Error in mm of water that bone causes when the correction is for water alone.

        Ideally the second basis material reads as its path times its attenuation over that of
        water, both at the mean energy of the signal behind 20 cm of water. The difference from
        this is what a bone correction (Joseph and Spital, J Comput Assist Tomogr 2, 1978) estimates
        from a first image and subtracts.
        """
        energies = self._spectrum.energies_kev
        weights = self._weights[0][:, slice(*self._central)].sum(axis=1)
        water = WATER.attenuation_per_mm(energies)
        behind = weights * np.exp(-CALIBRATION_ANCHOR_MM * water)
        energy = np.array([np.average(energies, weights=behind)])
        bone = self.basis[1].attenuation_per_mm(energy) / WATER.attenuation_per_mm(energy)
        without_bone = [np.stack((paths[0], np.zeros_like(paths[1]))) for paths in paths_mm]
        both, soft = (
            self.water_mm(
                Readings(self._detected_energy(paths)[0] * np.float32(AMPLE_MAS), AMPLE_MAS, 1.0)
            )
            for paths in (paths_mm, without_bone)
        )
        path_mm = sum(paths[1] for paths in paths_mm) / np.float32(len(paths_mm))
        return np.asarray(both - soft - path_mm * np.float32(bone[0]))

    def central_noise(
        self, paths_mm: Sequence[Paths], thickness_mm: float, gain: float
    ) -> tuple[Float64[np.ndarray, " views"], CentralNoise]:
        """Logarithmic attenuation and noise of the rays near the isocentre, for each view.

        Args:
            paths_mm: path lengths through the basis materials, of each sub-view.
            thickness_mm: slice thickness.
            gain: HU^2 at the centre of an image for each mm^2 of variance, summed over the views.
        """
        first, last = self._central
        energy, squared = (
            np.ascontiguousarray(weights[:, first:last]) for weights in self._weights
        )
        parts = [np.ascontiguousarray(paths[:, :, first:last]) for paths in paths_mm]
        detected = [self._sub_view_energy(part, (energy, squared)) for part in parts]
        signal = np.mean([part_signal for part_signal, _ in detected], axis=0, dtype=np.float64)
        spread = np.mean([part_spread for _, part_spread in detected], axis=0, dtype=np.float64)
        logs = np.log(self._blank[first:last] / signal)
        coefficients = self._calibration[first:last]
        powers = np.arange(coefficients.shape[1])
        slope = ((powers + 1) * coefficients * logs[:, :, None] ** powers).sum(axis=2)
        photons = (slope**2 * spread / signal**2).mean(axis=1) / thickness_mm
        dark = (slope / signal) ** 2 * (self._dark_kev(thickness_mm) / thickness_mm) ** 2
        return logs.mean(axis=1), CentralNoise(photons, dark.mean(axis=1), gain)

    def log_behind_water(self, water_mm: float) -> float:
        """Logarithmic attenuation of a water path on the rays near the isocentre."""
        first, last = self._central
        return float(self._logs_behind(WATER, np.array([water_mm]))[0, first:last].mean())

    @cached_property
    def _central(self) -> tuple[int, int]:
        """Range of the readings whose rays pass near the isocentre."""
        distance_mm = self.definition.geometry.source_isocentre_mm * np.sin(np.abs(self.fan_rad))
        inside = np.flatnonzero(distance_mm <= CENTRAL_MM)
        return int(inside[0]), int(inside[-1]) + 1
