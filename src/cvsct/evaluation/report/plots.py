"""Figures of the report's sections, embedded with alternative texts and captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvsct.core.masks import SOFT_TISSUE_WINDOW
from cvsct.evaluation.agreement.comparison import THRESHOLDS
from cvsct.evaluation.report import figures, findings
from cvsct.evaluation.report.examples import Example
from cvsct.evaluation.result import Evaluation

MAX_ROWS = 4
"""Maximum number of example slices in the printed figure; the viewer has them all."""

HEIGHTS = (2.6, 1.0)
"""Proportions of a plot and of the ratios beneath it."""


def embedded(data: str, alt: str, caption: str, kind: str = "svg+xml") -> dict[str, str]:
    """A figure for the template: its data URL, alternative text and caption."""
    return {"src": f"data:image/{kind};base64,{data}", "alt": alt, "caption": caption}


def concordance_figures(evaluation: Evaluation) -> list[dict[str, str]]:
    """Concordance by feature class; none in an unpaired evaluation."""
    compared = evaluation.compared
    if not compared:
        return []
    figure = figures.new_figure(7.0, 3.6)
    classes = {side: comparison.across.classes for side, comparison in compared.items()}
    figures.draw_concordance(figure.subplots(), classes)
    levels = " and ".join(f"{level:.2f}".lstrip("0") for level in THRESHOLDS)
    return [
        embedded(
            figures.svg_base64(figure),
            findings.concordance_finding(compared),
            f"Concordance over n = {len(evaluation.regions)} regions, 95 % intervals. Dashed: "
            f"{levels}, from which a feature is often called reproducible.",
        )
    ]


def slice_figures(evaluation: Evaluation, examples: Sequence[Example]) -> list[dict[str, str]]:
    """Example slices of the sides with their residuals."""
    if not examples:
        return []
    low, high = SOFT_TISSUE_WINDOW.limits_hu
    n_shared = sum(len(slices.harmonized.hu) for slices in evaluation.shared)
    by_weight = sorted(examples, key=lambda e: ("largest" not in e.reasons, "flagged" in e.reasons))
    shown = [example for example in examples if example in by_weight[:MAX_ROWS]]
    return [
        embedded(
            figures.png_base64(figures.slice_rows(shown)),
            findings.slices_finding(evaluation, shown),
            f"n = {len(shown)} of {n_shared} slices. Images: {low:g} to "
            f"{high:g} HU. Differences: blue −{figures.RESIDUAL_HU:g} to red "
            f"+{figures.RESIDUAL_HU:g} HU.",
            "png",
        )
    ]


def physics_figures(evaluation: Evaluation) -> list[dict[str, str]]:
    """Noise power and transfer, each with its ratio to the target where there is one."""
    physics = evaluation.physics
    drawn = []
    if physics.noise:
        figure = figures.new_figure(7.0, 4.4)
        axis, ratios = _axes(figure, 1, "target" in physics.noise)[0]
        figures.draw_noise_power(axis, physics.noise, ratios)
        counts = sorted({noise.n_regions for noise in physics.noise.values()})
        drawn.append(
            embedded(
                figures.svg_base64(figure),
                findings.noise_finding(evaluation),
                f"Noise power in homogeneous tissue, n = {'–'.join(map(str, counts))} regions, up "
                "to the Nyquist frequency; the lowest frequencies hold anatomy. Beneath: ratio to "
                "the target's, from a quarter to four times.",
            )
        )
    if physics.edges:
        figure = figures.new_figure(3.6 * len(physics.edges) + 0.6, 4.4)
        with_ratio = any("target" in sides for sides in physics.edges.values())
        panels = _axes(figure, len(physics.edges), with_ratio)
        for (axis, ratios), (kind, sides) in zip(panels, physics.edges.items(), strict=True):
            below = ratios if "target" in sides else None
            if ratios is not None and below is None:
                ratios.set_axis_off()
            figures.draw_transfer(axis, sides, below).set_title(f"{kind} edges", fontsize=9)
        drawn.append(
            embedded(
                figures.svg_base64(figure),
                findings.transfer_finding(evaluation),
                "Transfer over natural edges, up to the Nyquist frequency; bars at one half: 95 % "
                "intervals. Anatomy blurs them too: compare the sides, not with a phantom's "
                "values. Beneath: ratio to the target's.",
            )
        )
    return drawn


def texture_figures(evaluation: Evaluation) -> list[dict[str, str]]:
    """Texture power of the sides; none where there is too little soft tissue."""
    if not evaluation.texture:
        return []
    figure = figures.new_figure(7.0, 3.6)
    figures.draw_spectra(figure.subplots(), evaluation.texture)
    return [
        embedded(
            figures.svg_base64(figure),
            findings.texture_finding(evaluation),
            "Soft-tissue texture power up to the Nyquist frequency; shaded: the compared band.",
        )
    ]


def _axes(figure: Any, columns: int, with_ratio: bool) -> list[tuple[Any, Any]]:
    """Pairs of axes for a curve and, where there is a target, for the ratios beneath it."""
    if not with_ratio:
        return [(axis, None) for axis in figure.subplots(1, columns, squeeze=False)[0]]
    grid = figure.subplots(
        2, columns, squeeze=False, sharex="col",
        gridspec_kw={"height_ratios": HEIGHTS},
    )  # fmt: skip
    return list(zip(grid[0], grid[1], strict=True))
