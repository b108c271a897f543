"""Virtual CT scanner: from the materials of a slice to its images."""

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
from cvsct.simulation.physics.denoiser import denoise
from cvsct.simulation.physics.detector import DetectorModel, Paths, WaterPaths
from cvsct.simulation.physics.hu_offset import add_hu_offset
from cvsct.simulation.physics.iterative import SliceProjections, StatisticalReconstruction
from cvsct.simulation.physics.projector import project
from cvsct.simulation.physics.recon import ImageGrid, Reconstructor
from cvsct.simulation.physics.tube_current import Exposure, modulate_exposure

__all__ = ["AcquiredRotation", "ImageGrid", "VirtualScanner"]

Image = Float32[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class AcquiredRotation:
    """Data of one rotation, by tube voltage in kVp.

    Args:
        water: readings as mm of water, and their noise.
        exposures: tube loads.
    """

    water: dict[float, WaterPaths]
    exposures: dict[float, Exposure]


class VirtualScanner:
    """Virtual scanner that simulates images of slices; it keeps its calibration tables.

    Args:
        definition: definition of the scanner; see `definitions/`.
        basis: basis materials whose amounts the two maps of a slice give.
    """

    def __init__(
        self, definition: ScannerDefinition, basis: tuple[Material, Material] = BASIS
    ) -> None:
        self.definition = definition
        self._reconstructor = Reconstructor(definition)
        self._sampling = self._reconstructor.sampling
        self._basis = basis
        self._detector = cache(self._build_detector)

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
        """Scan one slice: project it once, and give an image per tube voltage and kernel.

        Args:
            amounts: relative amounts of the basis materials, on a square around the isocentre.
            extent_mm: side of that square.
            exposures: tube load in mAs (tube current times rotation time) by tube voltage in kVp.
            kernels: names of the reconstruction kernels.
            thickness_mm: slice thickness, which scales the number of photons; the amounts are
                averages over the slice already.
            grid: positions of the pixels.
            rng_of: function that gives the random stream of a tube voltage's noise, or None for a
                scan without noise.

        Returns:
            Images in HU by tube voltage and kernel, not rounded.

        Raises:
            UsageError: if the scanner has no such kernel or tube voltage.
            GeometryError: if object or image extend beyond the field of view.
        """
        for name in kernels:
            self.definition.kernel(name)
        acquired = self.acquire(self.paths(amounts, extent_mm), exposures, thickness_mm, rng_of)
        images = self.reconstruct(acquired.water, kernels, grid)
        return {(kvp, kernel): image for (kvp, kernel, _), image in images.items()}

    def paths(
        self, amounts: Float32[np.ndarray, "2 size size"], extent_mm: float
    ) -> tuple[Paths, ...]:
        """Mean path lengths of each reading through the basis materials, for every sub-view.

        Raises:
            GeometryError: if the object extends beyond the field of view.
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
    ) -> AcquiredRotation:
        """Simulate the readings of one rotation at each tube voltage.

        Args:
            paths: path lengths from `paths`.
            exposures: tube load in mAs by tube voltage in kVp.
            thickness_mm: slice thickness, which scales the number of photons.
            rng_of: function that gives the random stream of a tube voltage's noise, or None for a
                scan without noise.
            modulate: whether the tube current follows the attenuation.
            variance_share: ratio of noise variances: slice that the noise index is defined for over
                these readings alone; below 1 where a slice is a sum of several readings.

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
                exposure = self._modulated_exposure(
                    detector, paths, mas, thickness_mm, variance_share
                )
            readings = detector.readings(
                paths, exposure.mas, thickness_mm, rng_of(kvp), exposure.shares
            )
            water_mm = detector.water_mm(readings)
            if hardening is not None and hardening.bone_correction > 0:
                error_mm = detector.bone_hardening_mm(paths)
                water_mm -= np.float32(hardening.bone_correction) * error_mm
            water[kvp] = WaterPaths(water_mm, partial(detector.water_variance_mm2, readings))
            loads[kvp] = exposure
        return AcquiredRotation(water, loads)

    def reconstruct(
        self,
        water: Mapping[float, WaterPaths],
        kernels: Sequence[str],
        grid: ImageGrid,
        reconstructions: Sequence[str] = (FBP,),
    ) -> dict[tuple[float, str, str], Image]:
        """Reconstruct images from the readings of one rotation.

        Args:
            water: readings as mm of water, by tube voltage.
            kernels: names of the reconstruction kernels.
            grid: positions of the pixels.
            reconstructions: `fbp`, and what the scanner's definition offers (`iterative-3`).

        Returns:
            Images in HU by tube voltage, kernel and reconstruction.

        Raises:
            UsageError: if the scanner has no such kernel or reconstruction.
            GeometryError: if the image extends beyond the field of view.
        """
        kernel_of = {name: self.definition.kernel(name) for name in kernels}
        strengths = {name: self.definition.strength(name) for name in reconstructions}
        images: dict[tuple[float, str, str], Image] = {}
        for kvp, paths in water.items():
            spectra = self._reconstructor.spectra(paths.mm)
            projections = SliceProjections(spectra, paths.variance_mm2, self._detector(kvp))
            for kernel_name, kernel in kernel_of.items():
                fbp = self._reconstructor.image(spectra, kernel, grid)
                statistical = StatisticalReconstruction(
                    self._reconstructor, projections, kernel, grid, fbp
                )
                for name, strength in strengths.items():
                    image = self._image(statistical, strength)
                    if self.definition.tone_hu is not None:
                        image = add_hu_offset(image, self.definition.tone_hu)
                    images[kvp, kernel_name, name] = image
        return images

    def _image(self, statistical: StatisticalReconstruction, strength: Strength | None) -> Image:
        """Image of one strength of noise reduction; None is filtered back-projection."""
        family = self.definition.reconstruction
        if strength is None or family is None:
            return statistical.fbp
        if isinstance(strength, Iterative):
            return statistical.image(family, strength)
        return denoise(statistical.fbp, statistical.noise_hu, strength)

    def _modulated_exposure(
        self,
        detector: DetectorModel,
        paths: Sequence[Paths],
        mas: float,
        thickness_mm: float,
        variance_share: float,
    ) -> Exposure:
        """Tube load of a rotation whose current follows the attenuation."""
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
        return modulate_exposure(law, logs, reference, mas, rotation_s, noise)

    def _build_detector(self, kvp: float) -> DetectorModel:
        sampling = self._sampling
        return DetectorModel(
            self.definition, kvp, sampling.fan_rad, sampling.readings_per_rotation, self._basis
        )
