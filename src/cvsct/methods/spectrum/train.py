"""Training of `spectrum`: gains of noise and of structure, fitted and recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError
from cvsct.methods.base import TrainingRequest, make_bundle
from cvsct.methods.settings import read_settings
from cvsct.methods.spectrum.fit_ensemble import (
    GROUPS,
    gain_weights,
    repeated_fits,
    repeated_weights,
)
from cvsct.methods.spectrum.gain_relation import GainRelation
from cvsct.methods.spectrum.kernel_ratio import fit_kernel_ratio
from cvsct.methods.spectrum.noise_law import NoiseLaw
from cvsct.methods.spectrum.refinement import refine_noise_gain
from cvsct.methods.spectrum.separate_gains import SeparateGains
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.side import MeasuredSide, Side, measured_sides, same_scanner
from cvsct.methods.spectrum.texture import Texture
from cvsct.model.bundle import Bundle


def train_spectrum(source: Side, target: Side, request: TrainingRequest) -> Bundle:
    """Train `spectrum`: gains between two scanners as functions of frequency in cycles/mm.

    `methods.spectrum.kernel_ratio` says how. Scans and what was measured of them give one model,
    but for the correction after filtering, which needs the images of both sides.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows too little of a patient, or the sides share no
            similar tissue.
    """
    settings = read_settings(SpectrumSettings, request.settings)
    dose_law_sd = settings.dose_law_sd if settings.gains == "two" else None
    n_groups = GROUPS if settings.repeated_fits and dose_law_sd is not None else 0
    a, b = measured_sides(
        source, target, settings, request.progress, dose_law_sd is not None, n_groups
    )
    fit = fit_kernel_ratio(a.texture, b.texture, settings, dose_law_sd, same_scanner(a, b))
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
    if fit.separate is None:
        change = fit.log_gain - fit.raw_log_gain
        figures |= {
            "noise_level_of_bodies": round(float(np.exp(fit.noise_level)), 4),
            "correction_rms": round(float(np.sqrt(np.mean(change**2))), 4),
            **_gains_at("gain", f, fit.log_gain),
        }
    else:
        gains = fit.separate
        if settings.refine and not (
            isinstance(source, MeasuredSide) or isinstance(target, MeasuredSide)
        ):
            gains = refine_noise_gain(
                source, target, gains, f, settings.max_gain, request.progress, request.note
            )
        source_hu, target_hu = gains.soft_tissue_hu
        tone_hu = 0.0
        if settings.tone == "match":
            if source_hu is None or target_hu is None:
                raise TrainingError(
                    "too little soft tissue between -30 and 110 HU to match its CT "
                    "number; give more slices of the trunk, or set tone=keep"
                )
            tone_hu = target_hu - source_hu
        curve = None
        if settings.tone == "auto" and fit.tone is not None and fit.tone.curve[:, 1].any():
            curve = fit.tone.curve
        repeated, why_not = _repeated(a, b, settings, fit.separate, gains)
        weights |= {
            "tone_hu": np.array([tone_hu]),
            **({} if curve is None else {"tone_curve": curve}),
            **gain_weights(gains),
            "one_kernel": np.array([float(gains.relation.one_kernel)]),
            **repeated,
        }
        figures |= {
            "homogeneous_patches_source": gains.n_homogeneous[0],
            "homogeneous_patches_target": gains.n_homogeneous[1],
            "even_patches_source": gains.n_homogeneous[0],  # the name up to 0.2
            "even_patches_target": gains.n_homogeneous[1],
            "soft_tissue_hu": f"{_hu(source_hu)} to {_hu(target_hu)}, {settings.tone}",
            "tone_by_patient": f"{fit.tone}; {'kept' if curve is None else 'corrected'}",
            "noise_over_structure": _relation(gains.relation),
            **({"uncertainty": why_not} if why_not else {}),
            **_synthesis(gains, f, settings),
            "noise_law_source": _law(gains.laws.source),
            "noise_law_target": _law(gains.laws.target),
            **_gains_at("noise_gain", f, gains.noise),
            **_gains_at("structure_gain", f, gains.structure),
        }
    return make_bundle(a.domain, b.domain, request, settings, weights, figures)


def _repeated(
    source: MeasuredSide,
    target: MeasuredSide,
    settings: SpectrumSettings,
    fitted: SeparateGains,
    corrected: SeparateGains,
) -> tuple[dict[str, Float[np.ndarray, "..."]], str]:
    """Arrays of the repeated fits, or why there are none."""
    if not settings.repeated_fits:
        return {}, ""

    def fit(a: Texture, b: Texture) -> SeparateGains:
        same = same_scanner(source, target)
        gains = fit_kernel_ratio(a, b, settings, settings.dose_law_sd, same).separate
        assert gains is not None
        return gains

    try:
        fits = repeated_fits(source, target, fit)
    except TrainingError as error:
        return {}, f"not known: {error}"
    if not fits:
        return {}, "not known: a side is a profile, or of one slice"
    return repeated_weights(fits, fitted, corrected), ""


def _relation(relation: GainRelation) -> str:
    """How the gains of noise and structure differ, and what follows from it, for the card."""
    verdict = (
        "one linear kernel explains both scanners; noise is amplified or damped by it"
        if relation.one_kernel
        else "one linear kernel does not explain both; noise that is missing is added"
    )
    return (
        f"{np.exp(relation.level):.2f} times (standard error of the log "
        f"{relation.level_sd:.2f}), shapes differ by {relation.deviation:.2f}, "
        f"{'one scanner' if relation.same_scanner else 'two scanners'} by the headers: {verdict}"
    )


def _synthesis(
    gains: SeparateGains, frequencies_per_mm: Float[np.ndarray, " n"], settings: SpectrumSettings
) -> dict[str, float]:
    """Share of the noise variance that is added in each direction, for the card."""
    if gains.relation.one_kernel or settings.synthesis == "off":
        return {}
    return {
        f"noise_added_{name}": round(
            gains.in_direction(
                frequencies_per_mm, settings.max_gain, reverse, synthesis=True
            ).added_share,
            4,
        )
        for name, reverse in (("a2b", False), ("b2a", True))
    }


def _law(law: NoiseLaw) -> str:
    return (
        f"{law.between:.2f} +- {law.between_sd:.2f} between slices, "
        f"{law.within:.2f} +- {law.within_sd:.2f} within"
    )


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
