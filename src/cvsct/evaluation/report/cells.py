"""Figures as the cells of a report's tables."""

from __future__ import annotations

from cvsct.evaluation.agreement.concordance import ClassAgreement
from cvsct.evaluation.image.residuals import ResidualSize
from cvsct.evaluation.spread import Spread

MISSING_CELL = "–"


def size(one: ResidualSize | None) -> str:
    """Mean absolute, 95th percentile, share beyond 50 HU."""
    if one is None:
        return MISSING_CELL
    return f"{one.mean_abs_hu:.1f}; {one.p95_abs_hu:.0f}; {one.beyond_50_share:.1%}"


def interval(one: ClassAgreement) -> str:
    """A mean concordance with its 95 % interval."""
    if one.ccc is None:
        return "undefined"
    bounds = "" if one.low is None else f" ({one.low:.2f} to {one.high:.2f})"
    left_out = f"; {one.undefined} left out" if one.undefined else ""
    return f"{one.ccc:.2f}{bounds}{left_out}"


def spread(one: Spread | None, digits: int) -> str:
    """Mean and standard deviation."""
    return "undefined" if one is None else f"{one.mean:.{digits}f} ± {one.sd:.{digits}f}"


def figure(value: float | None, digits: str) -> str:
    """A figure in the format given."""
    return MISSING_CELL if value is None else format(value, digits)
