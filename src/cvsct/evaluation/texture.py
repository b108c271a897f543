"""Texture compared without pairs: power spectra of soft tissue and its mean CT number.

Spectra of different bodies can be compared, for at the frequencies of texture they carry the
scanner (kernel, noise) and little anatomy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.errors import EvaluationError, GeometryError
from cvsct.regions import soft_tissue
from cvsct.spectra import texture_spectrum
from cvsct.volume import CTVolume

DB_PER_NEPER = 10 / np.log(10)
"""Decibels of power for a difference of 1 in its natural logarithm."""

DISTANCE_BAND_PER_PX = (0.05, 0.45)
"""Below lies anatomy, above the corner of the pixel grid; of the coarsest grid compared."""

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
    step = 1 / (size_px * max(pixels_mm))
    frequencies = np.arange(step, 0.5 / min(pixels_mm) + step / 2, step)
    try:
        power_db = {
            side: DB_PER_NEPER * texture_spectrum(_thinned(volumes), frequencies, size_px)
            for side, volumes in sides.items()
        }
    except (EvaluationError, GeometryError) as error:
        return None, str(error)
    low, high = (edge / max(pixels_mm) for edge in DISTANCE_BAND_PER_PX)
    band = (frequencies >= low) & (frequencies <= high)
    distance_db = {
        side: float(np.sqrt(np.mean((power[band] - power_db["target"][band]) ** 2)))
        for side, power in power_db.items()
        if side != "target"
    }
    return Texture(frequencies, power_db, (low, high), distance_db), ""


def tissue_hu(volumes: Sequence[CTVolume]) -> float | None:
    """Mean HU over all soft tissue of a side; None where it has none."""
    inside = [volume.hu[soft_tissue(volume.hu)] for volume in _thinned(volumes)]
    values = np.concatenate(inside).astype(np.float64)
    return float(values.mean()) if len(values) else None


def _thinned(volumes: Sequence[CTVolume]) -> list[CTVolume]:
    """Evenly spaced slices, about `SPECTRUM_SLICES` in all: enough for a mean over patches."""
    step = max(sum(len(volume.hu) for volume in volumes) // SPECTRUM_SLICES, 1)
    return [volume.select(slice(None, None, step)) for volume in volumes]
