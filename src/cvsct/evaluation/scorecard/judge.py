"""How a figure is judged by its interval and its tolerance, and how it is written.

A figure passes only where its whole 95 % interval lies within the tolerance, and fails only where
the interval is clear of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cvsct.evaluation.resampled import Resampled
from cvsct.evaluation.scorecard.tile import Status
from cvsct.evaluation.scorecard.tolerances import Tolerance

PERCENT = "\N{NO-BREAK SPACE}%"


def judge(
    figure: Resampled | None, tolerance: Tolerance, retest: Resampled | None = None
) -> Status:
    """Status of a figure whose target is 0.

    Args:
        figure: None where it was not measured.
        tolerance: what passes and what fails.
        retest: the same figure of the target's second scan, which no method can surpass: what
            passes reaches to its value on its side of 0, but never beyond what fails.
    """
    if figure is None or not np.isfinite(figure.value) or figure.interval is None:
        return "not enough data"
    lowest, highest = passing_range(tolerance, retest)
    low, high = figure.interval
    if lowest <= low and high <= highest:
        return "pass"
    if is_clear(figure, (lowest, highest)):
        return "fail" if abs(figure.value) > tolerance.fails else "attention"
    return "not enough data" if high - low > highest - lowest else "attention"


def is_clear(figure: Resampled, passes: tuple[float, float]) -> bool:
    """Whether the whole interval lies outside of what passes."""
    lowest, highest = passes
    interval = figure.interval
    return interval is not None and (interval[0] > highest or interval[1] < lowest)


def reason_for(
    status: Status,
    figure: Resampled | None,
    passes: tuple[float, float],
    about: str,
    words: str,
) -> str:
    """Why a figure has its status, as a sentence without its end.

    Args:
        passes: lowest and highest value that pass.
        about: what is judged, as in "the interval of bone".
        words: what the figure says where it lies outside.
    """
    if status == "pass":
        return "within the tolerance, with the whole interval"
    if figure is None or not np.isfinite(figure.value):
        return f"{about} could not be measured"
    if figure.interval is None:
        return f"{about} was measured in too few places for an interval; measure more slices"
    if status == "not enough data":
        return (
            f"the interval of {about} is wider than the tolerance; measure more slices, or more of "
            "the body"
        )
    if passes[0] <= figure.value <= passes[1]:
        return f"the interval of {about} reaches beyond the tolerance"
    return words


def passing_range(tolerance: Tolerance, retest: Resampled | None = None) -> tuple[float, float]:
    """Lowest and highest value that pass."""
    lowest, highest = -tolerance.passes, tolerance.passes
    if retest is not None and np.isfinite(retest.value):
        reached = float(np.clip(retest.value, -tolerance.fails, tolerance.fails))
        lowest, highest = min(lowest, reached), max(highest, reached)
    return lowest, highest


def first_that_holds(checks: Sequence[tuple[bool, Status, str]]) -> tuple[Status, str]:
    """Status and reason of the first check whose condition holds."""
    return next((status, reason) for holds, status, reason in checks if holds)


def interval_text(figure: Resampled, write: Callable[[float], str]) -> str:
    """The interval in brackets, after a space; empty where there is none."""
    if figure.interval is None:
        return ""
    low, high = figure.interval
    return f" ({write(low)} to {write(high)})"


def percent(share: float) -> str:
    """A signed share in percent with one decimal."""
    return f"{100 * share:+.1f}{PERCENT}"


def percent_range(lowest: float, highest: float) -> str:
    """A range in percent."""
    return f"{range_text(100 * lowest, 100 * highest)}{PERCENT}"


def range_text(lowest: float, highest: float) -> str:
    """A range, shortened where it is symmetric about 0."""
    if -lowest == highest:
        return f"±{highest:.3g}"
    return f"{lowest:.3g} to {highest:+.3g}"
