"""Findings of the report's figures in words: their alternative texts, with the main numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cvsct.evaluation.agreement.comparison import reproducible_shares
from cvsct.evaluation.report.examples import Example
from cvsct.evaluation.report.figures import LABELS
from cvsct.evaluation.result import Comparison, Evaluation


def against_target(values: Mapping[str, float | None], unit: str, spec: str) -> str:
    """Values of the sides against the target's, in a format and with their unit.

    Example:
        >>> against_target({"harmonized": 9.81, "target": 10.2}, "HU", ".1f")
        "harmonized 9.8 HU against the target's 10.2 HU"
    """
    unit = f" {unit}" if unit else ""
    known = {side: value for side, value in values.items() if _is_known(value)}
    target = known.pop("target", None)
    sides = ", ".join(f"{LABELS[side]} {value:{spec}}{unit}" for side, value in known.items())
    if target is None:
        return sides or "not measured"
    if not sides:
        return f"the target's {target:{spec}}{unit}"
    return f"{sides} against the target's {target:{spec}}{unit}"


def concordance_finding(sides: Mapping[str, Comparison]) -> str:
    """Mean concordance of each side, and how many features reach the levels."""
    parts = []
    for side, comparison in sides.items():
        mean = comparison.across.mean
        if mean.ccc is None:
            continue
        bounds = "" if mean.low is None else f" (95 % interval {mean.low:.2f} to {mean.high:.2f})"
        parts.append(f"{LABELS[side]} {mean.ccc:.2f}{bounds}")
    if not parts:
        return "Concordance by feature class: undefined in so few regions."
    reached = ""
    if "harmonized" in sides:
        counts = [
            f"{share.count} of {share.n} reach {share.threshold:.2f}"
            for share in reproducible_shares(sides["harmonized"].across)
        ]
        reached = f" Of the harmonized images' features {' and '.join(counts)}."
    return f"Concordance with the target, mean of the feature classes: {', '.join(parts)}.{reached}"


def noise_finding(evaluation: Evaluation) -> str:
    """Size and mean frequency of the noise of each side."""
    noise = _ordered(evaluation.physics.noise)
    size = against_target({side: each.power.sd_hu for side, each in noise.items()}, "HU", ".1f")
    mean = against_target({side: each.mean_per_mm for side, each in noise.items()}, "/mm", ".2f")
    return f"Noise, whole standard deviation: {size}; mean frequency: {mean}."


def transfer_finding(evaluation: Evaluation) -> str:
    """Frequency of 50 % transfer of each side by kind of edge."""
    parts = []
    for kind, by_side in evaluation.physics.edges.items():
        values = {side: edges.transfer.mtf50_per_mm for side, edges in _ordered(by_side).items()}
        parts.append(f"{kind} edges: {against_target(values, '/mm', '.2f')}")
    return f"Transfer, frequency at which it falls to one half. {'; '.join(parts).capitalize()}."


def texture_finding(evaluation: Evaluation) -> str:
    """Distance of each side's texture spectrum from the target's."""
    distance = evaluation.texture.distance_db if evaluation.texture else {}
    parts = [f"{LABELS[side]} {value:.1f} dB" for side, value in distance.items() if value]
    return f"Texture power: distance from the target's spectrum: {', '.join(parts) or '0 dB'}."


def slices_finding(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    """What the example slices are, and the size of the residuals of the sides."""
    sizes = {
        side: residuals.body.mean_abs_hu
        for side, residuals in evaluation.physics.residuals.items()
        if residuals.body
    }
    shown = ", ".join(f"{LABELS[side]} {size:.1f} HU" for side, size in sizes.items())
    where = "; ".join(f"{e.name} ({', '.join(e.reasons.values())})" for e in examples)
    residual = f" Mean absolute difference from the target in the body: {shown}." if shown else ""
    return f"Example slices and residuals: {where}.{residual}"


def _ordered(by_side: Mapping[str, Any]) -> dict[str, Any]:
    """Sides in the order in which they are told: the harmonized one first."""
    return {side: by_side[side] for side in sorted(by_side, key="harmonized".__ne__)}


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
