"""Admission of scans to a training: every series is examined, counted, and refused if unusable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from cvsct.core.errors import CvsctError, RefusedScansError, UsageError
from cvsct.core.progress import Note, Progress
from cvsct.core.text import columns, counted
from cvsct.guard.training_set import DERIVED, TrainingProblem, find_problems, parse_allowed
from cvsct.io.checked_scans import CheckedScans, check_series
from cvsct.io.dicom.header import label
from cvsct.io.left_out import lines
from cvsct.io.scans import SeriesOnDisk
from cvsct.profile.profile import ScannerProfile
from cvsct.training.data.census import HEAD, SIDES, Census, side_rows, side_warnings, span

SKIP_REMEDY = "; repair or remove what is named, or go on without it by --skip-refused"
"""End of a message that refuses series."""


@dataclass(frozen=True)
class TrainingSet:
    """Scans of the sides that are admitted to a training.

    Args:
        scans: of each side that is a path, by its name.
        census: numbers of patients, series and slices by protocol, and warnings, for the model
            card and the manifest.
    """

    scans: Mapping[str, SeriesOnDisk]
    census: dict[str, Any]


def admit_scans(
    paths: Mapping[str, Path],
    allow: Sequence[str],
    skip_refused: bool,
    progress: Progress,
    note: Note,
    show: tuple[Note, Note] | None,
    profiles: Mapping[str, ScannerProfile] = MappingProxyType({}),
) -> TrainingSet:
    """Examine the scans of the sides and return those that may be used for training.

    Args:
        paths: of the scans of each side, by its name.
        allow: values of `--allow`.
        skip_refused: leave out series that cannot be used; their pixels are read to find them.
        note: called with remarks that go into the manifest too.
        show: called with the files that were left out, and with the census as a table; None
            reports neither.
        profiles: sides without scans.

    Raises:
        RefusedScansError: if scans cannot be used.
        UsageError: if a series is on both sides.
    """
    allowed = parse_allowed(allow)
    checked = {
        side: check_series(path, skip_refused, progress, f"checking the {side}")
        for side, path in paths.items()
    }
    if show:
        for side, contents in checked.items():
            for line in lines(contents.left_out, f"{side} scans"):
                show[0](line)
    allow_derived = DERIVED in allowed
    scans = {
        side: contents.scans if allow_derived else contents.acquired
        for side, contents in checked.items()
    }
    _refuse_same_series(list(scans.values()))
    unusable = [
        reason
        for side, contents in checked.items()
        for reason in _reasons_against(side, contents, allow_derived)
    ]
    refused = [] if skip_refused else list(unusable)
    if any(contents.refused for contents in checked.values()) and not skip_refused:
        refused = _all_reasons_against(paths, allow_derived, progress)
    empty = [f"no series of the {side} is left" for side, kept in scans.items() if not len(kept)]
    if empty and skip_refused:
        refused = [*empty, *unusable]
    problems: list[TrainingProblem] = []
    if not empty:
        try:
            problems = list(
                find_problems({side: (kept.series, kept.facts) for side, kept in scans.items()})
            )
        except CvsctError:  # a slice that was sampled is damaged
            if not refused:
                refuse_damaged(paths, allow, progress)
                raise
    refused += [
        f"{problem.text}{_allow_option(problem)}"
        for problem in problems
        if problem.allow not in allowed
    ]
    if refused:
        _refuse(refused, SKIP_REMEDY if unusable and not skip_refused else "")
    for reason in unusable:
        note(f"left out: {reason}")
    census = _census(scans, profiles)
    if show:
        show[1](columns([HEAD, *census.rows]))
    warnings = [
        *(f"{problem.text} (allowed)" for problem in problems),
        *(
            _derived_warning(side, contents)
            for side, contents in checked.items()
            if allow_derived and contents.harmonized
        ),
        *census.warnings,
    ]
    for warning in warnings:
        note(warning)
    left_out = {"left_out": unusable} if unusable else {}
    return TrainingSet(scans, {**census.to_json(), "warnings": warnings, **left_out})


def _census(scans: Mapping[str, SeriesOnDisk], profiles: Mapping[str, ScannerProfile]) -> Census:
    """Census of the sides, in their order."""
    if not profiles and len(scans) == len(SIDES):
        return Census.of(*(scans[side].facts for side in SIDES))
    rows: list[tuple[str, ...]] = []
    warnings: list[str] = []
    for side in SIDES:
        if side in scans:
            rows += side_rows(side, scans[side].facts)
            warnings += side_warnings(side, scans[side].facts)
        elif side in profiles:
            rows += profile_rows(side, profiles[side])
            if profiles[side].few_patients:
                warnings.append(
                    f"the {side} is a profile with sums of fewer than three patients; neither it "
                    "nor what shows its figures is to be shared"
                )
    return Census(tuple(rows), tuple(warnings))


def profile_rows(side: str, profile: ScannerProfile) -> list[tuple[str, ...]]:
    """Rows of the census for a side that is a profile."""
    return [
        (
            f"{side} (profile)",
            group.acquisition.scanner or "unknown",
            group.acquisition.kernel or "unknown",
            f"{group.acquisition.kvp:g}" if group.acquisition.kvp else "unknown",
            span([mm for mm in profile.thickness_mm if mm]),
            span(profile.pixel_mm),
            str(group.n_patients),
            str(group.n_series),
            str(group.n_slices),
        )
        for group in profile.groups
    ]


def refuse_damaged(paths: Mapping[str, Path], allow: Sequence[str], progress: Progress) -> None:
    """Refuse all series that cannot be read, after one was found damaged during training.

    Raises:
        RefusedScansError: if there is any, with the reason of each.
    """
    unusable = _all_reasons_against(paths, DERIVED in parse_allowed(allow), progress)
    if unusable:
        _refuse(unusable, SKIP_REMEDY)


def _all_reasons_against(
    paths: Mapping[str, Path], allow_derived: bool, progress: Progress
) -> list[str]:
    """Reasons against series of both sides, after reading all their pixels."""
    return [
        reason
        for side, path in paths.items()
        for reason in _reasons_against(
            side, check_series(path, True, progress, f"reading the {side}"), allow_derived
        )
    ]


def _reasons_against(side: str, checked: CheckedScans, allow_derived: bool) -> list[str]:
    """Reasons against series of one side, one line per series, in the order of their numbers.

    Args:
        allow_derived: whether series that this program derived are allowed.
    """
    reasons = dict(checked.refused)
    if not allow_derived:
        reasons |= {
            number: f"{label(series.files[0])}: made by this program, not by a scanner "
            "(--allow derived lets it in)"
            for number, series in checked.harmonized.items()
        }
    return [f"{side}, series {number}: {reasons[number]}" for number in sorted(reasons)]


def _derived_warning(side: str, checked: CheckedScans) -> str:
    count = len(checked.harmonized)
    return (
        f"{count} of {len(checked.scans)} series of the {side} were made by this program (allowed)"
    )


def _allow_option(problem: TrainingProblem) -> str:
    """Ending of a message that names the option by which a problem is allowed, if there is one."""
    return f", or go on all the same with --allow {problem.allow}" if problem.allow else ""


def _refuse(reasons: Sequence[str], remedy: str = "") -> NoReturn:
    """Refuse to train, with the reasons against all series.

    Raises:
        RefusedScansError: always.
    """
    first, *others = reasons
    more = f" (and {len(others)} more; nothing was trained)" if others else ""
    raise RefusedScansError(f"{first}{more}{remedy}", tuple(reasons))


def _refuse_same_series(sides: Sequence[SeriesOnDisk]) -> None:
    uids = [{facts.series_uid for facts in side.facts} for side in sides]
    shared = set.intersection(*uids) if len(uids) > 1 else set()
    if shared:
        raise UsageError(
            f"{counted(len(shared), 'series lies', 'series lie')} in both source and target; "
            "give scans of two scanners"
        )
