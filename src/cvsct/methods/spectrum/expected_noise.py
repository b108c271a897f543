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

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

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


def expected_noise(volume: CTVolume, by_direction: bool = False) -> ExpectedNoise:
    """Noise to expect from the attenuation that the image shows.

    What lies outside the field of view is not seen. Each slice comes out as if it were alone.

    Args:
        by_direction: whether directions of frequency are told apart.
    """
    inside = body(volume.hu)
    relative = np.clip(1 + volume.hu / 1000, 0, 3) * inside
    coarse, covered = (_coarse(image, volume) for image in (relative, inside))
    side = int(np.ceil(np.hypot(*coarse.shape[1:])))
    top, left = ((side - n) // 2 for n in coarse.shape[1:])
    inner = np.s_[:, top : top + coarse.shape[1], left : left + coarse.shape[2]]
    square = np.zeros((len(coarse), side, side), dtype=np.float32)
    square[inner] = coarse
    bowtie = BOWTIE_SHARE * _bowtie_mm(side)
    total = np.zeros_like(coarse)
    parts = []
    for angle in np.arange(RAY_ANGLES) * 180.0 / RAY_ANGLES:
        turned = ndimage.rotate(square, angle, axes=(1, 2), reshape=False, order=1)
        water_mm = turned.sum(axis=1, keepdims=True) * GRID_MM + bowtie
        rays = np.broadcast_to(np.float32(WATER_PER_MM) * water_mm, square.shape)
        back = ndimage.rotate(rays, -angle, axes=(1, 2), reshape=False, order=1, mode="nearest")
        total += back[inner]
        if by_direction:
            parts.append(back[inner].copy())
    log_power = total / RAY_ANGLES
    weight = covered + np.float32(1e-6)  # a slice without a body: all of it alike
    slice_mean = np.sum(log_power * weight, axis=(1, 2)) / np.sum(weight, axis=(1, 2))
    directions = [
        0.25 * parts[i - 1] + 0.5 * parts[i] + 0.25 * parts[(i + 1) % RAY_ANGLES] - log_power
        for i in range(0, len(parts), RAY_ANGLES // DIRECTIONS)
    ]
    directional = np.stack(directions) if directions else np.empty((0, *log_power.shape))
    return ExpectedNoise(log_power, slice_mean.astype(np.float64), directional)


def _coarse(
    image: Float[np.ndarray, "_ _ _"] | Bool[np.ndarray, "_ _ _"], volume: CTVolume
) -> CoarseMap:
    """Mean of the image on the grid of about 8 mm."""
    zoom = np.array(volume.geometry.pixel_mm) / GRID_MM
    width = np.maximum(np.rint(1 / zoom), 1).astype(int)
    mean = ndimage.uniform_filter(image.astype(np.float32), size=(1, *width), mode="nearest")
    coarse: CoarseMap = ndimage.zoom(mean, (1.0, *zoom), order=1, grid_mode=True, mode="nearest")
    return coarse


def _bowtie_mm(side: int) -> Float[np.ndarray, " side"]:
    """Water that each ray lacks, by its distance from the middle, in the cylinder to level."""
    offset_mm = (np.arange(side) - (side - 1) / 2) * GRID_MM
    chord_mm = np.sqrt(np.maximum(BOWTIE_MM**2 - (2 * offset_mm) ** 2, 0))
    lacking: Float[np.ndarray, " side"] = (BOWTIE_MM - chord_mm).astype(np.float32)
    return lacking


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
