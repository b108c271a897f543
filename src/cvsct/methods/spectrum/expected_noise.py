"""Noise expected from the attenuation of a patient, before any kernel.

A thick body is noisier than a thin one on the same scanner. Spectra of different bodies can be
compared only after this has been told apart from the kernel, and noise that is made for a scan must
have the level and the direction that the scanner would show at each place.

The variance of a reading is the inverse of the photons that arrived: exp(line integral). By the
projection-slice theorem the readings of one view make the frequencies of one direction, so that the
log of noise power at a place, in one direction, is the line integral of the ray through that place
at right angles to it (Kak and Slaney 1988, sections 3.2 and 5.2). Spectra here average the log of
power around circles; their noise therefore follows the *mean line integral* of all rays through a
place. On simulated scanners of four makes the exponent of that law within a slice is 0.95 to 1.07,
and what it leaves is the scatter of the estimate (notebook/decisions/014-expected-noise.md).

A bowtie filter thins the beam outside its middle. Its shape is not in any header; half of what
would level a cylinder of water of 400 mm is taken, about what body filters do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage, sparse

from cvsct.core.masks import body
from cvsct.core.spectra import PatchSpectra
from cvsct.core.volume import CTVolume

WATER_PER_MM = 0.0193
"""Linear attenuation of water at 70 keV, about the mean of a 120 kVp beam (NIST XCOM)."""

GRID_MM = 8.0
RAY_ANGLES = 24

BOWTIE_MM, BOWTIE_SHARE = 400.0, 0.5
"""Diameter of the water cylinder, and the share of its leveling, that a bowtie filter is given."""

DIRECTIONS = 12
"""Directions of frequency, over half a turn, in which expected noise is told apart."""

CoarseMap = Float[np.ndarray, "slices coarse_rows coarse_columns"]


@dataclass(frozen=True)
class ExpectedNoise:
    """Log of the noise power to expect in each slice, up to a constant, on a grid of about 8 mm.

    Args:
        log_power: mean over directions of frequency.
        slice_mean: mean of `log_power` over the body in each slice.
        directional: by direction of frequency, less the mean; direction d of n points d/n of half
            a turn from the columns' axis to the rows'. Empty where it was not asked for.
    """

    log_power: CoarseMap
    slice_mean: Float[np.ndarray, " slices"]
    directional: Float[np.ndarray, "directions slices coarse_rows coarse_columns"]


def expected_noise(
    volume: CTVolume,
    by_direction: bool = False,
    inside: Bool[np.ndarray, "slices rows columns"] | None = None,
) -> ExpectedNoise:
    """Noise to expect from the attenuation that the image shows.

    What lies outside the field of view is not seen. Each slice comes out as if it were alone.

    Args:
        by_direction: whether directions of frequency are told apart.
        inside: voxels of the body, where they are known; None finds them.
    """
    inside = body(volume.hu) if inside is None else inside
    relative = np.clip(1 + volume.hu / 1000, 0, 3) * inside
    coarse, covered = (_coarse(image, volume) for image in (relative, inside))
    rays = _Rays.of(coarse.shape[1:])
    water_mm = GRID_MM * rays.sums(coarse) + BOWTIE_SHARE * rays.bowtie_mm
    maps = rays.spread(np.float32(WATER_PER_MM) * water_mm)
    log_power = maps.mean(axis=1)
    weight = covered + np.float32(1e-6)  # a slice without a body: all of it alike
    slice_mean = np.sum(log_power * weight, axis=(1, 2)) / np.sum(weight, axis=(1, 2))
    if not by_direction:
        directional = np.empty((0, *log_power.shape), dtype=np.float32)
    else:
        apart = RAY_ANGLES // DIRECTIONS
        around = 0.25 * np.roll(maps, 1, 1) + 0.5 * maps + 0.25 * np.roll(maps, -1, 1)
        directional = np.moveaxis(around[:, ::apart] - log_power[:, None], 1, 0)
    return ExpectedNoise(log_power, slice_mean.astype(np.float64), directional)


def _coarse(
    image: Float[np.ndarray, "_ _ _"] | Bool[np.ndarray, "_ _ _"], volume: CTVolume
) -> CoarseMap:
    """Mean of the image on the grid of about 8 mm.

    By sparse matrices, whose sums have one order: those of BLAS depend on its threads.
    """
    down, across = (
        _means(n, spacing)
        for n, spacing in zip(image.shape[1:], volume.geometry.pixel_mm, strict=True)
    )
    return np.stack([(across @ (down @ plane.astype(np.float32)).T).T for plane in image])


@lru_cache(maxsize=16)
def _means(n: int, spacing_mm: float) -> sparse.csr_array:
    """Weights of the pixels of a line in its means on the grid of about 8 mm."""
    zoom = max(spacing_mm / GRID_MM, 1 / n)  # one coarse pixel at least
    width = max(round(1 / zoom), 1)
    means = ndimage.uniform_filter1d(np.eye(n, dtype=np.float32), width, axis=0, mode="nearest")
    return sparse.csr_array(
        ndimage.zoom(means, (zoom, 1.0), order=1, grid_mode=True, mode="nearest")
    )


@dataclass(frozen=True)
class _Rays:
    """Parallel rays through the pixels of a coarse slice, at `RAY_ANGLES` over half a turn.

    Args:
        shape: rows and columns of the slice.
        share: of each pixel in each ray, both flattened, rays by angle: a pixel counts for the two
            nearest, as linear interpolation has it.
        bowtie_mm: water that each ray lacks, by its distance from the middle, in the cylinder that
            a bowtie filter levels.
    """

    shape: tuple[int, int]
    share: sparse.csr_array
    bowtie_mm: Float32[np.ndarray, "angles rays"]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, shape: tuple[int, int]) -> _Rays:
        """Rays of one pixel's width through a slice of a shape."""
        rows, columns = shape
        n = int(np.ceil(np.hypot(rows, columns))) + 2
        angles = np.pi * np.arange(RAY_ANGLES) / RAY_ANGLES
        down, across = (
            np.mgrid[:rows, :columns].reshape(2, -1) - (np.array([[rows], [columns]]) - 1) / 2
        )
        at = np.outer(np.cos(angles), across) + np.outer(np.sin(angles), down) + (n - 1) / 2
        low = np.floor(at).astype(int)
        ray = low + n * np.arange(RAY_ANGLES)[:, None]
        pixel = np.broadcast_to(np.arange(rows * columns), ray.shape)
        weights = np.stack([low + 1 - at, at - low]).astype(np.float32)
        share = sparse.csr_array(
            (weights.ravel(), (np.stack([ray, ray + 1]).ravel(), np.tile(pixel.ravel(), 2))),
            shape=(RAY_ANGLES * n, rows * columns),
        )
        offset_mm = (np.arange(n) - (n - 1) / 2) * GRID_MM
        chord_mm = np.sqrt(np.maximum(BOWTIE_MM**2 - (2 * offset_mm) ** 2, 0))
        lacking = np.tile(BOWTIE_MM - chord_mm, (RAY_ANGLES, 1)).astype(np.float32)
        return cls(shape, share, lacking)

    def sums(self, coarse: CoarseMap) -> Float32[np.ndarray, "slices angles rays"]:
        """Sum of the pixels along each ray."""
        along = self.share @ coarse.reshape(len(coarse), -1).T
        return np.ascontiguousarray(along.T).reshape(len(coarse), *self.bowtie_mm.shape)

    def spread(
        self, values: Float32[np.ndarray, "slices angles rays"]
    ) -> Float32[np.ndarray, "slices angles rows columns"]:
        """Value of the ray of each angle through each pixel."""
        n = self.bowtie_mm.shape[1]
        maps = np.empty((*values.shape[:2], *self.shape), dtype=np.float32)
        for angle in range(RAY_ANGLES):
            through = self.share[angle * n : (angle + 1) * n].T @ values[:, angle].T
            maps[:, angle] = through.T.reshape(len(values), *self.shape)
        return maps


def around_blocks(
    coarse: Float[np.ndarray, "*maps coarse_rows coarse_columns"],
    centers_px: tuple[Float[np.ndarray, " down"], Float[np.ndarray, " across"]],
    shape_px: tuple[int, int],
    width_mm: float,
) -> Float[np.ndarray, "*maps down across"]:
    """Coarse maps of one slice at the centers of blocks: means over about a block's width.

    Args:
        centers_px: rows and columns of the centers.
        shape_px: rows and columns of the slice.
    """
    across = max(round(width_mm / GRID_MM), 1)
    smooth: Float[np.ndarray, "*maps _ _"] = ndimage.uniform_filter(
        coarse, size=across, axes=(-2, -1), mode="nearest"
    )
    for axis, (centers, n) in enumerate(zip(centers_px, shape_px, strict=True), start=-2):
        last = smooth.shape[axis] - 1
        at = np.clip((centers + 0.5) * smooth.shape[axis] / n - 0.5, 0, last)
        low = np.minimum(at.astype(int), max(last - 1, 0))
        share = (at - low).astype(np.float32)
        share = share[:, None] if axis == -2 else share
        smooth = (
            smooth.take(low, axis) * (1 - share)
            + smooth.take(np.minimum(low + 1, last), axis) * share
        )
    return smooth


def patch_log_noise(
    expected: Float[np.ndarray, "slices coarse_rows coarse_columns"],
    volume: CTVolume,
    spectra: PatchSpectra,
) -> Float[np.ndarray, " patches"]:
    """Expected log noise power of each patch: the mean over about the patch's width.

    Args:
        expected: `ExpectedNoise.log_power` of the volume.
    """
    across = max(round(spectra.size_px * volume.pixel_mm / GRID_MM), 1)
    smooth = ndimage.uniform_filter(expected, size=(1, across, across), mode="nearest")
    pixels = np.array(volume.hu.shape[1:]) / expected.shape[1:]
    centres = (spectra.corners[:, 1:] + spectra.size_px / 2) / pixels - 0.5
    where = np.column_stack([spectra.corners[:, 0], centres]).T
    sampled: Float[np.ndarray, " patches"] = ndimage.map_coordinates(
        smooth.astype(np.float64), where, order=1, mode="nearest"
    )
    return sampled
