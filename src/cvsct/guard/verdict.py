"""Whether a scan may go through a model: what the two sides of the model say of it together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cvsct.core.spectra import AT_TARGET_BELOW, position_between
from cvsct.core.volume import ScanFacts
from cvsct.guard.descriptor import MIN_SHARED_FREQUENCIES, Descriptor, mean_noise_db
from cvsct.guard.input_check import Finding, Side, compare_descriptor, compare_headers, unknown_to
from cvsct.guard.overrides import Overrides

Kind = Literal["in_domain", "at_target", "out_of_domain", "unknown"]

FORMER_KINDS = {
    "in_domain": "alike",
    "at_target": "like the target",
    "out_of_domain": "unlike",
    "unknown": "unjudged",
}
"""What 0.1.0 wrote as `verdict`; written beside `kind` until 0.3.0."""

MIN_APART_DB = 3.0
"""Sides whose noise differs by less do not tell whose a scan is."""


@dataclass(frozen=True)
class ScanVerdict:
    """What the guard has to say of a scan before it is mapped.

    Args:
        kind: `in_domain` fits the scans that the model maps from; `at_target` reads like the other
            side's already, which is no error; `out_of_domain` fits neither; of an `unknown` one
            there is nothing to compare.
        findings: what the scan was compared with, the source side's.
        unknown: what it could not be compared by.
        position: where its texture lies between the sides: 1 like the source, 0 like the target;
            None where that cannot be told.
    """

    kind: Kind
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()
    position: float | None = None

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """Where the scan is too far from the source side."""
        return tuple(each for each in self.findings if each.exceeded)

    def refusal(self) -> str:
        """Why the scan is refused, and what to do about it."""
        why = "; ".join(each.text for each in self.reasons)
        words = " ".join(each.override for each in self.reasons)
        return (
            f"unlike the scans this model learned from: {why}. Take a model trained on such "
            f"scans, or let it pass with {words}"
        )

    def to_json(self) -> dict[str, Any]:
        """For a manifest: plain values, no attribute of a patient."""
        return {
            "kind": self.kind,
            "verdict": FORMER_KINDS[self.kind],
            "position": None if self.position is None else round(self.position, 3),
            "measured": {each.name: round(each.value, 3) for each in self.findings if each.limit},
            "exceeded": {each.name: each.text for each in self.reasons},
            "unknown": list(self.unknown),
        }


def judge_scan(
    facts: ScanFacts,
    descriptor: Descriptor,
    source: Side,
    target: Side,
    overrides: Overrides,
    position: float | None = None,
) -> ScanVerdict:
    """Compare a scan with both sides of a model.

    It passes where its headers fit a side and its pixels fit a side. Where that is not the source
    for both, or its texture lies at the target's end of the way between them, it is `at_target`.

    Args:
        position: as the method has measured it on the same slices; where it has not, the guard's
            own spectra of noise tell it.
    """
    headers, pixels = [], []
    for side in (source, target):
        limits = overrides.on(side.limits)
        headers.append(_switched(compare_headers(facts, side, limits), overrides))
        pixels.append(_switched(compare_descriptor(descriptor, side, limits), overrides))
    findings = (*headers[0], *pixels[0])
    if position is None:
        position = noise_position(descriptor, source, target)
    fits_source = not (_exceeded(headers[0]) or _exceeded(pixels[0]))
    neither = any(all(map(_exceeded, each)) for each in (headers, pixels))
    at_target = position is not None and position < AT_TARGET_BELOW and not _exceeded(pixels[1])
    kind: Kind = "in_domain"
    if not findings:
        kind = "unknown"
    elif neither:
        kind = "out_of_domain"
    elif not fits_source or at_target:
        kind = "at_target"
    return ScanVerdict(kind, findings, unknown_to(facts, descriptor, findings), position)


def noise_position(descriptor: Descriptor, source: Side, target: Side) -> float | None:
    """Where a scan's noise lies on the way from the target (0) to the source (1)."""
    if not source.descriptors or not target.descriptors:
        return None
    here, there = (mean_noise_db(side.descriptors) for side in (source, target))
    known = np.isfinite(descriptor.noise_db + here + there)
    if known.sum() < MIN_SHARED_FREQUENCIES:
        return None
    middle, axis = 0.5 * (here + there)[known], (here - there)[known]
    found = position_between(descriptor.noise_db[known], middle, axis)
    return found.position if found.axis >= MIN_APART_DB else None


def _switched(findings: list[Finding], overrides: Overrides) -> list[Finding]:
    """With those passed that the user has switched off."""
    return [
        replace(each, exceeded=each.exceeded and each.name not in overrides.off)
        for each in findings
    ]


def _exceeded(findings: list[Finding]) -> bool:
    return any(each.exceeded for each in findings)
