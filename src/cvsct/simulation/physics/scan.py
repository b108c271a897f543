"""A virtual CT scanner: what one slice of an object looks like on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.benchmark import FBP
from cvsct.simulation.phantom.materials import BASIS, Material
from cvsct.simulation.physics.definition import Iterative, ScannerProfile, Strength
from cvsct.simulation.physics.denoiser import denoised
from cvsct.simulation.physics.detector import Detector
from cvsct.simulation.physics.iterative import Measured, StatisticalReconstruction
from cvsct.simulation.physics.projector import project
from cvsct.simulation.physics.recon import ImageGrid, Reconstructor

__all__ = ["ImageGrid", "VirtualScanner"]

Image = Float32[np.ndarray, "rows columns"]


class VirtualScanner:
    """One scanner, ready to image slices. Calibration tables are made once and kept.

    Args:
        profile: what the scanner is; see `definitions/`.
        basis: the materials that a slice's two maps give amounts of.
    """

    def __init__(self, profile: ScannerProfile, basis: tuple[Material, Material] = BASIS) -> None:
        self.profile = profile
        self._reconstructor = Reconstructor(profile)
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
        every = self.reconstructed(
            amounts, extent_mm, exposures, kernels, (FBP,), thickness_mm, grid, rng_of
        )
        return {(kvp, kernel): image for (kvp, kernel, _), image in every.items()}

    def reconstructed(
        self,
        amounts: Float32[np.ndarray, "2 size size"],
        extent_mm: float,
        exposures: Mapping[float, float],
        kernels: Sequence[str],
        reconstructions: Sequence[str],
        thickness_mm: float,
        grid: ImageGrid,
        rng_of: Callable[[float], np.random.Generator | None],
    ) -> dict[tuple[float, str, str], Image]:
        """As `images`, each set of readings reconstructed in several ways.

        Args:
            reconstructions: `fbp`, and what the scanner's definition offers (`iterative-3`).

        Returns:
            HU by tube voltage, kernel and reconstruction.

        Raises:
            UsageError: if the scanner has no such kernel, reconstruction or tube voltage.
            GeometryError: if object or image reach beyond what the detector sees.
        """
        chosen = {name: self.profile.kernel(name) for name in kernels}
        strengths = {name: self.profile.strength(name) for name in reconstructions}
        paths = self._sampling.readings(project(amounts, extent_mm, self._sampling.fan))
        found = {}
        for kvp, mas in exposures.items():
            detector = self._detector(kvp)
            readings = detector.readings(paths, mas, thickness_mm, rng_of(kvp))
            spectra = self._reconstructor.spectra(detector.water_mm(readings, mas, thickness_mm))
            measured = Measured(
                spectra,
                partial(detector.water_variance_mm2, readings, mas, thickness_mm),
                detector.reference_variance_mm2,
            )
            for kernel_name, kernel in chosen.items():
                fbp = self._reconstructor.image(spectra, kernel, grid)
                task = StatisticalReconstruction(self._reconstructor, measured, kernel, grid, fbp)
                for name, strength in strengths.items():
                    found[kvp, kernel_name, name] = self._image(task, strength)
        return found

    def _image(self, task: StatisticalReconstruction, strength: Strength | None) -> Image:
        family = self.profile.reconstruction
        if strength is None or family is None:
            return task.fbp
        if isinstance(strength, Iterative):
            return task.image(family, strength)
        return denoised(task.fbp, task.noise_hu, strength)

    def _new_detector(self, kvp: float) -> Detector:
        sampling = self._sampling
        return Detector(
            self.profile, kvp, sampling.fan_rad, sampling.readings_per_rotation, self._basis
        )
