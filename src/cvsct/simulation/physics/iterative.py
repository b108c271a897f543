"""Statistical iterative reconstruction: penalized weighted least squares on noisy projections.

The image z minimizes

    1/2 sum_i w_i (d_i - [A z]_i)^2 + sum_jk r_j r_k s_jk psi(z_j - z_k).

The data d are the parallel projections of the scan as water paths, filtered with the modulation of
the kernel, so that the image has the sharpness of the kernel. The weights w are the inverse
variances of the data by photon noise and electronic noise, propagated through logarithm and water
correction. A projects a band-limited image; its transpose is exact. The potential psi is a
hyperbola of the differences between 8 neighbors, quadratic for differences below the noise and
linear at edges, and r makes the strength of smoothing uniform over the image (Fessler and Rogers,
IEEE Trans Image Process 5, 1996).

The minimization uses ordered subsets of the views (Erdogan and Fessler, Phys Med Biol 44, 1999). It
starts from the filtered back-projection and makes a fixed number of updates, each of which
minimizes a quadratic surrogate. A separable surrogate must majorize the response to the mean of the
image, which exceeds the response to a detail of f lp/mm by a factor of pi f L in an object L mm
wide, so that fine noise would need hundreds of updates. Here the surrogate of the data is `K C K`,
with K the weight of each pixel and C the response 1 / f itself, which is diagonal in the Fourier
domain (Fessler and Booth, IEEE Trans Image Process 8, 1999).
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
from cvsct.simulation.physics.detector import DetectorModel
from cvsct.simulation.physics.recon import ImageGrid, RayRows, Reconstructor

NEIGHBORS_CURVATURE = float((1 + np.sqrt(2)) * (2 * np.pi) ** 2)
"""Curvature of the sum of squared differences of 8 neighbors at low frequencies, per squared
product of frequency and pixel."""
SAMPLES_PER_PIXEL = 5
"""Number of samples of a projection per pixel. With 5, rows of pixels beat with the samples at
frequencies within the band in one direction alone, that of `BEATING`, and there by 0.5 %."""
BEATING = (5, 2)
"""Direction of the rows of pixels that beat with the samples, as distances across and along in
pixels; views along them get no weight."""
BAND = (0.45, 0.55)
"""Frequencies between which the spectrum of a projection is tapered to zero, times the pixel; 0.5
is the Nyquist frequency."""
COARSE_MM = 2.8
"""Largest width of the coarse pixels that represent the object outside the image."""
MARGIN_MM = 8.0
"""Width of a margin around the image that is reconstructed and then cut off."""
UPDATES, SUBSETS, INNER = 2, 2, 4
"""Number of surrogates minimized, of subsets of the views that they use in turn, and of steps on
each surrogate."""
LARGEST_WEIGHT = 3.0
"""Largest weight of a ray over the typical weight of rays through the body. Rays through air alone
would make the problem stiff and the smoothing of the body uneven without a benefit."""
STEP_SAFETY = 1.25
"""Factor by which steps are shorter than those of the surrogate in the whole image."""
BORDER_PX, BORDER_FACTOR = 8.0, 8.0
"""Distance in pixels from the border of the image over which steps grow, and how much they are
shorter at the border, where the Fourier domain joins opposite sides. With `STEP_SAFETY`, twice the
surrogate majorizes the data (a test measures it)."""
MAP_STRIDE = 8
"""Distance in pixels between the points at which noise and weight are computed."""


@dataclass(frozen=True)
class ParallelProjector:
    """Projector of a square, band-limited image to parallel rays, and its transpose.

    Each pixel is a point whose value is shared between the two fine samples that it falls between;
    then each projection is limited to the frequencies that pixels can represent. Therefore rows of
    pixels do not beat with the samples at any angle, as they would with triangular footprints.

    Args:
        size_px: number of rows and of columns.
        pixel_mm: distance between pixels.
        angles_rad: angles of the rays, over half a turn.
    """

    size_px: int
    pixel_mm: float
    angles_rad: Float64[np.ndarray, " angles"]

    @property
    def sample_mm(self) -> float:
        """Distance between the samples of a projection."""
        return self.pixel_mm / SAMPLES_PER_PIXEL

    @cached_property
    def samples(self) -> int:
        """Number of samples of a projection; the centre of the image falls on the middle one."""
        diagonal_px = np.sqrt(2) * self.size_px
        return 2 * (int(np.ceil(diagonal_px / 2 * SAMPLES_PER_PIXEL)) + SAMPLES_PER_PIXEL) + 1

    @property
    def distances_mm(self) -> Float64[np.ndarray, " samples"]:
        """Distance of each sample from the ray through the centre of the image."""
        return (np.arange(self.samples) - self.samples // 2) * self.sample_mm

    @property
    def scale(self) -> float:
        """Sum of a pixel's contributions to the samples of a projection, in mm."""
        return self.pixel_mm**2 / self.sample_mm

    def subset(self, angles: slice) -> ParallelProjector:
        """Projector of a subset of the angles."""
        return ParallelProjector(self.size_px, self.pixel_mm, self.angles_rad[angles])

    def band(self, f_lp_mm: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, " f"]:
        """Gain of projection at these frequencies, without the sharing between two samples."""
        low, high = (share / self.pixel_mm for share in BAND)
        return 0.5 + 0.5 * np.cos(np.pi * np.clip((f_lp_mm - low) / (high - low), 0, 1))

    def project(self, image: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "angles samples"]:
        """Line integrals of an image, in mm times the unit of the image."""
        out = np.empty((len(self.angles_rad), self.samples), image.dtype)
        rays.spread_parallel(image, np.ascontiguousarray(image.T), *self._ray_arguments, out)
        return self._band_limited(out)

    def adjoint(
        self, values: Float[np.ndarray, "angles samples"]
    ) -> Float[np.ndarray, "size size"]:
        """Apply the transpose of `project`."""
        image, flipped = np.zeros((2, self.size_px, self.size_px), values.dtype)
        rays.gather_parallel(self._band_limited(values), *self._ray_arguments, image, flipped)
        image += flipped.T
        return np.asarray(image)

    @cached_property
    def _length(self) -> int:
        """Length of the Fourier transform; the filter's tail wraps onto samples without pixels."""
        return int(fft.next_fast_len(self.samples + 8 * SAMPLES_PER_PIXEL, real=True))

    def _band_limited(
        self, values: Float[np.ndarray, "angles samples"]
    ) -> Float[np.ndarray, "angles samples"]:
        """Limit the spectrum of each projection to the band of the pixels."""
        gain = self.scale * self.band(fft.rfftfreq(self._length, self.sample_mm))
        spectra = fft.rfft(values, n=self._length, axis=1) * gain.astype(values.dtype)
        return np.ascontiguousarray(fft.irfft(spectra, n=self._length, axis=1)[:, : self.samples])

    @property
    def _ray_arguments(self) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Arguments of the compiled functions: cosines, sines, samples per pixel, middle sample."""
        cosines, sines = np.cos(self.angles_rad), np.sin(self.angles_rad)
        return cosines, sines, float(SAMPLES_PER_PIXEL), float(self.samples // 2)

    def mean_along_rays(
        self, values: Float32[np.ndarray, "angles samples"]
    ) -> Float32[np.ndarray, "size size"]:
        """Mean of the values of the rays through each pixel."""
        image, flipped = np.zeros((2, self.size_px, self.size_px), np.float32)
        rays.gather_parallel(values, *self._ray_arguments, image, flipped)
        return (image + flipped.T) / np.float32(len(self.angles_rad))

    def response(self) -> Float64[np.ndarray, "rows columns"]:
        """Response of projection and transpose in the Fourier domain, for equal weights.

        It is nearly proportional to 1 / f, down to the lowest frequency of an image of this width.
        """
        f = _radius_lp_mm(self.size_px, self.pixel_mm)
        lowest = 1 / (np.pi * self.size_px * self.pixel_mm)
        return np.asarray(self.flat_response / np.hypot(f, lowest))

    def data_gain(self, f_lp_mm: Float64[np.ndarray, " f"]) -> Float64[np.ndarray, " f"]:
        """Gain of the filter that makes data comparable with the results of `project`."""
        return self.band(f_lp_mm) * np.sinc(f_lp_mm * self.sample_mm) ** 2

    @property
    def flat_response(self) -> float:
        """Product of the response to a frequency and this frequency, which is constant."""
        return len(self.angles_rad) / np.pi * self.scale


def _radius_lp_mm(size_px: int, pixel_mm: float) -> Float64[np.ndarray, "rows columns"]:
    """Radial frequency of each element of an image's real Fourier transform."""
    across = fft.fftfreq(size_px, pixel_mm)
    return np.asarray(np.hypot(across[:, None], fft.rfftfreq(size_px, pixel_mm)[None]))


@dataclass(frozen=True)
class Penalty:
    """Edge-preserving penalty of the differences of neighboring pixels.

    Args:
        root: factor of each pixel; the strength of a pair is the product of both factors.
        sharpness: value of 1 / delta of each pixel, with delta the difference above which a step is
            treated as an edge.
    """

    root: Float[np.ndarray, "size size"]
    sharpness: Float[np.ndarray, "size size"]

    def gradient(self, image: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
        """Gradient of `value` by the pixels."""
        out = np.empty_like(image)
        rays.penalty_gradient(image, self.root, self.sharpness, out)
        return out

    def value(self, image: Float[np.ndarray, "size size"]) -> float:
        """Penalty of an image, summed over all pairs of neighbors."""
        return float(rays.penalty_value(image, self.root, self.sharpness))


@dataclass(frozen=True)
class PenalizedLeastSquares:
    """Objective of penalized weighted least squares, and its minimization.

    Args:
        projector: projector of the image.
        window: share of each pixel in the data; 1 except in a margin.
        data: projections of this share of the object, in mm times the unit of the image.
        weights: inverse variance of each datum.
        scale: weight of each pixel in the surrogate; see `surrogate_scale`.
        penalty: penalty of the image.
        strength: largest ratio of the product of two pixels' roots in the penalty to the geometric
            mean of their `scale`.
    """

    projector: ParallelProjector
    window: Float[np.ndarray, "size size"]
    data: Float[np.ndarray, "angles samples"]
    weights: Float[np.ndarray, "angles samples"]
    scale: Float[np.ndarray, "size size"]
    penalty: Penalty
    strength: float

    def objective(self, image: Float[np.ndarray, "size size"]) -> float:
        """Value of the objective for an image."""
        residual = self.data - self.projector.project(self.window * image)
        return 0.5 * float((self.weights * residual**2).sum(dtype=np.float64)) + self.penalty.value(
            image
        )

    def minimize(
        self, image: Float[np.ndarray, "size size"], updates: int, subsets: int, inner: int
    ) -> Float[np.ndarray, "size size"]:
        """Minimize the objective in a fixed number of updates.

        Args:
            image: image to start from.
            updates: number of updates, each of which minimizes a surrogate; with one subset every
                update lowers the objective.
            subsets: number of subsets of the views, which the updates use in turn.
            inner: number of steps on each surrogate, which need no projection.

        Returns:
            The image after the updates.
        """
        size = self.projector.size_px
        per_root = 1 / np.sqrt(self.scale)
        response = self.projector.response().astype(image.dtype)
        step = 1 / (response + self.strength * _neighbors_response(size).astype(image.dtype))
        for update in range(updates):
            subset = slice(update % subsets, None, subsets)
            projector = self.projector.subset(subset)
            residual = self.data[subset] - projector.project(self.window * image)
            slope = -subsets * self.window * projector.adjoint(self.weights[subset] * residual)
            change = np.zeros(step.shape, np.complex64)
            current = image
            for _ in range(inner):
                gradient = fft.rfft2((slope + self.penalty.gradient(current)) * per_root)
                change = change - step * (gradient + response * change)
                current = image + per_root * fft.irfft2(change, s=image.shape)
            image = current
        return image


def _interpolation(fine: int, times: int, coarse: int) -> Float32[np.ndarray, "fine coarse"]:
    """Matrix of linear interpolation along an axis from pixels `times` as wide, centred alike."""
    position = (np.arange(fine) - (fine - 1) / 2) / times + (coarse - 1) / 2
    shares = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(coarse)))
    return np.asarray((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))


def surrogate_scale(
    mean: Float32[np.ndarray, "size size"], squares: Float32[np.ndarray, "size size"]
) -> Float32[np.ndarray, "size size"]:
    """Weight of each pixel in the surrogate of the data.

    It is the contraharmonic mean of the weights of the rays through the pixel, since rays of one
    direction may weigh more than the others.

    Args:
        mean: mean weight of the rays through each pixel.
        squares: mean squared weight of the rays through each pixel.
    """
    index = np.arange(len(mean))
    index = np.minimum(index, index[::-1])
    border = np.minimum(index[:, None], index[None])
    factor = STEP_SAFETY * (1 + BORDER_FACTOR * np.exp(-border / BORDER_PX))
    return np.asarray((factor * squares / mean).astype(np.float32))


def _neighbors_response(size_px: int) -> Float64[np.ndarray, "rows columns"]:
    """Second derivative of the quadratic penalty in the Fourier domain."""
    across, along = fft.fftfreq(size_px)[:, None], fft.rfftfreq(size_px)[None]
    total = np.zeros((size_px, size_px // 2 + 1))
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        share = 1.0 if down * right == 0 else np.sqrt(0.5)
        total += share * (2 - 2 * np.cos(2 * np.pi * (down * across + right * along)))
    return total


@dataclass(frozen=True)
class SliceProjections:
    """Projections of one slice at one tube voltage, with their noise.

    Args:
        spectra: parallel projections in the Fourier domain.
        variance_mm2: function that gives the variance of each water path, by view and reading.
        detector: detector, which knows the variance of the reference scan.
    """

    spectra: Complex64[np.ndarray, "angles frequencies"]
    variance_mm2: Callable[[], Float32[np.ndarray, "views readings"]]
    detector: DetectorModel


class StatisticalReconstruction:
    """Statistical iterative reconstruction of one slice with one kernel, at any strength.

    Args:
        reconstructor: filtered back-projection of the scanner.
        projections: projections of the slice.
        kernel: reconstruction kernel.
        grid: positions of the pixels.
        fbp: filtered back-projection of the slice with this kernel, in HU.
    """

    def __init__(
        self,
        reconstructor: Reconstructor,
        projections: SliceProjections,
        kernel: Kernel,
        grid: ImageGrid,
        fbp: Float32[np.ndarray, "rows columns"],
    ) -> None:
        self._reconstructor = reconstructor
        self._kernel, self._projections, self.fbp = kernel, projections, fbp
        margin_px = 4 * int(np.ceil(MARGIN_MM / 4 / grid.pixel_mm))
        self._images: dict[tuple[float, float, float], Float32[np.ndarray, "rows columns"]] = {}
        self._inside = slice(margin_px, margin_px + grid.size_px)
        size_px = grid.size_px + 2 * margin_px
        self._grid = ImageGrid(size_px, size_px * grid.pixel_mm, grid.centre_mm)
        self._projector = ParallelProjector(size_px, grid.pixel_mm, reconstructor.angles_rad)

    def image(
        self, family: Reconstruction, settings: Iterative
    ) -> Float32[np.ndarray, "rows columns"]:
        """Iterative image in HU, blended with the filtered back-projection."""
        key = family.edge, family.dose_exponent, settings.balance
        if key not in self._images:
            self._images[key] = self._minimized(*key)
        return np.asarray(self.fbp + np.float32(settings.blend) * (self._images[key] - self.fbp))

    def _minimized(
        self, edge: float, dose_exponent: float, balance: float
    ) -> Float32[np.ndarray, "rows columns"]:
        """Image in HU that minimizes the objective for these settings."""
        projector, weight = self._projector, self._weight_map
        cutoff = balance * self._kernel.cutoff_lp_mm
        strength = projector.flat_response / (
            NEIGHBORS_CURVATURE * projector.pixel_mm**2 * cutoff**3
        )
        relative_variance = self._body_variance / self._projections.detector.reference_variance_mm2
        strength *= relative_variance**dose_exponent
        window = self._window(projector.size_px, projector.pixel_mm)
        problem = PenalizedLeastSquares(
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
        water = problem.minimize(self._start, UPDATES, SUBSETS, INNER)
        return 1000 * water[self._inside, self._inside] - 1000

    @cached_property
    def noise_hu(self) -> Float32[np.ndarray, "rows columns"]:
        """Standard deviation of the filtered back-projection, predicted from the readings."""
        return 1000 * self._noise_map[self._inside, self._inside]

    @cached_property
    def _noise_map(self) -> Float32[np.ndarray, "rows columns"]:
        """Predicted standard deviation of each pixel, as amount of water."""
        variance = self._mean_along_rays(self._variance)
        return np.sqrt(variance * self._reconstructor.noise_gain(self._kernel), dtype=np.float32)

    @cached_property
    def _weight_map(self) -> Float32[np.ndarray, "rows columns"]:
        """Mean weight of the rays through each pixel."""
        return self._mean_along_rays(self._weights)

    @cached_property
    def _surrogate_scale(self) -> Float32[np.ndarray, "rows columns"]:
        """Weight of each pixel in the surrogate of the data."""
        squares = self._mean_along_rays(self._weights**2)
        return surrogate_scale(self._weight_map, squares)

    @cached_property
    def _body_variance(self) -> float:
        """Typical variance of the water paths through the body."""
        stride = slice(None, None, MAP_STRIDE)
        variance = self._mean_along_rays(self._variance)[stride, stride]
        body = self._start[stride, stride] > 0.5
        return float(np.median(variance[body] if body.any() else variance))

    @cached_property
    def _variance(self) -> Float32[np.ndarray, "angles samples"]:
        """Variance of the parallel projections on the projector's rays, constant over a pixel."""
        variance_mm2, distances_mm = self._projections.variance_mm2(), self._projector.distances_mm
        t_mm = self._middle_mm[:, None] + distances_mm[::SAMPLES_PER_PIXEL]
        variance = self._reconstructor.sampling.parallel_variance(variance_mm2, t_mm)
        return np.repeat(variance, SAMPLES_PER_PIXEL, axis=1)[:, : len(distances_mm)]

    @cached_property
    def _weights(self) -> Float32[np.ndarray, "angles samples"]:
        """Inverse variances; 0 off the detector and in views in which pixels beat with samples."""
        gain = self._reconstructor.data_gain(self._kernel, self._projector.data_gain)
        least = np.float32(self._body_variance / LARGEST_WEIGHT)
        weights = 1 / (np.float32(gain) * np.maximum(self._variance, least))
        t_mm = self._middle_mm[:, None] + self._projector.distances_mm
        weights[np.abs(t_mm) > self._reconstructor.reach_mm] = 0
        angles = self._projector.angles_rad
        tilt = np.abs((angles + np.pi / 4) % (np.pi / 2) - np.pi / 4)  # from the nearest axis
        beat = np.array([np.arctan2(BEATING[1], BEATING[0])])
        weights[np.abs(tilt - beat) < np.pi / len(angles)] = 0
        return np.asarray(weights)

    def _rows(self, projector: ParallelProjector) -> RayRows:
        """Rays of a projector, relative to the isocentre."""
        first_mm = self._middle_mm + projector.distances_mm[0]
        return first_mm, projector.sample_mm, projector.samples

    @property
    def _middle_mm(self) -> Float64[np.ndarray, " angles"]:
        """Distance from the isocentre of the ray of each angle through the centre of the image."""
        x, y = self._grid.centre_mm
        angles = self._projector.angles_rad
        return np.asarray(x * np.cos(angles) + y * np.sin(angles))

    @cached_property
    def _data(self) -> Float32[np.ndarray, "angles samples"]:
        """Water paths with the modulation of the kernel, minus the object outside the image."""
        whole = self._reconstructor.projections(
            self._projections.spectra,
            self._kernel,
            self._rows(self._projector),
            self._projector.data_gain,
        )
        coarse = self._coarse.copy()
        window = self._window(len(coarse), self._coarse_projector.pixel_mm)
        coarse *= 1 - window[:, None] * window[None]
        projector, fine = self._coarse_projector, self._projector
        position = fine.distances_mm / projector.sample_mm + projector.samples // 2
        first = position.astype(np.int64)
        taps = np.stack([1 - (position - first), position - first], axis=1).astype(np.float32)
        outside = np.empty_like(whole)
        rays.weighted_gather(projector.project(coarse), first, taps, outside)
        return np.asarray(whole - outside)

    @cached_property
    def _start(self) -> Float32[np.ndarray, "size size"]:
        """Filtered back-projection as amounts of water, with a margin from the coarse image."""
        size, coarse = self._grid.size_px, self._coarse
        interpolation = _interpolation(size, self._coarse_times, len(coarse))
        start = interpolation @ coarse @ interpolation.T
        start[self._inside, self._inside] = self.fbp / 1000 + 1
        return np.asarray(start)

    def _window(self, count: int, pixel_mm: float) -> Float32[np.ndarray, " pixels"]:
        """Share of the object that belongs to this image, along an axis; it fades in the margin."""
        depth_mm = self._grid.fov_mm / 2 - np.abs(np.arange(count) - (count - 1) / 2) * pixel_mm
        fraction = np.clip(depth_mm / (self._inside.start * self._grid.pixel_mm), 0, 1)
        return np.asarray((0.5 - 0.5 * np.cos(np.pi * fraction)).astype(np.float32))

    @cached_property
    def _coarse_times(self) -> int:
        """Width of the pixels of the coarse image, in pixels of this image."""
        largest = max(1, int(COARSE_MM / self._grid.pixel_mm))
        return next(n for n in range(largest, 0, -1) if self._grid.size_px % n == 0)

    @cached_property
    def _border_px(self) -> int:
        """Number of coarse pixels from each side of this image to the end of the field of view."""
        reach_mm = self._reconstructor.reach_mm + max(abs(c) for c in self._grid.centre_mm)
        border_mm = max(0.0, reach_mm - self._grid.fov_mm / 2)
        return int(np.ceil(border_mm / (self._coarse_times * self._grid.pixel_mm)))

    @cached_property
    def _coarse_projector(self) -> ParallelProjector:
        """Projector of the coarse image."""
        pixel_mm = self._coarse_times * self._grid.pixel_mm
        size = self._grid.size_px // self._coarse_times + 2 * self._border_px
        return ParallelProjector(size, pixel_mm, self._projector.angles_rad)

    @cached_property
    def _coarse(self) -> Float32[np.ndarray, "coarse coarse"]:
        """Coarse and soft filtered back-projection of the whole field of view.

        Its part outside the image is subtracted from the data (Ziegler, Nielsen and Grass,
        Med Phys 35, 2008).
        """
        projector = self._coarse_projector
        soft = Kernel(cutoff_lp_mm=0.25 / projector.pixel_mm, exponent=2.0)
        filtered = self._reconstructor.filtered(
            self._projections.spectra, soft, self._rows(projector)
        )
        image = projector.mean_along_rays(filtered) * np.float32(len(filtered))
        fov_mm = projector.size_px * projector.pixel_mm
        grid = ImageGrid(projector.size_px, fov_mm, self._grid.centre_mm)
        radius_mm = np.hypot(grid.axis_mm(0)[None], grid.axis_mm(1)[:, None])
        image[radius_mm > self._reconstructor.reach_mm] = 0
        return image

    def _mean_along_rays(
        self, values: Float32[np.ndarray, "angles samples"]
    ) -> Float32[np.ndarray, "rows columns"]:
        """Mean of the values of the rays through each pixel, computed on a coarse grid."""
        fine = self._projector
        count = -(-fine.size_px // MAP_STRIDE)
        coarse = ParallelProjector(count, MAP_STRIDE * fine.pixel_mm, fine.angles_rad)
        nearest = np.rint(coarse.distances_mm / fine.sample_mm).astype(int) + fine.samples // 2
        mean = coarse.mean_along_rays(values[:, np.clip(nearest, 0, fine.samples - 1)])
        interpolation = _interpolation(fine.size_px, MAP_STRIDE, count)
        return np.asarray(interpolation @ mean @ interpolation.T)
