"""Where a scan lies between the two domains of a model, and how much of the way is left.

A fixed filter sharpens again what is sharp already. Which of a tree's series are the target's need
not be known: their texture tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.errors import GeometryError
from cvsct.models.bundle import Bundle
from cvsct.models.fitted import settings_in, weights_of
from cvsct.models.spectrum import SpectrumSettings
from cvsct.spectra import mean_over_patches, patch_spectra
from cvsct.volume import CTVolume

TEXTURE_FROM_PER_MM = 0.1
"""Below lies mostly anatomy."""

THERE, FULL_WAY = 0.2, 0.5
"""Up to the first a scan counts as the target's, from the second on as a source of full distance.

Scans of the source read .9 and more, the target's .1 and less; a source at three times the dose
still reads above the second (notebook/decisions/012-pass-through.md).
"""

LEAST_AXIS = 0.5
"""Root mean square difference in log power below which two domains are too alike to tell."""


@dataclass(frozen=True)
class Position:
    """Where a scan's texture lies between the two domains of a model.

    Args:
        position: 1 reads like the source, 0 like the target. Kernel and noise level both count.
        off_axis: rms difference in log power that neither domain explains; large for a scan of
            another kind.
        axis: rms difference in log power of the domains themselves.
    """

    position: float
    off_axis: float
    axis: float

    def way_left(self, reverse: bool = False) -> float:
        """The share of the way to the other domain that such a scan has still to go, 0 to 1.

        1 for all scans where the domains hardly differ: their noise decides the position then.
        """
        if self.axis < LEAST_AXIS:
            return 1.0
        position = 1 - self.position if reverse else self.position
        return float(np.clip((position - THERE) / (FULL_WAY - THERE), 0.0, 1.0))


def scan_position(bundle: Bundle, volume: CTVolume) -> Position:
    """Whether a scan reads like the source (1) or the target (0) of a `spectrum` model.

    Raises:
        GeometryError: if the slices hold no patch inside a patient.
    """
    frequencies, log_gain, source, target = weights_of(
        bundle, "frequencies_per_mm", "log_gain", "source_log_power", "target_log_power"
    )
    patch_mm = settings_in(SpectrumSettings, bundle).patch_mm
    return position_between(volume, frequencies, log_gain, 0.5 * (source + target), patch_mm)


def position_between(
    volume: CTVolume,
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_gain: Float[np.ndarray, " n"],
    middle_log_power: Float[np.ndarray, " n"],
    patch_mm: float,
) -> Position:
    """Project a scan's log power spectrum on the line from target to source.

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
    offset = (mean - middle_log_power)[used]
    axis = -2 * log_gain[used]
    along = float(offset @ axis) / max(float(axis @ axis), 1e-12)
    return Position(
        0.5 + along,
        float(np.sqrt(np.mean((offset - along * axis) ** 2))),
        float(np.sqrt(np.mean(axis**2))),
    )
