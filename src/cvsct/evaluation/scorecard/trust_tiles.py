"""Tiles of the guards, the roles of the scans and their independence of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvsct.core.text import counted
from cvsct.evaluation.scorecard.judge import first_that_holds
from cvsct.evaluation.scorecard.tile import Status, Tile

if TYPE_CHECKING:
    from cvsct.evaluation.result import Evaluation

OUTSIDE = ("out_of_domain", "unlike")
AT_TARGET = ("at_target", "like the target")
INSIDE = ("in_domain", "alike")
"""Verdicts of the guard of scans, each with its name in manifests of 0.1.0."""


def guards(evaluation: Evaluation) -> Tile:
    """Findings of the model's guards, and the direction in which scans were harmonized."""
    tolerance = evaluation.settings.tolerances.guards
    records = evaluation.guards
    n = len(records)
    flagged = sum(len(record.flagged) for record in records)
    judged = sum(record.judged or 0 for record in records)
    unwatched = sum(not record.judged for record in records)
    changed_limits = sorted({option for record in records for option in record.changed_limits})
    share = flagged / judged if judged else 0.0
    outside, at_target, inside = (
        sum(record.scan in kinds for record in records) for kinds in (OUTSIDE, AT_TARGET, INSIDE)
    )
    were = counted(flagged, "slice was", "slices were")
    changed = f"{were} changed more than the guard allows"
    status, reason = first_that_holds(
        [
            (bool(evaluation.wrong_direction), "fail", evaluation.wrong_direction),
            (share > tolerance.fails, "fail", changed),
            (bool(evaluation.doubtful_roles), "attention", evaluation.doubtful_roles),
            (outside > 0, "attention", f"{outside} of {n} scans are unlike what the model knows"),
            (at_target > 0, "attention", f"{at_target} of {n} scans were like the target already"),
            (share > tolerance.passes or (flagged > 0 and not judged), "attention", changed),
            (bool(changed_limits), "attention",
             f"limits of the guards were changed by --guard {', '.join(changed_limits)}"),
            (not records, "not enough data", "no guard judged these scans"),
            (inside < n, "not enough data", f"no guard judged {n - inside} of {n} scans"),
            (unwatched > 0, "not enough data",
             f"no guard judged the slices of {unwatched} of {n} scans"),
            (True, "pass", "the guards found nothing"),
        ]
    )  # fmt: skip
    value = ""
    if records:
        slices = f"{flagged} of {judged} slices" if judged else counted(flagged, "slice")
        value = f"{inside} of {n} scans like the model's source; {slices} flagged"
    limit = f"all scans; at most {100 * tolerance.passes:.3g} % of slices"
    return Tile("guards", "Guards and roles", status, value, "none flagged", limit, reason)


def independence(evaluation: Evaluation) -> Tile:
    """Whether the model learned from the scans that it is judged on."""
    found = evaluation.independence
    value = "unknown"
    status: Status = "not enough data"
    reason = "nothing tells which scans the model learned from"
    if found is not None:
        n_series = sum(n for _, n in found.series.values())
        value = f"{counted(sum(found.learned.values()), 'slice')} of {n_series} series"
        status, reason = first_that_holds(
            [
                (bool(found.warning), "fail", "the model learned from scans it is tested on"),
                ("source" not in found.series, "not enough data",
                 "the model may have learned from the source; give it with --source"),
                (True, "pass", "the model learned from none of these scans"),
            ]
        )  # fmt: skip
    target = "no scan it learned from"
    return Tile("independence", "Independence", status, value, target, "none", reason)
