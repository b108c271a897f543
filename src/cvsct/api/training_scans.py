"""The scans a training is given: looked at, counted and, where they must be, refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cvsct.core.errors import CvsctError, RefusedScansError, UsageError
from cvsct.core.progress import Note, Progress
from cvsct.core.text import columns
from cvsct.guard.training_set import DERIVED, TrainingProblem, find_problems, parse_allowed
from cvsct.io.dicom.header import label
from cvsct.io.examined import Examined, examine
from cvsct.io.left_out import lines
from cvsct.io.scans import SeriesOnDisk
from cvsct.training.data.census import HEAD, Census

SKIP = "; repair or remove what is named, or go on without it by --skip-refused"


@dataclass(frozen=True)
class TrainingSet:
    """What may be learned from.

    Args:
        census: for the model's card and the manifest.
    """

    source: SeriesOnDisk
    target: SeriesOnDisk
    census: dict[str, Any]


def admitted(
    source: Path,
    target: Path,
    allow: Sequence[str],
    skip_refused: bool,
    progress: Progress,
    tell: Note,
    show: tuple[Note, Note] | None,
) -> TrainingSet:
    """Both sides' scans, with their census told.

    Args:
        allow: words of `--allow`.
        skip_refused: go on without the series that must be refused, whose pixels are read for it.
        tell: notes that go into the manifest too.
        show: told what was left out, and the census as a table; None keeps both quiet.

    Raises:
        RefusedScansError: if scans must be refused.
        UsageError: if one series lies on both sides.
    """
    allowed = parse_allowed(allow)
    paths = {"source": source, "target": target}
    looked = {
        side: examine(path, skip_refused, progress, f"checking the {side}")
        for side, path in paths.items()
    }
    if show:
        for side, each in looked.items():
            for line in lines(each.left_out, f"{side} scans"):
                show[0](line)
    derived = DERIVED in allowed
    series = {side: each.scans if derived else each.acquired for side, each in looked.items()}
    _refuse_same_series(series["source"], series["target"])
    unfit = [reason for side, each in looked.items() for reason in _unfit(side, each, derived)]
    refused = [] if skip_refused else list(unfit)
    if any(each.refused for each in looked.values()) and not skip_refused:
        refused = _all_unfit(paths, derived, progress)
    empty = [f"no series of the {side} is left" for side, each in series.items() if not len(each)]
    if empty and skip_refused:
        refused = [*empty, *unfit]
    problems: list[TrainingProblem] = []
    if not empty:
        try:
            problems = list(
                find_problems({s: (each.series, each.facts) for s, each in series.items()})
            )
        except CvsctError:  # a slice that was looked at is damaged
            if not refused:
                refuse_damaged(source, target, allow, progress)
                raise
    refused += [
        f"{problem.text}{_allow_option(problem)}"
        for problem in problems
        if problem.allow not in allowed
    ]
    if refused:
        _refuse(refused, SKIP if unfit and not skip_refused else "")
    for reason in unfit:
        tell(f"left out: {reason}")
    census = Census.of(series["source"].facts, series["target"].facts)
    if show:
        show[1](columns([HEAD, *census.rows]))
    warnings = [
        *(f"{problem.text} (allowed)" for problem in problems),
        *(_made_here(side, each) for side, each in looked.items() if derived and each.harmonized),
        *census.warnings,
    ]
    for warning in warnings:
        tell(warning)
    record = {**census.to_json(), "warnings": warnings, **({"left_out": unfit} if unfit else {})}
    return TrainingSet(series["source"], series["target"], record)


def refuse_damaged(source: Path, target: Path, allow: Sequence[str], progress: Progress) -> None:
    """Tell all series that cannot be read, once one was found damaged while it was learned from.

    Raises:
        RefusedScansError: if there is any.
    """
    paths = {"source": source, "target": target}
    unfit = _all_unfit(paths, DERIVED in parse_allowed(allow), progress)
    if unfit:
        _refuse(unfit, SKIP)


def _all_unfit(paths: Mapping[str, Path], derived: bool, progress: Progress) -> list[str]:
    """Why series must be refused, damaged pixels included: nothing is going to be trained."""
    return [
        reason
        for side, path in paths.items()
        for reason in _unfit(side, examine(path, True, progress, f"reading the {side}"), derived)
    ]


def _unfit(side: str, looked: Examined, derived: bool) -> list[str]:
    """Why series of a side must be refused, one line each, in the order of their numbers.

    Args:
        derived: whether what this program made is allowed.
    """
    reasons = dict(looked.refused)
    if not derived:
        reasons |= {
            number: f"{label(each.files[0])}: made by this program, not by a scanner "
            "(--allow derived lets it in)"
            for number, each in looked.harmonized.items()
        }
    return [f"{side}, series {number}: {reasons[number]}" for number in sorted(reasons)]


def _made_here(side: str, looked: Examined) -> str:
    count = len(looked.harmonized)
    return (
        f"{count} of {len(looked.scans)} series of the {side} were made by this program (allowed)"
    )


def _allow_option(problem: TrainingProblem) -> str:
    """Ending of a message that names the option by which a problem is allowed, if there is one."""
    return f", or go on all the same with --allow {problem.allow}" if problem.allow else ""


def _refuse(reasons: Sequence[str], remedy: str = "") -> NoReturn:
    """Refuse to train, with all reasons.

    Raises:
        RefusedScansError: always.
    """
    first, *others = reasons
    more = f" (and {len(others)} more; nothing was trained)" if others else ""
    raise RefusedScansError(f"{first}{more}{remedy}", tuple(reasons))


def _refuse_same_series(source: SeriesOnDisk, target: SeriesOnDisk) -> None:
    both = {each.series_uid for each in source.facts} & {each.series_uid for each in target.facts}
    if both:
        raise UsageError(
            f"{len(both)} series lie in both source and target; give scans of two scanners"
        )
