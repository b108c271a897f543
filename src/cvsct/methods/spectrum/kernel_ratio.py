"""Estimation of the gain between two scanners' textures from scans of different bodies.

Both kernels see the same physics, so in one body the ratio of the two power spectra is the square
of a gain. In two bodies it is also a ratio of anatomies and of noise levels. Three corrections
part them (figures in notebook/log.md):

1. *Anatomy*: one regression a frequency of log power on the domain, between matched patches
   (`methods.spectrum.matched_tissue`).
2. *Noise level*: a thicker body is noisier whatever the kernel. The noise expected from the
   attenuation along all rays through a patch is compared between the domains, and the share of
   power that is noise is corrected for it.
3. *Smoothness*: a kernel ratio is an even, smooth function of frequency and 1 at zero. The fit
   leans on that where the first two corrections were large, and on the data where they were not.

That is one gain for all that an image holds. `methods.spectrum.separate_gains` tells noise and
structure apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError
from cvsct.core.moments import lowest, mean_value
from cvsct.methods.spectrum.matched_tissue import MatchedTissue, smooth_log_gain
from cvsct.methods.spectrum.separate_gains import SeparateGains, fit_separate_gains
from cvsct.methods.spectrum.settings import RatioSettings
from cvsct.methods.spectrum.soft_tissue_noise import SoftTissue
from cvsct.methods.spectrum.texture import Texture
from cvsct.methods.spectrum.tone import ToneDifference, tone_difference

MIN_PATCHES = 30

RELATIVE_SD = 0.01
"""Standard error of a log gain at a quarter of the frequency range; it grows toward zero."""

STIFFNESS_STEP_PER_MM = 0.025


@dataclass(frozen=True)
class KernelRatio:
    """Fitted gains from source to target, with the spectra and counts behind them.

    Args:
        log_gain: natural log of the one amplitude gain at each frequency, 0 at zero.
        raw_log_gain: the same without any correction: half the difference of log power.
        source_log_power: mean over the source's patches; NaN at zero.
        target_log_power: mean over the target's.
        n_patches: of source and target.
        overlap: effective number of matched patches.
        noise_level: log ratio of noise power, target over source, that the bodies explain.
        separate: gains of noise and of structure, where they were asked for.
        tone: difference of CT numbers by tissue, likewise.
    """

    frequencies_per_mm: Float[np.ndarray, " n"]
    log_gain: Float[np.ndarray, " n"]
    raw_log_gain: Float[np.ndarray, " n"]
    source_log_power: Float[np.ndarray, " n"]
    target_log_power: Float[np.ndarray, " n"]
    n_patches: tuple[int, int]
    overlap: float
    noise_level: float
    separate: SeparateGains | None = None
    tone: ToneDifference | None = None


def fit_kernel_ratio(
    source: Texture,
    target: Texture,
    settings: RatioSettings,
    dose_law_sd: float | None = None,
    same_scanner: bool = False,
) -> KernelRatio:
    """Fit the gains from two scanners' statistics; swapping source and target inverts them.

    Args:
        dose_law_sd: prior standard deviation of the dose law, for separate gains of noise and
            structure; `None` fits the single gain alone.
        same_scanner: whether headers name one scanner for both sides.

    Raises:
        TrainingError: if a side shows too little of a patient, or the sides share no
            similar tissue.
    """
    for name, side in (("source", source), ("target", target)):
        _require_patches(side, name)
    last = _last_shared_index(source, target)
    frequencies = settings.frequency_step_per_mm * np.arange(last + 1)
    low = np.arange(last + 1) <= source.layout.n_low
    low[0] = False
    if last < 4 or not low.any():
        raise TrainingError(
            f"the pixel grids share no frequencies above {settings.low_frequency_per_mm:g} "
            "cycles/mm; give scans reconstructed on a finer grid, or set a smaller "
            "low_frequency_per_mm"
        )
    a, b = source.up_to(last + 1), target.up_to(last + 1)
    power = a.body.form(value=1.0)
    mean_a, mean_b = (mean_value(side.body.total, power) for side in (a, b))
    raw = 0.5 * (mean_b - mean_a)
    bodies = MatchedTissue.of(a, b)
    ratio = bodies.log_ratio()
    attenuation = [
        float(mean_value(side.body.total, side.body.form(noise=1.0))[1]) for side in (a, b)
    ]
    noise = settings.dose_law * (attenuation[1] - attenuation[0])
    share = 0.5 * (_noise_share(a) + _noise_share(b))
    quarter = frequencies[-1] / 4
    sampling = RELATIVE_SD**2 * quarter / np.maximum(frequencies, frequencies[1])
    sd = np.sqrt(sampling + (settings.doubt * (0.5 * ratio - raw)) ** 2)
    stiffness = settings.stiffness * (STIFFNESS_STEP_PER_MM / settings.frequency_step_per_mm) ** 6
    separate, tone = None, None
    if dose_law_sd is not None:
        soft = SoftTissue.of(a, "source"), SoftTissue.of(b, "target")
        tone = tone_difference(a, b)
        prior = settings.dose_law, dose_law_sd
        separate = fit_separate_gains(
            frequencies, soft, bodies, prior, settings.doubt, stiffness, same_scanner
        )
    return KernelRatio(
        frequencies_per_mm=frequencies,
        log_gain=smooth_log_gain(0.5 * (ratio - share * noise), sd, stiffness),
        raw_log_gain=np.nan_to_num(raw),
        source_log_power=mean_a,
        target_log_power=mean_b,
        n_patches=(source.n_body, target.n_body),
        overlap=bodies.overlap,
        noise_level=noise,
        separate=separate,
        tone=tone,
    )


def _require_patches(side: Texture, name: str) -> None:
    if side.n_body < MIN_PATCHES:
        patch_mm = side.layout.patch_mm
        raise TrainingError(
            f"the {name} scans hold {side.n_body} regions of {patch_mm:g} mm inside a patient, "
            f"of {MIN_PATCHES} needed; give more slices of the trunk, or set a smaller patch_mm"
        )


def _last_shared_index(source: Texture, target: Texture) -> int:
    """Index of the highest frequency that enough patches of both sides reach."""
    n = min(side.body.sums.shape[1] for side in (source, target))
    known = np.minimum(*(side.body.counts.sum(axis=0)[:n] for side in (source, target)))
    return int(np.max(np.nonzero(known >= MIN_PATCHES)[0], initial=0))


def _noise_share(texture: Texture) -> Float[np.ndarray, " n"]:
    """Share of the mean power that is noise, read off the most homogeneous soft tissue."""
    body, patches = texture.body, texture.body_patches
    soft = np.zeros_like(patches)
    soft[:, -1] = patches[:, -1]
    soft = soft if soft.sum() >= MIN_PATCHES else patches
    by_energy = soft.sum(axis=1)
    plain = lowest(by_energy, 0.0, 0.3 * float(by_energy.sum()))[:, None] * (soft > 0)
    power = body.form(value=1.0)
    excess = mean_value(body.weighted(plain.ravel()), power) - mean_value(body.total, power)
    share: Float[np.ndarray, " n"] = np.exp(np.minimum(np.nan_to_num(excess), 0.0))
    return share
