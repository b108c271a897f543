"""Texture of scans by tissue and frequency band: what tells the network how both sides differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from cvsct.core.volume import CTVolume
from cvsct.methods.bands import Bands

BANDS = Bands(5, 0.15)
"""Around 0, .15, .3, .45 and from .6 cycles/mm; the lowest holds anatomy and is never scaled."""

SCALED = BANDS.count - 1

TISSUES = ("homogeneous soft tissue", "edges of soft tissue", "lung", "bone")

FLAT_HU, STEEP_HU = 4.0, 8.0
"""Slopes of the lowest band in HU a pixel, below which soft tissue is homogeneous, and from which
it is an edge."""

LEAST_HU2 = 1e-2

ALL_PASS = np.array([0.0, 1.0]), np.zeros(2)


def in_bands(volume: CTVolume) -> Float32[np.ndarray, "slices bands rows columns"]:
    """Bands of each slice, which sum to it."""
    return np.stack([np.stack(bands) for bands in BANDS.split(volume, *ALL_PASS)])


def homogeneous(
    low_hu: Float32[np.ndarray, "slices rows columns"],
) -> Bool[np.ndarray, "slices rows columns"]:
    """Soft tissue without steep edges, told by the lowest band.

    Fat septa and vessels pass: what the upper bands hold there is noise and some anatomy.
    """
    return np.asarray((_slope(low_hu) < FLAT_HU) & _soft(low_hu))


def texture_by_tissue(volumes: Iterable[CTVolume]) -> Float[np.ndarray, "tissues bands"]:
    """Natural log of the root mean square of the scaled bands, in HU, in each tissue of scans."""
    squares, counts = np.zeros((len(TISSUES), SCALED)), np.ones((len(TISSUES), 1))
    for volume in volumes:
        bands = in_bands(volume)
        low = bands[:, 0]
        masks = (
            homogeneous(low),
            _soft(low) & (_slope(low) >= STEEP_HU),
            (low > -950) & (low < -600),
            low > 200,
        )
        for tissue, mask in enumerate(masks):
            counts[tissue] += mask.sum()
            squares[tissue] += [
                np.square(bands[:, band][mask]).sum(dtype=np.float64)
                for band in range(1, BANDS.count)
            ]
    return np.asarray(0.5 * np.log(squares / counts + LEAST_HU2))


def _soft(
    low_hu: Float32[np.ndarray, "slices rows columns"],
) -> Bool[np.ndarray, "slices rows columns"]:
    return (low_hu > -150) & (low_hu < 150)


def _slope(
    low_hu: Float32[np.ndarray, "slices rows columns"],
) -> Float32[np.ndarray, "slices rows columns"]:
    return np.asarray(np.hypot(*np.gradient(low_hu, axis=(1, 2))))


@dataclass(frozen=True)
class TextureCondition:
    """Texture of the training scans of a direction (`texture_by_tissue`).

    Args:
        filtered: of the source's, filtered, with the noise that the filter adds.
        target: of the target's.
        source: of the source's.
    """

    filtered: Float[np.ndarray, "tissues bands"]
    target: Float[np.ndarray, "tissues bands"]
    source: Float[np.ndarray, "tissues bands"]

    @property
    def unit_hu(self) -> float:
        """Texture of the target in homogeneous soft tissue: the unit of what the network sees."""
        return float(np.sqrt(np.exp(2 * self.target[0]).sum()))

    @property
    def vector(self) -> Float32[np.ndarray, " n"]:
        """Numbers for the network: what the filter left, how both sides differ, the target."""
        unit = np.log(self.unit_hu)
        parts = (self.target - self.filtered, self.source - self.target, self.target - unit)
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)

    def to_array(self) -> Float[np.ndarray, "3 tissues bands"]:
        """As an array for a model file."""
        return np.stack([self.filtered, self.target, self.source])
