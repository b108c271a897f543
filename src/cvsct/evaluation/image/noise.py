"""Noise power spectrum of patients' images, from homogeneous patches of tissue.

`noise_power` defines the spectrum; this module chooses where to measure it. Patches lie in soft
tissue or fat and are the most homogeneous ones there, judged on the *blurred mean of all sides*: on
raw HU, or on one side alone, the choice would favor patches whose own noise happens to be low. All
sides are measured on the same patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import Region, covered_fraction
from cvsct.core.seeding import random_stream
from cvsct.core.spectra import distance_band_per_mm, distance_db
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.mean_image import MeanImage
from cvsct.evaluation.image.noise_power import (
    NoisePower,
    mean_frequency,
    noise_power_spectrum,
    standard_deviation,
)
from cvsct.evaluation.image.tissues import tissues_of
from cvsct.evaluation.resampled import LEVELS_PERCENT, Resampled, draw_weights

REGION_PX = 32
"""Side of a patch in pixels."""

REGIONS = 200
"""Number of patches that are measured, at most."""

SLICES = 60
"""Number of slices measured, evenly spaced over all volumes: enough for the figures."""

HOMOGENEOUS_SHARE = 0.05
"""Share of the positions in tissue, the least rough ones, that count as free of structure."""

HOMOGENEOUS_MARGIN = 1.2
"""Factor by which a patch may be rougher than these: noise alone scatters roughness as much."""

ANATOMY_RINGS = 2
"""Number of lowest frequencies whose power is replaced for the peak and the mean frequency: there a
patch's window smears the spectrum and anatomy adds to it. The power at the next frequency is
continued in proportion to f, as behind a ramp filter."""

SMOOTHING = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
"""Weights by which the spectrum is smoothed before its peak is found."""

PIXEL_TOLERANCE = 1e-3
"""Largest relative difference of two pixel sizes that count as one."""


@dataclass(frozen=True)
class TissueNoise:
    """Noise of one side's images in homogeneous tissue.

    Args:
        power: spectrum in HU² mm². Its first `ANATOMY_RINGS` values are smeared by a patch's
            window and hold anatomy.
        n_regions: number of patches.
        distance_db: rms difference of this spectrum from the target's over the frequencies at
            which textures are compared; None for the target itself, or without a target.
        level: standard deviation of the noise up to the Nyquist frequency, without the anatomy in
            the first `ANATOMY_RINGS`, in HU. Sides that were measured on the same patches are
            resampled alike.
        mean_frequency: mean frequency in cycles/mm, likewise.
        power_interval: ends of the 95 % interval of the power at each frequency, in HU² mm².
    """

    power: NoisePower = field(repr=False)
    n_regions: int
    level: Resampled
    mean_frequency: Resampled
    power_interval: Float[np.ndarray, "ends bins"] = field(repr=False)
    distance_db: float | None = None

    @property
    def mean_per_mm(self) -> float:
        """Mean frequency of the noise in cycles/mm."""
        return self.mean_frequency.value

    @property
    def peak_per_mm(self) -> float:
        """Frequency of the highest power in cycles/mm, of the spectrum smoothed over five rings."""
        noise = replace(
            self.power,
            power_hu2_mm2=_above_anatomy(self.power.f_per_mm, self.power.power_hu2_mm2),
        )
        half = len(SMOOTHING) // 2
        padded = np.pad(noise.power_hu2_mm2, half, mode="reflect", reflect_type="odd")
        smooth = np.convolve(padded, SMOOTHING, mode="valid")
        return replace(noise, power_hu2_mm2=smooth).peak_per_mm

    def to_json(self) -> dict[str, Any]:
        """Plain values, including the curve."""
        return {
            "sd_hu": self.power.sd_hu,
            "level_hu": self.level.value,
            "level_interval": self.level.interval,
            "mean_per_mm": self.mean_per_mm if np.isfinite(self.mean_per_mm) else None,
            "mean_per_mm_interval": self.mean_frequency.interval,
            "peak_per_mm": self.peak_per_mm,
            "distance_db": self.distance_db,
            "n_regions": self.n_regions,
            "f_per_mm": self.power.f_per_mm.tolist(),
            "power_hu2_mm2": self.power.power_hu2_mm2.tolist(),
        }


def tissue_noise(
    sides: Mapping[str, Sequence[CTVolume]],
    size_px: int = REGION_PX,
    count: int = REGIONS,
    seed: int = 0,
    means: Sequence[MeanImage] | None = None,
) -> dict[str, TissueNoise]:
    """Measure the noise power of each side on the same patches.

    About `SLICES` slices are measured. Volumes of another pixel size than the first are left out,
    because their spectra have other frequencies.

    Args:
        sides: volumes by side, with `target` where there is one; volume i of every side shows the
            same slices. Sides of different bodies are measured by a call for each.
        size_px: side of a patch.
        count: number of patches, at most.
        seed: seed of their positions.
        means: mean image of each of `stacks_of(sides)`, where they are known; None computes them.

    Returns:
        Noise by side; empty where no tissue has room for a patch.

    Raises:
        EvaluationError: if sides differ in their number of volumes or in a volume's shape.
    """
    stacks = stacks_of(sides)
    patches: dict[str, list[Float[np.ndarray, "rows columns"]]] = {side: [] for side in sides}
    for number, stack in enumerate(stacks):
        missing = count - len(next(iter(patches.values())))
        share = -(-missing // (len(stacks) - number))
        mean = means[number] if means is not None else MeanImage.of(list(stack.values()))
        for region in homogeneous_regions(mean, size_px, share, seed + number):
            for side, volume in stack.items():
                patches[side].append(region.cut(volume.hu))
    n = len(next(iter(patches.values()), []))
    if n == 0:
        return {}
    pixel_mm = next(iter(stacks[0].values())).pixel_mm
    power = {
        side: noise_power_spectrum(
            np.stack(patches_of_side).astype(np.float64), pixel_mm, size_px // 2, taper="hann"
        )
        for side, patches_of_side in patches.items()
    }
    weights = draw_weights(n, seed, "noise regions") / n
    noise = {}
    for side, spectrum in power.items():
        f = spectrum.f_per_mm
        powers = weights @ spectrum.regions_hu2_mm2
        resampled = _above_anatomy(f, powers)
        own = _above_anatomy(f, spectrum.power_hu2_mm2)
        noise[side] = TissueNoise(
            spectrum,
            n,
            Resampled(float(standard_deviation(f, own)), standard_deviation(f, resampled)),
            Resampled(float(mean_frequency(f, own)), mean_frequency(f, resampled)),
            np.percentile(powers, LEVELS_PERCENT, axis=0),
            _distance_db(side, power, pixel_mm),
        )
    return noise


def _above_anatomy(
    f_per_mm: Float[np.ndarray, " bins"], power: Float[np.ndarray, "*spectra bins"]
) -> Float[np.ndarray, "*spectra bins"]:
    """Spectra with their first `ANATOMY_RINGS` continued from the next frequency."""
    continued = power.copy()
    share = f_per_mm[:ANATOMY_RINGS] / f_per_mm[ANATOMY_RINGS]
    continued[..., :ANATOMY_RINGS] = power[..., ANATOMY_RINGS, None] * share
    return continued


def homogeneous_regions(mean: MeanImage, size_px: int, count: int, seed: int = 0) -> list[Region]:
    """Choose about `count` squares of homogeneous soft tissue or fat that do not overlap.

    Every slice with such tissue gets about the same number.

    Args:
        mean: blurred mean of images of the same slices.
        size_px: side of a square.
        count: number of squares.
        seed: seed of the order in which positions are tried.
    """
    if min(mean.smooth.shape[1:]) < size_px:
        return []
    planes = [_roughness(mean, index, size_px) for index in range(len(mean.smooth))]
    roughness = np.stack(planes)
    inside = np.isfinite(roughness)
    if not inside.any():
        return []
    limit = HOMOGENEOUS_MARGIN * np.quantile(roughness[inside], HOMOGENEOUS_SHARE)
    homogeneous = inside & (roughness <= limit)
    rng = random_stream(seed, "noise regions")
    per_slice = -(-count // len(homogeneous))
    chosen: list[Region] = []
    for index, plane in enumerate(homogeneous):
        starts = rng.permutation(np.argwhere(plane))
        enough = len(chosen) + per_slice
        while len(starts) and len(chosen) < enough:
            row, column = (int(value) for value in starts[0])
            chosen.append(Region(index, row, column, size_px))
            starts = starts[np.abs(starts - starts[0]).max(axis=1) >= size_px]
    return chosen


def _roughness(mean: MeanImage, index: int, size_px: int) -> Float[np.ndarray, "_ _"]:
    """Standard deviation of the blurred mean in each square of a slice, by first row and column.

    Returns:
        Infinity where a square does not lie wholly in soft tissue or fat.
    """
    here = slice(index, index + 1)
    masks = tissues_of(mean.smooth[here], mean.body[here], mean.padding[here])
    tissue = (masks["soft"] | masks["fat"])[0]
    inside = covered_fraction(tissue[None], size_px)[0] >= 1.0
    if not inside.any():
        return np.full(inside.shape, np.inf)
    smooth = np.where(tissue, mean.smooth[index], 0.0)
    half, (rows, columns) = size_px // 2, inside.shape
    first, second = (
        ndimage.uniform_filter(moment, size_px)[half : half + rows, half : half + columns]
        for moment in (smooth, smooth**2)
    )
    return np.where(inside, np.sqrt(np.maximum(second - first**2, 0)), np.inf)


def stacks_of(sides: Mapping[str, Sequence[CTVolume]]) -> list[dict[str, CTVolume]]:
    """Group the volumes that show the same slices, thinned to about `SLICES` slices in all.

    Volumes of another pixel size than the first are left out.

    Args:
        sides: volumes by side; volume i of every side shows the same slices.

    Returns:
        For each volume number, the volumes by side.

    Raises:
        EvaluationError: if sides differ in their number of volumes or in a volume's shape.
    """
    if len({len(volumes) for volumes in sides.values()}) > 1:
        counts = ", ".join(f"{side} {len(volumes)}" for side, volumes in sides.items())
        raise EvaluationError(
            f"the sides have different numbers of volumes ({counts}); cut all sides to the slices "
            "they share"
        )
    stacks = [dict(zip(sides, stack, strict=True)) for stack in zip(*sides.values(), strict=True)]
    for stack in stacks:
        shapes = {volume.hu.shape for volume in stack.values()}
        if len(shapes) > 1:
            raise EvaluationError(
                f"volumes of {' and '.join(map(str, sorted(shapes)))} voxels do not show the same "
                "slices; cut all sides to the slices they share"
            )
    first = next(iter(stacks[0].values())).pixel_mm if stacks else 1.0
    kept = [
        stack
        for stack in stacks
        if all(abs(v.pixel_mm / first - 1) < PIXEL_TOLERANCE for v in stack.values())
    ]
    step = max(sum(len(next(iter(stack.values())).hu) for stack in kept) // SLICES, 1)
    return [
        {side: volume.select(slice(None, None, step)) for side, volume in stack.items()}
        for stack in kept
    ]


def _distance_db(side: str, power: Mapping[str, NoisePower], pixel_mm: float) -> float | None:
    """Distance of a side's spectrum from the target's; None for the target, or without one."""
    if side == "target" or "target" not in power:
        return None
    spectrum, target = power[side], power["target"]
    floor = np.finfo(np.float64).tiny
    return distance_db(
        spectrum.f_per_mm,
        np.log(np.maximum(spectrum.power_hu2_mm2, floor)),
        np.log(np.maximum(target.power_hu2_mm2, floor)),
        distance_band_per_mm([pixel_mm]),
    )
