"""Estimation of noise that was clipped at the lowest CT number of a file.

A sharp kernel's noise in lung and air reaches below what the file can hold (mostly -1024 HU) and is
stored as that. Such pixels are too bright on the average, and a filter that takes the noise away
leaves lung and air too bright by that average: 9 HU on the virtual scanners
(notebook/decisions/012-pass-through.md). Noise is normal before the cut, so the mean of what is
left tells by how much: a censored normal distribution (Tobin 1958).

The standard deviation is read off mean and mean square of the surroundings, where it is the
same formula's other unknown, as a low percentile over a centimetre or so: edges only raise it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage
from scipy.stats import norm

from cvsct.core.masks import CUT_AIR_VOXELS
from cvsct.core.volume import CTVolume

CLIPPED_COUNT_RATIO = 10.0
"""Smallest ratio of pixels at the lowest CT number to those 1 HU above, where noise is clipped."""

BLOCK_MM = 2.8
BLUR_BLOCKS = 0.5
"""Size of blocks and blur in blocks over which local moments are taken."""

AROUND_BLOCKS, LOW_PERCENTILE = 7, 40
"""Local standard deviation: this percentile over this many blocks each way, as edges raise it."""

LEAST_SD_HU = 0.5
"""Smallest standard deviation of noise; less is rounding."""

MAX_CUT_SD = 2.5
"""Highest clipping level, in standard deviations above the mean, that the estimate covers."""


def restore_clipped_noise(volume: CTVolume, share: float) -> CTVolume:
    """Lower clipped pixels to the estimated mean of the values before clipping.

    Each slice is looked at by itself. One that is not cut comes back as it is.

    Args:
        share: of the estimated depth below the cut; 1 is all of it.
    """
    block_px = max(1, round(BLOCK_MM / volume.pixel_mm))
    result = np.array(volume.hu, dtype=np.float32)
    for i, plane in enumerate(result):
        image = np.ones(plane.shape, bool) if volume.padding is None else ~volume.padding[i]
        floor_hu = _clip_level_hu(plane[image])
        if floor_hu is None or min(plane.shape) < 2 * block_px:
            continue
        cut = image & (plane <= floor_hu)
        depth = _mean_depth(np.maximum(plane - np.float32(floor_hu), 0), block_px)
        plane[cut] -= np.float32(share) * depth[cut]
    return volume.with_hu(result)


def _clip_level_hu(hu: Float32[np.ndarray, " pixels"]) -> float | None:
    """CT number at which the noise of a slice is clipped; None where it is not."""
    low, high = CUT_AIR_VOXELS.limits_hu
    air_hu = hu[(hu >= low) & (hu <= high)]
    if air_hu.size == 0:
        return None
    floor_hu = float(air_hu.min())
    n_lowest = int(np.count_nonzero(air_hu <= floor_hu + 0.5))
    n_next = int(np.count_nonzero(air_hu <= floor_hu + 1.5)) - n_lowest
    return floor_hu if n_lowest > CLIPPED_COUNT_RATIO * max(n_next, 1) else None


def _mean_depth(
    excess_hu: Float32[np.ndarray, "rows columns"], block_px: int
) -> Float32[np.ndarray, "rows columns"]:
    """Mean distance in HU of the values before clipping from the clipping level.

    Args:
        excess_hu: above the cut; 0 where cut.
    """
    cut_sd, mean_of, to_sd, depth_of = _censored_normal()
    rows, columns = excess_hu.shape
    tall, wide = (-(-n // block_px) for n in (rows, columns))
    margins = ((0, tall * block_px - rows), (0, wide * block_px - columns))
    blocks = np.pad(excess_hu, margins, mode="edge").reshape(tall, block_px, wide, block_px)
    mean, square = (
        ndimage.gaussian_filter(part.mean(axis=(1, 3)), BLUR_BLOCKS, mode="nearest")
        for part in (blocks, blocks * blocks)
    )
    sd = np.sqrt(np.maximum(square - mean**2, 1e-9))
    # Both ratios fall as the cut rises above the mean: turned round for `interp`.
    cut_in_sd = np.interp(-mean / sd, -mean_of * to_sd, cut_sd)
    uncut_sd = sd * np.interp(cut_in_sd, cut_sd, to_sd)
    uncut_sd = ndimage.percentile_filter(
        uncut_sd, LOW_PERCENTILE, size=AROUND_BLOCKS, mode="nearest"
    )
    cut_in_sd = np.interp(-mean / np.maximum(uncut_sd, 1e-6), -mean_of, cut_sd)
    depth = np.where(uncut_sd < LEAST_SD_HU, 0, uncut_sd * np.interp(cut_in_sd, cut_sd, depth_of))
    grown = ndimage.zoom(
        depth.astype(np.float32), block_px, order=1, mode="nearest", grid_mode=True
    )
    on_grid: Float32[np.ndarray, "rows columns"] = grown[:rows, :columns]
    return on_grid


@lru_cache(maxsize=1)
def _censored_normal() -> tuple[
    Float[np.ndarray, " n"],
    Float[np.ndarray, " n"],
    Float[np.ndarray, " n"],
    Float[np.ndarray, " n"],
]:
    """Moments of a unit normal distribution censored from below (Tobin 1958).

    Returns:
        The cuts; the mean above the cut; by how much the standard deviation was larger before the
        cut; the mean depth below the cut of what was cut.
    """
    cut = np.linspace(-6.0, MAX_CUT_SD, 1701)
    below, density = norm.cdf(cut), norm.pdf(cut)
    mean = density - cut * (1 - below)
    square = (1 + cut**2) * (1 - below) - cut * density
    return cut, mean, (square - mean**2) ** -0.5, cut + density / below
