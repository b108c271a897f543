"""Block-wise filter with separate gains for noise and structure.

A slice is cut into overlapping blocks under a sine window. In each block every frequency is told
to be structure as far as its power stands out of the noise's, and gets a gain between the two:
noise its own, structure its own. All gains are real, so nothing moves; where both are equal it is
one zero-phase filter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.methods.spectrum.patches import RADIUS_UNIT_MM

BLOCK_MM = 28.0
"""Side of a block: wide enough to resolve gains over 0.07/mm, small enough to hold one edge."""

STRUCTURE_THRESHOLD = 8.0
"""Power above which a frequency is structure; noise of mean power 1 exceeds it once in 10^4."""

NEIGHBORS = (3, 3, 3, 3)
"""Blocks (down, across) and frequencies (down, across) over which power is averaged."""

NOISE_LEVEL_BAND = (0.6, 1.0)
"""Band in which a block's noise level is read, in shares of the highest frequency of an axis."""

LEVEL_BLOCKS, LEVEL_PERCENTILE = 5, 30
"""Noise level of a block: this percentile over this many blocks each way, as edges raise it."""

MAX_RADIUS_SQ = 4.0
"""Squared radius in (100 mm)² beyond which the noise gain is constant: 200 mm."""

TINY_POWER = 1e-3


@dataclass(frozen=True)
class BlockGains:
    """Log gains of noise and structure in one direction, and the noise power of the input.

    Args:
        noise: at 100 mm from the middle of the image.
        noise_radial: added for each (100 mm)² of the distance squared less one.
        noise_log_power: in HU² mm², up to a level that each image tells by itself.
        max_gain: neither noise nor structure is amplified or damped more than this.
    """

    frequencies_per_mm: Float[np.ndarray, " n"]
    noise: Float[np.ndarray, " n"]
    noise_radial: Float[np.ndarray, " n"]
    structure: Float[np.ndarray, " n"]
    noise_log_power: Float[np.ndarray, " n"]
    max_gain: float

    @classmethod
    def in_direction(
        cls,
        frequencies_per_mm: Float[np.ndarray, " n"],
        log_gains: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
        noise_log_powers: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
        max_gain: float,
        reverse: bool,
    ) -> BlockGains:
        """Gains from source to target, or their inverses for the reverse direction.

        Args:
            log_gains: of noise, its change with radius, and of structure, from source to target.
            noise_log_powers: of source and target.
        """
        noise, noise_radial, structure = (
            -log_gain if reverse else log_gain for log_gain in log_gains
        )
        power = noise_log_powers[1 if reverse else 0]
        return cls(frequencies_per_mm, noise, noise_radial, structure, power, max_gain)

    @property
    def reduces_noise(self) -> bool:
        """Whether the filter lowers the variance of noise."""
        f, power = self.frequencies_per_mm, np.exp(self.noise_log_power)
        return bool(np.sum(f * power * np.expm1(2 * self.noise)) < 0)

    def scaled(self, share: float) -> BlockGains:
        """Gains for part of the way to the other domain: 1 is all of it, 0 none."""
        return replace(
            self,
            noise=share * self.noise,
            noise_radial=share * self.noise_radial,
            structure=share * self.structure,
        )


@dataclass(frozen=True)
class _Grid:
    """Gains sampled on the frequency grid of a block, for one pixel spacing.

    Args:
        size_px: rows and columns of a block; half of each is the step to the next.
        window: its sine window; squared and overlapped by half it adds up to 1.
        level: frequencies at which a block's noise level is read.
    """

    size_px: tuple[int, int]
    window: Float32[np.ndarray, "rows columns"]
    noise: Float32[np.ndarray, "rows half"]
    noise_radial: Float32[np.ndarray, "rows half"]
    structure: Float32[np.ndarray, "rows half"]
    log_power: Float32[np.ndarray, "rows half"]
    level: Bool[np.ndarray, "rows half"]
    cap: float


def filter_blocks(
    volume: CTVolume, gains: BlockGains
) -> Float32[np.ndarray, "slices rows columns"]:
    """Filter noise and structure of each slice; the result is floored at -1024 HU.

    Gains are read at cycles/mm of this volume's own pixels; beyond the last frequency they stay
    as they are there. Edges are mirrored.
    """
    grid = _grid(gains, volume.geometry.pixel_mm)
    result = np.empty(volume.hu.shape, dtype=np.float32)
    for plane, output in zip(volume.hu, result, strict=True):
        filtered = _filter_plane(
            plane.astype(np.float32, copy=False), volume.geometry.pixel_mm, grid
        )
        np.maximum(filtered, np.float32(AIR_FLOOR_HU), out=output)
    return result


def _grid(gains: BlockGains, pixel_mm: tuple[float, float]) -> _Grid:
    rows, columns = (max(4, 2 * round(BLOCK_MM / mm / 2)) for mm in pixel_mm)
    down, across = (np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (rows, columns))
    window = (down[:, None] * across).astype(np.float32)
    f_down = scipy.fft.fftfreq(rows, pixel_mm[0])[:, None]
    f_across = scipy.fft.rfftfreq(columns, pixel_mm[1])
    radius = np.hypot(f_down, f_across)

    def read(curve: Float[np.ndarray, " n"]) -> Float32[np.ndarray, "rows half"]:
        on_grid: Float32[np.ndarray, "rows half"] = np.interp(
            radius, gains.frequencies_per_mm, curve
        ).astype(np.float32)
        return on_grid

    scale = float(np.sum(window.astype(np.float64) ** 2)) / (pixel_mm[0] * pixel_mm[1])
    low, high = (share * 0.5 / max(pixel_mm) for share in NOISE_LEVEL_BAND)
    return _Grid(
        size_px=(rows, columns),
        window=window,
        noise=read(gains.noise),
        noise_radial=read(gains.noise_radial),
        structure=read(gains.structure),
        log_power=read(gains.noise_log_power) + np.float32(np.log(scale)),
        level=(radius >= low) & (radius <= high),
        cap=float(np.log(gains.max_gain)),
    )


def _filter_plane(
    plane: Float32[np.ndarray, "rows columns"], pixel_mm: tuple[float, float], grid: _Grid
) -> Float32[np.ndarray, "rows columns"]:
    shape, steps = plane.shape, tuple(n // 2 for n in grid.size_px)
    blocks = tuple(-(-n // step) + 1 for n, step in zip(shape, steps, strict=True))
    margins = [
        (step, (count + 1) * step - n - step)
        for n, step, count in zip(shape, steps, blocks, strict=True)
    ]
    wide = np.pad(plane, margins, mode="symmetric")
    views = np.lib.stride_tricks.sliding_window_view(wide, grid.size_px)
    cut = views[:: steps[0], :: steps[1]]
    mean = np.einsum("abij,ij->ab", cut, grid.window)[..., None, None] / grid.window.sum()
    spectra = scipy.fft.rfft2((cut - mean) * grid.window, workers=1)
    power = spectra.real**2 + spectra.imag**2
    log_gain_noise = grid.noise + grid.noise_radial * _radius_offset(shape, steps, blocks, pixel_mm)
    gain_noise = np.exp(np.clip(log_gain_noise, -grid.cap, grid.cap))
    gain_structure = np.exp(np.clip(grid.structure, -grid.cap, grid.cap))
    spectra *= gain_noise + (gain_structure - gain_noise) * _structure_share(power, grid)
    filtered = scipy.fft.irfft2(spectra, s=grid.size_px, workers=1, overwrite_x=True)
    filtered += mean * grid.window  # kept apart: under the window it leaks into low frequencies
    filtered *= grid.window
    summed = _overlap_add(filtered, wide.shape)
    inner = tuple(slice(step, step + n) for step, n in zip(steps, shape, strict=True))
    return summed[inner]


def _structure_share(
    power: Float32[np.ndarray, "down across rows half"], grid: _Grid
) -> Float32[np.ndarray, "down across rows half"]:
    """Share of structure at each frequency of each block: 0 is noise, 1 is structure.

    Wiener's share of signal with the noise taken `STRUCTURE_THRESHOLD` times as strong. A block's
    noise level is its own, so that dose, body size and the place in the image need not be known.
    """
    down, across, rows, columns = NEIGHBORS
    mean = ndimage.uniform_filter(power, (down, across, 1, 1), mode="nearest")
    mean = ndimage.uniform_filter1d(mean, rows, axis=2, mode="wrap")
    mean = ndimage.uniform_filter1d(mean, columns, axis=3, mode="mirror")
    excess = np.log(np.maximum(mean, np.float32(TINY_POWER))) - grid.log_power
    level = ndimage.percentile_filter(
        excess[:, :, grid.level].mean(axis=-1), LEVEL_PERCENTILE, size=LEVEL_BLOCKS, mode="nearest"
    )
    noise_share = np.exp(level[:, :, None, None] - excess)
    share: Float32[np.ndarray, "down across rows half"] = np.maximum(
        1 - np.float32(STRUCTURE_THRESHOLD) * noise_share, np.float32(0)
    )
    return share


def _radius_offset(
    shape: tuple[int, ...],
    steps: tuple[int, ...],
    blocks: tuple[int, ...],
    pixel_mm: tuple[float, float],
) -> Float32[np.ndarray, "down across 1 1"]:
    """Squared distance of each block from the middle of the image in (100 mm)², less one."""
    down, across = (
        (np.arange(count) * step - n / 2) * mm / RADIUS_UNIT_MM
        for n, step, count, mm in zip(shape, steps, blocks, pixel_mm, strict=True)
    )
    radius_sq = np.minimum(down[:, None] ** 2 + across**2, MAX_RADIUS_SQ)
    offset: Float32[np.ndarray, "down across 1 1"] = (radius_sq - 1).astype(np.float32)[
        ..., None, None
    ]
    return offset


def _overlap_add(
    blocks: Float32[np.ndarray, "down across rows columns"], shape: tuple[int, ...]
) -> Float32[np.ndarray, "wide_rows wide_columns"]:
    """Sum of blocks that overlap by half."""
    rows, columns = blocks.shape[2:]
    total = np.zeros(shape, dtype=np.float32)
    for down in (0, 1):
        for across in (0, 1):
            apart = blocks[down::2, across::2]
            height, width = apart.shape[0] * rows, apart.shape[1] * columns
            top, left = down * rows // 2, across * columns // 2
            total[top : top + height, left : left + width] += apart.swapaxes(1, 2).reshape(
                height, width
            )
    return total
