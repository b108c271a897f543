"""Results of a benchmark, and look-up of their figures.

Results are what evaluations wrote to `metrics.json`, so that a benchmark can be continued later and
its tables rendered again at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvsct.core import sides

INPUT, RETEST, COMBAT = sides.SOURCE.label, sides.RETEST.label, "ComBat (features only)"
"""Names of the rows that no trained method has: the unchanged scans, the target's second scan, and
the harmonization of features without images."""

DIRECTION_FOLDERS = ("a2b", "b2a")
"""Folders of the two directions."""


@dataclass(frozen=True)
class Result:
    """Evaluation of one method with one seed in one direction.

    Args:
        method: name of the method.
        seed: seed of its training.
        direction: number of the direction in `Benchmark.directions`.
        metrics: contents of its `metrics.json`.
        fit_s: duration of the training; None without a training, as the next two.
        slices_per_s: speed of harmonization, including reading and writing.
        model_mb: size of the model's files.
        kind: kind of method: `classical`, `unpaired` or `paired`.
        trained_on: folder of the scans that it was trained on.
        both_ways: whether its training serves the other direction too.
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
    """All results on one data set.

    Args:
        directions: names of the two directions, such as `GE to Siemens`.
        results: the results.
        budget: sentence on the steps and minutes of each training.
        on_paper_scanners: whether the two scanners are the paper's, so that the tables show its
            figures too.
        failed: method and direction of each training, harmonization or evaluation that failed.
    """

    directions: tuple[str, str]
    results: tuple[Result, ...]
    budget: str
    on_paper_scanners: bool = False
    failed: tuple[tuple[str, int], ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods in order of their first result, without the input."""
        names = dict.fromkeys(result.method for result in self.results)
        return tuple(name for name in names if name != INPUT)

    def of(self, method: str, direction: int) -> list[Mapping[str, Any]]:
        """Metrics of a method in one direction, one mapping for each seed.

        Those of the input and the retest are the same in every result, and are given once.
        """
        in_direction = [result for result in self.results if result.direction == direction]
        if method in (INPUT, RETEST):
            key = "input" if method == INPUT else "retest"
            references = [result.metrics.get(key) for result in in_direction]
            return [metrics for metrics in references if metrics][:1]
        return [result.metrics for result in in_direction if result.method == method]

    def unpaired_because(self, direction: int) -> str:
        """Why no evaluation of a direction compared slices; empty where one did."""
        in_direction = [result for result in self.results if result.direction == direction]
        reasons = [result.metrics.get("unpaired_because") for result in in_direction]
        return reasons[0] or "" if reasons and all(reasons) else ""


def methods_and_references(benchmark: Benchmark) -> tuple[str, ...]:
    """Rows of a table: the input, the methods, and the retest, which no method can surpass."""
    return (INPUT, *benchmark.methods, RETEST)


def metric_at(*path: str) -> Callable[[Mapping[str, Any]], Any]:
    """Function that looks up a figure of metrics by its keys; it returns None if there is none."""

    def metric(metrics: Mapping[str, Any]) -> Any:
        value: Any = metrics
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    return metric


def share_at(number: int) -> Callable[[Mapping[str, Any]], Any]:
    """Function that looks up the share of features that reach the threshold of this number."""

    def metric(metrics: Mapping[str, Any]) -> Any:
        shares = metrics.get("shares") or []
        return shares[number]["share"] if number < len(shares) else None

    return metric


def within_mean(metrics: Mapping[str, Any]) -> float | None:
    """Mean over the classes of the concordance within regions; None where none is defined."""
    values = [v for v in (metrics.get("ccc_within") or {}).values() if v is not None]
    return float(np.mean(values)) if values else None


def mean_over_seeds(
    metrics_of_seeds: Sequence[Mapping[str, Any]], metric: Callable[..., Any]
) -> float | None:
    """Mean of a figure over the seeds that have it; None where no seed has it.

    Args:
        metrics_of_seeds: metrics of each seed, as from `Benchmark.of`.
        metric: function that looks up the figure, such as `metric_at("ssim")`.
    """
    values = [value for metrics in metrics_of_seeds if (value := metric(metrics)) is not None]
    return float(np.mean(values)) if values else None
