"""Choice of the series of a study: one a patient and scanner, by stated rules.

A patient who was scanned on several scanners has a series on each: they tell how scanners differ
better than any two groups of patients can, and are kept together wherever patients are divided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cvsct.study.kernels import kernel_class
from cvsct.study.series import StudySeries

CHOSEN = ("chosen of", "the only series")
"""First words of the reason of a series that is used."""


class ChoiceRules(BaseModel):
    """Rules by which one series is chosen of several of one patient on one scanner.

    The first rule in which two series differ decides: masks that name the series, any masks,
    kernel, contrast, thickness, number of slices, the later date.

    Args:
        kernel: class of kernel to prefer.
        contrast: phase to prefer; empty for any.
        thickness: whether to take the thinnest or the thickest slices.
        min_slices: series of fewer slices are left out.
        need_masks: leave out series without a mask, where the study has masks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kernel: Literal["soft", "sharp", "any"] = "soft"
    contrast: Literal["yes", "no", ""] = ""
    thickness: Literal["thinnest", "thickest"] = "thinnest"
    min_slices: int = Field(default=3, ge=1)
    need_masks: bool = True


@dataclass(frozen=True)
class Choice:
    """What became of a series.

    Args:
        series: the series.
        used: whether it is in the study.
        reason: why it is, or is not.
    """

    series: StudySeries
    used: bool
    reason: str


def choose_series(series: Sequence[StudySeries], rules: ChoiceRules) -> list[Choice]:
    """Choose one series of each patient and scanner; the order of the series is kept."""
    masked = any(each.masks for each in series)
    unfit = {id(each): reason for each in series if (reason := _objection(each, rules, masked))}
    visits: defaultdict[tuple[str, str, str], list[StudySeries]] = defaultdict(list)
    for each in series:
        if id(each) not in unfit:
            visits[each.patient, each.acquisition.scanner, each.site].append(each)
    best = {
        id(max(visit, key=lambda each: _merits(each, rules))): visit for visit in visits.values()
    }
    chosen = {id(each): each for each in series if id(each) in best}
    choices = []
    for each in series:
        if id(each) in unfit:
            choices.append(Choice(each, False, unfit[id(each)]))
        elif id(each) in chosen:
            others = len(best[id(each)]) - 1
            reason = f"{CHOSEN[0]} {others + 1} series of this patient" if others else CHOSEN[1]
            choices.append(Choice(each, True, f"{reason} on this scanner"))
        else:
            key = each.patient, each.acquisition.scanner, each.site
            winner = next(chosen[id(other)] for other in visits[key] if id(other) in chosen)
            choices.append(Choice(each, False, _why_not(each, winner, rules)))
    return choices


def _objection(series: StudySeries, rules: ChoiceRules, masked: bool) -> str:
    """Why a series cannot be used at all; empty where it can."""
    if series.refused:
        return f"cannot be read: {series.refused}"
    if series.record.is_derived:
        return "made by this program, not by a scanner"
    if series.n_slices < rules.min_slices:
        return f"{series.n_slices} slices, of {rules.min_slices} needed (min_slices)"
    if masked and rules.need_masks and not series.masks:
        return "no mask belongs to it (need_masks)"
    return ""


def _merits(
    series: StudySeries, rules: ChoiceRules
) -> tuple[bool, bool, bool, bool, float, int, str, str]:
    """What is compared of two series, in order."""
    acquisition = series.acquisition
    kind = kernel_class(acquisition.manufacturer, acquisition.kernel)
    thickness = series.thickness_mm or series.spacing_mm
    return (
        any(series.record.series_uid in mask.series_uids for mask in series.masks),
        bool(series.masks),
        rules.kernel in ("any", kind),
        rules.contrast in ("", series.contrast),
        -thickness if rules.thickness == "thinnest" else thickness,
        series.n_slices,
        series.study_date,
        series.record.own_uid,
    )


_DECIDED_BY = (
    "is the one that a mask names", "has a mask", "has a {kernel} kernel",
    "is of the contrast phase asked for", "has the {thickness} slices", "has more slices",
    "is later", "comes first by its UID",
)  # fmt: skip


def _why_not(series: StudySeries, winner: StudySeries, rules: ChoiceRules) -> str:
    ours, theirs = _merits(series, rules), _merits(winner, rules)
    decided = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    about = _DECIDED_BY[decided].format(kernel=rules.kernel, thickness=rules.thickness)
    return f"another series of this patient on this scanner {about} ({winner.record.path})"
