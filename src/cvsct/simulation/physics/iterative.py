"""Statistical iterative reconstruction: penalised weighted least squares from noisy projections.

The image z minimises

    1/2 sum_i w_i (d_i - [A z]_i)^2 + sum_jk r_j r_k s_jk psi(z_j - z_k).

The data d are the scan's parallel projections, each a water path with the kernel's modulation, so
that the image has the kernel's sharpness. The weights w are the inverse variances of those data:
of the photons counted and the electronics, propagated through logarithm and water correction. A
projects a band-limited image; its transpose is exact. The potential psi is
a hyperbola of the differences between 8 neighbours, quadratic for differences below the noise and
linear at edges, and r makes the strength of smoothing even over the image (Fessler and Rogers,
IEEE Trans Image Process 5, 1996).

Minimisation is by ordered subsets of the views (Erdogan and Fessler, Phys Med Biol 44, 1999), from
the filtered back-projection on, in a fixed number of updates. Each update minimises a quadratic
surrogate. The separable one has to majorise the response to an image's mean, which is that to a
detail of f lp/mm times pi f L in an object L mm wide: fine noise would need hundreds of updates. So
the data's surrogate is `K C K` here, with K each pixel's weight and C the response 1 / f itself,
diagonal in the Fourier domain (Fessler and Booth, IEEE Trans Image Process 8, 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Complex64, Float, Float32, Float64
from scipy import fft

from cvsct.simulation.physics import ray_kernels as rays
from cvsct.simulation.physics.definition import Iterative, Kernel, Reconstruction
from cvsct.simulation.physics.recon import ImageGrid, Reconstructor, Rows

NEIGHBOURS_CURVATURE = float((1 + np.sqrt(2)) * (2 * np.pi) ** 2)
"""Of 8 neighbours' squared differences, per (frequency times pixel) squared, at low frequencies."""
SAMPLES_A_PIXEL = 5
"""Samples of a projection over a pixel. With 5, rows of pixels beat with the samples at frequencies
within the band in one direction alone, that of `BEATING`, and there by 0.5 %."""
BEATING = (5, 2)
"""Such rows' distance across and along, in pixels; the views along them are left out."""
BAND = (0.45, 0.55)
"""Frequencies between which a projection's spectrum ends, times the pixel; 0.5 is Nyquist's."""
COARSE_MM = 2.8
"""Outside the image the object is taken from pixels at most this wide."""
MARGIN_MM = 8.0
"""Around the image, reconstructed with it and not shown."""
UPDATES, SUBSETS, INNER = 2, 2, 4
"""Surrogates minimised, the subsets of views they take in turn, and steps on each."""
LARGEST_WEIGHT = 3.0
"""Rays weigh at most this much more than the body's typical one: those through air alone would
make the problem stiff, and the body's smoothing uneven, for nothing."""
STEP_SAFETY = 1.25
BORDER_PX, BORDER_FACTOR = 8.0, 8.0
"""Steps are shorter than the surrogate's, and ever more so towards the image's border, where the
Fourier domain joins opposite sides: twice the surrogate majorises the data (a test measures it)."""
MAP_STRIDE = 8
"""Distance in pixels of the points at which noise and weight are mapped."""


@dataclass(frozen=True)
class ParallelProjector:
    """Parallel projections of a square, band-limited image, and their transpose.

    Pixels are points, shared between two of the fine samples that they fall between; then each
    projection loses all beyond what pixels can carry. So projected rows of pixels do not beat with
    the samples at any angle, as they do where a pixel's footprint is a triangle.

    Args:
        size_px: rows and columns.
        pixel_mm: distance between pixels.
        angles_rad: of the rays, over half a turn.
    """

    size_px: int
    pixel_mm: float
    angles_rad: Float64[np.ndarray, " angles"]

    @property
    def sample_mm(self) -> float:
        """Distance between a projection's samples."""
        return self.pixel_mm / SAMPLES_A_PIXEL

    @cached_property
    def samples(self) -> int:
        """Samples of a projection; the image's centre falls on the middle one."""
        diagonal_px = np.sqrt(2) * self.size_px
        return 2 * (int(np.ceil(diagonal_px / 2 * SAMPLES_A_PIXEL)) + SAMPLES_A_PIXEL) + 1

    @property
    def places_mm(self) -> Float64[np.ndarray, " samples"]:
        """Distance of each sample from the ray through the image's centre."""
        return (np.arange(self.samples) - self.samples // 2) * self.sample_mm

    @property
    def scale(self) -> float:
        """What a pixel adds to the samples it falls on, in mm."""
        return self.pixel_mm**2 / self.sample_mm

    def of(self, subset: slice) -> ParallelProjector:
        """The projector of some of the angles."""
        return ParallelProjector(self.size_px, self.pixel_mm, self.angles_rad[subset])

    def band(self, f_lp_mm: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, " f"]:
        """What projection keeps of each frequency, besides the sharing between two samples."""
        low, high = (share / self.pixel_mm for share in BAND)
        return 0.5 + 0.5 * np.cos(np.pi * np.clip((f_lp_mm - low) / (high - low), 0, 1))

    def project(self, image: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "angles samples"]:
        """Line integrals in mm times the image's unit."""
        out = np.empty((len(self.angles_rad), self.samples), image.dtype)
        rays.spread_parallel(image, np.ascontiguousarray(image.T), *self._places, out)
        return self._limited(out)

    def adjoint(
        self, values: Float[np.ndarray, "angles samples"]
    ) -> Float[np.ndarray, "size size"]:
        """The transpose of `project`."""
        image, flipped = np.zeros((2, self.size_px, self.size_px), values.dtype)
        rays.gather_parallel(self._limited(values), *self._places, image, flipped)
        image += flipped.T
        return np.asarray(image)

    @cached_property
    def _length(self) -> int:
        """Of the Fourier transform: the filter's tail wraps onto samples without pixels."""
        return int(fft.next_fast_len(self.samples + 8 * SAMPLES_A_PIXEL, real=True))

    def _limited(
        self, values: Float[np.ndarray, "angles samples"]
    ) -> Float[np.ndarray, "angles samples"]:
        gain = self.scale * self.band(fft.rfftfreq(self._length, self.sample_mm))
        spectra = fft.rfft(values, n=self._length, axis=1) * gain.astype(values.dtype)
        return np.ascontiguousarray(fft.irfft(spectra, n=self._length, axis=1)[:, : self.samples])

    @property
    def _places(self) -> tuple[np.ndarray, np.ndarray, float, float]:
        cosines, sines = np.cos(self.angles_rad), np.sin(self.angles_rad)
        return cosines, sines, float(SAMPLES_A_PIXEL), float(self.samples // 2)

    def mean_along_rays(
        self, values: Float32[np.ndarray, "angles samples"]
    ) -> Float32[np.ndarray, "size size"]:
        """Mean over the rays through each pixel."""
        image, flipped = np.zeros((2, self.size_px, self.size_px), np.float32)
        rays.gather_parallel(values, *self._places, image, flipped)
        return (image + flipped.T) / np.float32(len(self.angles_rad))

    def response(self) -> Float64[np.ndarray, "rows columns"]:
        """Transpose after projection in the Fourier domain, for even weights: nearly 1 / f.

        Of an image as wide as this one, whose lowest frequencies end at its width.
        """
        f = _radius_lp_mm(self.size_px, self.pixel_mm)
        lowest = 1 / (np.pi * self.size_px * self.pixel_mm)
        return np.asarray(self.flat_response / np.hypot(f, lowest))

    def data_gain(self, f_lp_mm: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, " f"]:
        """What data must be filtered with to be what `project` makes of their object."""
        return self.band(f_lp_mm) * np.sinc(f_lp_mm * self.sample_mm) ** 2

    @property
    def flat_response(self) -> float:
        """What the response to a frequency is, times this frequency."""
        return len(self.angles_rad) / np.pi * self.scale


def _radius_lp_mm(size_px: int, pixel_mm: float) -> Float64[np.ndarray, "rows columns"]:
    across = fft.fftfreq(size_px, pixel_mm)
    return np.asarray(np.hypot(across[:, None], fft.rfftfreq(size_px, pixel_mm)[None]))


@dataclass(frozen=True)
class Penalty:
    """The edge-preserving penalty of neighbouring pixels' differences.

    Args:
        root: each pixel's factor; a pair's strength is the product of two.
        sharpness: each pixel's 1 / delta, the difference at which a step counts as an edge.
    """

    root: Float[np.ndarray, "size size"]
    sharpness: Float[np.ndarray, "size size"]

    def gradient(self, image: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
        """Derivative of `value` by each pixel."""
        out = np.empty_like(image)
        rays.penalty_gradient(image, self.root, self.sharpness, out)
        return out

    def value(self, image: Float[np.ndarray, "size size"]) -> float:
        """The penalty of a whole image."""
        return float(rays.penalty_value(image, self.root, self.sharpness))


@dataclass(frozen=True)
class PenalisedLeastSquares:
    """The objective and its minimisation.

    Args:
        window: each pixel's share in the data; 1 but in a margin.
        data: projections of this share of the object, in mm times the image's unit.
        weights: inverse variance of each datum.
        scale: weight of each pixel in the surrogate; see `surrogate_scale`.
        strength: the most that a pair of the penalty's roots is, over the pair of this scale's.
    """

    projector: ParallelProjector
    window: Float[np.ndarray, "size size"]
    data: Float[np.ndarray, "angles samples"]
    weights: Float[np.ndarray, "angles samples"]
    scale: Float[np.ndarray, "size size"]
    penalty: Penalty
    strength: float

    def objective(self, image: Float[np.ndarray, "size size"]) -> float:
        """What is minimised."""
        rest = self.data - self.projector.project(self.window * image)
        return 0.5 * float((self.weights * rest**2).sum(dtype=np.float64)) + self.penalty.value(
            image
        )

    def minimised(
        self, image: Float[np.ndarray, "size size"], updates: int, subsets: int, inner: int
    ) -> Float[np.ndarray, "size size"]:
        """The image after some updates, each by one subset's views.

        Args:
            image: to start from.
            updates: surrogates minimised; with one subset the objective falls at each of them.
            inner: steps on each surrogate; they need no projection.
        """
        size = self.projector.size_px
        per_root = 1 / np.sqrt(self.scale)
        response = self.projector.response().astype(image.dtype)
        step = 1 / (response + self.strength * _neighbours_response(size).astype(image.dtype))
        for update in range(updates):
            subset = slice(update % subsets, None, subsets)
            some = self.projector.of(subset)
            rest = self.data[subset] - some.project(self.window * image)
            slope = -subsets * self.window * some.adjoint(self.weights[subset] * rest)
            moved = np.zeros(step.shape, np.complex64)
            current = image
            for _ in range(inner):
                uphill = fft.rfft2((slope + self.penalty.gradient(current)) * per_root)
                moved = moved - step * (uphill + response * moved)
                current = image + per_root * fft.irfft2(moved, s=image.shape)
            image = current
        return image


def _interpolation(fine: int, times: int, coarse: int) -> Float32[np.ndarray, "fine coarse"]:
    """Linear interpolation along one axis, from pixels `times` as wide with the same middle."""
    place = (np.arange(fine) - (fine - 1) / 2) / times + (coarse - 1) / 2
    shares = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(coarse)))
    return np.asarray((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))


def surrogate_scale(
    mean: Float32[np.ndarray, "size size"], squares: Float32[np.ndarray, "size size"]
) -> Float32[np.ndarray, "size size"]:
    """Each pixel's weight in the surrogate of the data.

    Their contraharmonic mean, since rays of one direction may weigh more than the others.

    Args:
        mean: mean weight of the rays through each pixel.
        squares: mean of their squares.
    """
    place = np.arange(len(mean))
    place = np.minimum(place, place[::-1])
    border = np.minimum(place[:, None], place[None])
    factor = STEP_SAFETY * (1 + BORDER_FACTOR * np.exp(-border / BORDER_PX))
    return np.asarray((factor * squares / mean).astype(np.float32))


def _neighbours_response(size_px: int) -> Float64[np.ndarray, "rows columns"]:
    """The quadratic penalty's second derivative in the Fourier domain."""
    across, along = fft.fftfreq(size_px)[:, None], fft.rfftfreq(size_px)[None]
    total = np.zeros((size_px, size_px // 2 + 1))
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        share = 1.0 if down * right == 0 else np.sqrt(0.5)
        total += share * (2 - 2 * np.cos(2 * np.pi * (down * across + right * along)))
    return total


@dataclass(frozen=True)
class Measured:
    """The projections of one slice at one voltage, as a reconstruction takes them.

    Args:
        spectra: parallel projections in the Fourier domain.
        variance_mm2: gives the variance of each water path, in the detector's views and readings.
        reference_variance_mm2: of a water path in the scan that strengths are told for.
    """

    spectra: Complex64[np.ndarray, "angles frequencies"]
    variance_mm2: Callable[[], Float32[np.ndarray, "views readings"]]
    reference_variance_mm2: float


class StatisticalReconstruction:
    """One slice's objective with one kernel; strengths differ in the penalty alone.

    Args:
        reconstructor: the scanner's own.
        fbp: the same scan's filtered back-projection with this kernel, in HU.
    """

    def __init__(
        self,
        reconstructor: Reconstructor,
        measured: Measured,
        kernel: Kernel,
        grid: ImageGrid,
        fbp: Float32[np.ndarray, "rows columns"],
    ) -> None:
        self._reconstructor = reconstructor
        self._kernel, self._measured, self.fbp = kernel, measured, fbp
        margin_px = 4 * int(np.ceil(MARGIN_MM / 4 / grid.pixel_mm))
        self._found: dict[tuple[float, float, float], Float32[np.ndarray, "rows columns"]] = {}
        self._shown = slice(margin_px, margin_px + grid.size_px)
        size_px = grid.size_px + 2 * margin_px
        self._grid = ImageGrid(size_px, size_px * grid.pixel_mm, grid.centre_mm)
        self._projector = ParallelProjector(size_px, grid.pixel_mm, reconstructor.angles_rad)

    def image(
        self, family: Reconstruction, settings: Iterative
    ) -> Float32[np.ndarray, "rows columns"]:
        """The minimiser in HU, blended with the filtered back-projection."""
        key = family.edge, family.dose_exponent, settings.balance
        if key not in self._found:
            self._found[key] = self._minimised(*key)
        return np.asarray(self.fbp + np.float32(settings.blend) * (self._found[key] - self.fbp))

    def _minimised(
        self, edge: float, dose_exponent: float, balance: float
    ) -> Float32[np.ndarray, "rows columns"]:
        projector, weight = self._projector, self._weight_map
        cutoff = balance * self._kernel.cutoff_lp_mm
        strength = projector.flat_response / (
            NEIGHBOURS_CURVATURE * projector.pixel_mm**2 * cutoff**3
        )
        relative_variance = self._body_variance / self._measured.reference_variance_mm2
        strength *= relative_variance**dose_exponent
        window = self._window(projector.size_px, projector.pixel_mm)
        problem = PenalisedLeastSquares(
            projector,
            window[:, None] * window[None],
            self._data,
            self._weights,
            self._surrogate_scale,
            Penalty(
                np.sqrt(strength * weight, dtype=np.float32), np.float32(1 / edge) / self._noise_map
            ),
            strength,
        )
        found = problem.minimised(self._start, UPDATES, SUBSETS, INNER)
        return 1000 * found[self._shown, self._shown] - 1000

    @cached_property
    def noise_hu(self) -> Float32[np.ndarray, "rows columns"]:
        """Standard deviation of the filtered back-projection, as the readings foretell it."""
        return 1000 * self._noise_map[self._shown, self._shown]

    @cached_property
    def _noise_map(self) -> Float32[np.ndarray, "rows columns"]:
        variance = self._mean_along_rays(self._variance)
        return np.sqrt(variance * self._reconstructor.noise_gain(self._kernel), dtype=np.float32)

    @cached_property
    def _weight_map(self) -> Float32[np.ndarray, "rows columns"]:
        return self._mean_along_rays(self._weights)

    @cached_property
    def _surrogate_scale(self) -> Float32[np.ndarray, "rows columns"]:
        squares = self._mean_along_rays(self._weights**2)
        return surrogate_scale(self._weight_map, squares)

    @cached_property
    def _body_variance(self) -> float:
        """Of the water paths through the object, typically."""
        stride = slice(None, None, MAP_STRIDE)
        variance = self._mean_along_rays(self._variance)[stride, stride]
        body = self._start[stride, stride] > 0.5
        return float(np.median(variance[body] if body.any() else variance))

    @cached_property
    def _variance(self) -> Float32[np.ndarray, "angles samples"]:
        """Variance of the parallel projections where the image's rays lie, even over a pixel."""
        variance_mm2, places_mm = self._measured.variance_mm2(), self._projector.places_mm
        t_mm = self._middle_mm[:, None] + places_mm[::SAMPLES_A_PIXEL]
        variance = self._reconstructor.sampling.parallel_variance(variance_mm2, t_mm)
        return np.repeat(variance, SAMPLES_A_PIXEL, axis=1)[:, : len(places_mm)]

    @cached_property
    def _weights(self) -> Float32[np.ndarray, "angles samples"]:
        """Inverse variances, 0 off the detector and along rows of pixels that beat."""
        gain = self._reconstructor.data_gain(self._kernel, self._projector.data_gain)
        least = np.float32(self._body_variance / LARGEST_WEIGHT)
        weights = 1 / (np.float32(gain) * np.maximum(self._variance, least))
        t_mm = self._middle_mm[:, None] + self._projector.places_mm
        weights[np.abs(t_mm) > self._reconstructor.reach_mm] = 0
        angles = self._projector.angles_rad
        tilt = np.abs((angles + np.pi / 4) % (np.pi / 2) - np.pi / 4)  # from the nearest axis
        beat = np.array([np.arctan2(BEATING[1], BEATING[0])])
        weights[np.abs(tilt - beat) < np.pi / len(angles)] = 0
        return np.asarray(weights)

    def _rows(self, projector: ParallelProjector) -> Rows:
        """Where a projector's samples lie, seen from the isocentre."""
        first_mm = self._middle_mm + projector.places_mm[0]
        return first_mm, projector.sample_mm, projector.samples

    @property
    def _middle_mm(self) -> Float64[np.ndarray, " angles"]:
        """Distance from the isocentre of each angle's ray through the image's centre."""
        x, y = self._grid.centre_mm
        angles = self._projector.angles_rad
        return np.asarray(x * np.cos(angles) + y * np.sin(angles))

    @cached_property
    def _data(self) -> Float32[np.ndarray, "angles samples"]:
        """Water paths with the kernel's modulation, less what lies outside the image."""
        whole = self._reconstructor.projections(
            self._measured.spectra,
            self._kernel,
            self._rows(self._projector),
            self._projector.data_gain,
        )
        coarse = self._coarse.copy()
        window = self._window(len(coarse), self._coarse_projector.pixel_mm)
        coarse *= 1 - window[:, None] * window[None]
        projector, fine = self._coarse_projector, self._projector
        place = fine.places_mm / projector.sample_mm + projector.samples // 2
        first = place.astype(np.int64)
        taps = np.stack([1 - (place - first), place - first], axis=1).astype(np.float32)
        outside = np.empty_like(whole)
        rays.weighted_gather(projector.project(coarse), first, taps, outside)
        return np.asarray(whole - outside)

    @cached_property
    def _start(self) -> Float32[np.ndarray, "size size"]:
        """The filtered back-projection as amounts of water, its margin from the coarse image."""
        size, coarse = self._grid.size_px, self._coarse
        between = _interpolation(size, self._coarse_times, len(coarse))
        start = between @ coarse @ between.T
        start[self._shown, self._shown] = self.fbp / 1000 + 1
        return np.asarray(start)

    def _window(self, count: int, pixel_mm: float) -> Float32[np.ndarray, " pixels"]:
        """Along one axis this image's share of the object, which fades out in its margin."""
        depth_mm = self._grid.fov_mm / 2 - np.abs(np.arange(count) - (count - 1) / 2) * pixel_mm
        within = np.clip(depth_mm / (self._shown.start * self._grid.pixel_mm), 0, 1)
        return np.asarray((0.5 - 0.5 * np.cos(np.pi * within)).astype(np.float32))

    @cached_property
    def _coarse_times(self) -> int:
        """Width of the coarse image's pixels, in this image's."""
        most = max(1, int(COARSE_MM / self._grid.pixel_mm))
        return next(n for n in range(most, 0, -1) if self._grid.size_px % n == 0)

    @cached_property
    def _border_px(self) -> int:
        """Coarse pixels on each side of this image, to the end of what the detector sees."""
        reach_mm = self._reconstructor.reach_mm + max(abs(c) for c in self._grid.centre_mm)
        border_mm = max(0.0, reach_mm - self._grid.fov_mm / 2)
        return int(np.ceil(border_mm / (self._coarse_times * self._grid.pixel_mm)))

    @cached_property
    def _coarse_projector(self) -> ParallelProjector:
        pixel_mm = self._coarse_times * self._grid.pixel_mm
        size = self._grid.size_px // self._coarse_times + 2 * self._border_px
        return ParallelProjector(size, pixel_mm, self._projector.angles_rad)

    @cached_property
    def _coarse(self) -> Float32[np.ndarray, "coarse coarse"]:
        """A soft filtered back-projection of everything that the detector sees.

        Its part outside the image is subtracted from the data (Ziegler, Nielsen and Grass,
        Med Phys 35, 2008).
        """
        projector = self._coarse_projector
        soft = Kernel(cutoff_lp_mm=0.25 / projector.pixel_mm, exponent=2.0)
        filtered = self._reconstructor.filtered(self._measured.spectra, soft, self._rows(projector))
        image = projector.mean_along_rays(filtered) * np.float32(len(filtered))
        fov_mm = projector.size_px * projector.pixel_mm
        grid = ImageGrid(projector.size_px, fov_mm, self._grid.centre_mm)
        radius_mm = np.hypot(grid.axis_mm(0)[None], grid.axis_mm(1)[:, None])
        image[radius_mm > self._reconstructor.reach_mm] = 0
        return image

    def _mean_along_rays(
        self, values: Float32[np.ndarray, "angles samples"]
    ) -> Float32[np.ndarray, "rows columns"]:
        """Each pixel's mean over the rays through it, smooth enough to be mapped coarsely."""
        fine = self._projector
        count = -(-fine.size_px // MAP_STRIDE)
        coarse = ParallelProjector(count, MAP_STRIDE * fine.pixel_mm, fine.angles_rad)
        nearest = np.rint(coarse.places_mm / fine.sample_mm).astype(int) + fine.samples // 2
        mean = coarse.mean_along_rays(values[:, np.clip(nearest, 0, fine.samples - 1)])
        between = _interpolation(fine.size_px, MAP_STRIDE, count)
        return np.asarray(between @ mean @ between.T)
