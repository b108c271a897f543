"""The report of a comparison of groups as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvsct.evaluation.groups.figures import PhysicsSummary, RegionFigures
from cvsct.evaluation.groups.settings import GroupSettings
from cvsct.evaluation.groups.signal_kept import SignalKept
from cvsct.evaluation.groups.verdict import PATIENTS_DIFFER, GroupVerdict
from cvsct.evaluation.report import figures
from cvsct.evaluation.report.group_tables import (
    largest_differences,
    physics_table,
    region_tables,
    signal_table,
)
from cvsct.evaluation.report.page import Section
from cvsct.evaluation.report.plots import embedded
from cvsct.evaluation.report.templates import render

COLORS = ("#2f6f9f", "#b0574f", "#7a8f3c", "#8a5fa8", "#c28a2c", "#3f8f86", "#222222", "#9a9a9a")
MARKERS = "osD^vPX*"
"""Color and marker of each group, in turn."""

PANELS = 2
"""Number of panels in a row of principal components."""

CLASS_OF = {"at chance": "unclear", "smaller": "unclear", "larger": "worse"}
"""Style of a verdict; none is `better`, because patients may be what differed."""


def groups_html(
    settings: GroupSettings,
    regions: Sequence[RegionFigures],
    verdicts: Mapping[str, GroupVerdict],
    physics: Sequence[PhysicsSummary] = (),
    signal: SignalKept | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Render the report of a comparison of groups.

    Raises:
        MissingExtraError: if the extra `evaluate` is not installed.
    """
    sections = [
        Section(
            f"region{number}",
            f"Region: {region.region}",
            tuple(region_tables(region, settings)),
            tuple(region_figures(region)),
            largest_differences(region),
        )
        for number, region in enumerate(regions)
    ]
    further = [("signal", "Signal kept", signal_table(signal)),
               ("images", "Images", physics_table(physics, settings))]  # fmt: skip
    sections += [Section(key, title, (table,)) for key, title, table in further if table]
    return render(
        "groups.html.j2",
        title=f"Differences between groups: {settings.group}",
        patients_differ=PATIENTS_DIFFER,
        verdicts=[
            (region, CLASS_OF.get(judged.kind, ""), judged.text)
            for region, judged in verdicts.items()
        ],
        notes=notes,
        sections=sections,
        settings=settings,
    )


def region_figures(region: RegionFigures) -> list[dict[str, str]]:
    """Principal components of every stage, and the share of variance beside chance."""
    drawn = []
    if region.stages and region.stages[0].components is not None:
        rows = -(-len(region.stages) // PANELS)
        figure = figures.new_figure(8.0, 3.0 * rows + 0.6)
        draw_components(figure, region)
        drawn.append(
            embedded(
                figures.svg_base64(figure),
                _components_finding(region),
                "First two principal components of standardized features, a point for each of "
                f"n = {len(region.group)} patients, on the axes of the first stage.",
            )
        )
    if len(region.stages) > 1 and all(stage.share for stage in region.stages):
        figure = figures.new_figure(6.5, 0.5 * len(region.stages) + 1.2)
        draw_shares(figure.subplots(), region)
        drawn.append(
            embedded(
                figures.svg_base64(figure),
                _shares_finding(region),
                "Share of variance by group (mean over features). Gray: up to the 95th "
                "percentile of permutations, where groups do not differ. Diamonds: that percentile "
                "of random halves of one group.",
            )
        )
    return drawn


def _components_finding(region: RegionFigures) -> str:
    """How many patients and groups are drawn, and the share of the variance that is seen."""
    shown = sum(region.stages[0].components_share or (0.0, 0.0))
    return (
        f"Principal components of n = {len(region.group)} patients in {len(region.groups)} groups: "
        f"the two axes hold {shown:.0%} of the variance of the first stage."
    )


def _shares_finding(region: RegionFigures) -> str:
    """Share of variance by group in each stage, beside chance."""
    parts = [
        f"{stage.stage} {stage.share.omega:.1%} (chance up to {stage.share.chance_high:.1%})"
        for stage in region.stages
        if stage.share is not None
    ]
    return f"Share of variance by group: {', '.join(parts)}."


def draw_components(figure: Any, region: RegionFigures) -> Any:
    """Draw the first two principal components of each patient, a panel for each stage."""
    rows = -(-len(region.stages) // PANELS)
    grid = figure.subplots(rows, PANELS, squeeze=False, sharex=True, sharey=True).ravel()
    for axis in grid[len(region.stages) :]:
        axis.set_axis_off()
    panels = grid[: len(region.stages)]
    for axis, stage in zip(panels, region.stages, strict=True):
        for number, name in enumerate(region.groups):
            own = [i for i, group in enumerate(region.group) if group == name]
            if stage.components is None:
                continue
            points = stage.components[own]
            axis.plot(
                points[:, 0], points[:, 1], MARKERS[number % len(MARKERS)], markersize=4,
                color=COLORS[number % len(COLORS)], alpha=0.75, markeredgewidth=0, label=name,
            )  # fmt: skip
        axis.set_title(stage.stage, fontsize=9)
        axis.axhline(0, color="#cccccc", linewidth=0.6, zorder=0)
        axis.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    first, second = region.stages[0].components_share or (0.0, 0.0)
    figure.supxlabel(f"first component ({first:.0%} of the variance before)", fontsize=9)
    figure.supylabel(f"second component ({second:.0%})", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper", frameon=False, fontsize=8, markerscale=1.3
    )
    return figure


def draw_shares(axis: Any, region: RegionFigures) -> Any:
    """Draw the share of variance of each stage beside what chance gives."""
    for row, stage in enumerate(region.stages):
        if stage.share is None:
            continue
        axis.barh([row], [100 * stage.share.chance_high], height=0.5, color="#dddddd")
        if stage.share.halves_high is not None:
            axis.plot([100 * stage.share.halves_high], [row], "D", color="#8a8a8a", markersize=4)
        axis.plot([100 * stage.share.omega], [row], "o", color=COLORS[0], markersize=6)
    axis.set_yticks(range(len(region.stages)), [stage.stage for stage in region.stages])
    axis.invert_yaxis()
    axis.axvline(0, color="#999999", linewidth=0.6)
    axis.set_xlabel("share of variance by group (%)")
    return axis
