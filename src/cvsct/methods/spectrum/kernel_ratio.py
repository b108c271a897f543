"""Estimation of the gain between two scanners' textures from scans of different bodies.

Both kernels see the same physics, so in one body the ratio of the two power spectra is the square
of a gain. In two bodies it is also a ratio of anatomies and of noise levels. Three corrections
part them (figures in notebook/log.md):

1. *Anatomy*: one regression a frequency of log power on the domain, between matched patches
   (`methods.spectrum.matched_patches`).
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
from jaxtyping import Bool, Float

from cvsct.core.errors import TrainingError
from cvsct.core.masks import SOFT_TISSUE
from cvsct.core.progress import Progress, silent
from cvsct.core.spectra import mean_over_patches
from cvsct.core.volume import ScanFacts, Scans, facts_of
from cvsct.methods.spectrum.matched_patches import MatchedPatches, smooth_log_gain
from cvsct.methods.spectrum.patches import Patches, PatchKind, domain_patches
from cvsct.methods.spectrum.separate_gains import SeparateGains, fit_separate_gains
from cvsct.methods.spectrum.settings import RatioSettings
from cvsct.methods.spectrum.soft_tissue_noise import HOMOGENEOUS_PATCH_MM, split_soft_tissue
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
    source: Scans,
    target: Scans,
    settings: RatioSettings,
    progress: Progress = silent,
    dose_law_sd: float | None = None,
) -> KernelRatio:
    """Fit the gains from unpaired scans; swapping source and target gives their inverses.

    Args:
        dose_law_sd: prior standard deviation of the dose law, for separate gains of noise and
            structure; `None` fits the single gain alone.

    Raises:
        TrainingError: if a side shows too little of a patient, or the sides share no
            similar tissue.
    """
    reach = min(max(map(_highest_frequency, facts_of(side))) for side in (source, target))
    step = settings.frequency_step_per_mm
    frequencies = np.arange(0.0, reach + step / 2, step)
    kinds = [PatchKind(settings.patch_mm, "body")]
    if dose_law_sd is not None:
        kinds.append(PatchKind(HOMOGENEOUS_PATCH_MM, "soft", min_fraction=1.0))
    sides = [
        domain_patches(scans, frequencies, kinds, settings.max_slices, name, progress)
        for name, scans in (("source", source), ("target", target))
    ]
    for name, kind_patches in zip(("source", "target"), sides, strict=True):
        _require_patches(kind_patches[0], name, settings.patch_mm)
    last = _last_shared_index([kind_patches[0] for kind_patches in sides])
    frequencies = frequencies[: last + 1]
    low = (frequencies > 0) & (frequencies <= settings.low_frequency_per_mm + 1e-9)
    if last < 4 or not low.any():
        raise TrainingError(
            f"the pixel grids share no frequencies above {settings.low_frequency_per_mm:g} "
            "cycles/mm; give scans reconstructed on a finer grid, or set a smaller "
            "low_frequency_per_mm"
        )
    (a, *soft_a), (b, *soft_b) = (
        [kind.up_to(last + 1) for kind in kind_patches] for kind_patches in sides
    )
    mean_a, mean_b = mean_over_patches(a.log_power), mean_over_patches(b.log_power)
    raw = 0.5 * (mean_b - mean_a)
    bodies = MatchedPatches.of(a, b, low, settings.classes)
    ratio = bodies.log_ratio()
    noise = settings.dose_law * float(b.log_noise.mean() - a.log_noise.mean())
    share = 0.5 * (_noise_share(a, low) + _noise_share(b, low))
    quarter = frequencies[-1] / 4
    sampling = RELATIVE_SD**2 * quarter / np.maximum(frequencies, frequencies[1])
    sd = np.sqrt(sampling + (settings.doubt * (0.5 * ratio - raw)) ** 2)
    stiffness = settings.stiffness * (STIFFNESS_STEP_PER_MM / step) ** 6
    separate, tone = None, None
    if dose_law_sd is not None:
        soft = (
            split_soft_tissue(soft_a[0], frequencies, "source"),
            split_soft_tissue(soft_b[0], frequencies, "target"),
        )
        tone = tone_difference((soft_a[0], soft_b[0]), (source, target))
        prior = settings.dose_law, dose_law_sd
        separate = fit_separate_gains(
            frequencies, soft, bodies, prior, settings.doubt, stiffness,
            same_scanner=_same_scanner(source, target),
        )  # fmt: skip
    return KernelRatio(
        frequencies_per_mm=frequencies,
        log_gain=smooth_log_gain(0.5 * (ratio - share * noise), sd, stiffness),
        raw_log_gain=np.nan_to_num(raw),
        source_log_power=mean_a,
        target_log_power=mean_b,
        n_patches=(len(a), len(b)),
        overlap=bodies.overlap,
        noise_level=noise,
        separate=separate,
        tone=tone,
    )


def _same_scanner(source: Scans, target: Scans) -> bool:
    """Whether the headers of all scans name one scanner."""
    names = {scan.acquisition.scanner for side in (source, target) for scan in facts_of(side)}
    return len(names) == 1 and names != {""}


def _highest_frequency(scan: ScanFacts) -> float:
    rows_mm, columns_mm = scan.pixel_mm
    return float(np.hypot(0.5 / rows_mm, 0.5 / columns_mm))


def _require_patches(patches: Patches, side: str, patch_mm: float) -> None:
    if len(patches) < MIN_PATCHES:
        raise TrainingError(
            f"the {side} scans hold {len(patches)} regions of {patch_mm:g} mm inside a patient, "
            f"of {MIN_PATCHES} needed; give more slices of the trunk, or set a smaller patch_mm"
        )


def _last_shared_index(sides: list[Patches]) -> int:
    """Index of the highest frequency that enough patches of both sides reach."""
    known = np.minimum(*(np.isfinite(side.log_power).sum(axis=0) for side in sides))
    return int(np.max(np.nonzero(known >= MIN_PATCHES)[0], initial=0))


def _noise_share(patches: Patches, low: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Share of the mean power that is noise, read off the most homogeneous soft tissue."""
    soft = patches.mean_hu > SOFT_TISSUE.low_hu
    soft = soft if soft.sum() >= MIN_PATCHES else np.ones_like(soft)
    energy = patches.log_power[:, low].mean(axis=1)
    plain = soft & (energy <= np.quantile(energy[soft], 0.3))
    excess = mean_over_patches(patches.log_power[plain]) - mean_over_patches(patches.log_power)
    share: Float[np.ndarray, " n"] = np.exp(np.minimum(np.nan_to_num(excess), 0.0))
    return share
