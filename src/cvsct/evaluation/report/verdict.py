"""Verdict of an evaluation: whether harmonization helped, in a sentence or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cvsct.evaluation.agreement.concordance import difference_interval
from cvsct.evaluation.result import Evaluation

BIAS_WARNING_HU = 5.0
"""Shift of soft tissue from which the verdict warns, because readers and thresholds notice it."""

CLEAR_CHANGE_DB = 1.0
"""Change of the spectral distance from which the verdict is clear. Two parts of a real scan differ
by 2.1 to 2.9 dB."""


@dataclass(frozen=True)
class Verdict:
    """Verdict of an evaluation.

    Args:
        kind: whether the harmonized images are `better` than the source, `worse` or `unclear`.
        text: the verdict in a sentence or two.
    """

    kind: Literal["better", "worse", "unclear"]
    text: str


def verdict(evaluation: Evaluation) -> Verdict:
    """Judge whether harmonization helped: by concordance, or by texture where nothing pairs.

    It is never `better` on scans that the model learned from.
    """
    result = _verdict_of_figures(evaluation)
    warning = evaluation.independence.warning if evaluation.independence else ""
    if not warning:
        return result
    kind = "unclear" if result.kind == "better" else result.kind
    return Verdict(kind, f"{result.text} No test: {warning}.")


def _verdict_of_figures(evaluation: Evaluation) -> Verdict:
    new, old = evaluation.harmonized, evaluation.input
    if new is None:
        return _unpaired_verdict(evaluation)
    bias = new.quality.hu_bias
    shift = (
        f" Soft tissue is shifted by {bias:+.1f} HU: check it before use."
        if bias is not None and abs(bias) > BIAS_WARNING_HU
        else ""
    )
    where = f"{len(evaluation.regions)} regions of {evaluation.n_slices} slices"
    if new.across.mean.ccc is None:
        return Verdict("unclear", f"Too few regions to judge feature agreement ({where}).{shift}")
    reached = f"mean concordance {new.across.mean.ccc:.2f}"
    if old is None or old.across.mean.ccc is None:
        text = f"Features of the harmonized images agree with the target's at {reached} ({where})."
        return Verdict(
            "unclear", f"{text} Without the source nothing is known of the change.{shift}"
        )
    change = new.across.mean.ccc - old.across.mean.ccc
    interval = difference_interval(new.across, old.across)
    low, high = interval or (change, change)
    before = f"against {old.across.mean.ccc:.2f} before"
    evidence = f"(change {change:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}; {where})."
    figures = f"{reached} {before} {evidence}{shift}"
    if low > 0:
        text = f"Harmonization brought features closer to the target's: {figures}"
        return Verdict("unclear" if shift else "better", text)
    if high < 0:
        return Verdict("worse", f"Harmonization took features further from the target's: {figures}")
    return Verdict("unclear", f"Harmonization made no clear difference to features: {figures}")


def _unpaired_verdict(evaluation: Evaluation) -> Verdict:
    """Verdict by the distance of texture spectra from the target's."""
    reason = f"Slices cannot be compared one by one: {evaluation.unpaired_because}."
    distance = evaluation.texture.distance_db if evaluation.texture else {}
    after, before = distance.get("harmonized"), distance.get("source")
    if after is None or before is None:
        text = "" if after is None else f" Texture spectra lie {after:.1f} dB from the target's."
        return Verdict("unclear", reason + text)
    evidence = (
        f"{after:.1f} dB away, {before:.1f} dB before. {reason} Feature agreement is not measured."
    )
    if abs(after - before) < CLEAR_CHANGE_DB:
        return Verdict(
            "unclear", f"Texture spectra are about as far from the target's as before: {evidence}"
        )
    if after < before:
        return Verdict("better", f"Texture spectra came closer to the target's: {evidence}")
    return Verdict("worse", f"Texture spectra moved away from the target's: {evidence}")
