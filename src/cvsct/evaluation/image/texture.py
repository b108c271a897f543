"""Texture power spectra and mean CT number of soft tissue, which need no paired slices.

Spectra of different bodies can be compared, because at the frequencies of texture they depend on
the scanner (kernel, noise) and little on anatomy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import EvaluationError, GeometryError
from cvsct.core.masks import soft_tissue
from cvsct.core.spectra import (
    DB_PER_NEPER,
    distance_band_per_mm,
    distance_db,
    texture_frequencies,
    texture_spectrum,
)
from cvsct.core.volume import CTVolume

SPECTRUM_SLICES = 60
"""Number of slices of a side that are measured, evenly spaced."""


@dataclass(frozen=True)
class Texture:
    """Power spectra of soft tissue by side (`source`, `harmonized`, `target`).

    Args:
        frequencies_per_mm: frequencies of the spectra.
        power_db: power by side in dB of HU² mm²; NaN above the Nyquist frequency of a side.
        band_per_mm: lowest and highest frequency at which spectra are compared.
        distance_db: rms difference from the target over `band_per_mm`, by side.
    """

    frequencies_per_mm: Float[np.ndarray, " n"]
    power_db: dict[str, Float[np.ndarray, " n"]]
    band_per_mm: tuple[float, float]
    distance_db: dict[str, float]


@dataclass(frozen=True)
class TissueSample:
    """Slices of one side on which texture and mean HU are measured, with their soft tissue.

    Args:
        volumes: evenly spaced slices of the volumes, about `SPECTRUM_SLICES` in all.
        soft: soft tissue of each of these volumes.
    """

    volumes: tuple[CTVolume, ...]
    soft: tuple[Bool[np.ndarray, "_ _ _"], ...]

    @classmethod
    def of(
        cls,
        volumes: Sequence[CTVolume],
        soft: Sequence[Bool[np.ndarray, "_ _ _"]] | None = None,
    ) -> TissueSample:
        """Sample the volumes of a side.

        Args:
            volumes: all volumes of the side.
            soft: soft tissue of each of them, where it is known; None finds it.
        """
        step = max(sum(len(volume.hu) for volume in volumes) // SPECTRUM_SLICES, 1)
        sample = tuple(volume.select(slice(None, None, step)) for volume in volumes)
        if soft is not None:
            return cls(sample, tuple(mask[::step] for mask in soft))
        return cls(sample, tuple(soft_tissue(volume.hu) for volume in sample))

    @property
    def mean_hu(self) -> float | None:
        """Mean HU over all soft tissue; None where the volumes show none."""
        values = np.concatenate(
            [volume.hu[soft] for volume, soft in zip(self.volumes, self.soft, strict=True)]
        ).astype(np.float64)
        return float(values.mean()) if len(values) else None


def texture_or_reason(
    sides: Mapping[str, Sequence[CTVolume]], size_px: int
) -> tuple[Texture | None, str]:
    """`texture_of_samples` of volumes by side."""
    return texture_of_samples(
        {side: TissueSample.of(volumes) for side, volumes in sides.items()}, size_px
    )


def texture_of_samples(
    sides: Mapping[str, TissueSample], size_px: int
) -> tuple[Texture | None, str]:
    """Measure each side's power spectrum.

    Args:
        sides: samples by side, with `target` among them.
        size_px: side of the patches.

    Returns:
        The spectra and an empty string; or None and the reason why there are none.
    """
    pixels_mm = [volume.pixel_mm for sample in sides.values() for volume in sample.volumes]
    frequencies = texture_frequencies(size_px, pixels_mm)
    try:
        log_power = {
            side: texture_spectrum(sample.volumes, frequencies, size_px, sample.soft)
            for side, sample in sides.items()
        }
    except (EvaluationError, GeometryError) as error:
        return None, str(error)
    band = distance_band_per_mm(pixels_mm)
    distances = {
        side: distance_db(frequencies, power, log_power["target"], band)
        for side, power in log_power.items()
        if side != "target"
    }
    power_db = {side: DB_PER_NEPER * power for side, power in log_power.items()}
    return Texture(frequencies, power_db, band, distances), ""
