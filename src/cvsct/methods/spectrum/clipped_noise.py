"""Noise that a file cut off below its lowest CT number, estimated and put back before smoothing.

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

PILED_UP = 10.0
"""Cut values lie at the lowest one so many times as often as 1 HU above it."""

BLOCK_MM = 2.8
BLUR_BLOCKS = 0.5
"""The surroundings whose mean counts: blocks, blurred a little."""

AROUND_BLOCKS, LOW_PERCENTILE = 7, 40
"""Edges raise a block's standard deviation: of so many blocks each way the lower ones tell."""

LEAST_SD_HU = 0.5
"""Less is rounding."""

FARTHEST_CUT = 2.5
"""Where the cut lies further above the mean than so many standard deviations nothing is known."""


def with_clipped_noise(volume: CTVolume, share: float) -> CTVolume:
    """The volume with cut pixels at the mean of what was cut off there.

    Each slice is looked at by itself. One that is not cut comes back as it is.

    Args:
        share: of the estimated depth below the cut; 1 is all of it.
    """
    block_px = max(1, round(BLOCK_MM / volume.pixel_mm))
    result = np.array(volume.hu, dtype=np.float32)
    for i, plane in enumerate(result):
        image = np.ones(plane.shape, bool) if volume.padding is None else ~volume.padding[i]
        floor_hu = _cut_at(plane[image])
        if floor_hu is None or min(plane.shape) < 2 * block_px:
            continue
        cut = image & (plane <= floor_hu)
        depth = _mean_depth(np.maximum(plane - np.float32(floor_hu), 0), block_px)
        plane[cut] -= np.float32(share) * depth[cut]
    return volume.with_hu(result)


def _cut_at(hu: Float32[np.ndarray, " pixels"]) -> float | None:
    """The value at which a slice's noise is cut off; None where it is not."""
    low, high = CUT_AIR_VOXELS.limits_hu
    near = hu[(hu >= low) & (hu <= high)]
    if near.size == 0:
        return None
    floor_hu = float(near.min())
    at = int(np.count_nonzero(near <= floor_hu + 0.5))
    above = int(np.count_nonzero(near <= floor_hu + 1.5)) - at
    return floor_hu if at > PILED_UP * max(above, 1) else None


def _mean_depth(
    excess_hu: Float32[np.ndarray, "rows columns"], block_px: int
) -> Float32[np.ndarray, "rows columns"]:
    """How far below the cut the values that were cut lie on the average, in HU.

    Args:
        excess_hu: above the cut; 0 where cut.
    """
    cut_sd, mean_of, to_sd, depth_of = _censored_normal()
    rows, columns = excess_hu.shape
    tall, wide = (-(-n // block_px) for n in (rows, columns))
    fill = ((0, tall * block_px - rows), (0, wide * block_px - columns))
    blocks = np.pad(excess_hu, fill, mode="edge").reshape(tall, block_px, wide, block_px)
    mean, square = (
        ndimage.gaussian_filter(part.mean(axis=(1, 3)), BLUR_BLOCKS, mode="nearest")
        for part in (blocks, blocks * blocks)
    )
    sd = np.sqrt(np.maximum(square - mean**2, 1e-9))
    # Both ratios fall as the cut rises above the mean: turned round for `interp`.
    at = np.interp(-mean / sd, -mean_of * to_sd, cut_sd)
    whole_sd = sd * np.interp(at, cut_sd, to_sd)
    whole_sd = ndimage.percentile_filter(
        whole_sd, LOW_PERCENTILE, size=AROUND_BLOCKS, mode="nearest"
    )
    at = np.interp(-mean / np.maximum(whole_sd, 1e-6), -mean_of, cut_sd)
    depth = np.where(whole_sd < LEAST_SD_HU, 0, whole_sd * np.interp(at, cut_sd, depth_of))
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
    """A unit normal cut from below, for cuts at so many standard deviations above its mean.

    Returns:
        The cuts; the mean above the cut; by how much the standard deviation was larger before the
        cut; the mean depth below the cut of what was cut.
    """
    cut = np.linspace(-6.0, FARTHEST_CUT, 1701)
    below, density = norm.cdf(cut), norm.pdf(cut)
    mean = density - cut * (1 - below)
    square = (1 + cut**2) * (1 - below) - cut * density
    return cut, mean, (square - mean**2) ** -0.5, cut + density / below
