"""Plot of a benchmark: concordance of each method with its interval, and PSNR beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cvsct.benchmarking.results import (
    COMBAT,
    INPUT,
    RETEST,
    Benchmark,
    mean_over_seeds,
    methods_and_references,
    metric_at,
)
from cvsct.evaluation.report.figures import mark_levels, new_figure, svg_base64
from cvsct.evaluation.report.plots import embedded

COLORS, MARKERS = {INPUT: "#b0574f", RETEST: "#7a8f3c"}, {INPUT: "s", RETEST: "^", COMBAT: "D"}
"""Color and marker of the rows that no trained method has; methods are blue discs."""

METHOD_COLOR = "#2f6f9f"


@dataclass(frozen=True)
class MethodScore:
    """Concordance and PSNR of one row in one direction.

    Args:
        name: the method, or a reference such as the input.
        ccc: mean concordance over classes and seeds.
        low: lower end of its 95 % interval, or the lowest of several seeds; None if unknown.
        high: upper end.
        psnr_db: mean PSNR; None where there are no images.
    """

    name: str
    ccc: float
    low: float | None
    high: float | None
    psnr_db: float | None


def scores_of(benchmark: Benchmark, direction: int) -> list[MethodScore]:
    """Scores of the rows that have a concordance, the highest first."""
    scores = []
    for name in methods_and_references(benchmark):
        seeds = benchmark.of(name, direction)
        ccc = mean_over_seeds(seeds, metric_at("ccc_across_mean"))
        if ccc is not None:
            psnr_db = mean_over_seeds(seeds, metric_at("psnr_db"))
            scores.append(MethodScore(name, ccc, *_bounds(seeds), psnr_db))
    return sorted(scores, key=lambda score: -score.ccc)


def benchmark_figures(benchmark: Benchmark) -> list[dict[str, str]]:
    """Plot of each direction that has scores, embedded with its finding in words."""
    drawn = []
    for number, direction in enumerate(benchmark.directions):
        scores = scores_of(benchmark, number)
        if not scores:
            continue
        figure = new_figure(8.5, 0.34 * len(scores) + 1.2)
        draw_scores(figure, scores)
        listed = ", ".join(
            f"{score.name} {score.ccc:.2f}"
            + ("" if score.psnr_db is None else f" at {score.psnr_db:.1f} dB")
            for score in scores
        )
        drawn.append(
            embedded(
                svg_base64(figure),
                f"{direction}: mean concordance and PSNR: {listed}.",
                f"{direction}. Left: mean concordance with the target across regions, with its "
                "95 % interval (of several seeds their range); dashed: .85 and .90. Right: PSNR.",
            )
        )
    return drawn


def draw_scores(figure: Any, scores: Sequence[MethodScore]) -> Any:
    """Draw a row for each method: its concordance with the interval, and its PSNR beside it."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for row, score in enumerate(scores):
        style: dict[str, Any] = {
            "color": COLORS.get(score.name, METHOD_COLOR), "markersize": 6,
            "marker": MARKERS.get(score.name, "o"), "linestyle": "none",
        }  # fmt: skip
        if score.low is not None and score.high is not None:
            left.plot([score.low, score.high], [row, row], color=style["color"], linewidth=1.6)
        left.plot([score.ccc], [row], **style)
        if score.psnr_db is not None:
            right.plot([score.psnr_db], [row], **style)
        if score.name == INPUT:
            left.axvline(score.ccc, color=style["color"], linewidth=0.8, linestyle=":")
            if score.psnr_db is not None:
                right.axvline(score.psnr_db, color=style["color"], linewidth=0.8, linestyle=":")
    left.set_yticks(range(len(scores)), [score.name for score in scores])
    left.set_ylim(len(scores) - 0.5, -0.5)
    left.set_xlim(min(-0.05, *(score.low or score.ccc for score in scores)), 1.02)
    left.set_xlabel("concordance with the target (CCC)")
    right.set_xlabel("PSNR (dB)")
    for axis in (left, right):
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    mark_levels(left)
    return figure


def explanations(benchmark: Benchmark) -> list[str]:
    """Sentences on the methods whose PSNR falls below the input's while concordance rises."""
    sentences = []
    for number, direction in enumerate(benchmark.directions):
        scores = {score.name: score for score in scores_of(benchmark, number)}
        before = scores.get(INPUT)
        if before is None or before.psnr_db is None:
            continue
        rows = [
            f"{score.name} (PSNR {score.psnr_db:.1f} dB, concordance {score.ccc:.2f})"
            for score in scores.values()
            if score.name not in (INPUT, RETEST)
            and score.psnr_db is not None
            and score.psnr_db < before.psnr_db
            and score.ccc > before.ccc
        ]
        if rows:
            sentences.append(
                f"{direction}: PSNR falls below the input's {before.psnr_db:.1f} dB while "
                f"concordance rises above its {before.ccc:.2f}: {', '.join(rows)}."
            )
    return sentences


def _bounds(seeds: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Interval of a single seed, or the range of several."""
    values = [v for seed in seeds if (v := seed.get("ccc_across_mean")) is not None]
    if len(values) > 1:
        return min(values), max(values)
    low, high = seeds[0].get("ccc_across_mean_interval") or (None, None)
    return low, high
