"""Texture compared without pairs: power spectra of soft tissue and its mean CT number.

Spectra of different bodies can be compared, for at the frequencies of texture they carry the
scanner (kernel, noise) and little anatomy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

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


@dataclass(frozen=True)
class Texture:
    """Power spectra of soft tissue by side (`source`, `harmonized`, `target`).

    Args:
        power_db: in dB of HU² mm²; NaN where a side's pixel grid does not reach.
        distance_db: rms difference from the target over `band_per_mm`.
    """

    frequencies_per_mm: Float[np.ndarray, " n"]
    power_db: dict[str, Float[np.ndarray, " n"]]
    band_per_mm: tuple[float, float]
    distance_db: dict[str, float]


def texture_or_reason(
    sides: Mapping[str, Sequence[CTVolume]], size_px: int
) -> tuple[Texture | None, str]:
    """Each side's power spectrum, or why there is none."""
    pixels_mm = [volume.pixel_mm for volumes in sides.values() for volume in volumes]
    frequencies = texture_frequencies(size_px, pixels_mm)
    try:
        log_power = {
            side: texture_spectrum(_thinned(volumes), frequencies, size_px)
            for side, volumes in sides.items()
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


def tissue_hu(volumes: Sequence[CTVolume]) -> float | None:
    """Mean HU over all soft tissue of a side; None where it has none."""
    inside = [volume.hu[soft_tissue(volume.hu)] for volume in _thinned(volumes)]
    values = np.concatenate(inside).astype(np.float64)
    return float(values.mean()) if len(values) else None


def _thinned(volumes: Sequence[CTVolume]) -> list[CTVolume]:
    """Evenly spaced slices, about `SPECTRUM_SLICES` in all: enough for a mean over patches."""
    step = max(sum(len(volume.hu) for volume in volumes) // SPECTRUM_SLICES, 1)
    return [volume.select(slice(None, None, step)) for volume in volumes]
