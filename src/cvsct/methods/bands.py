"""Bands of radial frequency in cycles/mm, into which slices are split and which sum to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Float32

from cvsct.core.masks import blurred, soft_tissue_of
from cvsct.core.volume import CTVolume
from cvsct.methods.spectrum.patches import RADIUS_UNIT_MM
from cvsct.methods.spectrum.slice_filter import Gain, filtered_slices

UNSCALED = 2
"""Lowest bands that are never scaled, for they hold anatomy."""


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
