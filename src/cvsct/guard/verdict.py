"""Whether a scan may go through a model: what the two sides of the model say of it together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cvsct.guard.looks import MIN_SHARED_FREQUENCIES, Look, mean_noise_db
from cvsct.guard.overrides import Overrides
from cvsct.guard.scans import Finding, Side, compare_headers, compare_look, unknown_to
from cvsct.volume import ScanFacts

Kind = Literal["alike", "like the target", "unlike", "unjudged"]

MIN_APART_DB = 3.0
"""Sides whose noise differs by less do not tell whose a scan is."""

LIKE_TARGET_BELOW = 0.2
"""Sources read .96 to 1.05 and targets -.05 to .04 (notebook/log.md)."""


@dataclass(frozen=True)
class ScanVerdict:
    """What the guard has to say of a scan before it is mapped.

    Args:
        kind: `like the target` is a scan that reads as the other side's already; it is no error.
            `unjudged` is one that nothing is known of.
        findings: what the scan was compared with, the source side's.
        unknown: what it could not be compared by.
        position: where its noise lies between the sides: 1 like the source, 0 like the target;
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
            "verdict": self.kind,
            "position": None if self.position is None else round(self.position, 3),
            "measured": {each.name: round(each.value, 3) for each in self.findings if each.limit},
            "exceeded": {each.name: each.text for each in self.reasons},
            "unknown": list(self.unknown),
        }


def judge_scan(
    facts: ScanFacts, look: Look, source: Side, target: Side, overrides: Overrides
) -> ScanVerdict:
    """Compare a scan with both sides of a model.

    It passes where its headers fit a side and its pixels fit a side. Where that is not the source
    for both, or its noise lies at the target's end of the way between them, it is told to be like
    the target.
    """
    headers, pixels = [], []
    for side in (source, target):
        limits = overrides.on(side.limits)
        headers.append(_switched(compare_headers(facts, side, limits), overrides))
        pixels.append(_switched(compare_look(look, side, limits), overrides))
    findings = (*headers[0], *pixels[0])
    place = position(look, source, target)
    unlike_source = _exceeded(headers[0]) or _exceeded(pixels[0])
    neither = any(all(map(_exceeded, each)) for each in (headers, pixels))
    at_target = place is not None and place < LIKE_TARGET_BELOW and not _exceeded(pixels[1])
    kind: Kind = "alike"
    if not findings:
        kind = "unjudged"
    elif neither:
        kind = "unlike"
    elif unlike_source or at_target:
        kind = "like the target"
    return ScanVerdict(kind, findings, unknown_to(facts, look, findings), place)


def position(look: Look, source: Side, target: Side) -> float | None:
    """Where a look's noise lies on the way from the target (0) to the source (1)."""
    if not source.looks or not target.looks:
        return None
    here, there = (mean_noise_db(side.looks) for side in (source, target))
    off, axis = look.noise_db - there, here - there
    known = np.isfinite(off) & np.isfinite(axis)
    if known.sum() < MIN_SHARED_FREQUENCIES:
        return None
    if np.sqrt(np.mean(axis[known] ** 2)) < MIN_APART_DB:
        return None
    return float(off[known] @ axis[known] / (axis[known] @ axis[known]))


def _switched(findings: list[Finding], overrides: Overrides) -> list[Finding]:
    """With those passed that the user has switched off."""
    return [
        replace(each, exceeded=each.exceeded and each.name not in overrides.off)
        for each in findings
    ]


def _exceeded(findings: list[Finding]) -> bool:
    return any(each.exceeded for each in findings)
