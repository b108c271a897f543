"""Noise of one scan beside the noise of the side of a model that it comes from.

A model's gains belong to the dose of its training scans. Patients of one scanner differ in dose;
how much noisier one is than its side's law has it is read off its own soft tissue.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError
from cvsct.core.moments import mean_value
from cvsct.core.volume import CTVolume
from cvsct.methods.spectrum.noise_law import NoiseLaw, SideLaws
from cvsct.methods.spectrum.patches import PatchKind, volume_patches
from cvsct.methods.spectrum.soft_tissue_noise import SoftTissue
from cvsct.methods.spectrum.texture import (
    HOMOGENEOUS_PATCH_MM,
    TextureLayout,
    in_noise_band,
    soft_texture,
)

MOST_OFFSET = float(np.log(16.0))
"""Largest offset in log power that is followed: a sixteenth, or sixteen times, of the dose."""


def noise_offset(
    volume: CTVolume,
    frequencies_per_mm: Float[np.ndarray, " n"],
    noise_log_power: Float[np.ndarray, " n"],
    law: NoiseLaw,
    laws: SideLaws,
) -> float | None:
    """Log of a scan's noise power over what the law of its side has for such a body.

    Args:
        volume: the scan, or slices that represent it.
        noise_log_power: of the side, in HU² mm² at the reference.
        law: of the side.
        laws: of both sides, for the reference to which that power belongs and for the range of
            bodies in which laws are followed.

    Returns:
        The mean from .45 to .75 cycles/mm, where noise is strong and anatomy weak, at most 16 times
        up or down. None where the slices hold too little soft tissue, or their pixels are too
        coarse.
    """
    f = frequencies_per_mm
    layout = TextureLayout(step_per_mm=float(f[1]))
    kind = PatchKind(HOMOGENEOUS_PATCH_MM, "soft", min_fraction=1.0)
    patches = volume_patches(volume, np.arange(len(volume.hu)), f, [kind])
    if not patches:  # slices smaller than a patch
        return None
    try:
        soft = SoftTissue.of(soft_texture(patches[0], layout), "harmonized")
    except TrainingError:
        return None
    by_ratio = soft.texture.by_ratio
    sums = by_ratio.weighted(soft.homogeneous)
    power, noise, slice_noise = (
        mean_value(sums, by_ratio.form(**{name: 1.0})) for name in ("value", "noise", "slice_noise")
    )
    over = power - laws.log_power(law, noise, slice_noise) - noise_log_power
    over = over[in_noise_band(f) & np.isfinite(over)]
    return float(np.clip(over.mean(), -MOST_OFFSET, MOST_OFFSET)) if len(over) else None
