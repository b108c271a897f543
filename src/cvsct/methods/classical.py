"""Methods without a network: the input as it is, histogram matching, spectrum matching.

Each has a trainer and a loader, named in the METHODS table. All fit within a minute, and both
directions come from one model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32
from pydantic import BaseModel, ConfigDict, Field

from cvsct.core.errors import GeometryError, TrainingError
from cvsct.core.masks import body
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume, Scans
from cvsct.methods.base import (
    TrainingRequest,
    bundle_of,
    need_curves,
    need_scans,
    settings_in,
    settings_of,
    weights_of,
)
from cvsct.methods.spectrum.block_filter import LocalGains, filter_locally
from cvsct.methods.spectrum.clipped_noise import with_clipped_noise
from cvsct.methods.spectrum.domain_position import LEAST_AXIS, scan_position, way_left
from cvsct.methods.spectrum.hu_offset import shifted
from cvsct.methods.spectrum.refinement import refined
from cvsct.methods.spectrum.slice_filter import filter_slices
from cvsct.methods.spectrum.train import SpectrumSettings, fit_kernel_ratio
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle

HIGHEST_HU = 4095
"""Metal beyond this counts as this in a histogram."""


class InputSettings(BaseModel):
    """The method `input` has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HistogramSettings(BaseModel):
    """What of the images is counted, and how finely.

    Args:
        region: `body` for the patient, `whole` for the image with air and table.
        quantiles: points of the map from one distribution to the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Literal["body", "whole"] = "body"
    quantiles: int = Field(default=1001, ge=2, le=100_001)


def train_input(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Nothing is learned; the domains are recorded."""
    settings = settings_of(InputSettings, request)
    need_scans(source, target)
    return bundle_of(source, target, request, settings, {}, {})


def load_input(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """The image as it is."""
    return VolumeMapping(lambda volume: volume.hu.astype(np.float32))


def train_histogram(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Quantiles of both domains' CT numbers.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows no patient.
    """
    settings = settings_of(HistogramSettings, request)
    need_scans(source, target)
    quantiles = [
        _quantiles(scans, settings, name, request)
        for name, scans in (("source", source), ("target", target))
    ]
    median = settings.quantiles // 2
    return bundle_of(
        source,
        target,
        request,
        settings,
        {"source_hu": quantiles[0], "target_hu": quantiles[1]},
        {
            "median_source_hu": float(quantiles[0][median]),
            "median_target_hu": float(quantiles[1][median]),
        },
    )


def _quantiles(
    scans: Scans, settings: HistogramSettings, side: str, request: TrainingRequest
) -> Float[np.ndarray, " n"]:
    """Quantiles of a distribution that is even within each CT number's interval of 1 HU."""
    low = int(AIR_FLOOR_HU)
    counts = np.zeros(HIGHEST_HU - low + 1, dtype=np.int64)

    def count(volume: CTVolume) -> None:
        mask = body(volume.hu) if settings.region == "body" else np.ones(volume.hu.shape, bool)
        if volume.padding is not None:
            mask &= ~volume.padding
        rounded = np.clip(np.rint(volume.hu[mask]), low, HIGHEST_HU).astype(np.int64)
        np.add(counts, np.bincount(rounded - low, minlength=len(counts)), out=counts)

    request.progress(f"histogram of the {side}", 0, len(scans))
    for done, _ in enumerate(map(count, scans), 1):
        request.progress(f"histogram of the {side}", done, len(scans))
    if counts.sum() == 0:
        raise TrainingError(
            f"the {side} scans show no patient (nothing above -300 HU); check that they are CT in "
            "Hounsfield units, or set region=whole"
        )
    filled = np.nonzero(counts)[0]
    first, last = int(filled[0]), int(filled[-1]) + 1
    cumulative = np.concatenate([[0], np.cumsum(counts[first:last])]) / counts.sum()
    edges = np.arange(first, last + 1) + low - 0.5
    quantiles: Float[np.ndarray, " n"] = np.interp(
        np.linspace(0, 1, settings.quantiles), cumulative, edges
    )
    return quantiles


def load_histogram(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """The monotone map of CT numbers; those outside both distributions are kept."""
    source, target = weights_of(bundle, "source_hu", "target_hu")
    need_curves(bundle, source, target)
    here, there = _monotone(*((target, source) if reverse else (source, target)))

    def apply(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
        hu = volume.hu.astype(np.float32)
        outside = (hu <= here[0]) | (hu >= here[-1])
        return np.where(outside, hu, np.interp(hu, here, there)).astype(np.float32)

    return VolumeMapping(apply)


def _monotone(
    here: Float[np.ndarray, " n"], there: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """A map that meets the identity at both ends, with one value for each CT number."""
    ends = min(here[0], there[0]) - 1.0, max(here[-1], there[-1]) + 1.0
    x = np.concatenate([ends[:1], here, ends[1:]])
    y = np.concatenate([ends[:1], there, ends[1:]])
    values, which = np.unique(x, return_inverse=True)
    return values, np.bincount(which, weights=y) / np.bincount(which)


def train_spectrum(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Gains between the two scanners as functions of cycles/mm; `methods.spectrum.train` says how.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows too little of a patient, or the two sides no like tissue.
    """
    settings = settings_of(SpectrumSettings, request)
    need_scans(source, target)
    known = settings.dose_law_sd if settings.gains == "two" else None
    fit = fit_kernel_ratio(source, target, settings, request.progress, known)
    f = fit.frequencies_per_mm
    weights = {
        "frequencies_per_mm": f,
        "log_gain": fit.log_gain,
        "source_log_power": np.nan_to_num(fit.source_log_power),
        "target_log_power": np.nan_to_num(fit.target_log_power),
    }
    figures: dict[str, Any] = {
        "patches_source": fit.n_patches[0],
        "patches_target": fit.n_patches[1],
        "patches_alike": round(fit.overlap, 1),
        "highest_frequency_per_mm": round(float(f[-1]), 4),
    }
    if fit.two is None:
        change = fit.log_gain - fit.raw_log_gain
        figures |= {
            "noise_level_of_bodies": round(float(np.exp(fit.noise_level)), 4),
            "correction_rms": round(float(np.sqrt(np.mean(change**2))), 4),
            **_gains_at("gain", f, fit.log_gain),
        }
    else:
        two = fit.two
        if settings.refine:
            two = refined(source, target, two, f, settings.max_gain, request.progress, request.note)
        here, there = two.soft_tissue_hu
        tone_hu = 0.0
        if settings.tone == "match":
            if here is None or there is None:
                raise TrainingError(
                    "too little even soft tissue between -30 and 110 HU to match its CT number; "
                    "give more slices of the trunk, or set tone=keep"
                )
            tone_hu = there - here
        weights |= {
            "tone_hu": np.array([tone_hu]),
            "noise_log_gain": two.noise,
            "noise_radial_log_gain": two.noise_radial,
            "structure_log_gain": two.structure,
            "source_noise_log_power": two.source_noise,
            "target_noise_log_power": two.target_noise,
        }
        figures |= {
            "even_patches_source": two.n_even[0],
            "even_patches_target": two.n_even[1],
            "soft_tissue_hu": f"{_hu(here)} to {_hu(there)}, {settings.tone}",
            "dose_law": f"{two.dose_law:.2f} +- {two.dose_law_sd:.2f}",
            **_gains_at("noise_gain", f, two.noise),
            **_gains_at("structure_gain", f, two.structure),
        }
    return bundle_of(source, target, request, settings, weights, figures)


def _hu(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}"


def _gains_at(
    name: str, frequencies_per_mm: Float[np.ndarray, " n"], log_gain: Float[np.ndarray, " n"]
) -> dict[str, float]:
    return {
        f"{name}_at_{at:g}_per_mm": round(
            float(np.exp(np.interp(at, frequencies_per_mm, log_gain))), 4
        )
        for at in (0.1, 0.3, 0.5, 0.7)
    }


def load_spectrum(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """The filter of a model; the reverse has the inverse gains, under the same cap.

    Two gains are scaled by the share of the way that a scan has still to go
    (`methods.spectrum.domain_position`).
    """
    frequencies, log_gain = weights_of(bundle, "frequencies_per_mm", "log_gain")
    need_curves(bundle, frequencies, log_gain)
    settings = settings_in(SpectrumSettings, bundle)
    sign = -1.0 if reverse else 1.0
    if "noise_log_gain" not in bundle.weights:
        cap = np.log(settings.max_gain)
        limited = np.clip(sign * log_gain, -cap, cap)
        return VolumeMapping(lambda volume: filter_slices(volume, frequencies, limited))
    noise, radial, structure, source, target = weights_of(
        bundle,
        "noise_log_gain",
        "noise_radial_log_gain",
        "structure_log_gain",
        "source_noise_log_power",
        "target_noise_log_power",
    )
    need_curves(bundle, frequencies, noise, radial, structure, source, target)
    gains = LocalGains.one_way(
        frequencies, (noise, radial, structure), (source, target), settings.max_gain, reverse
    )
    tone_hu = sign * float(bundle.weights.get("tone_hu", np.zeros(1))[0])
    restored = settings.restore_clipped if gains.calms else 0.0

    def filtering(share: float, remark: str = "") -> VolumeMapping:
        scaled = gains.scaled(share)

        def apply(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
            if share == 0:
                return volume.hu.astype(np.float32)
            whole = with_clipped_noise(volume, restored) if restored else volume
            filtered = filter_locally(whole, scaled)
            return shifted(filtered, share * tone_hu) if tone_hu else filtered

        return VolumeMapping(apply, remark=remark)

    def fit(sample: CTVolume) -> VolumeMapping:
        try:
            position = scan_position(bundle, sample)
        except GeometryError:
            return filtering(1.0, "nothing to tell its texture by: filtered in full")
        share = way_left(position, reverse)
        if position.axis < LEAST_AXIS:
            return filtering(share)
        at = 1 - position.position if reverse else position.position
        done = "left as it is" if share == 0 else f"filtered for {share:.0%} of the way"
        remark = "" if share == 1 else f"texture at {at:.2f} (source 1, target 0): {done}"
        return replace(filtering(share, remark), position=at)

    return replace(filtering(1.0), fit=fit if settings.pass_through else None)
