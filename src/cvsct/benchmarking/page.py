"""A benchmark's tables on one offline page, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvsct.benchmarking.results import COMBAT, DIRECTION_FOLDERS, INPUT, RETEST, Benchmark
from cvsct.benchmarking.unpaired import unpaired_headline
from cvsct.evaluation.report.templates import render
from cvsct.evaluation.table import Table

NOTICE = "For research use only; not for diagnosis or treatment."


def headline(benchmark: Benchmark) -> list[str]:
    """Who is ahead in each direction, and whether that is more than the input."""
    said = []
    for number, direction in enumerate(benchmark.directions):
        means = {
            name: [
                one["ccc_across_mean"] for one in found if one.get("ccc_across_mean") is not None
            ]
            for name in (INPUT, *benchmark.methods, RETEST)
            if (found := benchmark.of(name, number))
        }
        scores = {name: sum(each) / len(each) for name, each in means.items() if each}
        of_images = (name for name in scores if name not in (INPUT, RETEST, COMBAT))
        rivals = sorted(of_images, key=lambda name: -scores[name])
        if not rivals:
            unpaired = unpaired_headline(benchmark, number)
            said += [unpaired] if unpaired else []
            continue
        best, *others = rivals
        text = (
            f"{direction}: {best} comes closest to the target, mean concordance {scores[best]:.2f}"
        )
        if others:
            text += f", before {others[0]} with {scores[others[0]]:.2f}"
        if INPUT in scores:
            text += f"; the input has {scores[INPUT]:.2f}"
        if RETEST in scores:
            text += f", the retest {scores[RETEST]:.2f}"
        said.append(text + ".")
    return said


def benchmark_markdown(
    benchmark: Benchmark, made: Sequence[Table], failed: Mapping[str, str]
) -> str:
    """Headline, tables and failures of a benchmark as Markdown."""
    parts = [f"{NOTICE}\n", *(f"{line}\n" for line in headline(benchmark))]
    parts += [table.to_markdown() for table in made]
    parts += [f"Failed: {what}: {why}\n" for what, why in failed.items()]
    return "\n".join(parts)


def benchmark_html(benchmark: Benchmark, made: Sequence[Table], failed: Mapping[str, str]) -> str:
    """Headline, tables, failures and links to reports as one offline HTML page."""
    return render(
        "benchmark.html.j2",
        headline=headline(benchmark),
        failed=failed,
        tables=made,
        reports=[
            (
                f"results/{one.method}-{one.seed}/{DIRECTION_FOLDERS[one.direction]}/report/report.html",
                f"{one.method}, seed {one.seed}, {benchmark.directions[one.direction]}",
            )
            for one in benchmark.results
            if one.fit_s is not None
        ],
    )
