"""Verdict of a comparison of groups: how differences changed, and what that does not show.

No verdict says that an effect of scanners was removed: where no two scans show one patient, the
scanners' patients may be what differs, and what a method took away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cvsct.evaluation.cohort_table import COMBAT, is_harmonized
from cvsct.evaluation.groups.figures import RegionFigures, StageFigures
from cvsct.evaluation.groups.settings import GroupSettings
from cvsct.evaluation.groups.variance_share import Change, VarianceShare

PATIENTS_DIFFER = (
    "Differences between groups include differences between their patients. These figures cannot "
    "separate them: a method that removes both looks as good as one that removes the scanner alone"
)
"""The sentence that every page and file says."""

CANNOT_TELL = "Whether scanners' or patients' differences went, these figures cannot tell."

FITTED_HERE = (
    "ComBat was fitted to the patients it is judged on: that they differ less had to come."
)


@dataclass(frozen=True)
class GroupVerdict:
    """Verdict on one region.

    Args:
        kind: `none before`: groups did not differ by more than chance; `at chance`: they no longer
            do; `smaller`, `larger`, `as before`: how their differences changed; `not judged`: there
            are no figures, or share of variance and identification contradict each other.
        text: the verdict in a sentence or two.
    """

    kind: Literal["none before", "at chance", "smaller", "larger", "as before", "not judged"]
    text: str


def verdict(region: RegionFigures, settings: GroupSettings) -> GroupVerdict:
    """Judge a region by the share of variance of its groups, before and after.

    After are the harmonized images where there are any, else the last stage.
    """
    if region.reason:
        return GroupVerdict("not judged", f"No figures: {region.reason}.")
    judged = next((s for s in region.stages if is_harmonized(s.stage)), region.stages[-1])
    before, after = region.stages[0].share, judged.share
    if before is None or after is None:
        return GroupVerdict("not judged", "No feature varies and is defined in every patient.")
    covariates = " and ".join(settings.covariates)
    adjusted = f", adjusted for {covariates}" if covariates else ""
    text = (
        f"Before harmonization, {settings.group} explains {before.omega:.1%} of the variance"
        f"{adjusted}; chance gives up to {before.chance_high:.1%}."
    )
    named = [
        "" if covariates else _recognized(figures, settings)
        for figures in (region.stages[0], judged)
    ]
    if not before.above_chance:
        return _without_difference(text, covariates, judged.stage, before, after, named[0])
    if judged.change is None:
        return GroupVerdict("not judged", text)
    return _changed(text, judged.stage, after, judged.change, named[1])


def _recognized(stage: StageFigures, settings: GroupSettings) -> str:
    """That groups can be told apart in a stage, as a clause; empty where they cannot.

    Only of use without covariates, for which identification is not adjusted.
    """
    found = stage.identification
    if found is None or not found.above_chance:
        return ""
    return (
        f"a classifier names the {settings.group} of unseen patients in {found.accuracy:.0%} of "
        f"them, by chance in up to {found.chance_high:.0%}: groups differ"
    )


def _without_difference(
    text: str,
    covariates: str,
    stage: str,
    before: VarianceShare,
    after: VarianceShare,
    named: str,
) -> GroupVerdict:
    if named:
        return GroupVerdict("not judged", f"{text} The share shows no difference, yet {named}.")
    beyond = f" beyond {covariates}" if covariates else ""
    text = f"{text} No difference between groups was found{beyond}, so none can be removed."
    if after is not before and after.above_chance:
        return GroupVerdict("larger", f"{text} In the stage {stage} it is {after.omega:.1%}.")
    return GroupVerdict("none before", text)


def _changed(
    text: str, stage: str, after: VarianceShare, change: Change, named: str
) -> GroupVerdict:
    interval = f"change {change.change:+.1%}, 95 % interval {change.low:+.1%} to {change.high:+.1%}"
    text = f"{text} In the stage {stage} it is {after.omega:.1%} ({interval})."
    if stage == COMBAT:
        text += f" {FITTED_HERE}"
    if change.low > 0:
        return GroupVerdict("larger", f"{text} Groups differ more than before.")
    if change.high >= 0:
        return GroupVerdict("as before", f"{text} That is no clear change.")
    if after.above_chance:
        return GroupVerdict(
            "smaller", f"{text} Groups still differ, less than before. {CANNOT_TELL}"
        )
    if named:
        return GroupVerdict("smaller", f"{text} The share is within chance, yet {named}.")
    return GroupVerdict(
        "at chance", f"{text} Groups no longer differ by more than chance. {CANNOT_TELL}"
    )
