"""What the command line says of a model's guards when scans have gone through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvsct.cli.console import report_line

if TYPE_CHECKING:
    from cvsct.inference.streaming import Outcome


def report_notes(outcomes: Sequence[Outcome]) -> None:
    """What is odd about series that were harmonized all the same, one line a reason."""
    counts = Counter(remark for each in outcomes for remark in each.notes)
    for remark, count in counts.items():
        report_line(f"note: {remark}" + (f" (and {count - 1} more series)" if count > 1 else ""))


def report_guards(outcomes: Sequence[Outcome], reverse: bool = False) -> None:
    """One line for scans that were let pass although something was found, one for slices.

    Args:
        reverse: whether the model was applied from its target to its source.
    """
    kinds = Counter(each.guard.get("scan", {}).get("kind") for each in outcomes)
    found = {
        "out_of_domain": "unlike the scans the model learned from",
        "at_target": "already like the target",
        "unknown": "of which the guard can say nothing",
    }
    said = [f"{kinds[kind]} series {words}" for kind, words in found.items() if kinds[kind]]
    if said:
        other = "to leave --reverse away" if reverse else "--reverse"
        most = 2 * kinds["at_target"] > len(outcomes)
        remedy = f"; did you mean {other}, or the folder of the other scanner?" if most else ""
        report_line(f"note: {'; '.join(said)} (manifest.json tells why){remedy}")
    flagged = [each for each in outcomes if each.n_flagged]
    if flagged:
        count = sum(each.n_flagged for each in flagged)
        total = sum(each.n_slices for each in flagged)
        report_line(
            f"warning: {count} of {total} slices in {len(flagged)} series were changed too much; "
            "they are flagged in Image Comments and in manifest.json, look at them before use"
        )
