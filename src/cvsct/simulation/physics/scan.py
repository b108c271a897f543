"""A virtual CT scanner: what one slice of an object looks like on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from jaxtyping import Float32

from cvsct.core.errors import UsageError
from cvsct.simulation.benchmark import FBP
from cvsct.simulation.phantom.materials import BASIS, Material
from cvsct.simulation.physics.definition import Iterative, ScannerDefinition, Strength
from cvsct.simulation.physics.denoiser import denoised
from cvsct.simulation.physics.detector import Detector, Paths, WaterPaths
from cvsct.simulation.physics.iterative import Measured, StatisticalReconstruction
from cvsct.simulation.physics.projector import project
from cvsct.simulation.physics.recon import ImageGrid, Reconstructor
from cvsct.simulation.physics.tone import toned
from cvsct.simulation.physics.tube_current import Exposure, modulated

__all__ = ["Acquired", "ImageGrid", "VirtualScanner"]

Image = Float32[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Acquired:
    """What a scanner knows after one rotation, by tube voltage.

    Args:
        water: readings as mm of water, and their noise.
        exposures: load of the tube.
    """

    water: dict[float, WaterPaths]
    exposures: dict[float, Exposure]


class VirtualScanner:
    """One scanner, ready to image slices. Calibration tables are made once and kept.

    Args:
        definition: what the scanner is; see `definitions/`.
        basis: the materials that a slice's two maps give amounts of.
    """

    def __init__(
        self, definition: ScannerDefinition, basis: tuple[Material, Material] = BASIS
    ) -> None:
        self.definition = definition
        self._reconstructor = Reconstructor(definition)
        self._sampling = self._reconstructor.sampling
        self._basis = basis
        self._detector = cache(self._new_detector)

    def images(
        self,
        amounts: Float32[np.ndarray, "2 size size"],
        extent_mm: float,
        exposures: Mapping[float, float],
        kernels: Sequence[str],
        thickness_mm: float,
        grid: ImageGrid,
        rng_of: Callable[[float], np.random.Generator | None],
    ) -> dict[tuple[float, str], Image]:
        """Scan one slice: one projection, one set of readings a tube voltage, an image a kernel.

        Args:
            amounts: relative amounts of the basis materials, on a square around the isocentre.
            extent_mm: side of that square.
            exposures: for each tube voltage in kVp its mAs (tube current times rotation time).
            kernels: reconstruct each set of readings with each of these.
            thickness_mm: slice thickness; scales the photons, the slab is averaged already.
            grid: where the pixels lie.
            rng_of: the random stream for a tube voltage's noise; None is a scan without noise.

        Returns:
            HU by tube voltage and kernel, not yet rounded.

        Raises:
            UsageError: if the scanner has no such kernel or tube voltage.
            GeometryError: if object or image reach beyond what the detector sees.
        """
        for name in kernels:
            self.definition.kernel(name)
        acquired = self.acquire(self.paths(amounts, extent_mm), exposures, thickness_mm, rng_of)
        every = self.reconstruct(acquired.water, kernels, grid)
        return {(kvp, kernel): image for (kvp, kernel, _), image in every.items()}

    def paths(
        self, amounts: Float32[np.ndarray, "2 size size"], extent_mm: float
    ) -> tuple[Paths, ...]:
        """Mean paths through the basis materials of each reading, for every sub-view.

        Raises:
            GeometryError: if the object reaches beyond what the detector sees.
        """
        return tuple(
            self._sampling.readings(project(amounts, extent_mm, fan))
            for fan in self._sampling.sub_fans
        )

    def acquire(
        self,
        paths: Sequence[Paths],
        exposures: Mapping[float, float],
        thickness_mm: float,
        rng_of: Callable[[float], np.random.Generator | None],
        modulate: bool = False,
        variance_share: float = 1.0,
    ) -> Acquired:
        """Take the readings of one rotation at each tube voltage.

        Args:
            paths: what `paths` gave.
            exposures: for each tube voltage in kVp its mAs.
            thickness_mm: slice thickness; scales the photons.
            rng_of: the random stream for a tube voltage's noise; None is a scan without noise.
            modulate: let the tube current follow the attenuation.
            variance_share: noise variance of the slice that a noise index is meant for over that
                of these readings alone; below 1 where a slice is a sum of several.

        Raises:
            UsageError: if the scanner has no such tube voltage, or cannot modulate its current.
        """
        water: dict[float, WaterPaths] = {}
        loads: dict[float, Exposure] = {}
        hardening = self.definition.beam_hardening
        for kvp, mas in exposures.items():
            detector = self._detector(kvp)
            exposure = Exposure(mas)
            if modulate:
                exposure = self._modulated(detector, paths, mas, thickness_mm, variance_share)
            readings = detector.readings(
                paths, exposure.mas, thickness_mm, rng_of(kvp), exposure.shares
            )
            water_mm = detector.water_mm(readings)
            if hardening is not None and hardening.bone_correction > 0:
                wrong_mm = detector.bone_hardening_mm(paths)
                water_mm -= np.float32(hardening.bone_correction) * wrong_mm
            water[kvp] = WaterPaths(water_mm, partial(detector.water_variance_mm2, readings))
            loads[kvp] = exposure
        return Acquired(water, loads)

    def reconstruct(
        self,
        water: Mapping[float, WaterPaths],
        kernels: Sequence[str],
        grid: ImageGrid,
        reconstructions: Sequence[str] = (FBP,),
    ) -> dict[tuple[float, str, str], Image]:
        """Images by tube voltage, kernel and reconstruction.

        Args:
            water: of each tube voltage, from one acquisition.
            reconstructions: `fbp`, and what the scanner's definition offers (`iterative-3`).

        Raises:
            UsageError: if the scanner has no such kernel or reconstruction.
            GeometryError: if the image reaches beyond what the detector sees.
        """
        chosen = {name: self.definition.kernel(name) for name in kernels}
        strengths = {name: self.definition.strength(name) for name in reconstructions}
        images: dict[tuple[float, str, str], Image] = {}
        for kvp, paths in water.items():
            spectra = self._reconstructor.spectra(paths.mm)
            measured = Measured(spectra, paths.variance_mm2, self._detector(kvp))
            for kernel_name, kernel in chosen.items():
                fbp = self._reconstructor.image(spectra, kernel, grid)
                task = StatisticalReconstruction(self._reconstructor, measured, kernel, grid, fbp)
                for name, strength in strengths.items():
                    image = self._image(task, strength)
                    if self.definition.tone_hu is not None:
                        image = toned(image, self.definition.tone_hu)
                    images[kvp, kernel_name, name] = image
        return images

    def _image(self, task: StatisticalReconstruction, strength: Strength | None) -> Image:
        family = self.definition.reconstruction
        if strength is None or family is None:
            return task.fbp
        if isinstance(strength, Iterative):
            return task.image(family, strength)
        return denoised(task.fbp, task.noise_hu, strength)

    def _modulated(
        self,
        detector: Detector,
        paths: Sequence[Paths],
        mas: float,
        thickness_mm: float,
        variance_share: float,
    ) -> Exposure:
        law = self.definition.tube_current
        if law is None:
            raise UsageError(
                f"{self.definition.name} has no section tube_current; add one to its definition, "
                "or scan with a constant current"
            )
        gain = 0.0
        if law.noise_index_kernel is not None:
            kernel = self.definition.kernel(law.noise_index_kernel)
            gain = variance_share * self._reconstructor.central_noise_gain(kernel)
        logs, noise = detector.central_noise(paths, thickness_mm, gain)
        reference = detector.log_behind_water(law.reference_water_mm or 0.0)
        rotation_s = self.definition.protocol.rotation_s
        return modulated(law, logs, reference, mas, rotation_s, noise)

    def _new_detector(self, kvp: float) -> Detector:
        sampling = self._sampling
        return Detector(
            self.definition, kvp, sampling.fan_rad, sampling.readings_per_rotation, self._basis
        )
