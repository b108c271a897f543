"""Training of `spectrum`: gains of noise and of structure, fitted, refined and recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import TrainingError
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest, bundle_of, need_scans
from cvsct.methods.settings import read_settings
from cvsct.methods.spectrum.kernel_ratio import fit_kernel_ratio
from cvsct.methods.spectrum.refinement import refined
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.model.bundle import Bundle


def train_spectrum(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Learn the gains between two scanners, as functions of cycles/mm.

    `methods.spectrum.kernel_ratio` says how.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows too little of a patient, or the two sides no like tissue.
    """
    settings = read_settings(SpectrumSettings, request.settings)
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
