"""Whether harmonizing helped, in a sentence or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cvsct.evaluation.agreement.concordance import difference_interval
from cvsct.evaluation.evaluate import Evaluation

BIAS_WARNING_HU = 5.0
"""A shift of soft tissue that clinicians and thresholds would notice."""

CLEAR_CHANGE_DB = 1.0
"""Smaller than what two parts of one scan differ by (2.1 to 2.9 dB on real CT)."""


@dataclass(frozen=True)
class Verdict:
    """The answer in a sentence or two, and whether it is good news."""

    kind: Literal["better", "worse", "unclear"]
    text: str


def verdict(evaluation: Evaluation) -> Verdict:
    """Whether harmonizing helped, judged by concordance, or by spectra where nothing pairs."""
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
            "unclear", f"{text} Without the source there is no before to compare.{shift}"
        )
    change = new.across.mean.ccc - old.across.mean.ccc
    interval = difference_interval(new.across, old.across)
    low, high = interval or (change, change)
    before = f"against {old.across.mean.ccc:.2f} before"
    evidence = f"(change {change:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}; {where})."
    figures = f"{reached} {before} {evidence}{shift}"
    if low > 0:
        text = f"Harmonizing brought features closer to the target's: {figures}"
        return Verdict("unclear" if shift else "better", text)
    if high < 0:
        return Verdict("worse", f"Harmonizing took features further from the target's: {figures}")
    return Verdict("unclear", f"Harmonizing made no clear difference to features: {figures}")


def _unpaired_verdict(evaluation: Evaluation) -> Verdict:
    reason = f"Slices cannot be compared one by one: {evaluation.unpaired_because}."
    distance = evaluation.texture.distance_db if evaluation.texture else {}
    after, before = distance.get("harmonized"), distance.get("source")
    if after is None or before is None:
        found = "" if after is None else f" Texture spectra lie {after:.1f} dB from the target's."
        return Verdict("unclear", reason + found)
    moved = f"{after:.1f} dB away, {before:.1f} dB before. {reason} Feature agreement not measured."
    if abs(after - before) < CLEAR_CHANGE_DB:
        return Verdict("unclear", f"Texture spectra are about as far from the target's: {moved}")
    if after < before:
        return Verdict("better", f"Texture spectra came closer to the target's: {moved}")
    return Verdict("worse", f"Texture spectra moved away from the target's: {moved}")
