"""Comparison of methods where test scans show different bodies, by figures that need no pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvsct.benchmarking.results import INPUT, Benchmark, mean_over_seeds, metric_at
from cvsct.evaluation.table import Table

TARGET = "target"
"""Name of the target's row."""

MISSING_CELL = "–"
"""Cell of a figure that was not measured."""

EDGES = ("skin", "lung")
"""Kinds of edges that are measured."""


def unpaired_table(benchmark: Benchmark, direction: int) -> Table | None:
    """Table of texture, noise, edges and mean HU of each method beside the target's.

    Returns:
        None where test scans of that direction pair, because other tables show more.
    """
    reason = benchmark.unpaired_because(direction)
    if not reason:
        return None
    all_metrics = [r.metrics for r in benchmark.results if r.direction == direction]
    methods = [name for name in benchmark.methods if benchmark.of(name, direction)]
    methods.sort(key=lambda name: _distance(benchmark.of(name, direction)))
    rows = [
        _row(INPUT, all_metrics[:1], "source", metric_at("input", "spectral_distance_db")),
        *(
            _row(
                name, benchmark.of(name, direction), "harmonized", metric_at("spectral_distance_db")
            )
            for name in methods
        ),
        _row(TARGET, all_metrics[:1], "target", lambda _: None),
    ]
    return Table(
        key=f"unpaired{direction + 1}",
        title=f"What can be told without pairs: {benchmark.directions[direction]}",
        caption=(
            f"There are no figures of pairs: {reason}. In order of the distance of texture spectra "
            "from the target's; noise, edges and soft tissue should come close to the target's, as "
            "far as the bodies are alike. Means over seeds."
        ),
        head=(
            "Method",
            "texture distance (dB)",
            "noise (HU)",
            "noise mean frequency (/mm)",
            *(f"{kind} edge MTF50 (/mm)" for kind in EDGES),
            "soft tissue (HU)",
        ),
        rows=tuple(rows),
        marked=frozenset({0, len(rows) - 1}),
    )


def unpaired_headline(benchmark: Benchmark, direction: int) -> str:
    """Sentence on the method whose texture comes closest; empty where test scans pair."""
    reason = benchmark.unpaired_because(direction)
    if not reason:
        return ""
    name = benchmark.directions[direction]
    scores = {
        method: score
        for method in benchmark.methods
        if (
            score := mean_over_seeds(
                benchmark.of(method, direction), metric_at("spectral_distance_db")
            )
        )
        is not None
    }
    text = f"{name}: no figures of pairs, because {reason}"
    if scores:
        best = min(scores, key=lambda method: scores[method])
        text += f"; the texture of {best} comes closest to the target's, {scores[best]:.1f} dB away"
    before = mean_over_seeds(
        [result.metrics for result in benchmark.results if result.direction == direction][:1],
        metric_at("input", "spectral_distance_db"),
    )
    return text + (f", the input's is {before:.1f} dB away." if before is not None else ".")


def _distance(metrics_of_seeds: Sequence[Mapping[str, Any]]) -> float:
    """Spectral distance by which methods are sorted; infinite where it was not measured."""
    value = mean_over_seeds(metrics_of_seeds, metric_at("spectral_distance_db"))
    return float("inf") if value is None else value


def _row(
    name: str, metrics_of_seeds: Sequence[Mapping[str, Any]], side: str, distance: Any
) -> tuple[str, ...]:
    """Row of a method, the input or the target.

    Args:
        name: first cell.
        metrics_of_seeds: metrics of each seed.
        side: side of the evaluation that the row shows.
        distance: function that looks up its spectral distance.
    """
    figures = (
        (distance, ".1f"),
        (metric_at("physics", "noise_power", side, "sd_hu"), ".1f"),
        (metric_at("physics", "noise_power", side, "mean_per_mm"), ".3f"),
        *(
            (metric_at("physics", "edge_transfer", kind, side, "mtf50_per_mm"), ".3f")
            for kind in EDGES
        ),
        (metric_at("soft_tissue_hu", side), ".1f"),
    )
    values = [(mean_over_seeds(metrics_of_seeds, metric), spec) for metric, spec in figures]
    return (name, *(MISSING_CELL if v is None else format(v, spec) for v, spec in values))
