"""Tables of methods: what stands in them is what was measured, averaged by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from cvsct.benchmarking.densitometry import densitometry_table
from cvsct.benchmarking.figures import draw_scores, explanations, scores_of
from cvsct.benchmarking.page import benchmark_html, benchmark_markdown, headline
from cvsct.benchmarking.published_results import QUALITY, TABLE_2, TABLE_3
from cvsct.benchmarking.results import INPUT, RETEST, Benchmark, Result
from cvsct.benchmarking.run import BenchmarkResult
from cvsct.benchmarking.tables import ranking, tables
from cvsct.evaluation.features.radiomics import CLASSES
from cvsct.evaluation.report.figures import new_figure
from cvsct.evaluation.table import Table
from tests.support.benchmarks import metrics


def result(method: str, seed: int, direction: int, ccc: float, psnr: float, sd: float) -> Result:
    figures = metrics(ccc, psnr, sd)
    figures |= {"input": metrics(0.4, 24.0), "way_to_retest": {"share": (ccc - 0.4) / 0.5}}
    if direction == 0:
        figures["retest"] = metrics(0.9, 38.0)
    return Result(
        *(method, seed, direction, figures, 60.0 + seed, 4.0, 1.25),
        kind="classical" if method == "spectrum" else "unpaired",
        trained_on="train/",
        both_ways=True,
    )


def example(on_paper_scanners: bool = True) -> Benchmark:
    return Benchmark(
        directions=("GE to Siemens", "Siemens to GE"),
        results=(
            result("cvsct", 0, 0, 0.8, 30.0, 0.3),
            result("cvsct", 1, 0, 0.6, 32.0, 0.4),
            result("spectrum", 0, 0, 0.85, 36.0, 0.1),
            result("spectrum", 0, 1, 0.5, 33.0, 0.1),
        ),
        budget="30 minutes.",
        on_paper_scanners=on_paper_scanners,
    )


def by_row(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table.rows}


def lung(laa: float | None, difference: float | None = None) -> dict[str, object]:
    return {
        "laa950_percent": laa, "perc15_hu": None if laa is None else -900.0, "mean_hu": -800.0,
        "difference": {} if difference is None else {"laa950_percent": difference},
        "not_applicable": "only gas" if laa is None else None,
    }  # fmt: skip


def test_densitometry_is_one_table_of_all_sides() -> None:
    benchmark = example()
    assert densitometry_table(benchmark) is None
    for number, entry in enumerate(benchmark.results):
        sides = {
            "source": lung(7.0, 5.5),
            "harmonized": lung(2.0 + number, 0.5),
            "target": lung(1.5),
        }
        entry.metrics["physics"] = {  # type: ignore[index]
            "lung_densitometry": sides, "noise_power": {"source": {"sd_hu": 40.0}},
        }  # fmt: skip
    table = densitometry_table(benchmark)
    assert table is not None
    assert [row[0] for row in table.rows[:5]] == [
        "GE to Siemens conversion", "input", "cvsct", "spectrum", "target",
    ]  # fmt: skip
    assert by_row(table)["input"][:2] == ("7.0", "5.5")
    assert table.rows[2][1:3] == ("2.5", "0.5")  # the mean of two seeds
    assert table.rows[1][-1] == "40.0"
    assert all(len(row) == len(table.head) for row in table.rows)
    benchmark.results[0].metrics["physics"]["lung_densitometry"]["source"] = lung(None)
    air = densitometry_table(benchmark)
    assert air is not None
    assert by_row(air)["input"][0] == "7.0"  # of the other direction, which comes last
    assert air.rows[1][1] == "not applicable"
    assert air.footnotes == ("Not applicable: only gas.",)


def test_seeds_are_averaged_and_their_deviations_pooled() -> None:
    table = tables(example())[0]
    rows = table.rows
    assert rows[0][0] == "GE to Siemens conversion"
    # (.8 + .6) / 2, and the root of (.3^2 + .4^2) / 2
    assert next(row for row in rows if row[0] == "cvsct")[1:] == ("0.70 ± 0.35",) * 6
    names = [row[0] for row in rows]
    assert names.index("cvsct, the paper") == names.index("cvsct") + 1
    assert names.count(INPUT) == 2
    assert names.count(RETEST) == 1, "only where the benchmark has a retest"


def test_the_papers_figures_stand_beside_ours_only_for_its_scanners() -> None:
    table_2, table_3 = tables(example())[:2]
    printed = [row for row in table_2.rows if row[0] == "cvsct, the paper"]
    assert printed[0][1:] == (
        "1 ± 0", "0.88 ± 0.11", "0.88 ± 0.12", "0.9 ± 0.14", "0.72 ± 0.22", "0.84 ± 0.16",
    )  # fmt: skip
    assert by_row(table_3)["cvsct, the paper"][:3] == ("26.75 ± 0.32", "0.99 ± 0.06", "0.97 ± 0.04")
    assert "other scans of other bodies" in table_2.footnotes[0]
    assert not any("paper" in row[0] for table in tables(example(False)) for row in table.rows)


def test_the_papers_means_are_those_the_project_quotes() -> None:
    """method.md: CVS-CT .870 and .888, input .42."""
    for method, expected in (("cvsct", (0.870, 0.888)), ("input", (0.417, 0.390))):
        for number in (0, 1):
            row = TABLE_2[method][number]
            assert tuple(row) == CLASSES
            assert sum(value.mean for value in row.values()) / 6 == pytest.approx(
                expected[number], abs=6e-4
            )
    assert all(tuple(row) == QUALITY for both in TABLE_3.values() for row in both)


def test_the_ranking_is_by_concordance_with_the_cost_beside() -> None:
    table = ranking(example(), 0)
    assert [row[0] for row in table.rows] == [RETEST, "spectrum", "cvsct", INPUT]
    rows = by_row(table)
    head = dict(zip(table.head[1:], rows["cvsct"], strict=True))
    assert head["CCC across"] == "0.700 (0.600–0.800, n = 2)"
    assert head["way to retest"] == "60 %"
    assert head["CCC ≥ 0.85"] == "35 %"
    assert head["fit (s)"] == "60"
    assert head["apply (ms/slice)"] == "250"
    assert (head["kind"], head["trained on"]) == ("unpaired", "train/")
    assert (head["SSIM"], head["NCC"], head["HU bias"]) == ("0.900", "0.9900", "-1.5")
    assert dict(zip(table.head[1:], rows["spectrum"], strict=True))["CCC across"] == (
        "0.850 (0.75 to 0.90)"
    )
    assert rows[INPUT][:2] == rows[INPUT][-2:] == ("–", "–")
    assert "of cvsct, spectrum serve both directions" in table.footnotes[1]
    assert table.marked == {0, 3}


def test_a_method_of_one_way_is_told_from_one_of_both() -> None:
    """Its fit is of its direction alone, and its data are named."""
    one_way = [
        replace(
            result("pix2pix", 0, direction, 0.7, 30.0, 0.1),
            kind="paired", trained_on="paired/", both_ways=False, fit_s=30.0 + direction,
        )
        for direction in (0, 1)
    ]  # fmt: skip
    benchmark = replace(example(), results=(*example().results, *one_way))
    for direction, seconds in ((0, "30"), (1, "31")):
        table = ranking(benchmark, direction)
        about = dict(zip(table.head[1:], by_row(table)["pix2pix"], strict=True))
        assert (about["kind"], about["trained on"]) == ("paired", "paired/")
        assert about["fit (s)"] == seconds
        assert not any("pix2pix" in footnote for footnote in table.footnotes)


def test_the_former_name_of_the_results_warns() -> None:
    result = BenchmarkResult(Path("out"), example(), (), {})
    with pytest.warns(DeprecationWarning, match="benchmark"):
        assert result.found is result.benchmark


def test_a_direction_without_results_is_left_empty() -> None:
    back = ranking(example(), 1)
    assert [row[0] for row in back.rows] == ["spectrum", INPUT]
    assert by_row(tables(example())[1])["cvsct"][3:] == ("–", "–", "–")


def test_the_headline_says_who_is_ahead() -> None:
    there, back = headline(example())
    assert there == (
        "GE to Siemens: spectrum comes closest to the target, mean concordance 0.85, before cvsct "
        "with 0.70; the input has 0.40, the retest 0.90."
    )
    assert "before" not in back


def test_a_table_says_the_same_in_every_form() -> None:
    table = Table(
        "t", "A <b> title", "n = 3", ("name", "a|b"), (("x & y", "1"),), frozenset({0}), ("1 < 2.",)
    )
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [["name", "a|b"], ["x & y", "1"]]
    assert "| name | a\\|b |" in table.to_markdown()
    assert "1 < 2." in table.to_markdown()
    page = benchmark_html(example(), [table], {})
    assert "<h2>A &lt;b&gt; title</h2>" in page
    assert '<tr class="marked">' in page
    assert '<p class="footnote">1 &lt; 2.</p>' in page
    assert '<th scope="row">x &amp; y</th><td>1</td>' in page
    with pytest.raises(ValueError, match="another number of cells"):
        Table("t", "", "", ("a",), (("1", "2"),))


def test_the_page_explains_why_psnr_falls_where_concordance_rises() -> None:
    benchmark = example()
    assert explanations(benchmark) == []
    assert "Why PSNR can fall" not in benchmark_html(benchmark, [], {})
    noisy = result("cyclegan", 0, 0, 0.6, 22.0, 0.1)  # the input has .40 at 24.0 dB
    worse = result("histogram", 0, 0, 0.3, 22.0, 0.1)
    benchmark = replace(benchmark, results=(*benchmark.results, noisy, worse))
    assert explanations(benchmark) == [
        "GE to Siemens: PSNR falls below the input's 24.0 dB while concordance rises above its "
        "0.40: cyclegan (PSNR 22.0 dB, concordance 0.60)."
    ]
    page = benchmark_html(benchmark, tables(benchmark), {})
    assert "Why PSNR can fall while concordance rises" in page
    assert "Table 2 (concordance" in page
    assert "Table 3 (image quality)" in page
    assert 'alt="GE to Siemens: mean concordance and PSNR: retest 0.90 at 38.0 dB, ' in page
    assert explanations(benchmark)[0] in benchmark_markdown(benchmark, [], {})


def test_the_plot_has_a_row_for_each_score_with_its_interval() -> None:
    scores = scores_of(example(), 0)
    assert [score.name for score in scores] == [RETEST, "spectrum", "cvsct", INPUT]
    by_name = {score.name: score for score in scores}
    assert (by_name["cvsct"].low, by_name["cvsct"].high) == (0.6, 0.8)  # of two seeds
    assert by_name["spectrum"].low == pytest.approx(0.75)
    figure = draw_scores(new_figure(6.0, 3.0), scores)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == [s.name for s in scores]
    assert {text.get_text() for text in left.texts} == {".85", ".90"}
    drawn = [line.get_xdata()[0] for line in right.get_lines() if line.get_marker() != "None"]
    assert drawn == [score.psnr_db for score in scores]


def test_the_page_is_one_file_and_names_what_failed() -> None:
    benchmark = example()
    page = benchmark_html(benchmark, tables(benchmark), {"ganai, seed 0": "needs <paired> scans"})
    assert "needs &lt;paired&gt; scans" in page
    assert "http" not in page
    assert 'href="results/cvsct-1/a2b/report/report.html"' in page
    assert "Failed: ganai, seed 0" in benchmark_markdown(
        benchmark, tables(benchmark), {"ganai, seed 0": "needs pairs"}
    )
