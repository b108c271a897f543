"""The report's tables of radiomic features and their agreement with the target's."""

from __future__ import annotations

from cvsct.evaluation.agreement.comparison import changes, reproducible_shares, way_to_retest
from cvsct.evaluation.features.radiomics import CLASSES
from cvsct.evaluation.report.cells import MISSING_CELL, agreement_cell, number_cell, spread_cell
from cvsct.evaluation.report.figures import LABELS
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.table import Table


def agreement_tables(evaluation: Evaluation) -> list[Table]:
    """Tables of the concordance across and within regions; none in an unpaired evaluation."""
    sides = evaluation.compared
    if not sides:
        return []
    labels = tuple(LABELS[side] for side in sides)
    by_ibsi = {s: c.across_ibsi for s, c in sides.items() if c.across_ibsi is not None}
    regions = f"n = {len(evaluation.regions)} regions"
    rows = [
        (
            name,
            *(agreement_cell(side.across.classes[name]) for side in sides.values()),
            *(agreement_cell(across.classes[name]) for across in by_ibsi.values()),
        )
        for name in CLASSES
    ]
    rows.append(
        (
            "mean of classes",
            *(agreement_cell(side.across.mean) for side in sides.values()),
            *(agreement_cell(across.mean) for across in by_ibsi.values()),
        )
    )
    shares_of_sides = [reproducible_shares(side.across) for side in sides.values()]
    for shares in zip(*shares_of_sides, strict=True):
        rows.append(
            (
                f"features with CCC ≥ {shares[0].threshold:.2f}",
                *(f"{share.count} of {share.n}" for share in shares),
                *[MISSING_CELL] * len(by_ibsi),
            )
        )
    return [
        Table(
            "across",
            "Across regions",
            "Concordance of each feature over the regions, mean of a class, 95 % interval; "
            + regions,
            ("Class", *labels, *(f"{LABELS[side]}, IBSI" for side in by_ibsi)),
            tuple(rows),
            footnotes=_gain_footnotes(evaluation),
        ),
        Table(
            "within",
            "Within regions, as in the paper",
            f"Concordance over the features of a class in one region, mean ± sd; {regions}",
            ("Class", *labels),
            tuple(
                (name, *(spread_cell(side.within[name], 2) for side in sides.values()))
                for name in CLASSES
            ),
        ),
    ]


def _gain_footnotes(evaluation: Evaluation) -> tuple[str, ...]:
    """Sentences on the share of the way to the retest, and on features that got worse."""
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
    all_changes = changes(new.across, old.across)
    footnotes.append(
        f"Features that agree clearly worse than before: {len(all_changes.clearly_worse)} of "
        f"{len(all_changes.features)} (by chance {all_changes.by_chance:.0f})."
    )
    return tuple(footnotes)


def feature_table(evaluation: Evaluation) -> Table | None:
    """Table of every feature's concordance before and after, the largest losses first.

    Returns:
        None in an unpaired evaluation.
    """
    new, old = evaluation.harmonized, evaluation.input
    if new is None:
        return None
    if old is None:
        return Table(
            "list",
            "Every feature",
            "Concordance across regions",
            ("Feature", "CCC"),
            tuple((f.feature, number_cell(f.ccc, ".3f")) for f in new.across.features),
        )
    all_changes = changes(new.across, old.across)
    rows = tuple(
        (
            feature.feature,
            f"{feature.before:.3f}",
            f"{feature.after:.3f}",
            f"{feature.change:+.3f}"
            + (f" ({feature.low:+.2f} to {feature.high:+.2f})" if feature.low is not None else ""),
            ("better" if feature.change > 0 else "worse") if feature.clear else "",
        )
        for feature in all_changes.features
    )
    undefined = all_changes.undefined
    left_out = f"; {undefined} features are undefined on a side" if undefined else ""
    return Table(
        "list",
        f"Every feature ({len(rows)})",
        "Concordance across regions before and after, and the change with its 95 % interval, most "
        f"worsened first{left_out}",
        ("Feature", LABELS["source"], LABELS["harmonized"], "change", "clearly"),
        rows,
    )
