"""Methods side by side: the paper's Tables 2 and 3 with ours; which method is worth its cost."""

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
    compared_methods,
    mean_over_seeds,
    metric_at,
    share,
    within_mean,
)
from cvsct.benchmarking.unpaired import MISSING_CELL, unpaired_table
from cvsct.evaluation.table import Table


def tables(benchmark: Benchmark) -> list[Table]:
    """The paper's two tables, then what it does not report."""
    without_pairs = [unpaired_table(benchmark, i) for i in (0, 1)]
    return [
        table_2(benchmark),
        table_3(benchmark),
        *(ranking(benchmark, i) for i in (0, 1)),
        *(table for table in without_pairs if table is not None),
    ]


def table_2(benchmark: Benchmark) -> Table:
    """Concordance within regions by class, one block a direction, the paper's rows beside ours."""
    rows: list[tuple[str, ...]] = []
    marked = set()
    for number, direction in enumerate(benchmark.directions):
        rows.append((f"{direction} conversion", *[""] * len(PAPER_CLASSES)))
        marked.add(len(rows) - 1)
        for method in compared_methods(benchmark):
            found = benchmark.of(method, number)
            if found:
                cells = [_spread(found, "ccc_within", name, 2) for name in PAPER_CLASSES]
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
    """PSNR, SSIM and NCC, both directions side by side."""
    rows: list[tuple[str, ...]] = []
    marked = set()
    digits = {"psnr_db": 2, "ssim": 3, "ncc": 4}
    for method in compared_methods(benchmark):
        found = [benchmark.of(method, number) for number in (0, 1)]
        if any(found):
            cells = [
                _spread(metrics, name, "", digits[name]) for metrics in found for name in QUALITY
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
    """Every method in order of its concordance across regions, with what it costs."""
    scored = sorted(
        ((name, benchmark.of(name, direction)) for name in compared_methods(benchmark)),
        key=lambda one: -(mean_over_seeds(one[1], metric_at("ccc_across_mean")) or -np.inf),
    )
    rows = []
    for name, found in scored:
        if not found:
            continue
        own = [r for r in benchmark.results if (r.method, r.direction) == (name, direction)]
        learns = own if name != INPUT else []
        rows.append(
            (
                name,
                _joined([r.kind for r in learns]),
                _joined([r.trained_on for r in learns]),
                _interval(found),
                _number(mean_over_seeds(found, within_mean), 2),
                *(_percent(mean_over_seeds(found, share(i))) for i in (0, 1)),
                _percent(mean_over_seeds(found, metric_at("way_to_retest", "share"))),
                _number(mean_over_seeds(found, metric_at("psnr_db")), 1),
                _number(mean_over_seeds(found, metric_at("ssim")), 3),
                _number(mean_over_seeds(found, metric_at("ncc")), 4),
                _signed(mean_over_seeds(found, metric_at("hu_bias"))),
                _cost([r.fit_s for r in own], ".0f"),
                _cost([1000 / r.slices_per_s if r.slices_per_s else None for r in own], ".0f"),
                _cost([r.model_mb for r in own], ".2g"),
            )
        )
    shown = {row[0] for row in rows}
    lost = [name for name, way in benchmark.failed if way == direction and name not in shown]
    rows += [(name, *["failed"] * 3, *[MISSING_CELL] * 11) for name in dict.fromkeys(lost)]
    marked = frozenset(i for i, row in enumerate(rows) if row[0] in (INPUT, RETEST))
    return Table(
        key=f"ranking{direction + 1}",
        title=f"Which method is worth its cost: {benchmark.directions[direction]}",
        caption=(
            "In order of the mean over six classes of the CCC across regions, with its 95 % "
            f"interval over {_counts_text(benchmark)}; with several seeds the mean of each "
            "and their range"
        ),
        head=(
            "Method",
            "kind",
            "trained on",
            "CCC across",
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
            f"{benchmark.budget} Times are of this machine, applying includes reading and writing.",
            *_both_directions_note(benchmark),
            *_unpaired_notes(benchmark, (direction,)),
        ),
    )


def _unpaired_notes(benchmark: Benchmark, directions: Sequence[int]) -> tuple[str, ...]:
    """Why figures are missing that need test scans of one body on both scanners."""
    reasons = {i: reason for i in directions if (reason := benchmark.unpaired_because(i))}
    return tuple(
        f"{benchmark.directions[i]} has no figures of pairs: {reason}."
        for i, reason in reasons.items()
    )


def _both_directions_note(benchmark: Benchmark) -> tuple[str, ...]:
    """Whose fit is of both directions at once."""
    names = dict.fromkeys(r.method for r in benchmark.results if r.both_ways and r.method != INPUT)
    if not names:
        return ()
    return (f"The fit and the model of {', '.join(names)} serve both directions.",)


def _joined(values: Sequence[str]) -> str:
    """What is said of all seeds."""
    return ", ".join(dict.fromkeys(filter(None, values))) or MISSING_CELL


def _spread(found: Sequence[Mapping[str, Any]], figure: str, part: str, digits: int) -> str:
    """Mean over seeds ± root mean square of each seed's own deviation.

    Args:
        part: which of a figure that is given by class; empty for one that is not.
    """
    below = (part,) if part else ()
    mean = mean_over_seeds(found, metric_at(figure, *below))
    if mean is None:
        return MISSING_CELL
    deviations = [
        value for m in found if (value := metric_at(f"{figure}_sd", *below)(m)) is not None
    ]
    sd = f" ± {np.sqrt(np.mean(np.square(deviations))):.{digits}f}" if deviations else ""
    return f"{mean:.{digits}f}{sd}"


def _interval(found: Sequence[Mapping[str, Any]]) -> str:
    """Mean concordance: the interval of the one seed, or the range of several."""
    values = [m["ccc_across_mean"] for m in found if m.get("ccc_across_mean") is not None]
    if not values:
        return MISSING_CELL
    if len(values) > 1:
        return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f}, n = {len(values)})"
    low, high = found[0].get("ccc_across_mean_interval") or (None, None)
    return f"{values[0]:.3f}" + (f" ({low:.2f} to {high:.2f})" if low is not None else "")


def _counts_text(benchmark: Benchmark, key: str = "n_rois") -> str:
    """Over how many regions or slices, or from how many to how many."""
    counts = {one.metrics[key] for one in benchmark.results if one.metrics.get(key)}
    ends = sorted({min(counts), max(counts)}) if counts else [0]
    return f"n = {'–'.join(map(str, ends))} {'regions' if key == 'n_rois' else 'slices'}"


def _seeds_text(benchmark: Benchmark) -> str:
    seeds = len({one.seed for one in benchmark.results})
    return f", mean of up to {seeds} trainings" if seeds > 1 else ""


def _paper_footnotes(benchmark: Benchmark) -> tuple[str, ...]:
    if not benchmark.on_paper_scanners:
        return ()
    return (
        "The paper's figures are of other scans of other bodies: compare ranks and trends, not "
        "values.",
        *NOTES,
    )


def _published_cell(one: PublishedValue) -> str:
    return f"{one.mean:g} ± {one.sd:g}"


def _number(value: float | None, digits: int) -> str:
    return MISSING_CELL if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return MISSING_CELL if value is None else f"{value:+.1f}"


def _percent(value: float | None) -> str:
    return MISSING_CELL if value is None else f"{100 * value:.0f} %"


def _cost(values: Sequence[float | None], digits: str) -> str:
    known = [value for value in values if value is not None]
    return format(float(np.mean(known)), digits) if known else MISSING_CELL
