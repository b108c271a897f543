"""Bands of radial frequency, and their local energy in soft tissue beside what tells which tissue.

Slices are parted into bands in cycles/mm that sum to the slice. The energy of each is measured at
places of soft tissue, with structure, mean CT number and expected noise, so that tissue alike can
be compared between bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from cvsct.core.masks import soft_tissue
from cvsct.core.progress import Progress
from cvsct.core.volume import CTVolume, Scans, facts_of
from cvsct.methods.sampling import over_slices
from cvsct.methods.spectrum.expected_noise import expected_log_noise
from cvsct.methods.spectrum.patches import RADIUS_UNIT_MM
from cvsct.methods.spectrum.slice_filter import Gain, filtered_slices

UNSCALED = 2
"""The lowest band is anatomy; the next one's energy tells tissue alike."""

SMALLEST_SIGMAS = 10
"""Images narrower than so many times `local_mm` hold no place."""

COVERED = 0.7
"""The share of a place's neighbourhood that must be soft tissue."""

STRUCTURE_SIGMAS = 2.5
"""Structure is what the lowest band shows beyond a blur, so many times as wide as `local_mm`."""

ENERGY_FLOOR_HU2, STRUCTURE_FLOOR_HU2 = 1e-3, 1.0
"""Added before the logs: far below the rounding to 1 HU (0.08 HU²), and of its order."""


@dataclass(frozen=True)
class Bands:
    """Bands whose shares are squared cosines a step apart, so that they sum to 1.

    Args:
        count: bands; the lowest begins at zero, the highest has all above its centre.
        step_per_mm: from one centre to the next.
    """

    count: int
    step_per_mm: float

    @classmethod
    def of(cls, pixel_mm: float, step_per_mm: float) -> Bands:
        """The bands that a pixel grid of that spacing fills along its axes."""
        return cls(round(0.5 / pixel_mm / step_per_mm) + 1, step_per_mm)

    def share(
        self, band: int, frequency_per_mm: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape"]:
        """How much of each frequency a band has."""
        place = np.minimum(frequency_per_mm / self.step_per_mm, self.count - 1)
        away = np.minimum(np.abs(place - band), 1.0)
        share: Float[np.ndarray, "*shape"] = np.cos(np.pi / 2 * away) ** 2
        return share

    def reach(self, band: int) -> tuple[float, float]:
        """The lowest and highest frequency of which a band has a share."""
        end = (band + 1) * self.step_per_mm if band < self.count - 1 else np.inf
        return (band - 1) * self.step_per_mm, end

    def split(
        self,
        volume: CTVolume,
        frequencies_per_mm: Float[np.ndarray, " n"],
        log_gain: Float[np.ndarray, " n"],
        together: int = 1,
    ) -> Iterator[list[Float32[np.ndarray, "rows columns"]]]:
        """Each slice through a filter, in its bands.

        Args:
            log_gain: of the filter; beyond the last frequency it stays as it is there.
            together: so many of the lowest bands come as one.
        """

        def filter_of(first: int, last: int) -> Gain:
            def gain(
                radius: Float[np.ndarray, "rows columns"],
            ) -> Float[np.ndarray, "rows columns"]:
                found = np.exp(np.interp(radius, frequencies_per_mm, log_gain))
                found *= sum(self.share(band, radius) for band in range(first, last))
                return np.asarray(found)

            return gain

        edges = [0, *range(together, self.count + 1)]
        return filtered_slices(volume, [filter_of(*pair) for pair in pairwise(edges)])


def finest_pixel_mm(source: Scans, target: Scans) -> float:
    """The pixel spacing whose frequencies both sides reach: the coarser of the sides' finest."""
    return max(min(min(scan.pixel_mm) for scan in facts_of(side)) for side in (source, target))


@dataclass(frozen=True)
class Places:
    """Places of soft tissue, about two standard deviations of the local mean apart.

    Args:
        log_energy: of each band but the lowest, in HU²; NaN where the pixel grid does not reach it.
        tissue: log of structure in HU², mean of 100 HU, log of the noise to expect.
        radius_sq: squared distance from the middle of the image, in (100 mm)².
    """

    log_energy: Float[np.ndarray, "places bands"]
    tissue: Float[np.ndarray, "places 3"]
    radius_sq: Float[np.ndarray, " places"]


@dataclass(frozen=True)
class Filter:
    """A log gain by frequency in cycles/mm."""

    frequencies_per_mm: Float[np.ndarray, " n"]
    log_gain: Float[np.ndarray, " n"]


def tissue_mask(volume: CTVolume) -> Bool[np.ndarray, "slices rows columns"]:
    """True where the blurred image is soft tissue, and measured."""
    mask = soft_tissue(volume.hu)
    return mask if volume.padding is None else mask & ~volume.padding


def radius_sq(volume: CTVolume) -> Float[np.ndarray, "rows columns"]:
    """Squared distance of each pixel from the middle of the image, in (100 mm)²."""
    axes = (
        (np.arange(n) - (n - 1) / 2) * spacing_mm / RADIUS_UNIT_MM
        for n, spacing_mm in zip(volume.hu.shape[1:], volume.geometry.pixel_mm, strict=True)
    )
    down, across = axes
    squared: Float[np.ndarray, "rows columns"] = down[:, None] ** 2 + across**2
    return squared


def as_it_is(volume: CTVolume) -> CTVolume:
    """The volume."""
    return volume


def places_of(
    scans: Scans,
    before: Filter,
    bands: Bands,
    local_mm: float,
    max_slices: int,
    side: str,
    progress: Progress,
) -> Places:
    """The places of a domain's scans, which are read one at a time.

    Args:
        before: the filter that the scans go through first.
        local_mm: standard deviation of the Gaussian over which energy is measured.
        max_slices: slices used, spread evenly.
    """
    return places_of_each(
        scans, before, bands, local_mm, max_slices, side, progress, prepared=[as_it_is]
    )[0]


def places_of_each(
    scans: Scans,
    before: Filter,
    bands: Bands,
    local_mm: float,
    max_slices: int,
    side: str,
    progress: Progress,
    prepared: Sequence[Callable[[CTVolume], CTVolume]],
) -> list[Places]:
    """The same of scans prepared in several ways, for one reading of them.

    Args:
        prepared: what is done to the chosen slices before anything else.
    """

    def measure(volume: CTVolume, _: Int[np.ndarray, " slices"]) -> list[list[Places]]:
        return [list(_each_slice(one(volume), before, bands, local_mm)) for one in prepared]

    found = over_slices(scans, max_slices, measure, f"band energy of the {side}", progress)
    nothing = Places(np.empty((0, bands.count - 1)), np.empty((0, 3)), np.empty(0))
    return [
        _joined([nothing, *(each for scan in found for each in scan[way])])
        for way in range(len(prepared))
    ]


def _joined(parts: Sequence[Places]) -> Places:
    return Places(
        np.concatenate([part.log_energy for part in parts]),
        np.concatenate([part.tissue for part in parts]),
        np.concatenate([part.radius_sq for part in parts]),
    )


def _each_slice(
    volume: CTVolume, before: Filter, bands: Bands, local_mm: float
) -> Iterator[Places]:
    reached = Bands.of(max(volume.geometry.pixel_mm), bands.step_per_mm).count
    if (
        reached <= UNSCALED
        or min(volume.hu.shape[1:]) * volume.pixel_mm < SMALLEST_SIGMAS * local_mm
    ):
        return
    blocks = _Blocks.of(volume, local_mm)
    radii = blocks.mean(radius_sq(volume))
    parted = bands.split(volume, before.frequencies_per_mm, before.log_gain)
    for mask, noise, parts in zip(
        tissue_mask(volume), expected_log_noise(volume), parted, strict=True
    ):
        share = blocks.local(mask.astype(np.float32))
        at = blocks.every_third(share > COVERED)
        log_energy = np.full((int(at.sum()), bands.count - 1), np.nan)
        for band, part in list(enumerate(parts))[1:reached]:
            energy = blocks.local(part * part * mask)[at] / share[at]
            log_energy[:, band - 1] = np.log(energy + ENERGY_FLOOR_HU2)
        lowest = blocks.mean(parts[0])
        detail = lowest - ndimage.gaussian_filter(
            lowest, STRUCTURE_SIGMAS * blocks.sigma, mode="nearest"
        )
        inside = blocks.mean(mask.astype(np.float32))
        structure = blocks.smooth(detail**2 * inside)[at] / share[at]
        coarse = (np.argwhere(at) + 0.5) * (np.array(noise.shape) / at.shape) - 0.5
        tissue = np.column_stack(
            [
                np.log(structure + STRUCTURE_FLOOR_HU2),
                blocks.local(parts[0] * mask)[at] / share[at] / 100,
                ndimage.map_coordinates(noise, coarse.T, order=1, mode="nearest"),
            ]
        )
        yield Places(log_energy, tissue.astype(np.float64), radii[at].astype(np.float64))


@dataclass(frozen=True)
class _Blocks:
    """Means over blocks of a third of `local_mm`, and Gaussian means of those.

    Args:
        size: rows and columns of a block.
        sigma: of the Gaussian, in blocks.
    """

    size: tuple[int, int]
    sigma: Float[np.ndarray, " 2"]

    @classmethod
    def of(cls, volume: CTVolume, local_mm: float) -> _Blocks:
        rows, columns = (
            max(round(local_mm / 3 / spacing), 1) for spacing in volume.geometry.pixel_mm
        )
        size = np.array([rows, columns])
        return cls((rows, columns), local_mm / (size * volume.geometry.pixel_mm))

    def mean(self, plane: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "r c"]:
        """The mean of each whole block; what is left over at the end is dropped."""
        down, across = self.size
        rows, columns = plane.shape[0] // down, plane.shape[1] // across
        whole = plane[: rows * down, : columns * across]
        return np.asarray(whole.reshape(rows, down, columns, across).mean(axis=(1, 3)))

    def smooth(self, blocks: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
        """A Gaussian mean about each block."""
        return np.asarray(ndimage.gaussian_filter(blocks, self.sigma, mode="nearest"))

    def local(self, plane: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "r c"]:
        """A Gaussian mean of the pixels about each block."""
        return self.smooth(self.mean(plane))

    @staticmethod
    def every_third(wanted: Bool[np.ndarray, "r c"]) -> Bool[np.ndarray, "r c"]:
        """One block in nine, of those wanted."""
        kept = np.zeros_like(wanted)
        kept[1::3, 1::3] = wanted[1::3, 1::3]
        return kept
