"""A benchmark's results, and single figures of them.

They are what evaluations left in `metrics.json`, so that a benchmark can be spread over days and
its tables made anew at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvsct.core import sides

INPUT, RETEST, COMBAT = sides.SOURCE.label, sides.RETEST.label, "ComBat (features only)"
DIRECTION_FOLDERS = ("a2b", "b2a")
"""Folders of the two directions."""


@dataclass(frozen=True)
class Result:
    """One method's evaluation in one direction.

    Args:
        direction: place in `Benchmark.directions`.
        metrics: what `metrics.json` holds.
        fit_s: seconds the training took; None, like the others, where there was none.
        slices_per_s: of harmonizing, reading and writing included.
        model_mb: size of the model's files.
        kind: of method: classical, unpaired or paired.
        trained_on: the folder of the scans that it learned from.
        both_ways: whether its one training serves the other direction too.
    """

    method: str
    seed: int
    direction: int
    metrics: Mapping[str, Any]
    fit_s: float | None = None
    slices_per_s: float | None = None
    model_mb: float | None = None
    kind: str = ""
    trained_on: str = ""
    both_ways: bool = False


@dataclass(frozen=True)
class Benchmark:
    """All results of one data set.

    Args:
        directions: how each is called, such as `GE to Siemens`; two.
        budget: what was given to each training, in words.
        on_paper_scanners: whether the two scanners are the paper's, so that the tables show its
            figures too.
        failed: methods, and the direction, of which some training, image or report is missing.
    """

    directions: tuple[str, str]
    results: tuple[Result, ...]
    budget: str
    on_paper_scanners: bool = False
    failed: tuple[tuple[str, int], ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """In order of their first result, the input aside."""
        return tuple(dict.fromkeys(one.method for one in self.results if one.method != INPUT))

    def of(self, method: str, direction: int) -> list[Mapping[str, Any]]:
        """Metrics of a method, one a seed; the input's and the retest's are in any result."""
        own = [one for one in self.results if (one.method, one.direction) == (method, direction)]
        if method in (INPUT, RETEST):
            key = "input" if method == INPUT else "retest"
            every = [one.metrics.get(key) for one in self.results if one.direction == direction]
            return [each for each in every if each][:1]
        return [one.metrics for one in own]

    def unpaired_because(self, direction: int) -> str:
        """Why no evaluation of a direction compared slices; empty where one did."""
        every = [one.metrics for one in self.results if one.direction == direction]
        reasons = [one.get("unpaired_because") for one in every]
        return reasons[0] or "" if every and all(reasons) else ""


def compared_methods(benchmark: Benchmark) -> tuple[str, ...]:
    """The methods between what they start from and what they cannot surpass."""
    return (INPUT, *benchmark.methods, RETEST)


def metric_at(*path: str) -> Callable[[Mapping[str, Any]], Any]:
    """Looks a figure up; None where it is not there."""

    def look(metrics: Mapping[str, Any]) -> Any:
        found: Any = metrics
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return look


def share(place: int) -> Callable[[Mapping[str, Any]], Any]:
    """Looks up how many features reach the first or second threshold of concordance."""

    def look(metrics: Mapping[str, Any]) -> Any:
        shares = metrics.get("shares") or []
        return shares[place]["share"] if place < len(shares) else None

    return look


def within_mean(metrics: Mapping[str, Any]) -> float | None:
    """Concordance within regions, mean over the classes that are defined."""
    values = [v for v in (metrics.get("ccc_within") or {}).values() if v is not None]
    return float(np.mean(values)) if values else None


def mean_over_seeds(found: Sequence[Mapping[str, Any]], look: Callable[..., Any]) -> float | None:
    """Mean over seeds of those that have it."""
    values = [value for metrics in found if (value := look(metrics)) is not None]
    return float(np.mean(values)) if values else None
