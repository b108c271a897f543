"""Filtered back-projection: rebinning to parallel rays, reconstruction kernel, back-projection.

Scanners sample at twice the density that their channels alone would give, and the rebinned data
keep that density: a quarter-offset detector interleaves each ray with its neighbor from the
opposite side, a flying focal spot reads each view twice. At the density of the channels the
frequencies that sharp kernels show beyond 0.85 lp/mm would be aliased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Complex64, Float32, Float64, Int64
from scipy import fft

from cvsct.core.errors import GeometryError
from cvsct.simulation.physics import ray_kernels as rays
from cvsct.simulation.physics.definition import Kernel, ScannerDefinition
from cvsct.simulation.physics.projector import FanGeometry

SAMPLE_MM = 0.25
"""Distance of parallel samples before filtering; filtering halves it for back-projection."""
TAPS = 6
"""Number of points of the Lagrange interpolation from fan angles to parallel distances."""
DIVISOR_FLOOR = 0.2
"""Smallest modulation of the system's blur that the filter divides by."""
TAPER_LP_MM = (1.25, 1.40)
"""Frequencies between which a cosine taper ends the filter."""

Modulation = Callable[[Float64[np.ndarray, " f"]], Float64[np.ndarray, " f"]]
"""Function that gives a gain at frequencies in lp/mm."""
RayRows = tuple[Float64[np.ndarray, " angles"], float, int]
"""Equally spaced rays of each angle: signed distance of the first ray from the isocentre in mm,
distance between rays in mm, and number of rays."""


@dataclass(frozen=True)
class ImageGrid:
    """Positions of the pixels of a square image.

    Args:
        size_px: number of rows and of columns.
        fov_mm: reconstructed field of view, the side of the square.
        centre_mm: centre of the square, x and y.
    """

    size_px: int = 512
    fov_mm: float = 350.0
    centre_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def pixel_mm(self) -> float:
        """Distance between pixels."""
        return self.fov_mm / self.size_px

    def axis_mm(self, axis: int) -> Float64[np.ndarray, " pixels"]:
        """Pixel centres along x (axis 0) or y (axis 1)."""
        indices = np.arange(self.size_px) - (self.size_px - 1) / 2
        return self.centre_mm[axis] + indices * self.pixel_mm


@dataclass(frozen=True)
class Sampling:
    """Sampling of a scanner: from the projector's elements to readings and to parallel samples.

    A channel spans two of the projector's elements, so that weights on four neighbors,
    `(a, 1-a, 1-a, a) / 2`, can represent readings half a channel apart and the blur of the focal
    spot. With the weight `a` the blur has the variance of a uniform focal spot, as seen at the
    isocentre.

    Args:
        definition: geometry and focal spot.
    """

    definition: ScannerDefinition

    @property
    def _has_flying_spot(self) -> bool:
        return self.definition.geometry.sampling == "flying-focal-spot"

    @cached_property
    def fan(self) -> FanGeometry:
        """Fan beam of the projector, whose elements are half a channel wide."""
        geometry = self.definition.geometry
        pitch = geometry.channel_rad
        return FanGeometry(
            source_isocentre_mm=geometry.source_isocentre_mm,
            views=geometry.views,
            elements=2 * geometry.channels,
            element_rad=pitch / 2,
            offset_rad=0.0 if self._has_flying_spot else pitch / 4,
        )

    @cached_property
    def sub_fans(self) -> tuple[FanGeometry, ...]:
        """Fan beams at the gantry positions of one reading, symmetric about its centre.

        The two spots of a flying focal spot share the time of a view.
        """
        count = self.definition.geometry.sub_views
        step_rad = 2 * np.pi / self.readings_per_rotation / count
        turns = (np.arange(count) - (count - 1) / 2) * step_rad
        return tuple(replace(self.fan, turn_rad=float(turn)) for turn in turns)

    @property
    def step(self) -> int:
        """Number of elements from one reading to the next: a channel, or half a channel."""
        return 1 if self._has_flying_spot else 2

    @cached_property
    def fan_rad(self) -> Float64[np.ndarray, " readings"]:
        """Fan angle of each reading of a view."""
        return self.fan.boundary_rad[1 : -1 : self.step]

    @property
    def readings_per_rotation(self) -> int:
        """Number of readings of a channel per rotation; a flying focal spot takes two per view."""
        return self.fan.views * (2 if self._has_flying_spot else 1)

    @property
    def half_channel_mm(self) -> float:
        """Width of half a channel at the isocentre."""
        return self.fan.source_isocentre_mm * self.fan.element_rad

    @property
    def focal_weight(self) -> float:
        """Weight `a` of the outer two of a reading's four elements."""
        geometry = self.definition.geometry
        magnified = 1 - geometry.source_isocentre_mm / geometry.source_detector_mm
        seen_mm = self.definition.tube.focal_spot_mm * magnified
        return float(seen_mm**2 / 24 / self.half_channel_mm**2)

    def readings(
        self, lines: Float32[np.ndarray, "views elements 2"]
    ) -> Float32[np.ndarray, "2 views readings"]:
        """Mean path lengths over the aperture of each reading, blurred by the focal spot."""
        result = np.empty((2, len(lines), len(self.fan_rad)), np.float32)
        rays.aperture_means(lines, self.focal_weight, self.step, result)
        return result

    def blur(self, f_lp_mm: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, " f"]:
        """Modulation of aperture and focal spot at the isocentre."""
        phase = 2 * np.pi * f_lp_mm * self.half_channel_mm
        a = self.focal_weight
        taps = (1 - a) * np.cos(phase / 2) + a * np.cos(3 * phase / 2)
        return taps * np.sinc(f_lp_mm * self.half_channel_mm)

    @cached_property
    def _shift(self) -> Complex64[np.ndarray, "harmonics readings"]:
        """Phase factors that shift the views of each reading from source angles to ray angles."""
        harmonics = np.arange(self.fan.views // 2 + 1)
        return np.exp(1j * np.outer(harmonics, self.fan_rad)).astype(np.complex64)

    def parallel(
        self, water_mm: Float32[np.ndarray, "views readings"]
    ) -> Float32[np.ndarray, "angles samples"]:
        """Rebin readings to parallel rays over half a turn, at fan angles half a channel apart.

        The views of a reading are periodic, so that their shift by its fan angle is exact in the
        Fourier domain. Opposite rays are interleaved (quarter offset) or averaged (flying spot).
        """
        half = self.fan.views // 2
        turned = fft.rfft(water_mm, axis=0)
        turned *= self._shift
        turned = fft.irfft(turned, n=self.fan.views, axis=0)
        near, far = turned[:half], turned[half:, ::-1]
        if self._has_flying_spot:
            return np.asarray((near + far) / 2, dtype=np.float32)
        both = np.empty((half, 2 * near.shape[1]), np.float32)
        both[:, 0::2] = far
        both[:, 1::2] = near
        return both

    def parallel_variance(
        self,
        variance_mm2: Float32[np.ndarray, "views readings"],
        t_mm: Float64[np.ndarray, "angles samples"],
    ) -> Float32[np.ndarray, "angles samples"]:
        """Variance of the parallel samples at these distances from the isocentre.

        Each ray takes the nearest reading of both directions: a quarter offset interleaves the two,
        a flying spot averages them, which halves the variance.
        """
        fan, count = self.fan, len(self.fan_rad)
        angle = np.arcsin(np.clip(t_mm / fan.source_isocentre_mm, -1, 1))
        first, pitch = self.fan_rad[0], self.step * fan.element_rad
        turn = np.arange(len(t_mm))[:, None]
        total = np.zeros(t_mm.shape, np.float32)
        for side, start in ((1, 0), (-1, fan.views // 2)):
            reading = np.clip(np.rint((side * angle - first) / pitch), 0, count - 1).astype(int)
            view = np.rint(side * angle * (fan.views / (2 * np.pi))).astype(int) + turn + start
            total += variance_mm2[view % fan.views, reading]
        return total / np.float32(4 if self._has_flying_spot else 2)

    @property
    def parallel_count(self) -> int:
        """Number of samples per angle of `parallel`, symmetric about the isocentre."""
        return len(self.fan_rad) * self.step


class Reconstructor:
    """Filtered back-projection of one scanner; it keeps interpolation weights and filters.

    Args:
        definition: definition of the scanner.
    """

    def __init__(self, definition: ScannerDefinition) -> None:
        self.sampling = Sampling(definition)
        count = int(2 * self.sampling.fan.radius_mm / SAMPLE_MM) // 2 * 2 - 2 * TAPS
        count = min(count, int(2 * self._interpolated_mm() / SAMPLE_MM) // 2 * 2)
        self._distances_mm = (np.arange(count) - (count - 1) / 2) * SAMPLE_MM
        self._first, self._taps = self._interpolation()
        self._length = fft.next_fast_len(2 * count, real=True)
        self._angles = np.arange(self.sampling.fan.views // 2) * (
            2 * np.pi / self.sampling.fan.views
        )
        self._filters: dict[str, Float32[np.ndarray, " frequencies"]] = {}

    @property
    def angles_rad(self) -> Float64[np.ndarray, " angles"]:
        """Angles of the parallel projections, over half a turn."""
        return self._angles

    @property
    def reach_mm(self) -> float:
        """Distance from the isocentre to the last parallel sample."""
        return float(self._distances_mm[-1])

    def spectra(
        self, water_mm: Float32[np.ndarray, "views readings"]
    ) -> Complex64[np.ndarray, "angles frequencies"]:
        """Parallel projections in the Fourier domain, before the kernel."""
        samples = self.sampling.parallel(water_mm)
        resampled = np.empty((len(samples), len(self._distances_mm)), np.float32)
        rays.weighted_gather(samples, self._first, self._taps, resampled)
        return np.asarray(fft.rfft(resampled, n=self._length, axis=1), dtype=np.complex64)

    def image(
        self,
        spectra: Complex64[np.ndarray, "angles frequencies"],
        kernel: Kernel,
        grid: ImageGrid,
    ) -> Float32[np.ndarray, "rows columns"]:
        """Reconstruct an image in HU.

        Args:
            spectra: parallel projections in the Fourier domain.
            kernel: reconstruction kernel.
            grid: positions of the pixels.

        Raises:
            GeometryError: if the grid extends beyond the field of view.
        """
        self._check_grid(grid)
        filtered = fft.irfft(spectra * self._filter(kernel), n=2 * self._length, axis=1)
        water = np.zeros((grid.size_px, grid.size_px), np.float32)
        rays.back_project(
            filtered[:, : 2 * len(self._distances_mm)],
            np.cos(self._angles),
            np.sin(self._angles),
            float(self._distances_mm[0]),
            SAMPLE_MM / 2,
            grid.axis_mm(0),
            grid.axis_mm(1),
            water,
        )
        return 1000 * water - 1000

    def projections(
        self,
        spectra: Complex64[np.ndarray, "angles frequencies"],
        kernel: Kernel,
        rows: RayRows,
        gain_of: Modulation,
    ) -> Float32[np.ndarray, "angles samples"]:
        """Water paths along rays, with the modulation of a kernel and of a further filter.

        Args:
            spectra: parallel projections in the Fourier domain.
            kernel: reconstruction kernel.
            rows: the rays; their value is 0 beyond the detector.
            gain_of: gain of the further filter at frequencies in lp/mm.
        """
        f = fft.rfftfreq(self._length, SAMPLE_MM)
        # Twice as many samples come back as went in, so the inverse FFT halves them.
        gain = (2 * self._gain(kernel, f) * gain_of(f)).astype(np.float32)
        return self._sampled(spectra, gain, rows)

    def filtered(
        self,
        spectra: Complex64[np.ndarray, "angles frequencies"],
        kernel: Kernel,
        rows: RayRows,
    ) -> Float32[np.ndarray, "angles samples"]:
        """Filtered projections along rays, which back-projection sums."""
        return self._sampled(spectra, self._filter(kernel), rows)

    def _sampled(
        self,
        spectra: Complex64[np.ndarray, "angles frequencies"],
        gain: Float32[np.ndarray, " frequencies"],
        rows: RayRows,
    ) -> Float32[np.ndarray, "angles samples"]:
        """Apply a gain and interpolate linearly along rays; values beyond the detector are 0."""
        first_mm, step_mm, count = rows
        filtered = fft.irfft(spectra * gain, n=2 * self._length, axis=1)
        result = np.empty((len(first_mm), count), np.float32)
        rays.resample_rows(
            filtered[:, : 2 * len(self._distances_mm)],
            (first_mm - self._distances_mm[0]) / (SAMPLE_MM / 2),
            step_mm / (SAMPLE_MM / 2),
            result,
        )
        return result

    def noise_gain(self, kernel: Kernel) -> float:
        """Ratio of a pixel's variance to the mean variance of the parallel samples through it.

        It holds for white noise filtered by ramp and kernel (Kak and Slaney, section 5.3), for
        pixels as amounts of water.
        """
        f = fft.rfftfreq(self._length, SAMPLE_MM)
        power = 2 * (f[1] - f[0]) * float((f**2 * self._gain(kernel, f) ** 2).sum())
        return float(np.pi**2 / len(self._angles) * self.sampling.half_channel_mm * power)

    def data_gain(self, kernel: Kernel, gain_of: Modulation) -> float:
        """Ratio of the variance of `projections` to that of the parallel samples."""
        f = fft.rfftfreq(self._length, SAMPLE_MM)
        gain = self._gain(kernel, f) * gain_of(f)
        return float(2 * (f[1] - f[0]) * float((gain**2).sum()) * self.sampling.half_channel_mm)

    def _check_grid(self, grid: ImageGrid) -> None:
        """Raise GeometryError if the grid extends beyond the field of view."""
        corner = [np.abs(grid.axis_mm(axis)).max() for axis in (0, 1)]
        reach, limit = float(np.hypot(*corner)), float(self._distances_mm[-1]) - SAMPLE_MM
        if reach > limit:
            raise GeometryError(
                f"the image's corners lie {reach:.0f} mm from the isocentre, the detector sees "
                f"{limit:.0f} mm; choose a smaller field of view, or shift it less"
            )

    def _interpolated_mm(self) -> float:
        """Largest distance from the isocentre at which an interpolation has all its neighbors.

        It limits the field of view if channels are much wider than the samples.
        """
        fan = self.sampling.fan
        steps = (self.sampling.parallel_count - 1) / 2 - TAPS // 2
        return float(fan.source_isocentre_mm * np.sin(steps * fan.element_rad))

    def _interpolation(
        self,
    ) -> tuple[Int64[np.ndarray, " distances"], Float32[np.ndarray, "distances taps"]]:
        """First of six neighbors in fan angle for each parallel distance, and Lagrange weights."""
        fan = self.sampling.fan
        angle = np.arcsin(self._distances_mm / fan.source_isocentre_mm)
        position = angle / fan.element_rad + (self.sampling.parallel_count - 1) / 2
        first = np.floor(position).astype(np.int64) - (TAPS // 2 - 1)
        return first, _lagrange(position - first).astype(np.float32)

    def _filter(self, kernel: Kernel) -> Float32[np.ndarray, " frequencies"]:
        """Filter for back-projection: ramp, kernel and correction of the system's blur."""
        key = kernel.model_dump_json()
        if key not in self._filters:
            n = np.arange(self._length)
            n = np.minimum(n, self._length - n)
            ramp = np.zeros(self._length)  # Kak and Slaney eq. 3.61: exact at zero frequency
            ramp[n % 2 == 1] = -1 / (np.pi * n[n % 2 == 1] * SAMPLE_MM) ** 2
            ramp[0] = 1 / (2 * SAMPLE_MM) ** 2
            gain = self._gain(kernel, fft.rfftfreq(self._length, SAMPLE_MM))
            angle = 2 * np.pi / self.sampling.fan.views
            # Twice as many samples come back as went in, so the inverse FFT halves them.
            scale = 2 * SAMPLE_MM * angle
            self._filters[key] = (np.real(fft.rfft(ramp)) * gain * scale).astype(np.float32)
        return self._filters[key]

    def blur(self, f_lp_mm: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, " f"]:
        """Modulation at the isocentre by sampling and interpolation, without the kernel."""
        result = self._resampling(f_lp_mm)
        result *= self.sampling.blur(f_lp_mm)
        return result

    def central_noise_gain(self, kernel: Kernel) -> float:
        """Variance in HU^2 at the centre of an image per mm^2 of variance of the readings.

        The variances of the views are summed. Readings are independent, so filtered back-projection
        sums their variances times the squares of its weights.
        """
        fan = self.sampling.fan
        f = np.linspace(0.0, TAPER_LP_MM[1], 2001)
        transfer = f * self._gain(kernel, f) * self._resampling(f)
        power = 2 * float(np.trapezoid(transfer**2, f))
        # The samples of an angle alternate between opposite rays, or are their means (flying spot).
        per_view = 1 / 4 if self.sampling.readings_per_rotation > fan.views else 1 / 2
        angle = 2 * np.pi / fan.views
        return 1e6 * angle**2 * self.sampling.half_channel_mm * power * per_view

    def _gain(
        self, kernel: Kernel, f_lp_mm: Float64[np.ndarray, " f"]
    ) -> Float64[np.ndarray, " f"]:
        """Gain of kernel and correction of the system's blur, tapered to zero."""
        low, high = TAPER_LP_MM
        taper = 0.5 + 0.5 * np.cos(np.pi * np.clip((f_lp_mm - low) / (high - low), 0, 1))
        blur = np.maximum(self.blur(f_lp_mm), DIVISOR_FLOOR)
        return np.asarray(kernel.modulation(f_lp_mm) / blur * taper)

    def _resampling(self, f_lp_mm: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, " f"]:
        """Modulation of the interpolations between readings and image."""
        phase = 2 * np.pi * f_lp_mm * self.sampling.half_channel_mm
        positions = np.linspace(0, 1, 33)[:-1] + (TAPS // 2 - 1)
        offsets = np.arange(TAPS) - positions[:, None]
        weighted = np.cos(phase[:, None, None] * offsets) * _lagrange(positions)
        interpolation = weighted.sum(axis=2).mean(axis=1)
        back_projection = np.sinc(f_lp_mm * SAMPLE_MM / 2) ** 2
        result: Float64[np.ndarray, " f"] = interpolation * back_projection
        return result


def _lagrange(
    positions: Float64[np.ndarray, " positions"],
) -> Float64[np.ndarray, "positions taps"]:
    """Weights of the samples at 0, 1, ... TAPS - 1 for the value at each position."""
    nodes = np.arange(TAPS)
    weights = np.ones((len(positions), TAPS))
    for tap in nodes:
        for other in nodes[nodes != tap]:
            weights[:, tap] *= (positions - other) / (tap - other)
    return weights
