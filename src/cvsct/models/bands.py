"""Slices parted into bands of radial frequency in cycles/mm that sum to the slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32

from cvsct.models.filtering import Gain, filtered_slices
from cvsct.volume import CTVolume, Scans, facts_of


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
