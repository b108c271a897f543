"""The report's tables of radiomic features: how well they agree with the target's."""

from __future__ import annotations

from cvsct.evaluation.agreement.comparison import changes, reproducible_shares, way_to_retest
from cvsct.evaluation.evaluate import Evaluation
from cvsct.evaluation.features.radiomics import CLASSES
from cvsct.evaluation.report.cells import figure, interval, spread
from cvsct.evaluation.report.figures import LABELS
from cvsct.evaluation.table import Table


def agreement_tables(evaluation: Evaluation) -> list[Table]:
    """Concordance across and within regions, and what the method gained."""
    sides = evaluation.compared
    if not sides:
        return []
    labels = tuple(LABELS[side] for side in sides)
    regions = f"n = {len(evaluation.regions)} regions"
    rows = [
        (name, *(interval(one.across.classes[name]) for one in sides.values())) for name in CLASSES
    ]
    rows.append(("mean of classes", *(interval(one.across.mean) for one in sides.values())))
    counted = {side: reproducible_shares(one.across) for side, one in sides.items()}
    for place, share in enumerate(next(iter(counted.values()))):
        rows.append(
            (
                f"features with CCC ≥ {share.threshold:.2f}",
                *(f"{some[place].count} of {some[place].n}" for some in counted.values()),
            )
        )
    return [
        Table(
            "across",
            "Across regions",
            "Concordance of each feature over the regions, mean of a class, 95 % interval; "
            + regions,
            ("Class", *labels),
            tuple(rows),
            footnotes=_gains(evaluation),
        ),
        Table(
            "within",
            "Within regions: the paper's reading",
            f"Concordance over the features of a class in one region, mean ± sd; {regions}",
            ("Class", *labels),
            tuple(
                (name, *(spread(one.within[name], 2) for one in sides.values())) for name in CLASSES
            ),
        ),
    ]


def _gains(evaluation: Evaluation) -> tuple[str, ...]:
    """The share of the way to the retest, and how many features got worse."""
    new, old, retest = evaluation.harmonized, evaluation.input, evaluation.retest
    if new is None or old is None:
        return ()
    footnotes = []
    way = way_to_retest(new.across, old.across, retest.across) if retest else None
    if way is not None and way.share is not None:
        bounds = f" ({way.low:.0%} to {way.high:.0%})" if way.low is not None else ""
        footnotes.append(
            f"Of the way from {LABELS['source']} to {LABELS['retest']}: {way.share:.0%}{bounds}."
        )
    changed = changes(new.across, old.across)
    footnotes.append(
        f"Features that agree clearly worse than before: {len(changed.clearly_worse)} of "
        f"{len(changed.features)} (by chance {changed.by_chance:.0f})."
    )
    return tuple(footnotes)


def feature_table(evaluation: Evaluation) -> Table | None:
    """Every feature before and after, the most worsened first."""
    new, old = evaluation.harmonized, evaluation.input
    if new is None:
        return None
    if old is None:
        return Table(
            "list",
            "Every feature",
            "Concordance across regions",
            ("Feature", "CCC"),
            tuple((one.feature, figure(one.ccc, ".3f")) for one in new.across.features),
        )
    changed = changes(new.across, old.across)
    rows = tuple(
        (
            one.feature,
            f"{one.before:.3f}",
            f"{one.after:.3f}",
            f"{one.change:+.3f}"
            + (f" ({one.low:+.2f} to {one.high:+.2f})" if one.low is not None else ""),
            ("better" if one.change > 0 else "worse") if one.clear else "",
        )
        for one in changed.features
    )
    left = f"; {changed.undefined} features are undefined on a side" if changed.undefined else ""
    return Table(
        "list",
        f"Every feature ({len(rows)})",
        "Concordance across regions before and after, and the change with its 95 % interval, most "
        f"worsened first{left}",
        ("Feature", LABELS["source"], LABELS["harmonized"], "change", "clearly"),
        rows,
    )
