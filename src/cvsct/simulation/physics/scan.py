"""A virtual CT scanner: what one slice of an object looks like on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.phantom.materials import BASIS, Material
from cvsct.simulation.physics.definition import ScannerProfile
from cvsct.simulation.physics.detector import Detector
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
        chosen = {name: self.profile.kernel(name) for name in kernels}
        paths = self._sampling.readings(project(amounts, extent_mm, self._sampling.fan))
        found = {}
        for kvp, mas in exposures.items():
            detector = self._detector(kvp)
            readings = detector.readings(paths, mas, thickness_mm, rng_of(kvp))
            spectra = self._reconstructor.spectra(detector.water_mm(readings, mas, thickness_mm))
            for name, kernel in chosen.items():
                found[kvp, name] = self._reconstructor.image(spectra, kernel, grid)
        return found

    def _new_detector(self, kvp: float) -> Detector:
        sampling = self._sampling
        return Detector(
            self.profile, kvp, sampling.fan_rad, sampling.readings_per_rotation, self._basis
        )
