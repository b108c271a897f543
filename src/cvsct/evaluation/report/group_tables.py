"""Tables of a comparison of groups of patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cvsct.evaluation.cohort_table import COMBAT
from cvsct.evaluation.groups.figures import PhysicsSummary, RegionFigures, StageFigures
from cvsct.evaluation.groups.settings import GroupSettings
from cvsct.evaluation.groups.signal_kept import RETEST, SignalKept
from cvsct.evaluation.groups.variance_share import VarianceShare
from cvsct.evaluation.groups.verdict import FITTED_HERE
from cvsct.evaluation.report.cells import MISSING_CELL
from cvsct.evaluation.table import Table

TOO_FEW = "too few"
"""Cell of a group that has too few patients for figures."""

FEATURES_SHOWN = 50
"""Number of features in the table of the largest differences; the CSV file has all."""


def region_tables(region: RegionFigures, settings: GroupSettings) -> list[Table]:
    """Tables of one region: patients, then figures of every stage."""
    tables = [_patients_table(region, settings)]
    if not region.stages:
        return tables
    stages = region.stages
    head = ("Figure", *(stage.stage for stage in stages))
    n = f"n = {len(region.group)} patients"
    adjusted = f", adjusted for {' and '.join(settings.covariates)}" if settings.covariates else ""
    tables.append(
        Table(
            f"groups_{region.region}",
            "Differences between groups",
            f"Mean over features of the share of variance (omega squared{adjusted}), and "
            f"identification of the group of unseen patients by balanced accuracy; {n}",
            head,
            (*_share_rows(stages), *_identification_rows(stages)),
            footnotes=_combat_footnote(stages),
        )
    )
    tables.append(
        Table(
            f"contrasts_{region.region}",
            "Each group",
            "Absolute standardized difference, median over features; features found to differ "
            "(Kolmogorov-Smirnov, 5 % false findings by Benjamini-Hochberg over all groups)",
            head,
            tuple(_contrast_rows(stages)),
        )
    )
    return tables


def _combat_footnote(stages: Sequence[StageFigures]) -> tuple[str, ...]:
    if not any(COMBAT in stage.stage for stage in stages):
        return ()
    return (f"{FITTED_HERE} Shares below chance come of the same.",)


def _patients_table(region: RegionFigures, settings: GroupSettings) -> Table:
    few = region.too_few
    return Table(
        f"patients_{region.region}",
        "Patients",
        f"Patients of each {settings.group} with this region; at least {settings.min_patients} are "
        "needed for figures",
        (settings.group, "patients", "figures"),
        tuple(
            (name, str(count), TOO_FEW if name in few else "yes")
            for name, count in region.patients.items()
        ),
    )


def _share_rows(stages: Sequence[StageFigures]) -> list[tuple[str, ...]]:
    def row(label: str, cell: Callable[[VarianceShare], str]) -> tuple[str, ...]:
        shares = (stage.share for stage in stages)
        return (label, *(MISSING_CELL if share is None else cell(share) for share in shares))

    rows = [
        row("share of variance by group", lambda share: f"{share.omega:.1%}"),
        row("  by chance, up to (permutations)", lambda share: f"{share.chance_high:.1%}"),
        row("  p (permutations)", lambda share: f"{share.p_value:.3f}"),
    ]
    halves = next((s.share for s in stages if s.share and s.share.halves is not None), None)
    if halves is not None:
        rows.append(row(f"  random halves of {halves.halves_of}: mean; 95 % below", _halves_cell))
    rows += [
        row("features with a share above 10 %", lambda share: f"{share.share_above_tenth:.0%}"),
        row("features used", lambda share: str(share.features)),
    ]
    changes = [
        MISSING_CELL
        if stage.change is None
        else f"{stage.change.change:+.1%} ({stage.change.low:+.1%} to {stage.change.high:+.1%})"
        for stage in stages
    ]
    return [*rows[:1], ("  change (95 % interval)", *changes), *rows[1:]]


def _halves_cell(share: VarianceShare) -> str:
    if share.halves is None or share.halves_high is None:
        return MISSING_CELL
    return f"{share.halves:.1%}; {share.halves_high:.1%}"


def _identification_rows(stages: Sequence[StageFigures]) -> list[tuple[str, ...]]:
    found = [stage.identification for stage in stages]
    if all(each is None for each in found):
        return []
    accuracy = [MISSING_CELL if each is None else f"{each.accuracy:.0%}" for each in found]
    chance = [
        MISSING_CELL if each is None else f"{each.chance_low:.0%} to {each.chance_high:.0%}"
        for each in found
    ]
    p_values = [MISSING_CELL if each is None else f"{each.p_value:.3f}" for each in found]
    rows = [
        ("identification of the group", *accuracy),
        ("  by chance (95 % of permutations)", *chance),
        ("  p (permutations)", *p_values),
    ]
    names = next(list(each.recall) for each in found if each is not None)
    rows += [
        (
            f"  of {name}",
            *(MISSING_CELL if each is None else f"{each.recall[name]:.0%}" for each in found),
        )
        for name in names
    ]
    return rows


def _contrast_rows(stages: Sequence[StageFigures]) -> list[tuple[str, ...]]:
    rows = []
    for number, contrast in enumerate(stages[0].contrasts):
        own = [stage.contrasts[number] for stage in stages]
        sizes = [
            MISSING_CELL if each.median_difference is None else f"{each.median_difference:.2f}"
            for each in own
        ]
        large = [
            MISSING_CELL if each.share_above_half is None else f"{each.share_above_half:.0%}"
            for each in own
        ]
        rows += [
            (f"{contrast.name}: median difference", *sizes),
            ("  features beyond 0.5", *large),
            ("  features found to differ", *(f"{each.found} of {each.tested}" for each in own)),
        ]
    return rows


def largest_differences(region: RegionFigures) -> Table | None:
    """Table of the features that differ most before harmonization, in every stage."""
    if not region.stages:
        return None
    first = region.stages[0]
    by_stage = [
        {(row.contrast, row.feature): row for row in stage.by_feature} for stage in region.stages
    ]
    largest = sorted(
        (row for row in first.by_feature if np.isfinite(row.difference)),
        key=lambda row: -abs(row.difference),
    )[:FEATURES_SHOWN]
    rows = []
    for row in largest:
        cells = []
        for stage in by_stage:
            own = stage.get((row.contrast, row.feature))
            known = own is not None and np.isfinite(own.difference)
            cells.append(
                f"{own.difference:+.2f}{' *' if own.found else ''}"
                if own and known
                else MISSING_CELL
            )
        rows.append((f"{row.feature}, {row.contrast}", *cells))
    return Table(
        f"features_{region.region}",
        f"The {len(rows)} largest differences of {len(first.by_feature)}",
        "Standardized difference of each feature, largest before first; * found to differ. "
        "group_features.csv has all",
        ("Feature", *(stage.stage for stage in region.stages)),
        tuple(rows),
    )


def physics_table(physics: Sequence[PhysicsSummary], settings: GroupSettings) -> Table | None:
    """Table of figures of images by group and stage; None without any."""
    if not physics:
        return None
    stages = list(dict.fromkeys(summary.stage for summary in physics))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for summary in physics:
        if summary.quartiles is None:
            cell = f"{TOO_FEW} (n = {summary.patients})" if summary.patients else MISSING_CELL
        else:
            low, middle, high = (f"{value:.3g}" for value in summary.quartiles)
            cell = f"{middle} ({low} to {high}; n = {summary.patients})"
        cells.setdefault((summary.figure, summary.group), {})[summary.stage] = cell
    return Table(
        "group_physics",
        "Images of each group",
        f"Median (quartiles; number of patients) of each {settings.group}",
        ("Figure, group", *stages),
        tuple(
            (f"{figure}, {group}", *(by_stage.get(stage, MISSING_CELL) for stage in stages))
            for (figure, group), by_stage in cells.items()
        ),
    )


def signal_table(signal: SignalKept | None) -> Table | None:
    """Table of the areas under the ROC curve of a classifier of the outcome."""
    if signal is None:
        return None
    rows = []
    for stage in signal.stages:
        change = (
            MISSING_CELL
            if stage.change is None
            else f"{stage.change[0]:+.2f} ({stage.change[1]:+.2f} to {stage.change[2]:+.2f})"
        )
        label = f"{stage.stage} on {signal.trained_on}" if stage.stage == RETEST else stage.stage
        rows.append((label, f"{stage.auc:.2f} ({stage.low:.2f} to {stage.high:.2f})", change))
    marked = frozenset(i for i, stage in enumerate(signal.stages) if stage.stage == RETEST)
    counts = "; ".join(
        f"{scanner}: {without} without, {having} with"
        for scanner, (without, having) in signal.patients.items()
    )
    return Table(
        "signal_kept",
        f"Signal kept: {signal.outcome}",
        f"Area under the ROC curve of a classifier of {signal.outcome} by features of "
        f"{signal.region}, trained on {signal.trained_on}, tested on unseen patients of "
        f"{signal.tested_on} (95 % interval over patients). Patients: {counts}",
        ("Stage", "area", "change from source"),
        tuple(rows),
        marked,
        ("The retest, where given, is a second scan on the scanner of the training: the ceiling.",),
    )
