"""Correction of the noise gain by what it leaves between matched soft tissue of both scanners.

The first estimate of the noise gain comes from the most homogeneous tissue
(`methods.spectrum.separate_gains`). It is uncertain where the dose law is, for another body is
thicker and its homogeneous tissue lies elsewhere. The power of all soft tissue at equal roughness,
CT number and expected noise (`matched_tissue.soft_tissue_ratio`) gives a second estimate: it should
change as noise and structure do by their gains, each by its share. What is left corrects the gain
band by band, as far as the first estimate was uncertain of its level. How it changes with radius is
better known from homogeneous tissue and is kept. Both sides count alike, so that swapping them
inverts the gains.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cvsct.core.moments import mean_value
from cvsct.methods.bands import UNSCALED, Bands
from cvsct.methods.spectrum.matched_tissue import soft_tissue_ratio
from cvsct.methods.spectrum.noise_law import NoiseLaw
from cvsct.methods.spectrum.separate_gains import SeparateGains
from cvsct.methods.spectrum.soft_tissue_noise import at_reference
from cvsct.methods.spectrum.texture import Texture

BAND_PER_MM = 0.15
"""Distance between the centers of the bands in which the gain is corrected."""

CORRECTION_SD = 0.05
"""Standard error of a correction's log gain: the difference that matched tissue still has."""

LEAST_FREQUENCIES = 0.5
"""Fewest frequencies of a band, by their shares, at which the ratio must be known."""

MAX_CORRECTION = float(np.log(1.6))


def refine_noise_gain(
    source: Texture,
    target: Texture,
    gains: SeparateGains,
    frequencies_per_mm: Float[np.ndarray, " n"],
) -> SeparateGains:
    """Correct the noise gain once; sides that share too few frequencies leave it as it is."""
    f = frequencies_per_mm
    ratio = soft_tissue_ratio(source, target)
    middle = ratio.radius_sq[0]
    noise = gains.noise + (middle - 1) * gains.noise_radial
    forth = _change(_noise_share(source, gains.laws.source, gains, gains.source_noise),
                    noise, gains.structure)  # fmt: skip
    back = _change(_noise_share(target, gains.laws.target, gains, gains.target_noise),
                   -noise, -gains.structure)  # fmt: skip
    left = 0.5 * (ratio.level - 0.5 * (forth - back))
    trust = gains.noise_sd**2 / (gains.noise_sd**2 + CORRECTION_SD**2)
    bands = Bands(round(float(f[-1]) / BAND_PER_MM) + 1, BAND_PER_MM)
    correction = np.zeros_like(f)
    for band in range(UNSCALED, bands.count):
        share = bands.share(band, f)
        weight = np.where(np.isfinite(left), share, 0.0)
        if weight.sum() >= LEAST_FREQUENCIES:
            mean = float(np.nan_to_num(left) @ weight / weight.sum())
            correction += np.clip(trust * mean, -MAX_CORRECTION, MAX_CORRECTION) * share
    return replace(gains, noise=gains.noise + correction)


def _noise_share(
    side: Texture, law: NoiseLaw, gains: SeparateGains, noise: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Share of the power of soft tissue that is noise, 0 to 1."""
    form = at_reference(side.by_roughness, law, gains.laws.reference)
    power = mean_value(side.by_roughness.total, form)
    share: Float[np.ndarray, " n"] = np.exp(np.minimum(noise - np.nan_to_num(power), 0.0))
    return share


def _change(
    noise_share: Float[np.ndarray, " n"],
    noise_log_gain: Float[np.ndarray, " n"],
    structure_log_gain: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Change of log power by gains of noise and of structure."""
    changed: Float[np.ndarray, " n"] = np.log(
        noise_share * np.exp(2 * noise_log_gain)
        + (1 - noise_share) * np.exp(2 * structure_log_gain)
    )
    return changed
