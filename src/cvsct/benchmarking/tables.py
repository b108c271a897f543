"""Tables of a benchmark: the paper's Tables 2 and 3 beside its own, and a ranking with costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cvsct.benchmarking.published_results import (
    NOTES,
    PAPER_CLASSES,
    QUALITY,
    TABLE_2,
    TABLE_3,
    PublishedValue,
)
from cvsct.benchmarking.results import (
    INPUT,
    RETEST,
    Benchmark,
    mean_over_seeds,
    methods_and_references,
    metric_at,
    share_at,
    within_mean,
)
from cvsct.benchmarking.unpaired import MISSING_CELL, unpaired_table
from cvsct.evaluation.table import Table


def tables(benchmark: Benchmark) -> list[Table]:
    """All tables: the paper's two, the ranking of each direction, and figures without pairs."""
    without_pairs = [unpaired_table(benchmark, i) for i in (0, 1)]
    return [
        table_2(benchmark),
        table_3(benchmark),
        *(ranking(benchmark, i) for i in (0, 1)),
        *(table for table in without_pairs if table is not None),
    ]


def table_2(benchmark: Benchmark) -> Table:
    """Table of the concordance within regions by class, with the paper's rows, by direction."""
    rows: list[tuple[str, ...]] = []
    marked = set()
    for number, direction in enumerate(benchmark.directions):
        rows.append((f"{direction} conversion", *[""] * len(PAPER_CLASSES)))
        marked.add(len(rows) - 1)
        for method in methods_and_references(benchmark):
            metrics_of_seeds = benchmark.of(method, number)
            if metrics_of_seeds:
                cells = [_spread(metrics_of_seeds, "ccc_within", name, 2) for name in PAPER_CLASSES]
                rows.append((method, *cells))
            if benchmark.on_paper_scanners and method in TABLE_2:
                printed = TABLE_2[method][number]
                rows.append(
                    (f"{method}, the paper", *(_published_cell(printed[n]) for n in PAPER_CLASSES))
                )
                marked.add(len(rows) - 1)
    return Table(
        key="table2",
        title="Table 2: concordance of radiomic features, within regions",
        caption=(
            "Lin's CCC over the features of a class in one region; mean ± sd over "
            f"{_counts_text(benchmark)}{_seeds_text(benchmark)}"
        ),
        head=("Feature class", *PAPER_CLASSES.values()),
        rows=tuple(rows),
        marked=frozenset(marked),
        footnotes=(*_unpaired_notes(benchmark, (0, 1)), *_paper_footnotes(benchmark)),
    )


def table_3(benchmark: Benchmark) -> Table:
    """Table of PSNR, SSIM and NCC in both directions, with the paper's rows."""
    rows: list[tuple[str, ...]] = []
    marked = set()
    digits = {"psnr_db": 2, "ssim": 3, "ncc": 4}
    for method in methods_and_references(benchmark):
        by_direction = [benchmark.of(method, number) for number in (0, 1)]
        if any(by_direction):
            cells = [
                _spread(metrics_of_seeds, name, "", digits[name])
                for metrics_of_seeds in by_direction
                for name in QUALITY
            ]
            rows.append((method, *cells))
        if benchmark.on_paper_scanners and method in TABLE_3:
            printed = [
                _published_cell(TABLE_3[method][i][name]) for i in (0, 1) for name in QUALITY
            ]
            rows.append((f"{method}, the paper", *printed))
            marked.add(len(rows) - 1)
    return Table(
        key="table3",
        title="Table 3: image quality",
        caption=(
            f"On [0, 1] of the HU window; mean ± sd over {_counts_text(benchmark, 'n_slices')}"
            f"{_seeds_text(benchmark)}"
        ),
        head=(
            "Metric",
            *(
                f"{direction}: {name}"
                for direction in benchmark.directions
                for name in ("PSNR (dB)", "SSIM", "NCC")
            ),
        ),
        rows=tuple(rows),
        marked=frozenset(marked),
        footnotes=(*_unpaired_notes(benchmark, (0, 1)), *_paper_footnotes(benchmark)),
    )


def ranking(benchmark: Benchmark, direction: int) -> Table:
    """Table of the methods in order of their concordance across regions, with their costs."""
    metrics_of = {name: benchmark.of(name, direction) for name in methods_and_references(benchmark)}
    by_ibsi = metric_at("ccc_across_mean_ibsi")
    has_ibsi = any(mean_over_seeds(seeds, by_ibsi) is not None for seeds in metrics_of.values())
    ordered = sorted(
        metrics_of,
        key=lambda name: (
            -(mean_over_seeds(metrics_of[name], metric_at("ccc_across_mean")) or -np.inf)
        ),
    )
    rows = []
    for name in ordered:
        seeds = metrics_of[name]
        if not seeds:
            continue
        results = [r for r in benchmark.results if (r.method, r.direction) == (name, direction)]
        trained = results if name != INPUT else []
        rows.append(
            (
                name,
                _joined([r.kind for r in trained]),
                _joined([r.trained_on for r in trained]),
                _interval(seeds),
                *([_number(mean_over_seeds(seeds, by_ibsi), 3)] if has_ibsi else []),
                _number(mean_over_seeds(seeds, within_mean), 2),
                *(_percent(mean_over_seeds(seeds, share_at(i))) for i in (0, 1)),
                _percent(mean_over_seeds(seeds, metric_at("way_to_retest", "share"))),
                _number(mean_over_seeds(seeds, metric_at("psnr_db")), 1),
                _number(mean_over_seeds(seeds, metric_at("ssim")), 3),
                _number(mean_over_seeds(seeds, metric_at("ncc")), 4),
                _signed(mean_over_seeds(seeds, metric_at("hu_bias"))),
                _cost([r.fit_s for r in results], ".0f"),
                _cost([1000 / r.slices_per_s if r.slices_per_s else None for r in results], ".0f"),
                _cost([r.model_mb for r in results], ".2g"),
            )
        )
    with_row = {row[0] for row in rows}
    failed = dict.fromkeys(name for name, number in benchmark.failed if number == direction)
    rows += [
        (name, *["failed"] * 3, *[MISSING_CELL] * (11 + has_ibsi))
        for name in failed
        if name not in with_row
    ]
    marked = frozenset(i for i, row in enumerate(rows) if row[0] in (INPUT, RETEST))
    return Table(
        key=f"ranking{direction + 1}",
        title=f"Which method is worth its cost: {benchmark.directions[direction]}",
        caption=(
            "In order of the mean over six classes of the CCC across regions, with its 95 % "
            f"interval over {_counts_text(benchmark)}; of several seeds the mean and the range"
        ),
        head=(
            "Method",
            "kind",
            "trained on",
            "CCC across",
            *(["CCC across, IBSI"] if has_ibsi else []),
            "CCC within",
            "CCC ≥ 0.85",
            "CCC ≥ 0.90",
            "way to retest",
            "PSNR (dB)",
            "SSIM",
            "NCC",
            "HU bias",
            "fit (s)",
            "apply (ms/slice)",
            "model (MB)",
        ),
        rows=tuple(rows),
        marked=marked,
        footnotes=(
            f"{benchmark.budget} Times are those of this machine; applying includes reading and "
            "writing.",
            *_both_directions_note(benchmark),
            *_unpaired_notes(benchmark, (direction,)),
        ),
    )


def _unpaired_notes(benchmark: Benchmark, directions: Sequence[int]) -> tuple[str, ...]:
    """Footnotes on figures that are missing because no test scans pair."""
    reasons = {i: reason for i in directions if (reason := benchmark.unpaired_because(i))}
    return tuple(
        f"{benchmark.directions[i]} has no figures of pairs: {reason}."
        for i, reason in reasons.items()
    )


def _both_directions_note(benchmark: Benchmark) -> tuple[str, ...]:
    """Footnote on the methods of which one training serves both directions."""
    names = dict.fromkeys(r.method for r in benchmark.results if r.both_ways and r.method != INPUT)
    if not names:
        return ()
    return (f"The fit and the model of {', '.join(names)} serve both directions.",)


def _joined(values: Sequence[str]) -> str:
    """The different values of all seeds, joined by commas."""
    return ", ".join(dict.fromkeys(filter(None, values))) or MISSING_CELL


def _spread(
    metrics_of_seeds: Sequence[Mapping[str, Any]], figure: str, feature_class: str, digits: int
) -> str:
    """Mean over seeds ± root mean square of the standard deviations of the seeds.

    Args:
        metrics_of_seeds: metrics of each seed.
        figure: key of the figure.
        feature_class: class, for a figure that has a value for each; empty for others.
        digits: number of decimals.
    """
    subkeys = (feature_class,) if feature_class else ()
    mean = mean_over_seeds(metrics_of_seeds, metric_at(figure, *subkeys))
    if mean is None:
        return MISSING_CELL
    sd_at = metric_at(f"{figure}_sd", *subkeys)
    deviations = [sd for metrics in metrics_of_seeds if (sd := sd_at(metrics)) is not None]
    sd = f" ± {np.sqrt(np.mean(np.square(deviations))):.{digits}f}" if deviations else ""
    return f"{mean:.{digits}f}{sd}"


def _interval(metrics_of_seeds: Sequence[Mapping[str, Any]]) -> str:
    """Mean concordance with the interval of a single seed, or the range of several."""
    values = [
        metrics["ccc_across_mean"]
        for metrics in metrics_of_seeds
        if metrics.get("ccc_across_mean") is not None
    ]
    if not values:
        return MISSING_CELL
    if len(values) > 1:
        return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f}, n = {len(values)})"
    low, high = metrics_of_seeds[0].get("ccc_across_mean_interval") or (None, None)
    return f"{values[0]:.3f}" + (f" ({low:.2f} to {high:.2f})" if low is not None else "")


def _counts_text(benchmark: Benchmark, key: str = "n_rois") -> str:
    """Number of regions or slices behind the figures, such as `n = 24–120 regions`."""
    counts = {r.metrics[key] for r in benchmark.results if r.metrics.get(key)}
    ends = sorted({min(counts), max(counts)}) if counts else [0]
    return f"n = {'–'.join(map(str, ends))} {'regions' if key == 'n_rois' else 'slices'}"


def _seeds_text(benchmark: Benchmark) -> str:
    seeds = len({result.seed for result in benchmark.results})
    return f", mean of up to {seeds} trainings" if seeds > 1 else ""


def _paper_footnotes(benchmark: Benchmark) -> tuple[str, ...]:
    if not benchmark.on_paper_scanners:
        return ()
    return (
        "The paper's figures are of other scans of other bodies: compare ranks and trends, not "
        "values.",
        *NOTES,
    )


def _published_cell(value: PublishedValue) -> str:
    return f"{value.mean:g} ± {value.sd:g}"


def _number(value: float | None, digits: int) -> str:
    return MISSING_CELL if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return MISSING_CELL if value is None else f"{value:+.1f}"


def _percent(value: float | None) -> str:
    return MISSING_CELL if value is None else f"{100 * value:.0f} %"


def _cost(values: Sequence[float | None], spec: str) -> str:
    """Mean of the known values in a format."""
    known = [value for value in values if value is not None]
    return format(float(np.mean(known)), spec) if known else MISSING_CELL
