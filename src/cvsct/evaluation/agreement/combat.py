"""ComBat: features of one scanner shifted and scaled to another's, without touching an image.

The comparison that users of radiomics know best (Johnson 2007; Fortin 2018). It answers another
question than harmonized images do, and this is what it is given: the features of regions of *both*
scanners and the scanner's name, nothing of the pixels, and never which regions pair. It is fitted
on held-out regions and applied to others. Two things flatter it here. Cross-fitting takes both
scanners' features from the same places, so the two groups have the same mix of tissue; with
different bodies it would take the difference between the bodies away as well. And it may choose a
shift and a scale for each of 93 features, where a filter of images has a handful of numbers.

neuroCombat 0.2.12 fits it: the authors' own port, the equations of the paper to its tolerance of
1e-4. combatlearn 2.3 takes its priors over the scanners instead of the features, neuroHarmonize
2.5 wants numpy 1, inmoose 0.9 pandas 2.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from cvsct.core.errors import EvaluationError
from cvsct.core.seeding import random_stream
from cvsct.evaluation.agreement.concordance import refuse_other_layout
from cvsct.evaluation.agreement.resampling import group_index
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.features.radiomics import FeatureTable, MissingValue

logger = logging.getLogger(__name__)

MIN_FIT_REGIONS = 5
"""Regions of each scanner below which a shift and a scale of 93 features are guesses."""

MIN_DEFINED = 0.9
"""Share of regions that must have a feature for it to be fitted; ComBat takes complete tables."""

_SPREAD = 1e-9
"""A feature that varies by less than this share of its size has no scale to match."""
_NOT_FITTED = "ComBat was not fitted: often undefined, or constant, in the regions it learns from"
_NOT_MEASURED = "undefined before ComBat"


@dataclass(frozen=True)
class ComBat:
    """What a fit learned: for each feature, from the source's values to the target's.

    Args:
        names: all features.
        fitted: those that are harmonized.
        slope: target = offset + slope * source, for the fitted ones.
        regions: how many regions of the source and of the target it was fitted on.
    """

    names: tuple[str, ...]
    fitted: Bool[np.ndarray, " features"] = field(repr=False)
    slope: Float[np.ndarray, " fitted_features"] = field(repr=False)
    offset: Float[np.ndarray, " fitted_features"] = field(repr=False)
    regions: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """What it was given, as plain values."""
        return {
            "library": "neuroCombat",
            "batch": "scanner",
            "fitted_on_regions": list(self.regions),
            "features": int(self.fitted.sum()),
            "covariates": [],
        }

    def apply(self, source: FeatureTable) -> FeatureTable:
        """The source's features as the target's scanner would give them.

        Features that were not fitted are missing, with that reason.

        Raises:
            EvaluationError: if the table has other features.
        """
        if source.names != self.names:
            raise EvaluationError("ComBat was fitted on other features; measure the same")
        values = np.full(source.values.shape, np.nan)
        values[:, self.fitted] = self.offset + self.slope * source.values[:, self.fitted]
        before = {(one.region, one.feature): one.reason for one in source.missing}
        missing = []
        for row, column in np.argwhere(np.isnan(values)):
            feature = self.names[column]
            reason = before.get((int(row), feature), _NOT_FITTED)
            missing.append(MissingValue(int(row), feature, reason))
        return FeatureTable(self.names, values, tuple(missing))


def fit_combat(source: FeatureTable, target: FeatureTable) -> ComBat:
    """Fit on regions of both scanners; they need not pair, nor be as many.

    Parametric empirical Bayes without covariates. Features that are undefined in a tenth of either
    side's regions are not fitted; regions that lack one of the others are left out. ComBat maps
    both scanners to a common level; the source's map and then the inverse of the target's bring
    the source to the target. Concordance between the two mapped tables is the same.

    Raises:
        EvaluationError: if there are too few regions or no feature can be fitted.
        MissingExtraError: if neuroCombat is not installed.
    """
    if source.names != target.names:
        raise EvaluationError("the scanners have other features; measure the same of both")
    kept = (source.defined.mean(axis=0) > MIN_DEFINED) & (target.defined.mean(axis=0) > MIN_DEFINED)
    sides = [one.values[one.defined[:, kept].all(axis=1)] for one in (source, target)]
    counts = (len(sides[0]), len(sides[1]))
    if min(counts) < MIN_FIT_REGIONS:
        raise EvaluationError(
            f"ComBat has {counts[0]} regions of the source and {counts[1]} of the target to learn "
            f"from, expected at least {MIN_FIT_REGIONS} of each; measure more regions"
        )
    fitted = kept & _varies(sides[0]) & _varies(sides[1])
    if int(fitted.sum()) < 2:
        raise EvaluationError(
            f"ComBat can use {int(fitted.sum())} features (defined in most regions, and varying), "
            "expected at least 2; measure other regions"
        )
    estimates = _estimates(np.vstack([side[:, fitted] for side in sides]), counts)
    level, spread = estimates["stand.mean"][:, 0], np.sqrt(estimates["var.pooled"][:, 0])
    shift, scale = estimates["gamma.star"], np.sqrt(estimates["delta.star"])
    slope = scale[1] / scale[0]
    to_target = level + spread * (shift[1] - slope * shift[0])
    return ComBat(source.names, fitted, slope, to_target - slope * level, counts)


def crossfit_combat(
    source: FeatureTable,
    target: FeatureTable,
    folds: int = 5,
    seed: int = 0,
    groups: Shaped[np.ndarray, " regions"] | None = None,
) -> FeatureTable:
    """The source's features harmonized region by region, each by a fit that never saw it.

    Args:
        source: features of the same regions as the target's, in the same order.
        folds: parts into which the regions are dealt; each is harmonized by a fit on the others.
        groups: what each region belongs to, such as its patient; groups stay together.

    Raises:
        EvaluationError: if the tables do not fit, or the regions do not suffice for the folds.
    """
    refuse_other_layout(source, target)
    index, count = group_index(groups, len(source.values))
    parts = min(folds, count)
    if parts < 2:
        raise EvaluationError("ComBat needs regions to learn from and others to harmonize")
    dealt = random_stream(seed, "combat", "folds").permutation(count) % parts
    fold = dealt[index]
    values = np.full(source.values.shape, np.nan)
    missing: list[MissingValue] = []
    for part in range(parts):
        here, others = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        model = fit_combat(_pick(source, others), _pick(target, others))
        harmonized = model.apply(_pick(source, here))
        values[here] = harmonized.values
        missing += [replace(one, region=int(here[one.region])) for one in harmonized.missing]
    missing.sort(key=lambda one: one.region)
    return FeatureTable(source.names, values, tuple(missing))


def _pick(table: FeatureTable, regions: Shaped[np.ndarray, " n"]) -> FeatureTable:
    """Some of the regions, numbered from 0 again; reasons that are not known are told so."""
    values = table.values[regions]
    reasons = {(one.region, one.feature): one.reason for one in table.missing}
    missing = tuple(
        MissingValue(
            int(row),
            table.names[column],
            reasons.get((int(regions[row]), table.names[column]), _NOT_MEASURED),
        )
        for row, column in np.argwhere(np.isnan(values))
    )
    return FeatureTable(table.names, values, missing)


def _varies(values: Float[np.ndarray, "regions features"]) -> Bool[np.ndarray, " features"]:
    """Features with a value in every region that are not all the same."""
    size = np.maximum(np.abs(values).max(axis=0), 1e-300)
    usable: Bool[np.ndarray, " features"] = np.ptp(values, axis=0) / size > _SPREAD  # NaN: False
    return usable


def _estimates(
    values: Float[np.ndarray, "regions features"], counts: tuple[int, int]
) -> dict[str, Any]:
    """NeuroCombat's estimates; batch 0 is the source, batch 1 the target."""
    combat, pandas = load_extra("neuroCombat").neuroCombat, load_extra("pandas")
    batches = pandas.DataFrame({"scanner": np.repeat([0, 1], counts)})
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = combat(dat=values.T.astype(np.float64), covars=batches, batch_col="scanner")
    estimates: dict[str, Any] = fitted["estimates"]
    return estimates
