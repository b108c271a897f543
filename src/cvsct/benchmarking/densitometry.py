"""Table of lung densitometry in a benchmark: source, every method, retest and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvsct.benchmarking.results import INPUT, RETEST, Benchmark, mean_over_seeds, metric_at
from cvsct.benchmarking.unpaired import MISSING_CELL, TARGET
from cvsct.evaluation.table import Table

NOT_APPLICABLE = "not applicable"
"""Cell of lungs that hold no parenchyma."""

_COLUMNS = (
    ("LAA-950 (%)", "laa950_percent", ".1f"),
    ("15th percentile (HU)", "perc15_hu", ".0f"),
    ("mean density (HU)", "mean_hu", ".0f"),
)
_KEY = ("physics", "lung_densitometry")


def densitometry_table(benchmark: Benchmark) -> Table | None:
    """Table of the density of the lungs by method and direction, with noise beside it.

    Returns:
        None where no result has densitometry, as those of earlier versions.
    """
    rows: list[tuple[str, ...]] = []
    marked = set()
    reasons: dict[str, None] = {}
    for number, direction in enumerate(benchmark.directions):
        all_metrics = [r.metrics for r in benchmark.results if r.direction == number]
        with_density = [m for m in all_metrics if metric_at(*_KEY)(m)]
        if not with_density:
            continue
        marked.add(len(rows))
        rows.append((f"{direction} conversion", *[""] * (2 * len(_COLUMNS) + 1)))
        for metrics in with_density:
            for side in metric_at(*_KEY)(metrics).values():
                if side.get("not_applicable"):
                    reasons[side["not_applicable"]] = None
        first = with_density[:1]
        rows.append(_row(INPUT, first, "source"))
        rows += [
            _row(name, of_method, "harmonized")
            for name in benchmark.methods
            if (of_method := [m for m in benchmark.of(name, number) if metric_at(*_KEY)(m)])
        ]
        if metric_at(*_KEY, "retest")(first[0]):
            rows.append(_row(RETEST, first, "retest"))
        rows.append(_row(TARGET, first, "target"))
    if not rows:
        return None
    return Table(
        key="densitometry",
        title="Lung densitometry",
        caption=(
            "Share of lung voxels below -950 HU, 15th percentile and mean; each with its mean "
            "absolute difference from the target's series where they show the same slices; means "
            "over seeds"
        ),
        head=(
            "Method",
            *(text for name, _, _ in _COLUMNS for text in (name, "difference")),
            "noise (HU)",
        ),
        rows=tuple(rows),
        marked=frozenset(marked),
        footnotes=tuple(f"Not applicable: {reason}." for reason in reasons),
    )


def _row(name: str, metrics_of_seeds: Sequence[Mapping[str, Any]], side: str) -> tuple[str, ...]:
    """Row of one side of the evaluations of a method.

    Args:
        name: first cell.
        metrics_of_seeds: metrics of each seed.
        side: side of the evaluation that the row shows.
    """
    cells = [name]
    for _, figure, spec in _COLUMNS:
        value = mean_over_seeds(metrics_of_seeds, metric_at(*_KEY, side, figure))
        difference = mean_over_seeds(metrics_of_seeds, metric_at(*_KEY, side, "difference", figure))
        cells.append(NOT_APPLICABLE if value is None else format(value, spec))
        cells.append(MISSING_CELL if difference is None else format(difference, spec))
    noise = mean_over_seeds(metrics_of_seeds, metric_at("physics", "noise_power", side, "sd_hu"))
    return (*cells, MISSING_CELL if noise is None else format(noise, ".1f"))
