"""Bands of radial frequency, and their local energy in samples of soft tissue.

Slices are split into bands in cycles/mm that sum to the slice. The energy of each band is measured
in samples of soft tissue, with structure, mean CT number and expected noise, so that matched tissue
can be compared between bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from cvsct.core.masks import blurred, body_of, soft_tissue_of
from cvsct.core.progress import Progress
from cvsct.core.volume import CTVolume, Scans, facts_of
from cvsct.methods.sampling import measure_slices
from cvsct.methods.spectrum.expected_noise import expected_noise
from cvsct.methods.spectrum.patches import RADIUS_UNIT_MM
from cvsct.methods.spectrum.slice_filter import Gain, filtered_slices

UNSCALED = 2
"""Lowest bands that are never scaled: the first is anatomy, the second matches tissue."""

SMALLEST_SIGMAS = 10
"""Images narrower than this many times `local_mm` give no samples."""

MIN_TISSUE_SHARE = 0.7
"""Smallest share of a sample's neighborhood that must be soft tissue."""

STRUCTURE_SIGMAS = 2.5
"""Width of the blur, in units of `local_mm`, whose residual in the lowest band is structure."""

ENERGY_FLOOR_HU2, STRUCTURE_FLOOR_HU2 = 1e-3, 1.0
"""Offsets added before logarithms: far below the rounding to 1 HU (0.08 HU²), and above it."""


@dataclass(frozen=True)
class Bands:
    """Overlapping frequency bands with squared-cosine shares, which sum to 1.

    Args:
        count: bands; the lowest begins at zero, the highest has all above its centre.
        step_per_mm: from one centre to the next.
    """

    count: int
    step_per_mm: float

    @classmethod
    def of(cls, pixel_mm: float, step_per_mm: float) -> Bands:
        """Bands up to the Nyquist frequency of a pixel grid."""
        return cls(round(0.5 / pixel_mm / step_per_mm) + 1, step_per_mm)

    def share(
        self, band: int, frequency_per_mm: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape"]:
        """Share of a band at each frequency, 0 to 1."""
        position = np.minimum(frequency_per_mm / self.step_per_mm, self.count - 1)
        distance = np.minimum(np.abs(position - band), 1.0)
        share: Float[np.ndarray, "*shape"] = np.cos(np.pi / 2 * distance) ** 2
        return share

    def reach(self, band: int) -> tuple[float, float]:
        """Lowest and highest frequency of a band in cycles/mm."""
        end = (band + 1) * self.step_per_mm if band < self.count - 1 else np.inf
        return (band - 1) * self.step_per_mm, end

    def split(
        self,
        volume: CTVolume,
        frequencies_per_mm: Float[np.ndarray, " n"],
        log_gain: Float[np.ndarray, " n"],
        together: int = 1,
    ) -> Iterator[list[Float32[np.ndarray, "rows columns"]]]:
        """Filter each slice and split it into bands, which sum to the filtered slice.

        Args:
            log_gain: of the filter; beyond the last frequency it stays as it is there.
            together: so many of the lowest bands come as one.
        """

        def filter_of(first: int, last: int) -> Gain:
            def gain(
                radius: Float[np.ndarray, "rows columns"],
            ) -> Float[np.ndarray, "rows columns"]:
                amplitude = np.exp(np.interp(radius, frequencies_per_mm, log_gain))
                amplitude *= sum(self.share(band, radius) for band in range(first, last))
                return np.asarray(amplitude)

            return gain

        edges = [0, *range(together, self.count + 1)]
        return filtered_slices(volume, [filter_of(*pair) for pair in pairwise(edges)])


def finest_pixel_mm(source: Scans, target: Scans) -> float:
    """Finest pixel spacing in mm that both sides reach: the coarser of the sides' finest."""
    return max(min(min(scan.pixel_mm) for scan in facts_of(side)) for side in (source, target))


@dataclass(frozen=True)
class TissueSamples:
    """Local band energies at sample points in soft tissue, and covariates that match tissue.

    Args:
        log_energy: of each band but the lowest, in HU²; NaN where the pixel grid does not reach it.
        tissue: log of structure in HU², mean of 100 HU, log of the noise to expect.
        radius_sq: squared distance from the middle of the image, in (100 mm)².
    """

    log_energy: Float[np.ndarray, "places bands"]
    tissue: Float[np.ndarray, "places 3"]
    radius_sq: Float[np.ndarray, " places"]


@dataclass(frozen=True)
class RadialFilter:
    """Radially symmetric filter: natural log of the amplitude gain by frequency in cycles/mm."""

    frequencies_per_mm: Float[np.ndarray, " n"]
    log_gain: Float[np.ndarray, " n"]


def tissue_mask(
    volume: CTVolume, outline: Float[np.ndarray, "slices rows columns"] | None = None
) -> Bool[np.ndarray, "slices rows columns"]:
    """Mask of soft tissue in the blurred image, without padding.

    Args:
        outline: the blurred image, where it is known (`core.masks.blurred`).
    """
    mask = soft_tissue_of(blurred(volume.hu) if outline is None else outline)
    return mask if volume.padding is None else mask & ~volume.padding


def radius_sq(volume: CTVolume) -> Float[np.ndarray, "rows columns"]:
    """Squared distance of each pixel from the center of the image, in (100 mm)²."""
    axes = (
        (np.arange(n) - (n - 1) / 2) * spacing_mm / RADIUS_UNIT_MM
        for n, spacing_mm in zip(volume.hu.shape[1:], volume.geometry.pixel_mm, strict=True)
    )
    down, across = axes
    squared: Float[np.ndarray, "rows columns"] = down[:, None] ** 2 + across**2
    return squared


def unchanged(volume: CTVolume) -> CTVolume:
    """Return the volume as it is."""
    return volume


def measure_samples(
    scans: Scans,
    before: RadialFilter,
    bands: Bands,
    local_mm: float,
    max_slices: int,
    side: str,
    progress: Progress,
) -> TissueSamples:
    """Measure tissue samples of a domain's scans, one scan in memory at a time.

    Args:
        before: filter that is applied to the scans first.
        local_mm: standard deviation of the Gaussian over which energy is measured.
        max_slices: slices used, spread evenly.
    """
    return measure_prepared_samples(
        scans, before, bands, local_mm, max_slices, side, progress, prepared=[unchanged]
    )[0]


def measure_prepared_samples(
    scans: Scans,
    before: RadialFilter,
    bands: Bands,
    local_mm: float,
    max_slices: int,
    side: str,
    progress: Progress,
    prepared: Sequence[Callable[[CTVolume], CTVolume]],
) -> list[TissueSamples]:
    """Measure tissue samples after several kinds of preprocessing, reading each scan once.

    Args:
        prepared: preprocessing steps, each applied to the chosen slices by itself.

    Returns:
        Samples for each preprocessing step, in their order.
    """

    def measure(volume: CTVolume, _: Int[np.ndarray, " slices"]) -> list[list[TissueSamples]]:
        return [
            list(_slice_samples(prepare(volume), before, bands, local_mm)) for prepare in prepared
        ]

    scan_samples = measure_slices(
        scans, max_slices, measure, f"band energy of the {side}", progress
    )
    no_samples = TissueSamples(np.empty((0, bands.count - 1)), np.empty((0, 3)), np.empty(0))
    return [
        _concatenate(
            [
                no_samples,
                *(slice_samples for samples in scan_samples for slice_samples in samples[index]),
            ]
        )
        for index in range(len(prepared))
    ]


def _concatenate(parts: Sequence[TissueSamples]) -> TissueSamples:
    return TissueSamples(
        np.concatenate([part.log_energy for part in parts]),
        np.concatenate([part.tissue for part in parts]),
        np.concatenate([part.radius_sq for part in parts]),
    )


def _slice_samples(
    volume: CTVolume, before: RadialFilter, bands: Bands, local_mm: float
) -> Iterator[TissueSamples]:
    reached = Bands.of(max(volume.geometry.pixel_mm), bands.step_per_mm).count
    if (
        reached <= UNSCALED
        or min(volume.hu.shape[1:]) * volume.pixel_mm < SMALLEST_SIGMAS * local_mm
    ):
        return
    blocks = _Blocks.of(volume, local_mm)
    radii = blocks.mean(radius_sq(volume))
    slice_bands = bands.split(volume, before.frequencies_per_mm, before.log_gain)
    outline = blurred(volume.hu)
    expected = expected_noise(volume, inside=body_of(outline))
    for mask, noise, parts in zip(
        tissue_mask(volume, outline), expected.log_power, slice_bands, strict=True
    ):
        share = blocks.local(mask.astype(np.float32))
        sampled = blocks.every_third(share > MIN_TISSUE_SHARE)
        log_energy = np.full((int(sampled.sum()), bands.count - 1), np.nan)
        for band, part in list(enumerate(parts))[1:reached]:
            energy = blocks.local(part * part * mask)[sampled] / share[sampled]
            log_energy[:, band - 1] = np.log(energy + ENERGY_FLOOR_HU2)
        lowest = blocks.mean(parts[0])
        detail = lowest - ndimage.gaussian_filter(
            lowest, STRUCTURE_SIGMAS * blocks.sigma, mode="nearest"
        )
        inside = blocks.mean(mask.astype(np.float32))
        structure = blocks.smooth(detail**2 * inside)[sampled] / share[sampled]
        coarse = (np.argwhere(sampled) + 0.5) * (np.array(noise.shape) / sampled.shape) - 0.5
        tissue = np.column_stack(
            [
                np.log(structure + STRUCTURE_FLOOR_HU2),
                blocks.local(parts[0] * mask)[sampled] / share[sampled] / 100,
                ndimage.map_coordinates(noise, coarse.T, order=1, mode="nearest"),
            ]
        )
        yield TissueSamples(
            log_energy, tissue.astype(np.float64), radii[sampled].astype(np.float64)
        )


@dataclass(frozen=True)
class _Blocks:
    """Grid of blocks a third of `local_mm` wide, for fast local Gaussian means.

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
        """Mean of each complete block; incomplete blocks at the end are dropped."""
        down, across = self.size
        rows, columns = plane.shape[0] // down, plane.shape[1] // across
        complete = plane[: rows * down, : columns * across]
        return np.asarray(complete.reshape(rows, down, columns, across).mean(axis=(1, 3)))

    def smooth(self, blocks: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
        """Gaussian mean of block values around each block."""
        return np.asarray(ndimage.gaussian_filter(blocks, self.sigma, mode="nearest"))

    def local(self, plane: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "r c"]:
        """Gaussian mean of pixel values around each block."""
        return self.smooth(self.mean(plane))

    @staticmethod
    def every_third(candidates: Bool[np.ndarray, "r c"]) -> Bool[np.ndarray, "r c"]:
        """Thin a mask of blocks to every third row and column."""
        kept = np.zeros_like(candidates)
        kept[1::3, 1::3] = candidates[1::3, 1::3]
        return kept
