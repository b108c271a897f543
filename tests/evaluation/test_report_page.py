"""The report as a page: scorecard, alternative texts, plots and the choice of example slices."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from cvsct.evaluation.guards import FlaggedSlice, GuardRecord
from cvsct.evaluation.report import figures
from cvsct.evaluation.report.examples import example_slices, mean_differences
from cvsct.evaluation.report.page import report_html
from cvsct.evaluation.report.write import Evaluation, evaluate
from tests.evaluation.test_report import FAST, NEAR, SHARP, SOFT
from tests.support.scorecards import SCORECARD, with_every_status


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return evaluate([NEAR], [SOFT], [SHARP], FAST)


def test_the_scorecard_stands_first_with_words_and_shapes(result: Evaluation) -> None:
    page = report_html(with_every_status(result))
    assert "CT numbers &lt;soft tissue&gt;" in page
    places = [page.index(part) for part in (
        html.escape(SCORECARD.headline), 'class="tiles"', "Harmonization brought",
        'class="signature"', "Scans compared", "Do features agree?",
    )]  # fmt: skip
    assert places == sorted(places)
    tiles = re.findall(r'<li class="tile.*?</li>', page, re.DOTALL)
    assert len(tiles) == len(SCORECARD.tiles)
    shapes = set()
    for tile, text in zip(SCORECARD.tiles, tiles, strict=True):
        assert f"</svg>{tile.status.capitalize()}</p>" in text
        assert all(html.escape(part) in text for part in (tile.target, tile.tolerance))
        shapes.update(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert len(shapes) == 4, "each status has a shape of its own"
    assert "not measured" in tiles[-1]
    assert 'class="verdict better"' not in page, "no praise beside a tile that fails"


def test_alternative_texts_state_the_finding_in_numbers(result: Evaluation) -> None:
    page = html.unescape(report_html(result))
    alts = re.findall(r'<img alt="([^"]*)"', page)
    assert len(alts) == 5
    assert all(re.search(r"\d", alt) for alt in alts)
    noise = result.physics.noise
    size = f"harmonized {noise['harmonized'].power.sd_hu:.1f} HU, input "
    assert any(
        size in alt and f"against the target's {noise['target'].power.sd_hu:.1f} HU" in alt
        for alt in alts
    )
    for words in ("noise, whole standard deviation (HU)", "noise without the two lowest rings"):
        assert words in page
    assert result.harmonized is not None
    assert any(f"harmonized {result.harmonized.across.mean.ccc:.2f}" in alt for alt in alts)


def test_curves_end_at_nyquist_with_a_style_for_each_side(result: Evaluation) -> None:
    figure = figures.new_figure(4.0, 4.0)
    upper, lower = figure.subplots(2, 1)
    figures.draw_noise_power(upper, result.physics.noise, lower)
    nyquist = 0.5 / 0.7
    assert upper.get_xlim() == lower.get_xlim() == (0, pytest.approx(nyquist))
    curves = upper.get_lines()
    assert all(line.get_xdata().max() <= nyquist + 1e-9 for line in curves)
    for style in ("linestyle", "marker", "color"):
        assert len({getattr(line, f"get_{style}")() for line in curves}) == len(curves) == 3
    ratios = {line.get_label(): line for line in lower.get_lines()}
    target, source = (result.physics.noise[s].power for s in ("target", "source"))
    assert ratios["input"].get_ydata()[3] == pytest.approx(
        source.power_hu2_mm2[3] / target.power_hu2_mm2[3]
    )
    axis = figures.new_figure(4.0, 4.0).subplots()
    figures.draw_concordance(axis, {s: c.across.classes for s, c in result.compared.items()})
    assert {text.get_text() for text in axis.texts} == {".85", ".90"}
    assert {0.85, 0.90} <= {line.get_xdata()[0] for line in axis.get_lines()}


def test_examples_are_flagged_and_worst_slices_with_their_reasons(result: Evaluation) -> None:
    flags = (FlaggedSlice(2, 5.0, "noise_db 8 (limit 6)"),)
    record = GuardRecord("1", "in_domain", 0.9, (), 3, flags, "1.2.3.4")
    differences = mean_differences(result.shared)
    assert differences == pytest.approx(np.abs(NEAR.hu - SOFT.hu).mean(axis=(1, 2)), rel=1e-5)
    examples = example_slices(replace(result, guards=(record,)))
    by_index = {example.index: example.reasons for example in examples}
    assert by_index[1]["flagged"] == "flagged: noise_db 8 (limit 6)"
    worst = int(differences.argmax())
    assert by_index[worst]["largest"].endswith(f"mean {differences[worst]:.1f} HU")
    other_series = replace(record, series_uid="9.9")
    assert not any(e.flagged for e in example_slices(replace(result, guards=(other_series,))))
    none = replace(result, settings=FAST.model_copy(update={"examples": 0}))
    assert example_slices(none) == []
    hostile = replace(record, flagged=(FlaggedSlice(2, 5.0, "</script><b>"),))
    page = report_html(replace(result, guards=(hostile,)))
    assert "</script><b>" not in page
