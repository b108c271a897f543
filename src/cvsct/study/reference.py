"""Proposal of the reference of a study: the group that most patients can be brought to honestly.

A scan can be blurred, quieted and averaged to thicker slices; what its scanner did not resolve
cannot be put back, and thinner slices cannot be made of thick ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from cvsct.core.slice_average import MOST_GAP, SAME_THICKNESS, is_thickness
from cvsct.study.groups import Differences, StudyGroup
from cvsct.study.series import StudySeries


class ReachRules(BaseModel):
    """From how far a group can be brought to the reference honestly.

    Args:
        sharpening: most that sharpness (.25 to .5 cycles/mm) may rise, in times.
        quieting: most that noise may fall beyond what sharpness does, in times: what a blur takes
            away is no loss of what the reference has.
        noise: most that noise may rise beyond what sharpness does, in times: what sharpening does
            not amplify is generated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sharpening: float = Field(default=2.0, ge=1)
    quieting: float = Field(default=5.0, ge=1)
    noise: float = Field(default=5.0, ge=1)


@dataclass(frozen=True)
class Reach:
    """Whether a group can be brought to a reference.

    Args:
        group: name of the group.
        noise, sharpness: of the reference over those of the group; NaN where not comparable.
        objection: why it cannot; empty where it can.
    """

    group: str
    noise: float
    sharpness: float
    objection: str = ""


@dataclass(frozen=True)
class Proposal:
    """A group as the reference.

    Args:
        name: the group.
        reaches: of all other groups.
        n_patients: patients of the reference and of the groups that can be brought to it.
        reasons: why it is proposed, for a reader.
    """

    name: str
    reaches: tuple[Reach, ...]
    n_patients: int
    reasons: tuple[str, ...]


def common_thickness(series: Sequence[StudySeries], min_patients: int) -> float:
    """Slice thickness, of those that occur, that most patients can be brought to.

    Of thicknesses that as many patients reach, within a twentieth, the thinnest; 0 where no header
    tells one.
    """
    known = [each for each in series if each.thickness_mm > 0]
    counts: dict[float, int] = {}
    for wanted in sorted({round(each.thickness_mm, 2) for each in known}):
        own = {each.patient for each in known if is_thickness(each.thickness_mm, wanted)}
        if len(own) >= min_patients:
            counts[wanted] = len({e.patient for e in known if not cannot_reach(e, wanted)})
    if not counts:
        return max((each.thickness_mm for each in known), default=0.0)
    most = max(counts.values())
    return min(mm for mm, count in counts.items() if count >= 0.95 * most)


def cannot_reach(series: StudySeries, thickness_mm: float) -> str:
    """Why a series cannot be brought to a slice thickness; empty where it can."""
    own, spacing = series.thickness_mm, series.spacing_mm
    if not thickness_mm or is_thickness(own, thickness_mm):
        return ""
    if not own:
        return "its header tells no slice thickness"
    if own > thickness_mm:
        return (
            f"slices of {own:g} mm, thicker than the reference's {thickness_mm:g} mm; thinner ones "
            "are never made up"
        )
    if series.n_slices * (spacing or own) < thickness_mm:
        return f"{series.n_slices} slices of {own:g} mm, too few for one of {thickness_mm:g} mm"
    if spacing > MOST_GAP * own:
        return (
            f"slices of {own:g} mm every {spacing:g} mm, between which the body was not seen; no "
            f"slices of {thickness_mm:g} mm can be made of them"
        )
    return ""


def propose_reference(
    groups: Sequence[StudyGroup],
    thickness_mm: float,
    rules: ReachRules,
    differences: Differences | None = None,
    given: str = "",
) -> Proposal:
    """Propose the reference among the groups whose own slices have the common thickness.

    Args:
        groups: groups of the study, measured at the common thickness where they can be.
        thickness_mm: the common slice thickness; 0 where none is told.
        rules: what counts as honest.
        differences: compares groups, and remembers.
        given: name of the group to take.
    """
    differences = differences or Differences()
    native = [group for group in groups if _is_native(group, thickness_mm)] or list(groups)
    candidates = [group for group in groups if group.name == given] if given else native
    proposals = [_proposal(group, groups, thickness_mm, rules, differences) for group in candidates]
    return max(proposals, key=lambda p: (p.n_patients, _size(groups, p.name), p.name))


def _size(groups: Sequence[StudyGroup], name: str) -> int:
    return next(group.n_patients for group in groups if group.name == name)


def _is_native(group: StudyGroup, thickness_mm: float) -> bool:
    """Whether most of a group's series were acquired at a thickness."""
    near = [is_thickness(each.thickness_mm, thickness_mm) for each in group.members]
    return not thickness_mm or 2 * sum(near) > len(near)


def _proposal(
    reference: StudyGroup,
    groups: Sequence[StudyGroup],
    thickness_mm: float,
    rules: ReachRules,
    differences: Differences,
) -> Proposal:
    others = [group for group in groups if group.name != reference.name]
    reaches = [_reach(group, reference, rules, differences) for group in others]
    reached = {reach.group for reach in reaches if not reach.objection}
    patients = {each.patient for each in reference.members}
    patients |= {e.patient for g in others if g.name in reached for e in g.members}
    every = {each.patient for group in groups for each in group.members}
    thickness = f"slices of {thickness_mm:g} mm, " if thickness_mm else ""
    reasons = [
        f"{thickness}to which {len(reached)} of {len(others)} other groups can be brought, with "
        f"{len(patients)} of {len(every)} patients",
        f"{reference.n_patients} patients and {reference.n_slices} slices of its own",
    ]
    sharper = [r.sharpness for r in reaches if not r.objection and math.isfinite(r.sharpness)]
    noise = [r.noise for r in reaches if not r.objection and math.isfinite(r.noise)]
    if sharper and noise:
        reasons.append(
            f"sharpness {min(sharper):.2f} to {max(sharper):.2f} times and noise {min(noise):.2f} "
            f"to {max(noise):.2f} times that of the groups that come to it"
        )
    return Proposal(reference.name, tuple(reaches), len(patients), tuple(reasons))


def _reach(
    group: StudyGroup, reference: StudyGroup, rules: ReachRules, differences: Differences
) -> Reach:
    if not math.isclose(group.thickness_mm, reference.thickness_mm, rel_tol=SAME_THICKNESS):
        series = next((e for e in group.members if cannot_reach(e, reference.thickness_mm)), None)
        reason = (
            cannot_reach(series, reference.thickness_mm)
            if series
            else f"slices are brought to {group.thickness_mm:g} mm, the reference's are "
            f"{reference.thickness_mm:g} mm (--thickness)"
        )
        return Reach(group.name, math.nan, math.nan, reason)
    found = differences.between(group.profile, reference.profile)
    noise, sharpness = found.noise, found.sharpness
    objection = ""
    if not math.isfinite(noise * sharpness):
        objection = "too little common tissue to compare"
    elif sharpness > rules.sharpening:
        objection = f"the reference is {sharpness:.1f} times sharper (sharpening)"
    elif noise / sharpness < 1 / rules.quieting:
        objection = (
            f"noise would have to fall {sharpness / noise:.1f} times more than sharpness (quieting)"
        )
    elif noise / sharpness > rules.noise:
        objection = (
            f"noise would have to rise {noise / sharpness:.1f} times more than sharpness (noise)"
        )
    return Reach(group.name, noise, sharpness, objection)
