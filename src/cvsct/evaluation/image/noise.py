"""Noise in patients' images: its power spectrum from homogeneous patches of tissue.

The definition is `noise_power`'s; what is added is where to measure. Patches lie in soft tissue or
fat and are the most even ones there, judged on the *blurred mean of all sides*: on raw HU, or on
one side alone, the choice would favour patches whose own noise happens to be low. All sides are
measured on the same patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import Region, blurred, covered_fraction
from cvsct.core.seeding import random_stream
from cvsct.core.spectra import distance_band_per_mm, distance_db
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.noise_power import NoisePower, noise_power_spectrum
from cvsct.evaluation.image.tissues import tissue_masks

REGION_PX = 32
REGIONS = 200
SLICES = 60
"""Slices measured, evenly spaced over all volumes: enough for the figures, little memory."""

HOMOGENEOUS_SHARE = 0.05
"""The share of tissue whose evenness is taken as that of tissue without structure."""

HOMOGENEOUS_MARGIN = 1.2
"""A patch may be less even than that by this factor: what noise alone scatters it by."""

ANATOMY_RINGS = 2
"""Lowest frequencies whose power the peak and the mean frequency take from above: a region's window
smears over them, and in patients they are mostly anatomy. Behind a ramp filter power goes as f."""

SMOOTHING = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
PIXEL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TissueNoise:
    """Noise of one side's images in homogeneous tissue.

    Args:
        power: spectrum in HU² mm²; its first `ANATOMY_RINGS` are smeared by a region's window, and
            anatomy adds to them.
        distance_db: rms difference of this spectrum from the target's over the frequencies that
            textures are compared at; None for the target itself, or without one.
    """

    power: NoisePower = field(repr=False)
    n_regions: int
    distance_db: float | None = None

    @property
    def mean_per_mm(self) -> float:
        """Mean frequency of the noise."""
        return self._above_anatomy.mean_per_mm

    @property
    def peak_per_mm(self) -> float:
        """Frequency of the highest power, of the spectrum smoothed over five rings."""
        one = self._above_anatomy
        padded = np.pad(one.power_hu2_mm2, len(SMOOTHING) // 2, mode="reflect", reflect_type="odd")
        smooth = np.convolve(padded, SMOOTHING, mode="valid")
        return replace(one, power_hu2_mm2=smooth).peak_per_mm

    @property
    def _above_anatomy(self) -> NoisePower:
        f, power = self.power.f_per_mm, self.power.power_hu2_mm2.copy()
        power[:ANATOMY_RINGS] = power[ANATOMY_RINGS] * f[:ANATOMY_RINGS] / f[ANATOMY_RINGS]
        return replace(self.power, power_hu2_mm2=power)

    def to_json(self) -> dict[str, Any]:
        """As plain values, the curve included."""
        return {
            "sd_hu": self.power.sd_hu,
            "mean_per_mm": self.mean_per_mm,
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
) -> dict[str, TissueNoise]:
    """Noise power of each side on the same patches; empty where no tissue has room for one.

    About `SLICES` slices are measured. Volumes of another pixel size than the first are left out:
    their spectra have other frequencies.

    Args:
        sides: volumes by side, `target` among them where there is one; volume i of every side
            shows the same slices. Sides of different bodies are measured one at a time.

    Raises:
        EvaluationError: if sides differ in their number of volumes or in a volume's shape.
    """
    stacks = stacks_of(sides)
    patches: dict[str, list[Float[np.ndarray, "rows columns"]]] = {side: [] for side in sides}
    for number, same in enumerate(stacks):
        wanted = -(-(count - len(next(iter(patches.values())))) // (len(stacks) - number))
        for region in homogeneous_regions(list(same.values()), size_px, wanted, seed + number):
            for side, volume in same.items():
                patches[side].append(region.cut(volume.hu))
    n = len(next(iter(patches.values()), []))
    if n == 0:
        return {}
    pixel_mm = next(iter(stacks[0].values())).pixel_mm
    power = {
        side: noise_power_spectrum(
            np.stack(some).astype(np.float64), pixel_mm, size_px // 2, taper="hann"
        )
        for side, some in patches.items()
    }
    return {
        side: TissueNoise(one, n, _distance(side, power, pixel_mm)) for side, one in power.items()
    }


def homogeneous_regions(
    volumes: Sequence[CTVolume], size_px: int, count: int, seed: int = 0
) -> list[Region]:
    """About `count` squares of even soft tissue or fat, none over another, as many a slice.

    Args:
        volumes: images of the same slices, whose mean decides.
    """
    mean = np.asarray(np.mean([volume.hu for volume in volumes], axis=0, dtype=np.float64))
    if min(mean.shape[1:]) < size_px:
        return []
    masks = tissue_masks(mean)
    tissue = masks["soft"] | masks["fat"]
    for volume in volumes:
        if volume.padding is not None:
            tissue &= ~volume.padding
    smooth = np.where(tissue, blurred(mean), 0.0)
    half = size_px // 2
    first, second = (
        ndimage.uniform_filter(one, (0, size_px, size_px))[
            :, half : half + mean.shape[1] - size_px + 1, half : half + mean.shape[2] - size_px + 1
        ]
        for one in (smooth, smooth**2)
    )
    roughness = np.sqrt(np.maximum(second - first**2, 0))
    inside = covered_fraction(tissue, size_px) >= 1.0
    if not inside.any():
        return []
    even = inside & (
        roughness <= HOMOGENEOUS_MARGIN * np.quantile(roughness[inside], HOMOGENEOUS_SHARE)
    )
    rng = random_stream(seed, "noise regions")
    each = -(-count // len(even))
    chosen: list[Region] = []
    for index, plane in enumerate(even):
        starts = rng.permutation(np.argwhere(plane))
        enough = len(chosen) + each
        while len(starts) and len(chosen) < enough:
            row, column = (int(value) for value in starts[0])
            chosen.append(Region(index, row, column, size_px))
            starts = starts[np.abs(starts - starts[0]).max(axis=1) >= size_px]
    return chosen


def stacks_of(sides: Mapping[str, Sequence[CTVolume]]) -> list[dict[str, CTVolume]]:
    """Volumes of one pixel size that show the same slices, by side, thinned to `SLICES` in all.

    Raises:
        EvaluationError: if sides differ in their number of volumes or in a volume's shape.
    """
    if len({len(volumes) for volumes in sides.values()}) > 1:
        raise EvaluationError("sides hold different numbers of volumes; cut all to what they share")
    stacks = [dict(zip(sides, same, strict=True)) for same in zip(*sides.values(), strict=True)]
    for same in stacks:
        shapes = {volume.hu.shape for volume in same.values()}
        if len(shapes) > 1:
            raise EvaluationError(
                f"volumes of {' and '.join(map(str, sorted(shapes)))} voxels do not show the same "
                "slices; cut all to what they share"
            )
    first = next(iter(stacks[0].values())).pixel_mm if stacks else 1.0
    alike = [
        same
        for same in stacks
        if all(abs(v.pixel_mm / first - 1) < PIXEL_TOLERANCE for v in same.values())
    ]
    step = max(sum(len(next(iter(same.values())).hu) for same in alike) // SLICES, 1)
    return [
        {side: volume.select(slice(None, None, step)) for side, volume in same.items()}
        for same in alike
    ]


def _distance(side: str, power: Mapping[str, NoisePower], pixel_mm: float) -> float | None:
    if side == "target" or "target" not in power:
        return None
    one, target = power[side], power["target"]
    floor = np.finfo(np.float64).tiny
    return distance_db(
        one.f_per_mm,
        np.log(np.maximum(one.power_hu2_mm2, floor)),
        np.log(np.maximum(target.power_hu2_mm2, floor)),
        distance_band_per_mm([pixel_mm]),
    )
