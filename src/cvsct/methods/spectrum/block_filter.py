"""Block-wise filter with separate gains for noise and structure.

A slice is cut into overlapping blocks. In each block every frequency is told to be structure as far
as its power stands out of the noise's, and gets a gain between the two: noise its own, structure
its own. All gains are real, so nothing moves; where both are equal it is one zero-phase filter.

Noise that amplification must not make (`block_gains`) is added to each block, with the power and
the direction that the output's scanner would show at that place, whatever else is in the block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.fft
from jaxtyping import Bool, Complex64, Float, Float32
from scipy import ndimage
from scipy.stats import norm

from cvsct.core.fourier import frequency_radius
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume
from cvsct.methods.spectrum.block_gains import BlockGains, missing_share
from cvsct.methods.spectrum.blocks import BLOCK_MM, Blocks
from cvsct.methods.spectrum.expected_noise import (
    DIRECTIONS,
    ExpectedNoise,
    around_blocks,
    expected_noise,
)
from cvsct.methods.spectrum.noise_field import NoiseField
from cvsct.methods.spectrum.noise_law import NO_LAW, NoiseLaw

STRUCTURE_THRESHOLD = 5.0
"""Power above which a frequency is structure; noise of mean power 1 exceeds it in one of 150."""

NEIGHBORS = (3, 3, 3, 3)
"""Blocks (down, across) and frequencies (down, across) over which power is averaged."""

NOISE_LEVEL_BAND = (0.6, 1.0)
"""Band in which a block's noise level is read, in shares of the highest frequency of an axis."""

LEVEL_BLOCKS, LEVEL_PERCENTILE = 5, 30
"""Noise level of a block: this percentile over this many blocks each way, as edges raise it."""

CLIPPING_BIAS_HU = 0.5
"""Largest rise of the mean of air, by noise that is added and cut off at the floor."""

TINY_POWER = 1e-3

Spectra = Float32[np.ndarray, "down across rows half"]


@dataclass
class AddedVariance:
    """Noise variance that was added to slices, and all of the output's, as the laws have it.

    Args:
        added: sum over blocks and frequencies.
        total: likewise, of all noise.
    """

    added: float = 0.0
    total: float = 0.0

    @property
    def share(self) -> float:
        """Share of the noise variance that was added, 0 to 1."""
        return self.added / self.total if self.total else 0.0


def filter_blocks(
    volume: CTVolume,
    gains: BlockGains,
    field: NoiseField | None = None,
    variance: AddedVariance | None = None,
    before_noise: Float32[np.ndarray, "slices rows columns"] | None = None,
) -> Float32[np.ndarray, "slices rows columns"]:
    """Filter noise and structure of each slice; the result is floored at -1024 HU.

    Gains are read at cycles/mm of this volume's own pixels; beyond the last frequency they stay
    as they are there. Edges are mirrored. Each slice comes out as if it were alone.

    Args:
        field: what added noise is made of; without it none is added, and amplification makes all.
        variance: told what was added.
        before_noise: filled with the result as it would be without that noise.
    """
    shape = volume.hu.shape[1], volume.hu.shape[2]
    gains = gains if field is not None else replace(gains, added=None)
    filter_ = _BlockFilter.of(gains, Blocks.of(shape, volume.geometry.pixel_mm))
    expected = None
    if gains.added is not None or gains.law != NO_LAW:
        expected = expected_noise(volume, by_direction=gains.added is not None)
    result = np.empty(volume.hu.shape, dtype=np.float32)
    for i, (plane, output) in enumerate(zip(volume.hu, result, strict=True)):
        noise = None
        if filter_.added is not None and field is not None:
            noise = filter_.added.shaped(field.slice_noise(float(volume.geometry.z_mm[i]), shape))
        local = None if expected is None else filter_.local(expected, i)
        without = None if before_noise is None else before_noise[i]
        filtered = filter_(plane.astype(np.float32, copy=False), local, noise, variance, without)
        np.maximum(filtered, np.float32(AIR_FLOOR_HU), out=output)
        if without is not None:
            bare = filtered if noise is None else without
            np.maximum(bare, np.float32(AIR_FLOOR_HU), out=without)
    return result


@dataclass(frozen=True)
class _Local:
    """Expected noise at the blocks of a slice.

    Args:
        log_power: mean over directions.
        slice_mean: over the body.
        directional: by direction of frequency, less the mean.
    """

    log_power: Float[np.ndarray, "down across"]
    slice_mean: float
    directional: Float[np.ndarray, "directions down across"]


def _read(
    gains: BlockGains, curve: Float[np.ndarray, " n"], radius: Float[np.ndarray, "rows half"]
) -> Float32[np.ndarray, "rows half"]:
    """Curve over the gains' frequencies at the frequencies of a grid."""
    on_grid: Float32[np.ndarray, "rows half"] = np.interp(
        radius, gains.frequencies_per_mm, curve
    ).astype(np.float32)
    return on_grid


@dataclass(frozen=True)
class _AddedNoise:
    """Noise to be added, sampled on frequency grids.

    Args:
        most: log gain up to which noise is amplified.
        gain: log gain that would make all of the output's noise.
        power: of the output's noise at the reference, over that of unit white noise.
        amplitude: its root on the grid of the whole slice.
        direction: share of each direction in each frequency: of the two that it lies between.
        law: how the output's noise follows expected noise.
    """

    most: Float32[np.ndarray, "rows half"]
    gain: Float32[np.ndarray, "rows half"]
    power: Float32[np.ndarray, "rows half"]
    amplitude: Float32[np.ndarray, "slice_rows slice_half"]
    direction: Float32[np.ndarray, "directions rows half"]
    law: NoiseLaw

    @classmethod
    def of(cls, gains: BlockGains, blocks: Blocks) -> _AddedNoise | None:
        """Noise that the gains add; None where they add none."""
        added = gains.added
        if added is None:
            return None
        down, across = blocks.frequencies_per_mm
        radius = np.hypot(down, across)
        position = np.arctan2(down, across + 0 * down) % np.pi / np.pi * DIRECTIONS
        apart = np.abs(position - np.arange(DIRECTIONS)[:, None, None])
        pixel_power = added.log_power - np.log(blocks.pixel_mm[0] * blocks.pixel_mm[1])
        slice_radius = frequency_radius(blocks.shape, blocks.pixel_mm)
        amplitude = np.exp(0.5 * _read(gains, pixel_power, slice_radius))
        amplitude[0, 0] = 0
        return cls(
            most=_read(gains, added.most, radius),
            gain=_read(gains, added.gain, radius),
            power=np.exp(_read(gains, pixel_power, radius)),
            amplitude=amplitude,
            direction=np.maximum(1 - np.minimum(apart, DIRECTIONS - apart), 0).astype(np.float32),
            law=added.law,
        )

    def shaped(self, white: Float32[np.ndarray, "_ _"]) -> Float32[np.ndarray, "_ _"]:
        """Noise with the power of the output's at the reference, from unit white noise.

        A whole slice is shaped at once: noise falls to nothing at zero frequency, which the window
        of a block would blur.
        """
        spectrum = scipy.fft.rfft2(white, workers=1)
        spectrum *= self.amplitude
        noise: Float32[np.ndarray, "_ _"] = scipy.fft.irfft2(
            spectrum, s=white.shape, workers=1, overwrite_x=True
        )
        return noise


@dataclass(frozen=True)
class _BlockFilter:
    """Gains sampled on the frequency grid of a block, for one shape and pixel spacing.

    Args:
        level: frequencies at which a block's noise level is read.
        added: noise to be added; None where amplification makes all.
    """

    gains: BlockGains
    blocks: Blocks
    noise: Float32[np.ndarray, "rows half"]
    noise_radial: Float32[np.ndarray, "rows half"]
    structure: Float32[np.ndarray, "rows half"]
    log_power: Float32[np.ndarray, "rows half"]
    level: Bool[np.ndarray, "rows half"]
    added: _AddedNoise | None

    @classmethod
    def of(cls, gains: BlockGains, blocks: Blocks) -> _BlockFilter:
        radius = np.hypot(*blocks.frequencies_per_mm)
        area_mm2 = blocks.pixel_mm[0] * blocks.pixel_mm[1]
        scale = float(np.sum(blocks.window.astype(np.float64) ** 2)) / area_mm2
        low, high = (share * 0.5 / max(blocks.pixel_mm) for share in NOISE_LEVEL_BAND)
        return cls(
            gains=gains,
            blocks=blocks,
            noise=_read(gains, gains.noise, radius),
            noise_radial=_read(gains, gains.noise_radial, radius),
            structure=np.exp(_limited(_read(gains, gains.structure, radius), gains.max_gain)),
            log_power=_read(gains, gains.noise_log_power, radius) + np.float32(np.log(scale)),
            level=(radius >= low) & (radius <= high),
            added=_AddedNoise.of(gains, blocks),
        )

    def local(self, expected: ExpectedNoise, index: int) -> _Local:
        """Expected noise of one slice at its blocks."""
        maps = np.concatenate([expected.log_power[None, index], expected.directional[:, index]])
        at = around_blocks(maps, self.blocks.centers_px, self.blocks.shape, BLOCK_MM)
        return _Local(at[0], float(expected.slice_mean[index]), at[1:])

    def __call__(
        self,
        plane: Float32[np.ndarray, "_ _"],
        local: _Local | None,
        noise: Float32[np.ndarray, "_ _"] | None,
        variance: AddedVariance | None,
        before_noise: Float32[np.ndarray, "_ _"] | None = None,
    ) -> Float32[np.ndarray, "_ _"]:
        """Filter one slice.

        Args:
            noise: `_AddedNoise.shaped` for this slice, where noise is added.
            before_noise: filled with the result before it is added; left alone where none is.
        """
        blocks, window = self.blocks, self.blocks.window
        cut = blocks.cut(plane)
        mean = np.einsum("abij,ij->ab", cut, window)[..., None, None] / window.sum()
        spectra = scipy.fft.rfft2((cut - mean) * window, workers=1)
        power = spectra.real**2 + spectra.imag**2
        by_place = self.noise_radial * blocks.radius_offset
        if local is not None:
            by_place = by_place + self._law(self.gains.law, local)
        reached = self.noise + by_place
        added = self.added
        if added is not None:
            reached = np.minimum(reached, added.most)
        gain_noise = np.exp(_limited(reached, self.gains.max_gain))
        spectra *= gain_noise + (self.structure - gain_noise) * self._structure_share(power)
        if added is not None and noise is not None and local is not None:
            if before_noise is not None:
                before_noise[:] = self._joined(spectra.copy(), mean)
            local_power = self._local_noise_power(added, local)
            missing = missing_share(added.gain + by_place, added.most, reached) * local_power
            missing_power = missing * added.power
            share = self._clipping_share(missing_power, mean, self._noise_variance(spectra))
            missing *= share
            if variance is not None:
                kept = local_power * added.power - missing_power
                missing_power *= share
                variance.added += float(missing_power.sum(dtype=np.float64))
                variance.total += float((kept + missing_power).sum(dtype=np.float64))
            shaped = scipy.fft.rfft2(blocks.cut(noise) * window, workers=1)
            spectra += np.sqrt(missing) * shaped
        return self._joined(spectra, mean)

    def _joined(
        self,
        spectra: Complex64[np.ndarray, "down across rows half"],
        mean_hu: Float32[np.ndarray, "down across 1 1"],
    ) -> Float32[np.ndarray, "_ _"]:
        """Slice of the spectra of its windowed blocks, which are overwritten, and their means."""
        blocks, window = self.blocks, self.blocks.window
        filtered = scipy.fft.irfft2(spectra, s=blocks.size, workers=1, overwrite_x=True)
        filtered += mean_hu * window  # kept apart: under the window it leaks into low frequencies
        filtered *= window
        return blocks.joined(filtered)

    def _law(self, law: NoiseLaw, local: _Local) -> Float32[np.ndarray, "down across 1 1"]:
        """Log of what a law makes of expected noise at each block."""
        value = self.gains.laws.log_power(law, local.log_power, local.slice_mean)
        return value.astype(np.float32)[..., None, None]

    def _local_noise_power(self, added: _AddedNoise, local: _Local) -> Spectra:
        """Power of the output's noise in each block and direction, over that at the reference."""
        by_direction = (added.law.within * local.directional).astype(np.float32)
        log_power: Spectra = np.einsum("dab,dij->abij", by_direction, added.direction)
        log_power += self._law(added.law, local)
        power: Spectra = np.exp(log_power, out=log_power)
        return power

    @staticmethod
    def _clipping_share(
        missing_power: Spectra,
        mean_hu: Float32[np.ndarray, "down across 1 1"],
        variance_hu2: Float32[np.ndarray, "down across 1 1"],
    ) -> Float32[np.ndarray, "down across 1 1"]:
        """Share of the missing power that the floor at -1024 HU leaves the mean of air.

        Args:
            variance_hu2: of the noise in blocks before any is added.
        """
        missing_hu2 = missing_power.mean(axis=(-2, -1), keepdims=True)
        margin_hu = np.maximum(mean_hu - np.float32(AIR_FLOOR_HU), 1.0)
        cut_sd, rise = _clipped_mean()
        most_hu = margin_hu / np.interp(-CLIPPING_BIAS_HU / margin_hu, -rise, cut_sd)
        room_hu2 = np.maximum(most_hu**2 - variance_hu2, 0)
        share: Float32[np.ndarray, "down across 1 1"] = np.minimum(
            room_hu2 / np.maximum(missing_hu2, 1e-6), 1.0
        ).astype(np.float32)
        return share

    def _noise_variance(
        self, spectra: Complex64[np.ndarray, "down across rows half"]
    ) -> Float32[np.ndarray, "down across 1 1"]:
        """Variance of the noise in each block in HU², from the spectra of windowed blocks.

        A percentile over neighboring blocks: edges raise the variance of the blocks they cross.
        """
        power = spectra.real**2 + spectra.imag**2
        weight = np.float32(np.sum(self.blocks.window.astype(np.float64) ** 2))
        variance = ndimage.percentile_filter(
            power.mean(axis=(-2, -1)) / weight, LEVEL_PERCENTILE, size=LEVEL_BLOCKS, mode="nearest"
        )
        return np.asarray(variance[..., None, None])

    def _structure_share(self, power: Spectra) -> Spectra:
        """Share of structure at each frequency of each block: 0 is noise, 1 is structure.

        Wiener's share of signal with the noise taken `STRUCTURE_THRESHOLD` times as strong. A
        block's noise level is its own, so that dose, body size and the place in the image need not
        be known.
        """
        down, across, rows, columns = NEIGHBORS
        mean = ndimage.uniform_filter(power, (down, across, 1, 1), mode="nearest")
        mean = ndimage.uniform_filter1d(mean, rows, axis=2, mode="wrap")
        mean = ndimage.uniform_filter1d(mean, columns, axis=3, mode="mirror")
        excess = np.log(np.maximum(mean, np.float32(TINY_POWER))) - self.log_power
        level = ndimage.percentile_filter(
            excess[:, :, self.level].mean(axis=-1),
            LEVEL_PERCENTILE,
            size=LEVEL_BLOCKS,
            mode="nearest",
        )
        noise_share = np.exp(level[:, :, None, None] - excess)
        share: Spectra = np.maximum(
            1 - np.float32(STRUCTURE_THRESHOLD) * noise_share, np.float32(0)
        )
        return share


@lru_cache(maxsize=1)
def _clipped_mean() -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """By how much clipping raises the mean of normal noise.

    Returns:
        The distance of the floor below the mean in standard deviations, and the rise of the mean
        over that distance in HU.
    """
    cut = np.linspace(0.05, 5.0, 500)
    return cut, (norm.pdf(cut) - cut * norm.sf(cut)) / cut


def _limited(
    log_gain: Float32[np.ndarray, "*shape"], max_gain: float
) -> Float32[np.ndarray, "*shape"]:
    """Log gain between the inverse of a limit and the limit."""
    most = np.float32(np.log(max_gain))
    limited: Float32[np.ndarray, "*shape"] = np.clip(log_gain, -most, most)
    return limited
