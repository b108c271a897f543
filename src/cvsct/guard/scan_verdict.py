"""Verdict on a scan before it is mapped, from its comparison with both sides of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cvsct.core.spectra import AT_TARGET_BELOW, position_between
from cvsct.core.volume import ScanFacts
from cvsct.guard.descriptor import MIN_SHARED_FREQUENCIES, Descriptor, mean_noise_db
from cvsct.guard.input_check import (
    ScanComparison,
    SideReference,
    compare_descriptor,
    compare_headers,
    names_not_compared,
)
from cvsct.guard.overrides import Overrides

Kind = Literal["in_domain", "at_target", "out_of_domain", "unknown"]

FORMER_KINDS = {
    "in_domain": "alike",
    "at_target": "like the target",
    "out_of_domain": "unlike",
    "unknown": "unjudged",
}
"""Values of the manifest key `verdict` of 0.1.0, written beside `kind` until 0.3.0."""

MIN_APART_DB = 3.0
"""Smallest difference of both sides' noise from which the position of a scan is told."""


@dataclass(frozen=True)
class ScanVerdict:
    """Verdict of the guard on a scan before it is mapped.

    Args:
        kind: `in_domain` fits the scans that the model maps from; `at_target` fits the other side
            already, which is no error; `out_of_domain` fits neither; `unknown` means that nothing
            could be compared.
        comparisons: of the scan with the source side.
        unknown: names by which it could not be compared.
        position: of its texture between the sides, 1 like the source and 0 like the target; None
            where it cannot be measured.
        n_learned: number of sampled slices that the model learned from; None if unknown.
    """

    kind: Kind
    comparisons: tuple[ScanComparison, ...] = ()
    unknown: tuple[str, ...] = ()
    position: float | None = None
    n_learned: int | None = None

    @property
    def reasons(self) -> tuple[ScanComparison, ...]:
        """Comparisons by which the scan is too far from the source side."""
        return tuple(comparison for comparison in self.comparisons if comparison.exceeded)

    def refusal(self) -> str:
        """Message of a refusal: the reasons, and the options that accept the scan."""
        reasons = "; ".join(comparison.text for comparison in self.reasons)
        options = " ".join(comparison.override for comparison in self.reasons)
        return (
            f"unlike the scans this model learned from: {reasons}. Take a model trained on such "
            f"scans, or let it pass with {options}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values for a manifest, without any attribute of a patient."""
        return {
            "kind": self.kind,
            "verdict": FORMER_KINDS[self.kind],
            "position": None if self.position is None else round(self.position, 3),
            "measured": {
                comparison.name: round(comparison.value, 3)
                for comparison in self.comparisons
                if comparison.limit
            },
            "exceeded": {comparison.name: comparison.text for comparison in self.reasons},
            "unknown": list(self.unknown),
            **({} if self.n_learned is None else {"learned_slices": self.n_learned}),
        }


def judge_scan(
    facts: ScanFacts,
    descriptor: Descriptor,
    source: SideReference,
    target: SideReference,
    overrides: Overrides,
    position: float | None = None,
) -> ScanVerdict:
    """Judge a scan by its comparison with both sides of a model.

    It is accepted where its headers fit a side and its pixels fit a side. Where one of these is not
    the source, or its texture lies close to the target, it is `at_target`.

    Args:
        position: of its texture between the sides, as the method has measured it on the same
            slices; None computes it from the noise spectra.
    """
    headers, pixels = [], []
    for side in (source, target):
        limits = overrides.apply_to(side.limits)
        headers.append(_without_disabled(compare_headers(facts, side, limits), overrides))
        pixels.append(_without_disabled(compare_descriptor(descriptor, side, limits), overrides))
    comparisons = (*headers[0], *pixels[0])
    if position is None:
        position = noise_position(descriptor, source, target)
    fits_source = not (_any_exceeded(headers[0]) or _any_exceeded(pixels[0]))
    neither = any(all(map(_any_exceeded, both_sides)) for both_sides in (headers, pixels))
    at_target = position is not None and position < AT_TARGET_BELOW and not _any_exceeded(pixels[1])
    kind: Kind = "in_domain"
    if not comparisons:
        kind = "unknown"
    elif neither:
        kind = "out_of_domain"
    elif not fits_source or at_target:
        kind = "at_target"
    return ScanVerdict(kind, comparisons, names_not_compared(comparisons), position)


def noise_position(
    descriptor: Descriptor, source: SideReference, target: SideReference
) -> float | None:
    """Position of a scan's noise between the target (0) and the source (1); None if unknown."""
    if not source.descriptors or not target.descriptors:
        return None
    source_db, target_db = (mean_noise_db(side.descriptors) for side in (source, target))
    known = np.isfinite(descriptor.noise_db + source_db + target_db)
    if known.sum() < MIN_SHARED_FREQUENCIES:
        return None
    middle, axis = 0.5 * (source_db + target_db)[known], (source_db - target_db)[known]
    estimate = position_between(descriptor.noise_db[known], middle, axis)
    return estimate.position if estimate.axis >= MIN_APART_DB else None


def _without_disabled(
    comparisons: list[ScanComparison], overrides: Overrides
) -> list[ScanComparison]:
    """The comparisons, none exceeded that the user has switched off."""
    return [
        replace(comparison, exceeded=comparison.exceeded and comparison.name not in overrides.off)
        for comparison in comparisons
    ]


def _any_exceeded(comparisons: list[ScanComparison]) -> bool:
    return any(comparison.exceeded for comparison in comparisons)
