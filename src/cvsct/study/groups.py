"""Groups of series that one model can serve: by header, merged and split by what is measured.

Series of one manufacturer, scanner, kernel, tube voltage, thickness and contrast phase are one
group to begin with. Groups of one manufacturer and kernel whose noise and sharpness agree become
one; a group of two clearly different levels of noise becomes two; a group too small to fit a model
to joins the nearest of its manufacturer, or is left out.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cvsct.core.errors import ProfileError
from cvsct.core.progress import Progress, silent
from cvsct.guard.input_check import vendor
from cvsct.profile.compare import compare_profiles
from cvsct.profile.profile import ScannerProfile
from cvsct.study.measure import MeasuredProfiles, noise_level
from cvsct.study.series import StudySeries


class GroupRules(BaseModel):
    """When groups are merged, split, joined or left out.

    Args:
        noise, sharpness: relative differences up to which groups of one manufacturer and kernel are
            merged; twice the standard error is allowed beside them, if that is at most four
            of them.
        min_patients, min_slices: fewest of a group.
        join_within: how many of these tolerances a group that is too small may be from the one that
            it joins.
        split_noise: least ratio of two levels of noise that are told apart within a group.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise: float = Field(default=0.15, gt=0)
    sharpness: float = Field(default=0.07, gt=0)
    min_patients: int = Field(default=3, ge=1)
    min_slices: int = Field(default=24, ge=1)
    join_within: float = Field(default=3.0, ge=0)
    split_noise: float = Field(default=1.3, gt=1)


SEPARATION = 4.0
"""Distance of two clusters, in the root mean square of their deviations, from which they are two
(Ashman's D, of which 2 is the least that shows two modes)."""

FEWEST_OF_PART = 3
"""Fewest patients of a part that a group is split into, however few a group may have."""

LEAST_SPREAD = 0.03
"""Standard deviation of log noise of one scanner below which it is not known from few series."""


@dataclass(frozen=True)
class Difference:
    """How one group differs from another.

    Args:
        noise, sharpness: of the second over the first; NaN where they cannot be compared.
        noise_error, sharpness_error: standard errors.
    """

    noise: float
    sharpness: float
    noise_error: float = 0.0
    sharpness_error: float = 0.0

    def inverse(self) -> Difference:
        """How the first differs from the second; errors are of logarithms."""
        return Difference(
            1 / self.noise, 1 / self.sharpness, self.noise_error, self.sharpness_error
        )

    def tolerances(self, rules: GroupRules) -> float:
        """Largest difference in tolerances, the errors taken off; infinite where not comparable."""
        parts = [
            max(abs(value - 1) - 2 * error, 0.0) / tolerance
            for value, error, tolerance in (
                (self.noise, self.noise_error, rules.noise),
                (self.sharpness, self.sharpness_error, rules.sharpness),
            )
        ]
        return max(parts) if all(map(math.isfinite, parts)) else math.inf


@dataclass(frozen=True)
class StudyGroup:
    """Series that are harmonized by one model.

    Args:
        name: short name, the first part of folder names.
        members: its series.
        thickness_mm: of its slices as they are fitted; 0 where unknown.
        profile: sum of the profiles of its series.
        notes: what was merged, split or joined, and why.
    """

    name: str
    members: tuple[StudySeries, ...]
    thickness_mm: float
    profile: ScannerProfile
    notes: tuple[str, ...] = ()

    @property
    def n_patients(self) -> int:
        """Distinct patients."""
        return len({series.patient for series in self.members})

    @property
    def n_slices(self) -> int:
        """Slices of all series, as they were acquired."""
        return sum(series.n_slices for series in self.members)


class Differences:
    """Differences between groups, each pair compared once.

    Args:
        progress: called with the number of pairs that are compared.
    """

    def __init__(self, progress: Progress = silent) -> None:
        self._known: dict[tuple[int, int], Difference] = {}
        self._compared: list[ScannerProfile] = []  # alive, so that no other gets their identity
        self._progress = progress
        self.expected = 0
        """Number of pairs that will be compared, as far as it is known."""

    def between(self, first: ScannerProfile, second: ScannerProfile) -> Difference:
        """Noise and sharpness of the second scanner over those of the first."""
        there, back = (id(first), id(second)), (id(second), id(first))
        if there not in self._known and back in self._known:
            return self._known[back].inverse()
        if there not in self._known:
            self._known[there] = difference(first, second)
            self._compared += [first, second]
            done = len(self._known)
            self._progress("comparing groups", done, max(done, self.expected))
        return self._known[there]


def difference(first: ScannerProfile, second: ScannerProfile) -> Difference:
    """Noise and sharpness of a scanner over those of another."""
    try:
        figures = {figure.name: figure for figure in compare_profiles(first, second).figures}
    except ProfileError:
        return Difference(math.nan, math.nan)
    noise, sharpness = figures["noise"], figures["sharpness"]
    return Difference(noise.value, sharpness.value, noise.error, sharpness.error)


def group_series(
    series: Sequence[StudySeries],
    profiles: MeasuredProfiles,
    fitted_thickness: Mapping[str, float],
    rules: GroupRules,
    differences: Differences | None = None,
) -> tuple[list[StudyGroup], list[tuple[StudySeries, str]]]:
    """Group series.

    Args:
        series: the series of the study.
        profiles: of each, by its key.
        fitted_thickness: slice thickness at which each is fitted, by its key.
        rules: when groups are merged, split, joined or left out.
        differences: compares groups, and remembers.

    Returns:
        The groups, the largest first, and the series that are left out, with the reason.
    """
    differences = differences or Differences()
    by_header: defaultdict[tuple[object, ...], list[StudySeries]] = defaultdict(list)
    for each in series:
        by_header[_header(each), fitted_thickness[each.key]].append(each)
    groups = [_group(members, profiles, fitted_thickness) for members in by_header.values()]
    differences.expected = len(groups) + sum(
        _comparable(a, b) for a, b in itertools.combinations(groups, 2)
    )
    groups = _merged(_by_size(groups), rules, differences)
    groups = list(itertools.chain(*(_split(group, profiles, rules) for group in groups)))
    groups, left_out = _joined(_by_size(groups), rules, differences)
    return _named(_by_size(groups)), left_out


def _by_size(groups: Sequence[StudyGroup]) -> list[StudyGroup]:
    return sorted(groups, key=lambda group: (-group.n_patients, -group.n_slices, group.name))


def _header(series: StudySeries) -> tuple[object, ...]:
    """What series of a group have in common at the least."""
    own = series.acquisition
    return (vendor(own.manufacturer), own.model.casefold(), own.kernel.casefold(), own.kvp,
            round(series.thickness_mm, 1), series.contrast, series.is_nifti)  # fmt: skip


def _group(
    members: Sequence[StudySeries],
    profiles: MeasuredProfiles,
    fitted_thickness: Mapping[str, float],
) -> StudyGroup:
    first = members[0]
    return StudyGroup(
        short_name(first),
        tuple(members),
        fitted_thickness[first.key],
        profiles.total(each.key for each in members),
    )


def short_name(series: StudySeries) -> str:
    """Name of a group after one of its series, such as `siemens-somatom-force-br40-120kv-3mm`."""
    own = series.acquisition
    words = [vendor(own.manufacturer), own.model, own.kernel]
    words += [f"{own.kvp:g}kv"] if own.kvp else []
    words += [f"{series.thickness_mm:g}mm"] if series.thickness_mm else []
    words += ["contrast"] if series.contrast == "yes" else []
    name = re.sub(r"[^a-z0-9.]+", "-", " ".join(words).casefold()).strip("-")
    return name[:60].strip("-.") or "unknown-scanner"


def _agree(found: Difference, rules: GroupRules) -> bool:
    """Whether two groups agree, and are known well enough to say so."""
    known = max(found.noise_error / rules.noise, found.sharpness_error / rules.sharpness) <= 2
    return known and found.tolerances(rules) <= 1


def _merged(
    groups: Sequence[StudyGroup], rules: GroupRules, differences: Differences
) -> list[StudyGroup]:
    """Groups of one manufacturer, kernel and thickness, merged while any two of them agree."""
    open_groups = list(groups)
    while True:
        near = [
            (found.tolerances(rules), i, j)
            for (i, a), (j, b) in itertools.combinations(enumerate(open_groups), 2)
            if _comparable(a, b)
            and _agree(found := differences.between(a.profile, b.profile), rules)
        ]
        if not near:
            return open_groups
        distance, i, j = min(near)
        a, b = open_groups[i], open_groups[j]
        merged = StudyGroup(
            a.name, (*a.members, *b.members), a.thickness_mm, a.profile + b.profile,
            (*a.notes, *b.notes, f"{b.name} is merged into it: noise and sharpness agree "
             f"({distance:.1f} tolerances)"),
        )  # fmt: skip
        open_groups = [g for k, g in enumerate(open_groups) if k not in (i, j)]
        open_groups.insert(0, merged)


def _comparable(a: StudyGroup, b: StudyGroup, kernel: bool = True) -> bool:
    """Whether two groups are of one manufacturer, thickness as fitted, and kernel if asked for."""
    first, second = a.members[0].acquisition, b.members[0].acquisition
    return (
        a.members[0].is_nifti == b.members[0].is_nifti  # one tree is read as one of both
        and vendor(first.manufacturer) == vendor(second.manufacturer)
        and (not kernel or first.kernel.casefold() == second.kernel.casefold())
        and math.isclose(a.thickness_mm, b.thickness_mm, rel_tol=0.1)
    )


def _split(group: StudyGroup, profiles: MeasuredProfiles, rules: GroupRules) -> list[StudyGroup]:
    """A group, or its two halves where its series have two clearly different levels of noise."""
    levels = np.array([noise_level(profiles[each.key]) for each in group.members])
    known = np.flatnonzero(np.isfinite(levels))
    fewest = max(rules.min_patients, FEWEST_OF_PART)
    if len(known) < 2 * fewest:
        return [group]
    order = known[np.argsort(levels[known])]
    cut = int(np.argmax(np.diff(levels[order]))) + 1
    quiet, noisy = order[:cut], order[cut:]
    ratio = math.exp(float(levels[noisy].mean() - levels[quiet].mean()))
    spread = math.sqrt(0.5 * sum(max(float(levels[part].var()), LEAST_SPREAD**2)
                                 for part in (quiet, noisy)))  # fmt: skip
    if ratio < rules.split_noise or math.log(ratio) / spread < SEPARATION:
        return [group]
    parts = []
    for name, indices in (("quiet", {*range(len(levels))} - {*map(int, noisy)}),
                          ("noisy", {*map(int, noisy)})):  # fmt: skip
        members = [group.members[i] for i in sorted(indices)]
        if len({each.patient for each in members}) < fewest:
            return [group]
        parts.append(
            StudyGroup(
                f"{group.name}-{name}", tuple(members), group.thickness_mm,
                profiles.total(each.key for each in members),
                (*group.notes, f"split from {group.name}: noise of the two differs {ratio:.2f} "
                 "times at equal attenuation"),
            )
        )  # fmt: skip
    return parts


def _joined(
    groups: Sequence[StudyGroup], rules: GroupRules, differences: Differences
) -> tuple[list[StudyGroup], list[tuple[StudySeries, str]]]:
    """Groups that are large enough, with those that are not joined to the nearest or left out."""
    large = [group for group in groups if _objection(group, rules) == ""]
    left_out: list[tuple[StudySeries, str]] = []
    for small in groups:
        objection = _objection(small, rules)
        if not objection:
            continue
        distances = [
            (differences.between(other.profile, small.profile).tolerances(rules), i)
            for i, other in enumerate(large)
            if _comparable(other, small, kernel=False)
        ]
        distance, i = min(distances, default=(math.inf, -1))
        if distance <= rules.join_within:
            other = large[i]
            large[i] = StudyGroup(
                other.name, (*other.members, *small.members), other.thickness_mm,
                other.profile + small.profile,
                (*other.notes, f"{small.name} ({objection}) joins it, {distance:.1f} tolerances "
                 "away"),
            )  # fmt: skip
        else:
            if math.isfinite(distance):
                why = "and no group of its manufacturer and thickness is near enough to join"
            elif distances:
                why = "and it has too little tissue to compare it with those of its manufacturer"
            else:
                why = "and there is no group of its manufacturer and thickness to join"
            left_out += [
                (each, f"group {small.name}: {objection}, {why}") for each in small.members
            ]
    return large, left_out


def _objection(group: StudyGroup, rules: GroupRules) -> str:
    if group.n_patients < rules.min_patients:
        return f"{group.n_patients} patients, of {rules.min_patients} needed (min_patients)"
    if group.n_slices < rules.min_slices:
        return f"{group.n_slices} slices, of {rules.min_slices} needed (min_slices)"
    return ""


def _named(groups: Sequence[StudyGroup]) -> list[StudyGroup]:
    """Groups with a name of their own each."""
    taken = {group.name for group in groups}
    named: dict[str, StudyGroup] = {}
    for group in groups:
        name, count = group.name, 1
        while name in named or (count > 1 and name in taken):
            count += 1
            name = f"{group.name}-{count}"
        named[name] = replace(group, name=name)
    return list(named.values())
