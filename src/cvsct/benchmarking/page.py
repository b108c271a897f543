"""The tables of a benchmark as one offline HTML page and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvsct.benchmarking.figures import benchmark_figures, explanations
from cvsct.benchmarking.results import (
    COMBAT,
    DIRECTION_FOLDERS,
    INPUT,
    RETEST,
    Benchmark,
    mean_over_seeds,
    methods_and_references,
    metric_at,
)
from cvsct.benchmarking.unpaired import unpaired_headline
from cvsct.evaluation.report.templates import render
from cvsct.evaluation.table import Table

NOTICE = "For research use only; not for diagnosis or treatment."


def headline(benchmark: Benchmark) -> list[str]:
    """Sentences on the leading method of each direction, with the input and the retest."""
    sentences = []
    for number, direction in enumerate(benchmark.directions):
        scores = {
            name: score
            for name in methods_and_references(benchmark)
            if (score := mean_over_seeds(benchmark.of(name, number), metric_at("ccc_across_mean")))
            is not None
        }
        image_methods = (name for name in scores if name not in (INPUT, RETEST, COMBAT))
        ranked = sorted(image_methods, key=lambda name: -scores[name])
        if not ranked:
            unpaired = unpaired_headline(benchmark, number)
            sentences += [unpaired] if unpaired else []
            continue
        best, *others = ranked
        text = (
            f"{direction}: {best} comes closest to the target, mean concordance {scores[best]:.2f}"
        )
        if others:
            text += f", before {others[0]} with {scores[others[0]]:.2f}"
        if INPUT in scores:
            text += f"; the input has {scores[INPUT]:.2f}"
        if RETEST in scores:
            text += f", the retest {scores[RETEST]:.2f}"
        sentences.append(text + ".")
    return sentences


def benchmark_markdown(
    benchmark: Benchmark, tables: Sequence[Table], failed: Mapping[str, str]
) -> str:
    """Headline, tables and failures of a benchmark as Markdown.

    Args:
        benchmark: all results.
        tables: tables of these results.
        failed: reasons of failures, by method, seed and direction.
    """
    parts = [f"{NOTICE}\n", *(f"{line}\n" for line in headline(benchmark))]
    parts += [f"{sentence}\n" for sentence in explanations(benchmark)]
    parts += [table.to_markdown() for table in tables]
    parts += [f"Failed: {training}: {reason}\n" for training, reason in failed.items()]
    return "\n".join(parts)


def benchmark_html(benchmark: Benchmark, tables: Sequence[Table], failed: Mapping[str, str]) -> str:
    """Headline, plots, tables, failures and links to reports as one offline HTML page.

    Args:
        benchmark: all results.
        tables: tables of these results.
        failed: reasons of failures, by method, seed and direction.
    """
    return render(
        "benchmark.html.j2",
        headline=headline(benchmark),
        failed=failed,
        tables=tables,
        figures=benchmark_figures(benchmark),
        explanations=explanations(benchmark),
        on_paper_scanners=benchmark.on_paper_scanners,
        reports=[
            (
                f"results/{r.method}-{r.seed}/{DIRECTION_FOLDERS[r.direction]}/report/report.html",
                f"{r.method}, seed {r.seed}, {benchmark.directions[r.direction]}",
            )
            for r in benchmark.results
            if r.fit_s is not None
        ],
    )
