"""Tile of the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvsct.evaluation.agreement.concordance import AcrossRegions, difference_interval
from cvsct.evaluation.scorecard.judge import first_that_holds
from cvsct.evaluation.scorecard.tile import Status, Tile
from cvsct.evaluation.scorecard.tolerances import FeatureTolerance

if TYPE_CHECKING:
    from cvsct.evaluation.result import Evaluation


MIN_REGIONS = 8
"""Smallest number of regions from which a mean concordance is judged: of three, it reads .06 lower
than of 120."""


def features(evaluation: Evaluation) -> Tile:
    """Mean concordance of features over regions, against the least that passes or a retest."""
    tolerance = evaluation.settings.tolerances.features
    new, old, retest = (
        None if comparison is None else comparison.across
        for comparison in (evaluation.harmonized, evaluation.input, evaluation.retest)
    )
    limit, target, value = f"at least {tolerance.passes:.3f}", "1", ""
    if retest is not None and retest.mean.ccc is not None:
        limit += f", or at most {tolerance.below_retest:.3f} below the retest"
        target = f"retest {retest.mean.ccc:.3f}"
    status: Status = "not enough data"
    if new is None:
        reason = f"no slices pair: {evaluation.unpaired_because}"
    elif new.mean.ccc is None or new.mean.low is None or new.mean.high is None:
        reason = "too few regions; give more with --rois"
    elif len(evaluation.regions) < MIN_REGIONS:
        reason = f"{len(evaluation.regions)} regions, of {MIN_REGIONS} needed; give more"
    else:
        mean = new.mean
        value = f"mean concordance {mean.ccc:.3f} ({mean.low:.3f} to {mean.high:.3f})"
        status, reason = _judge(new, old, retest, tolerance)
        if status == "pass" and evaluation.n_unpaired:
            status = "not enough data"
            reason = f"{evaluation.n_unpaired} harmonized series pair with no target series"
    return Tile("features", "Features", status, value, target, limit, reason)


def _judge(
    new: AcrossRegions,
    old: AcrossRegions | None,
    retest: AcrossRegions | None,
    tolerance: FeatureTolerance,
) -> tuple[Status, str]:
    """Status and reason of a concordance with an interval."""
    ccc, low, high = new.mean.ccc, new.mean.low, new.mean.high
    assert ccc is not None and low is not None and high is not None
    change = difference_interval(new, old) if old else None
    below = difference_interval(new, retest) if retest else None
    passes = tolerance.passes
    if retest is not None and retest.mean.ccc is not None:
        passes = min(passes, retest.mean.ccc - tolerance.below_retest)
    fails = min(tolerance.fails, passes)
    like_retest = below is not None and below[0] >= -tolerance.below_retest
    return first_that_holds(
        [
            (
                change is not None and change[1] < 0,
                "fail",
                "features agree less with the target's than before",
            ),
            (low >= tolerance.passes, "pass", "the whole interval is above the least that passes"),
            (like_retest, "pass", "features agree as well as those of the retest"),
            (ccc < fails and high < passes, "fail", f"concordance is below {fails:.2f}"),
            (
                high - low > 2 * (1 - passes),
                "not enough data",
                "the interval is too wide; give more regions with --rois",
            ),
            (ccc < passes, "attention", f"concordance is below {passes:.2f}"),
            (True, "attention", "the interval reaches below the least that passes"),
        ]
    )
