"""Position of a scan's texture between the two domains of a model.

A fixed filter sharpens again what is sharp already. Which of a tree's series are the target's need
not be known: their texture tells.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import GeometryError
from cvsct.core.spectra import (
    AT_TARGET_BELOW,
    Position,
    mean_over_patches,
    patch_spectra,
    position_between,
)
from cvsct.core.volume import CTVolume
from cvsct.methods.base import bundle_settings, bundle_weights
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.model.bundle import Bundle

TEXTURE_FROM_PER_MM = 0.1
"""Lowest frequency that is compared; below lies mostly anatomy."""

FULL_STRENGTH_FROM = 0.5
"""Position from which on a scan is filtered in full; one at three times the dose still reads
above it (notebook/decisions/012-pass-through.md).
"""

LEAST_AXIS = 0.5
"""Smallest root mean square difference in log power at which two domains can be told apart."""


def remaining_share(position: Position, reverse: bool = False) -> float:
    """Share of the gains, 0 to 1, that takes a scan from its position to the other domain.

    1 for all scans where the domains hardly differ: their noise decides the position then.
    """
    if position.axis < LEAST_AXIS:
        return 1.0
    fraction = 1 - position.position if reverse else position.position
    share = (fraction - AT_TARGET_BELOW) / (FULL_STRENGTH_FROM - AT_TARGET_BELOW)
    return float(np.clip(share, 0.0, 1.0))


def scan_position(bundle: Bundle, volume: CTVolume) -> Position:
    """Position of a scan between source (1) and target (0) of a `spectrum` model.

    Raises:
        GeometryError: if the slices hold no patch inside a patient.
    """
    frequencies, log_gain, source, target = bundle_weights(
        bundle, "frequencies_per_mm", "log_gain", "source_log_power", "target_log_power"
    )
    patch_mm = bundle_settings(SpectrumSettings, bundle).patch_mm
    return volume_position(volume, frequencies, log_gain, 0.5 * (source + target), patch_mm)


def volume_position(
    volume: CTVolume,
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_gain: Float[np.ndarray, " n"],
    middle_log_power: Float[np.ndarray, " n"],
    patch_mm: float,
) -> Position:
    """Position of a volume's mean log power spectrum between target (0) and source (1).

    Args:
        log_gain: from source to target; the line has its direction.
        middle_log_power: half-way between the domains' means, through which the line passes, so
            that the anatomy of neither weighs much.

    Raises:
        GeometryError: if the slices hold no patch of that size inside a patient, or their pixels
            are too coarse to show texture.
    """
    spectra = patch_spectra(volume, frequencies_per_mm, round(patch_mm / volume.pixel_mm), "body")
    if len(spectra.log_power) == 0:
        raise GeometryError(
            f"no region of {patch_mm:g} mm inside a patient; give slices of the trunk"
        )
    mean = mean_over_patches(spectra.log_power)
    used = (frequencies_per_mm >= TEXTURE_FROM_PER_MM) & np.isfinite(mean)
    if not used.any():
        raise GeometryError(
            f"pixels of {volume.pixel_mm:.3g} mm show no texture above {TEXTURE_FROM_PER_MM:g} "
            "cycles/mm; give scans of finer pixels"
        )
    return position_between(mean[used], middle_log_power[used], -2 * log_gain[used])
