"""Constancy: whether a scanner is still as its profile says.

Other patients are compared than those of the profile, so all figures are at equal attenuation and
tissue, as in a fit from one to the other (`methods.spectrum.kernel_ratio`). Tolerances are at
least three standard deviations of twenty patients of an unchanged simulated scanner
(docs/reference/profiles.md). With few patients, or with other bodies, figures differ by more than
that although the scanner is as it was; then no verdict is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import ProfileError, TrainingError
from cvsct.core.text import counted
from cvsct.guard.descriptor import distance
from cvsct.methods.spectrum.kernel_ratio import KernelRatio, fit_kernel_ratio
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.side import same_scanner
from cvsct.methods.spectrum.tone import fat_hu, soft_tissue_hu
from cvsct.profile.profile import ScannerProfile

NOISE_PER_MM, SHARPNESS_PER_MM = (0.2, 0.7), (0.25, 0.5)
"""Frequencies over which noise and sharpness are averaged."""

LEAST_PATIENTS = 8
"""Fewest patients of each side with which a verdict is given: three standard deviations of twenty
patients, times the root of 20/8, still lie about at the tolerances."""

TRIED_WITH = 20
"""Patients of each side with which verdicts were tried."""

LIKE_BODIES_NATS = 0.3
"""Divergence of tissue, mean of both directions, beyond which bodies are unlike: profiles of like
bodies are .02 apart, real patients .1, phantoms of a trunk from patient-like bodies .4 and more."""

RULE = "CHANGED is a figure beyond its tolerance and twice its standard error (the first ±)"
"""Rule of the verdicts, for who reads them."""


@dataclass(frozen=True)
class ConstancyFigure:
    """One figure of a scanner beside its profile.

    Args:
        name: what was compared.
        value: the figure, now less or over then; NaN where one is not known.
        expected: its value for an unchanged scanner.
        tolerance: how far it may be from that.
        unit: of all three, and of the error.
        error: standard error; twice that is allowed beside the tolerance.
    """

    name: str
    value: float
    expected: float
    tolerance: float
    unit: str
    error: float = 0.0

    @property
    def kept(self) -> bool | None:
        """Whether the figure is within its tolerance; None where it is not known."""
        if not np.isfinite([self.value, self.error]).all():
            return None
        return abs(self.value - self.expected) <= self.tolerance + 2 * self.error

    def __str__(self) -> str:
        if self.kept is None:
            return f"{self.name}: not known"
        return f"{self.measured}: {'as it was' if self.kept else 'CHANGED'}"

    @property
    def measured(self) -> str:
        """The figure with what is expected, without a verdict."""
        return (
            f"{self.name}: {self.value:.3g}{f' ± {self.error:.2g}' if self.error else ''}"
            f"{self.unit}, expected {self.expected:g} ± {self.tolerance:g}{self.unit}"
        )


@dataclass(frozen=True)
class Constancy:
    """A scanner beside its profile.

    Args:
        figures: what was compared.
        new_acquisitions: scanners, kernels and tube voltages that the profile does not have.
        untold: why no verdict can be given: few patients, unlike bodies; empty where one can.
        caveats: what to know of a verdict that is given.
    """

    figures: tuple[ConstancyFigure, ...]
    new_acquisitions: tuple[str, ...]
    untold: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def is_constant(self) -> bool | None:
        """Whether every figure that is known, one at least, is within its tolerance.

        None where that cannot be told of these patients.
        """
        if self.untold:
            return None
        verdicts = [figure.kept for figure in self.figures if figure.kept is not None]
        return bool(verdicts) and all(verdicts)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "constant": self.is_constant,
            "figures": [
                {**asdict(figure), "kept": figure.kept,
                 **{key: None for key in ("value", "error")
                    if not np.isfinite(getattr(figure, key))}}
                for figure in self.figures
            ],
            "new_acquisitions": list(self.new_acquisitions),
            "untold": list(self.untold),
            "caveats": list(self.caveats),
        }  # fmt: skip

    def __str__(self) -> str:
        new = [f"not in the profile: {name}" for name in self.new_acquisitions]
        if self.untold:
            figures = [f"{each}" if each.kept is None else each.measured for each in self.figures]
            verdict = f"whether the scanner has changed cannot be told: {'; '.join(self.untold)}"
            return "\n".join([verdict, *figures, *new])
        figures = [str(figure) for figure in self.figures]
        verdict = "as it was" if self.is_constant else "changed"
        return "\n".join([*self.caveats, *figures, *new, RULE, f"the scanner is {verdict}"])


def compare_profiles(then: ScannerProfile, now: ScannerProfile) -> Constancy:
    """Compare a scanner with its earlier profile.

    Raises:
        ProfileError: if the two share too little tissue.
    """
    settings = SpectrumSettings()
    try:
        fit = fit_kernel_ratio(
            then.texture, now.texture, settings, settings.dose_law_sd,
            same_scanner(then.side, now.side),
        )  # fmt: skip
    except (TrainingError, np.linalg.LinAlgError) as error:
        raise ProfileError(f"the scans and the profile cannot be compared: {error}") from None
    new = set(map(str, now.acquisitions)) - set(map(str, then.acquisitions))
    untold, caveats = _doubts(then, now)
    return Constancy(_figures(fit, then, now), tuple(sorted(new)), untold, caveats)


def _doubts(then: ScannerProfile, now: ScannerProfile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Why no verdict can be given, and what to know of one that is."""
    fewest = min(then.n_patients, now.n_patients)
    numbers = f"{counted(then.n_patients, 'patient')} in the profile and {now.n_patients} today"
    untold = []
    if fewest < LEAST_PATIENTS:
        untold.append(f"{numbers}, of {LEAST_PATIENTS} needed on each side; measure more")
    a, b = (profile.reference.descriptors[0] for profile in (then, now))
    apart_nats = 0.5 * (distance(a, b).tissue_nats + distance(b, a).tissue_nats)
    if apart_nats > LIKE_BODIES_NATS:
        untold.append(
            f"their bodies are unlike (tissue differs by {apart_nats:.1f} nats, at most "
            f"{LIKE_BODIES_NATS:g} is expected); compare patients with patients, of one body part"
        )
    few = f"{numbers}; the verdict was tried with {TRIED_WITH} on each side"
    return tuple(untold), (few,) if fewest < TRIED_WITH else ()


def _figures(
    fit: KernelRatio, then: ScannerProfile, now: ScannerProfile
) -> tuple[ConstancyFigure, ...]:
    gains = fit.separate
    if gains is None:
        raise ProfileError("no soft tissue to compare")
    f = fit.frequencies_per_mm
    noise = _mean(f, 0.5 * (gains.target_noise - gains.source_noise), NOISE_PER_MM)
    before, after = (
        _mean_frequency(f, power) for power in (gains.source_noise, gains.target_noise)
    )

    def hu_difference(of: Callable[[ScannerProfile], float | None]) -> float:
        a, b = of(then), of(now)
        return np.nan if a is None or b is None else b - a

    return (
        ConstancyFigure("noise", float(np.exp(noise)), 1.0, 0.10, " times", gains.noise_sd),
        ConstancyFigure("mean frequency of noise", after / before, 1.0, 0.03, " times"),
        ConstancyFigure(
            "sharpness", float(np.exp(_mean(f, gains.structure, SHARPNESS_PER_MM))), 1.0, 0.05,
            " times", _mean(f, gains.structure_sd, SHARPNESS_PER_MM),
        ),
        ConstancyFigure(
            "soft tissue", hu_difference(lambda p: soft_tissue_hu(p.texture)), 0.0, 5.0, " HU"
        ),
        ConstancyFigure("fat", hu_difference(lambda p: fat_hu(p.texture)), 0.0, 15.0, " HU"),
    )  # fmt: skip


def _mean(
    f: Float[np.ndarray, " n"], curve: Float[np.ndarray, " n"], band: tuple[float, float]
) -> float:
    inside = (f >= band[0]) & (f <= band[1])
    return float(curve[inside].mean()) if inside.any() else np.nan


def _mean_frequency(f: Float[np.ndarray, " n"], log_power: Float[np.ndarray, " n"]) -> float:
    """Mean frequency of noise over the plane, in cycles/mm."""
    weight = f * np.exp(log_power)
    return float(f @ weight / weight.sum())
