"""Methods side by side where test scans show other bodies: what needs no pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvsct.benchmarking.results import INPUT, Benchmark, mean_over_seeds, metric_at
from cvsct.evaluation.table import Table

TARGET = "target"
MISSING_CELL = "–"
EDGES = ("skin", "lung")


def unpaired_table(benchmark: Benchmark, direction: int) -> Table | None:
    """Texture, noise, edges and mean HU of each method beside the target's own.

    None where test scans of that direction pair: other tables tell more.
    """
    reason = benchmark.unpaired_because(direction)
    if not reason:
        return None
    found = [one.metrics for one in benchmark.results if one.direction == direction]
    methods = [name for name in benchmark.methods if benchmark.of(name, direction)]
    methods.sort(key=lambda name: _distance(benchmark.of(name, direction)))
    rows = [
        _row(INPUT, found[:1], "source", metric_at("input", "spectral_distance_db")),
        *(
            _row(
                name, benchmark.of(name, direction), "harmonized", metric_at("spectral_distance_db")
            )
            for name in methods
        ),
        _row(TARGET, found[:1], "target", lambda _: None),
    ]
    return Table(
        key=f"unpaired{direction + 1}",
        title=f"What can be told without pairs: {benchmark.directions[direction]}",
        caption=(
            f"Paired figures are not there: {reason}. In order of the distance of texture spectra "
            "from the target's; noise, edges and soft tissue should come close to the target's "
            "own, as far as other bodies have the same. Means over seeds."
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
    """Whose texture comes closest where nothing pairs; empty where test scans pair."""
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
    said = f"{name}: no figure of pairs, for {reason}"
    if scores:
        best = min(scores, key=lambda method: scores[method])
        said += f"; the texture of {best} comes closest to the target's, {scores[best]:.1f} dB away"
    before = mean_over_seeds(
        [one.metrics for one in benchmark.results if one.direction == direction][:1],
        metric_at("input", "spectral_distance_db"),
    )
    return said + (f", the input's is {before:.1f} dB away." if before is not None else ".")


def _distance(found: Sequence[Mapping[str, Any]]) -> float:
    value = mean_over_seeds(found, metric_at("spectral_distance_db"))
    return float("inf") if value is None else value


def _row(
    name: str, found: Sequence[Mapping[str, Any]], side: str, distance: Any
) -> tuple[str, ...]:
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
    values = [(mean_over_seeds(found, look), digits) for look, digits in figures]
    return (name, *(MISSING_CELL if v is None else format(v, digits) for v, digits in values))
