"""From line integrals to water paths: tube, bowtie, scintillator, noise, beam-hardening correction.

Only this step depends on the tube voltage. The projection before it serves every voltage, every
noise seed and every kernel.
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
"""Water paths that the calibration covers."""
REFERENCE_SCAN = (250.0, 100.0, 5.0)
"""Water in mm, mAs and slice thickness in mm for which strengths of noise reduction are told."""
CALIBRATION_PATHS = 91
CALIBRATION_ANCHOR_MM = 200.0
"""Water path that reads right whatever material the calibration is made with."""
AMPLE_MAS = 1e6
"""A load at which no reading is starved."""

Sinogram = Float32[np.ndarray, "views readings"]
Paths = Float32[np.ndarray, "2 views readings"]


@dataclass(frozen=True)
class Readings:
    """Readings of one rotation at one tube voltage.

    Args:
        energy_kev: detected energy of each, corrected for scatter.
        mas: load of the rotation.
        thickness_mm: of the slice.
        shares: load of each view over the mean; None where all are alike.
        scatter_kev: what the correction has taken away; None where there is none.
    """

    energy_kev: Sinogram
    mas: float
    thickness_mm: float
    shares: Float64[np.ndarray, " views"] | None = None
    scatter_kev: Sinogram | None = None


@dataclass(frozen=True)
class WaterPaths:
    """Readings as mm of water.

    Args:
        mm: water path of each reading.
        variance_mm2: gives the variance of each path, as a scanner can know it; asked for only
            where a reconstruction weighs its data.
    """

    mm: Sinogram
    variance_mm2: Callable[[], Sinogram]


@dataclass(frozen=True)
class Detector:
    """The detector of one scanner at one tube voltage.

    Args:
        definition: tube, bowtie and scintillator.
        kvp: one of the definition's.
        fan_rad: fan angle of each reading of a view.
        readings_per_rotation: among which the rotation's mAs are shared.
        basis: the materials whose paths it is given.
    """

    definition: ScannerDefinition
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
        geometry, energies = self.definition.geometry, self._spectrum.energies_kev
        distance = geometry.source_detector_mm
        width_mm = geometry.channel_rad * distance
        height_per_slice_mm = distance / geometry.source_isocentre_mm
        area = width_mm * height_per_slice_mm * (1000.0 / distance) ** 2
        bowtie = material_named(self.definition.bowtie.material).attenuation_per_mm(energies)
        through = np.exp(-np.outer(bowtie, self.definition.bowtie_mm(self.fan_rad)))
        photons = self._spectrum.photons * self.definition.detector.absorbed_share(energies)
        result: Float64[np.ndarray, "energies readings"] = photons[:, None] * through
        return result * (area / self.readings_per_rotation)

    @cached_property
    def _spectrum(self) -> Spectrum:
        return self.definition.spectrum(self.kvp)

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

    @property
    def _hardening(self) -> BeamHardening:
        return self.definition.beam_hardening or BeamHardening()

    @cached_property
    def _calibration(self) -> Float64[np.ndarray, "readings order"]:
        """For each channel the polynomial from -log(reading / blank) to mm of water.

        The bowtie hardens the beam differently in each channel, so each has its own (the water
        correction of Hsieh, Computed Tomography, section 7.6).
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
            reads = (result * anchor[:, None] ** powers).sum(axis=1)
            result *= CALIBRATION_ANCHOR_MM / reads[:, None]
        return result

    def _logs_behind(
        self, material: Material, paths_mm: Float64[np.ndarray, " paths"]
    ) -> Float64[np.ndarray, "paths readings"]:
        """-log(reading / blank) behind these paths of a material, in every channel."""
        per_mm = material.attenuation_per_mm(self._spectrum.energies_kev)
        weights = self._photons * self._spectrum.energies_kev[:, None]
        through = np.exp(-np.outer(paths_mm, per_mm)) @ weights
        result: Float64[np.ndarray, "paths readings"] = -np.log(through / self._blank)
        return result

    @cached_property
    def _scatter(self) -> ScatterModel | None:
        section = self.definition.scatter
        if section is None:
            return None
        distance_mm = self.definition.geometry.source_isocentre_mm * np.sin(self.fan_rad)
        half_mm = np.sqrt(np.maximum((REFERENCE_WATER_MM / 2) ** 2 - distance_mm**2, 0))
        per_mm = WATER.attenuation_per_mm(self._spectrum.energies_kev)
        through = np.exp(-np.outer(per_mm, 2 * half_mm))
        reference = (self._photons * self._spectrum.energies_kev[:, None] * through).sum(axis=0)
        middle = int(np.abs(self.fan_rad).argmin())
        log = float(np.log(self._blank[middle] / reference[middle]))
        return ScatterModel(section, self.fan_rad, self._blank, reference, log / REFERENCE_WATER_MM)

    def detected(self, paths_mm: Sequence[Paths]) -> tuple[Sinogram, Sinogram]:
        """Primary signal and the variance of its noise, in keV and keV^2 per mAs and mm of slice.

        Args:
            paths_mm: the paths of each sub-view; the gantry turns on while a reading is taken, so
                their intensities are averaged.
        """
        signal, spread = self._detected_once(paths_mm[0], self._weights)
        for more in paths_mm[1:]:
            more_signal, more_spread = self._detected_once(more, self._weights)
            signal += more_signal
            spread += more_spread
        if len(paths_mm) > 1:
            signal /= np.float32(len(paths_mm))
            spread /= np.float32(len(paths_mm))
        return signal, spread

    def _detected_once(
        self, paths_mm: Paths, weights: tuple[Float32[np.ndarray, "energies readings"], ...]
    ) -> tuple[Sinogram, Sinogram]:
        shape = paths_mm.shape[1:]
        signal, spread = np.empty(shape, np.float32), np.empty(shape, np.float32)
        rays.detected(paths_mm[0], paths_mm[1], *self._attenuation, *weights, signal, spread)
        return signal, spread

    def readings(
        self,
        paths_mm: Sequence[Paths],
        mas: float,
        thickness_mm: float,
        rng: np.random.Generator | None,
        shares: Float64[np.ndarray, " views"] | None = None,
    ) -> Readings:
        """Readings corrected for scatter, with noise unless `rng` is None.

        Compound Poisson noise of an energy-integrating detector: variance is the sum of E^2 N
        (Whiting et al., Med Phys 33, 2006), to which the electronics add theirs.

        Args:
            paths_mm: for each sub-view the paths through the two basis materials.
            mas: load of the rotation.
            shares: load of each view over the mean; None where all are alike.
        """
        signal, spread = self.detected(paths_mm)
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
        """Load times mm of slice, of the rotation or as if all its views were like each one."""
        if shares is None:
            return np.float32(mas * thickness_mm)
        return (mas * thickness_mm * shares).astype(np.float32)[:, None]

    def _dark_kev(self, thickness_mm: float) -> float:
        """Electronic noise of a reading: its rows' variances add."""
        detector = self.definition.detector
        return detector.electronic_noise_kev * float(np.sqrt(thickness_mm / detector.row_mm))

    def water_mm(self, readings: Readings) -> Sinogram:
        """Readings as mm of water: logarithm and water correction.

        A starved reading counts as the electronic noise's standard deviation, as a scanner clips
        what has no logarithm.
        """
        energy_kev = readings.energy_kev
        result = np.empty_like(energy_kev)
        floor = np.float32(self._dark_kev(readings.thickness_mm))
        if readings.shares is not None:  # the reference detector tells the load of each view
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
        """Variance of each water path as a scanner can know it: from its one noisy reading.

        Photons' and electronic noise, through the logarithm and the water correction. The energy
        of a photon is taken as the blank beam's, since the object's hardening is not known. Photons
        that a scatter correction took away left their noise; the correction's own, smooth along a
        view, is not counted.
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
        through = np.exp(-water_mm * WATER.attenuation_per_mm(energies))
        signal = float((self._photons[:, middle] * energies * through).sum())
        energy_kev = np.full((1, len(self.fan_rad)), signal * mas * thickness_mm, np.float32)
        variance = self.water_variance_mm2(Readings(energy_kev, mas, thickness_mm))
        return float(variance[0, middle])

    def bone_hardening_mm(self, paths_mm: Sequence[Paths]) -> Sinogram:
        """What a water correction alone gets wrong because of bone, in mm of water.

        The basis material of the second map reads as its path times its attenuation over water's,
        both at the mean energy of the signal behind 20 cm of water; the difference is what a bone
        correction (Joseph and Spital, J Comput Assist Tomogr 2, 1978) estimates from a first
        image and takes away.
        """
        energies = self._spectrum.energies_kev
        weights = self._weights[0][:, slice(*self._central)].sum(axis=1)
        water = WATER.attenuation_per_mm(energies)
        behind = weights * np.exp(-CALIBRATION_ANCHOR_MM * water)
        energy = np.array([np.average(energies, weights=behind)])
        bone = self.basis[1].attenuation_per_mm(energy) / WATER.attenuation_per_mm(energy)
        without = [np.stack((paths[0], np.zeros_like(paths[1]))) for paths in paths_mm]
        both, soft = (
            self.water_mm(Readings(self.detected(each)[0] * np.float32(AMPLE_MAS), AMPLE_MAS, 1.0))
            for each in (paths_mm, without)
        )
        path_mm = sum(paths[1] for paths in paths_mm) / np.float32(len(paths_mm))
        return np.asarray(both - soft - path_mm * np.float32(bone[0]))

    def central_noise(
        self, paths_mm: Sequence[Paths], thickness_mm: float, gain: float
    ) -> tuple[Float64[np.ndarray, " views"], CentralNoise]:
        """Logarithmic attenuation and noise of the rays near the isocentre, view by view.

        Args:
            gain: HU^2 at the centre of an image for each mm^2 of variance, summed over the views.
        """
        first, last = self._central
        energy, squared = (np.ascontiguousarray(each[:, first:last]) for each in self._weights)
        parts = [np.ascontiguousarray(paths[:, :, first:last]) for paths in paths_mm]
        found = [self._detected_once(part, (energy, squared)) for part in parts]
        signal = np.mean([each[0] for each in found], axis=0, dtype=np.float64)
        spread = np.mean([each[1] for each in found], axis=0, dtype=np.float64)
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
        """The readings near the isocentre."""
        distance_mm = self.definition.geometry.source_isocentre_mm * np.sin(np.abs(self.fan_rad))
        inside = np.flatnonzero(distance_mm <= CENTRAL_MM)
        return int(inside[0]), int(inside[-1]) + 1
