"""Text of the cells of a report's tables."""

from __future__ import annotations

from cvsct.evaluation.agreement.concordance import ClassAgreement
from cvsct.evaluation.image.residuals import ResidualSize
from cvsct.evaluation.spread import Spread

MISSING_CELL = "–"
"""Cell of a figure that was not measured."""


def residual_cell(size: ResidualSize | None) -> str:
    """Residuals in HU: mean absolute; 95th percentile; share beyond 50 HU."""
    if size is None:
        return MISSING_CELL
    return f"{size.mean_abs_hu:.1f}; {size.p95_abs_hu:.0f}; {size.beyond_50_share:.1%}"


def agreement_cell(agreement: ClassAgreement) -> str:
    """Mean concordance with its 95 % interval."""
    if agreement.ccc is None:
        return "undefined"
    bounds = "" if agreement.low is None else f" ({agreement.low:.2f} to {agreement.high:.2f})"
    left_out = f"; {agreement.undefined} left out" if agreement.undefined else ""
    return f"{agreement.ccc:.2f}{bounds}{left_out}"


def spread_cell(spread: Spread | None, digits: int) -> str:
    """Mean and standard deviation."""
    return "undefined" if spread is None else f"{spread.mean:.{digits}f} ± {spread.sd:.{digits}f}"


def number_cell(value: float | None, spec: str) -> str:
    """Number in a format such as `.2f`."""
    return MISSING_CELL if value is None else format(value, spec)
