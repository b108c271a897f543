"""The gain that turns one kernel's texture into another's, from scans of different bodies.

Both kernels see the same physics, so in one body the ratio of the two power spectra is the square
of a gain. In two bodies it is also a ratio of anatomies and of noise levels. Three corrections
part them (figures in docs/log.md):

1. *Anatomy*: one regression a frequency of log power on the domain, with patches compared within
   classes of equal low-frequency power, at equal low-frequency shape and mean HU. No kernel
   changes these.
2. *Noise level*: a thicker body is noisier whatever the kernel. The noise expected from the
   attenuation along all rays through a patch is compared between the domains, and the share of
   power that is noise is corrected for it.
3. *Smoothness*: a kernel ratio is an even, smooth function of frequency and 1 at zero. The fit
   leans on that where the first two corrections were large, and on the data where they were not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field

from cvsct.errors import GeometryError, TrainingError
from cvsct.models.noise import patch_log_noise
from cvsct.runs import Progress, silent
from cvsct.spectra import mean_over_patches, patch_spectra
from cvsct.volume import CTVolume, ScanFacts, Scans, facts_of

MIN_PATCHES = 30
MIN_OVERLAP = 15.0
"""Fewest patches, and fewest that share a class of low-frequency power (half the harmonic mean)."""

SOFT_PATCH_HU = -200.0
"""Mean of a patch above which it is not lung."""

TEXTURE_FROM_PER_MM = 0.1
"""Below lies mostly anatomy."""

RELATIVE_SD = 0.01
"""Sampling error of a log gain at a quarter of the frequency range; grows towards zero."""


class SpectrumSettings(BaseModel):
    """How the gain is fitted and limited.

    Args:
        patch_mm: side of the patches whose spectra are compared.
        frequency_step_per_mm: distance of the frequencies at which the gain is known.
        low_frequency_per_mm: kernels are taken to agree up to here; patches are classed by it.
        classes: classes of equal low-frequency power.
        dose_law: how noise power grows with expected attenuation. 1 is a fixed tube current, 0
            one that holds the noise constant; automatic exposure mostly lies halfway.
        doubt: the part of the correction for anatomy that is taken as its standard error.
        stiffness: weight of the bending of the log gain: its third differences over 0.025/mm.
        max_gain: no frequency is amplified more than this, in either direction.
        max_slices: slices used from each side, spread evenly over the scans.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch_mm: float = Field(default=40.0, ge=10, le=200)
    frequency_step_per_mm: float = Field(default=0.025, ge=0.002, le=0.05)
    low_frequency_per_mm: float = Field(default=0.075, ge=0.05, le=0.3)
    classes: int = Field(default=12, ge=1, le=100)
    dose_law: float = Field(default=0.5, ge=0, le=1)
    doubt: float = Field(default=0.25, ge=0, le=10)
    stiffness: float = Field(default=1e5, ge=0, le=1e12)
    max_gain: float = Field(default=16.0, ge=1, le=1000)
    max_slices: int = Field(default=300, ge=1)


@dataclass(frozen=True)
class Sample:
    """The patches of one domain and what else is known of each."""

    log_power: Float[np.ndarray, "patches n"]
    mean_hu: Float[np.ndarray, " patches"]
    log_noise: Float[np.ndarray, " patches"]


@dataclass(frozen=True)
class KernelRatio:
    """The fitted gain from source to target, and how it came about.

    Args:
        log_gain: natural log of the amplitude gain at each frequency, 0 at zero.
        raw_log_gain: the same without any correction: half the difference of log power.
        source_log_power: mean over the source's patches; NaN at zero.
        target_log_power: mean over the target's.
        n_patches: of source and target.
        overlap: patches that effectively compare like with like.
        noise_level: log ratio of noise power, target over source, that the bodies explain.
    """

    frequencies_per_mm: Float[np.ndarray, " n"]
    log_gain: Float[np.ndarray, " n"]
    raw_log_gain: Float[np.ndarray, " n"]
    source_log_power: Float[np.ndarray, " n"]
    target_log_power: Float[np.ndarray, " n"]
    n_patches: tuple[int, int]
    overlap: float
    noise_level: float


def fit_kernel_ratio(
    source: Scans,
    target: Scans,
    settings: SpectrumSettings,
    progress: Progress = silent,
) -> KernelRatio:
    """Fit the gain from unpaired scans; swapping source and target gives its inverse.

    Raises:
        TrainingError: if a side shows too little of a patient, or the two sides no like tissue.
    """
    reach = min(max(map(_highest_frequency, facts_of(side))) for side in (source, target))
    step = settings.frequency_step_per_mm
    frequencies = np.arange(0.0, reach + step / 2, step)
    a = _sample(source, frequencies, settings, "source", progress)
    b = _sample(target, frequencies, settings, "target", progress)
    known = np.minimum(*(np.isfinite(side.log_power).sum(axis=0) for side in (a, b)))
    last = int(np.max(np.nonzero(known >= MIN_PATCHES)[0], initial=0))
    frequencies = frequencies[: last + 1]
    a, b = (Sample(x.log_power[:, : last + 1], x.mean_hu, x.log_noise) for x in (a, b))
    low = (frequencies > 0) & (frequencies <= settings.low_frequency_per_mm + 1e-9)
    if last < 4 or not low.any():
        raise TrainingError(
            f"the pixel grids share no frequencies above {settings.low_frequency_per_mm:g} "
            "cycles/mm; give scans reconstructed on a finer grid, or set a smaller "
            "low_frequency_per_mm"
        )
    mean_a, mean_b = mean_over_patches(a.log_power), mean_over_patches(b.log_power)
    raw = 0.5 * (mean_b - mean_a)
    ratio, overlap = _like_with_like(a, b, low, settings.classes)
    noise = settings.dose_law * float(b.log_noise.mean() - a.log_noise.mean())
    share = 0.5 * (_noise_share(a, low) + _noise_share(b, low))
    corrected = 0.5 * (ratio - share * noise)
    quarter = frequencies[-1] / 4
    sampling = RELATIVE_SD**2 * quarter / np.maximum(frequencies, frequencies[1])
    sd = np.sqrt(sampling + (settings.doubt * (0.5 * ratio - raw)) ** 2)
    return KernelRatio(
        frequencies_per_mm=frequencies,
        log_gain=smooth_log_gain(corrected, sd, settings.stiffness * (0.025 / step) ** 6),
        raw_log_gain=np.nan_to_num(raw),
        source_log_power=mean_a,
        target_log_power=mean_b,
        n_patches=(len(a.mean_hu), len(b.mean_hu)),
        overlap=overlap,
        noise_level=noise,
    )


def _highest_frequency(scan: ScanFacts) -> float:
    rows_mm, columns_mm = scan.pixel_mm
    return float(np.hypot(0.5 / rows_mm, 0.5 / columns_mm))


def _sample(
    scans: Scans,
    frequencies_per_mm: Float[np.ndarray, " n"],
    settings: SpectrumSettings,
    side: str,
    progress: Progress,
) -> Sample:
    lengths = [scan.shape[0] for scan in facts_of(scans)]
    stride = -(-sum(lengths) // settings.max_slices)

    def measure(whole: CTVolume, before: int) -> Sample | None:
        chosen = list(range(-before % stride, len(whole.hu), stride))
        if not chosen:
            return None
        volume = whole.select(chosen)
        size_px = round(settings.patch_mm / volume.pixel_mm)
        if min(volume.hu.shape[1:]) < size_px:
            return None
        spectra = patch_spectra(volume, frequencies_per_mm, size_px, "body")
        return Sample(spectra.log_power, spectra.mean_hu, patch_log_noise(volume, spectra))

    parts: list[Sample] = []
    progress(f"spectra of the {side}", 0, len(scans))
    for done, part in enumerate(map(measure, scans, accumulate(lengths, initial=0)), 1):
        parts += [part] if part else []
        progress(f"spectra of the {side}", done, len(scans))
    count = sum(len(part.mean_hu) for part in parts)
    if count < MIN_PATCHES:
        raise TrainingError(
            f"the {side} scans hold {count} regions of {settings.patch_mm:g} mm inside a patient, "
            f"of {MIN_PATCHES} needed; give more slices of the trunk, or set a smaller patch_mm"
        )
    return Sample(
        np.concatenate([part.log_power for part in parts]),
        np.concatenate([part.mean_hu for part in parts]),
        np.concatenate([part.log_noise for part in parts]),
    )


def _like_with_like(
    a: Sample, b: Sample, low: Bool[np.ndarray, " n"], classes: int
) -> tuple[Float[np.ndarray, " n"], float]:
    """Log power of b over a between patches alike, and how many patches that compares.

    Least squares, one a frequency, on the domain, the class of low-frequency power, the shape of
    the spectrum there, and a parabola in mean HU. Classes weigh by half the harmonic mean of their
    counts, as least squares has it.
    """
    log_power = np.concatenate([a.log_power, b.log_power])
    mean_hu = np.concatenate([a.mean_hu, b.mean_hu]) / 1000
    domain = np.repeat([0.0, 1.0], [len(a.mean_hu), len(b.mean_hu)])
    energy = log_power[:, low].mean(axis=1)
    shape = (log_power[:, low] - energy[:, None])[:, :-1]
    edges = np.quantile(energy, np.linspace(0, 1, classes + 1)[1:-1])
    member = np.digitize(energy, edges)[:, None] == np.arange(classes)
    n_a, n_b = member[domain == 0].sum(axis=0), member[domain == 1].sum(axis=0)
    overlap = float(np.sum(n_a * n_b / np.maximum(n_a + n_b, 1)))
    if overlap < MIN_OVERLAP:
        raise TrainingError(
            f"source and target show no like tissue ({overlap:.0f} regions to compare, of "
            f"{MIN_OVERLAP:.0f} needed); give scans of the same part of the body"
        )
    design = np.column_stack([domain, mean_hu, mean_hu**2, shape, member[:, n_a + n_b > 0]])
    ratio = np.full(log_power.shape[1], np.nan)
    for index in range(1, log_power.shape[1]):
        rows = np.isfinite(log_power[:, index])
        x, y = design[rows], log_power[rows, index]
        ratio[index] = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)[0][0]
    return ratio, overlap


def _noise_share(sample: Sample, low: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The share of the mean power that is noise, taken as what the plainest soft tissue holds."""
    soft = sample.mean_hu > SOFT_PATCH_HU
    soft = soft if soft.sum() >= MIN_PATCHES else np.ones_like(soft)
    energy = sample.log_power[:, low].mean(axis=1)
    plain = soft & (energy <= np.quantile(energy[soft], 0.3))
    excess = mean_over_patches(sample.log_power[plain]) - mean_over_patches(sample.log_power)
    share: Float[np.ndarray, " n"] = np.exp(np.minimum(np.nan_to_num(excess), 0.0))
    return share


def smooth_log_gain(
    log_gain: Float[np.ndarray, " n"], sd: Float[np.ndarray, " n"], stiffness: float
) -> Float[np.ndarray, " n"]:
    """The even curve through 0 at zero frequency that bends least for its misfit.

    Whittaker's smoother (1923) on third differences of the curve mirrored at zero.
    """
    n = len(log_gain)
    even = np.concatenate([np.eye(n)[:0:-1], np.eye(n)])
    bends = np.diff(even, 3, axis=0)[:, 1:]
    precision = 1 / sd[1:] ** 2
    system = np.diag(precision) + stiffness * bends.T @ bends
    return np.concatenate([[0.0], np.linalg.solve(system, precision * log_gain[1:])])


@dataclass(frozen=True)
class Likeness:
    """Where a scan's texture lies between the two domains of a model.

    Args:
        position: 1 reads like the source, 0 like the target. Kernel and noise level both count.
        off_axis: rms difference in log power that neither domain explains; large for a scan of
            another kind.
    """

    position: float
    off_axis: float


def likeness(
    volume: CTVolume,
    frequencies_per_mm: Float[np.ndarray, " n"],
    log_gain: Float[np.ndarray, " n"],
    middle_log_power: Float[np.ndarray, " n"],
    patch_mm: float,
) -> Likeness:
    """Project a scan's log power spectrum on the line from target to source.

    Args:
        log_gain: from source to target; the line has its direction.
        middle_log_power: half-way between the domains' means, through which the line passes, so
            that the anatomy of neither weighs much.

    Raises:
        GeometryError: if the slices hold no patch of that size inside a patient.
    """
    spectra = patch_spectra(volume, frequencies_per_mm, round(patch_mm / volume.pixel_mm), "body")
    if len(spectra.log_power) == 0:
        raise GeometryError(
            f"no region of {patch_mm:g} mm inside a patient; give slices of the trunk"
        )
    mean = mean_over_patches(spectra.log_power)
    used = (frequencies_per_mm >= TEXTURE_FROM_PER_MM) & np.isfinite(mean)
    offset = (mean - middle_log_power)[used]
    axis = -2 * log_gain[used]
    along = float(offset @ axis) / max(float(axis @ axis), 1e-12)
    return Likeness(0.5 + along, float(np.sqrt(np.mean((offset - along * axis) ** 2))))
