"""ComBat: shift and scale of one scanner's features to another's, without changing an image.

It is the harmonization that users of radiomics know best (Johnson 2007; Fortin 2018), but not a
harmonization of images. Its input is the features of regions of *both* scanners and the scanner's
name; it knows neither the pixels nor which regions pair. It is fitted on some regions and applied
to others. Two conditions favor it here. Cross-fitting takes both scanners' features from the same
places, so that the two groups have the same mix of tissue; with different bodies it would remove
the difference between the bodies as well. And it fits a shift and a scale for each of 93 features,
where a filter of images has a few parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from cvsct.core.errors import EvaluationError
from cvsct.core.seeding import random_stream
from cvsct.evaluation.agreement.concordance import refuse_other_layout
from cvsct.evaluation.agreement.resampling import group_index
from cvsct.evaluation.combat.estimates import estimate_combat
from cvsct.evaluation.features.radiomics import MissingValue, RegionFeatures

MIN_FIT_REGIONS = 5
"""Smallest number of regions of each scanner from which ComBat is fitted."""

MIN_DEFINED = 0.9
"""Share of regions that must define a feature for it to be fitted; ComBat needs complete tables."""

_MIN_VARIATION = 1e-9
"""Smallest variation of a feature, as a share of its size, that has a scale to match."""

_NOT_FITTED = "ComBat was not fitted: often undefined, or constant, in the regions it is fitted on"
_NOT_MEASURED = "undefined before ComBat"


@dataclass(frozen=True)
class ComBat:
    """Fitted map of each feature from the source's values to the target's.

    Args:
        names: names of all features.
        fitted: true for the features that have a map.
        slope: factor of each fitted feature: target = offset + slope * source.
        offset: offset of each fitted feature.
        regions: number of regions of the source and of the target that it was fitted on.
    """

    names: tuple[str, ...]
    fitted: Bool[np.ndarray, " features"] = field(repr=False)
    slope: Float[np.ndarray, " fitted_features"] = field(repr=False)
    offset: Float[np.ndarray, " fitted_features"] = field(repr=False)
    regions: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values: the library and its input, without the fitted numbers."""
        return {
            "library": "cvsct",
            "batch": "scanner",
            "fitted_on_regions": list(self.regions),
            "features": int(self.fitted.sum()),
            "covariates": [],
        }

    def apply(self, source: RegionFeatures) -> RegionFeatures:
        """Map the source's features to the target's scanner.

        Features that were not fitted are missing, with that reason.

        Raises:
            EvaluationError: if the table has other features.
        """
        if source.names != self.names:
            raise EvaluationError(
                f"ComBat was fitted on {len(self.names)} features, not on these "
                f"{len(source.names)}; measure the same features"
            )
        values = np.full(source.values.shape, np.nan)
        values[:, self.fitted] = self.offset + self.slope * source.values[:, self.fitted]
        reasons = {(value.region, value.feature): value.reason for value in source.missing}
        missing = []
        for row, column in np.argwhere(np.isnan(values)):
            feature = self.names[column]
            reason = reasons.get((int(row), feature), _NOT_FITTED)
            missing.append(MissingValue(int(row), feature, reason))
        return RegionFeatures(self.names, values, tuple(missing))


def fit_combat(source: RegionFeatures, target: RegionFeatures) -> ComBat:
    """Fit ComBat on regions of both scanners, which need not pair.

    The fit is parametric empirical Bayes without covariates. Features that are undefined in a
    tenth of either side's regions are not fitted; regions that lack one of the others are left out.
    ComBat maps both scanners to a common level; the source's map followed by the inverse of the
    target's maps the source to the target, and leaves the concordance the same.

    Args:
        source: features of the source's regions.
        target: features of the target's regions; their number may differ.

    Raises:
        EvaluationError: if there are too few regions or no feature can be fitted.
    """
    if source.names != target.names:
        raise EvaluationError(
            "the two scanners' tables have different features; measure the same features of both"
        )
    kept = (source.defined.mean(axis=0) > MIN_DEFINED) & (target.defined.mean(axis=0) > MIN_DEFINED)
    sides = [table.values[table.defined[:, kept].all(axis=1)] for table in (source, target)]
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
    estimates = estimate_combat(
        np.vstack([side[:, fitted] for side in sides]),
        [name for name, is_fitted in zip(source.names, fitted, strict=True) if is_fitted],
        np.repeat(["1 source", "2 target"], counts).tolist(),
    )
    level, shift, scale = estimates.mean, estimates.shift, estimates.scale
    slope = scale[1] / scale[0]
    to_target = level + estimates.deviation * (shift[1] - slope * shift[0])
    return ComBat(source.names, fitted, slope, to_target - slope * level, counts)


def crossfit_combat(
    source: RegionFeatures,
    target: RegionFeatures,
    folds: int = 5,
    seed: int = 0,
    groups: Shaped[np.ndarray, " regions"] | None = None,
) -> RegionFeatures:
    """Harmonize the source's features by cross-fitting: each region by a fit on other regions.

    Args:
        source: features of the same regions as the target's, in the same order.
        target: features of the target.
        folds: number of parts of the regions; each is harmonized by a fit on the others.
        seed: seed of the parts.
        groups: group of each region, such as its patient; groups stay together.

    Raises:
        EvaluationError: if the tables do not fit, or the regions do not suffice for the folds.
    """
    refuse_other_layout(source, target)
    index, count = group_index(groups, len(source.values))
    parts = min(folds, count)
    if parts < 2:
        raise EvaluationError(
            f"{parts} parts of the regions, expected at least 2, because ComBat is fitted on some "
            "regions and applied to others; measure more regions, or use more folds"
        )
    fold_of_group = random_stream(seed, "combat", "folds").permutation(count) % parts
    fold = fold_of_group[index]
    values = np.full(source.values.shape, np.nan)
    missing: list[MissingValue] = []
    for part in range(parts):
        here, others = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        model = fit_combat(_select_regions(source, others), _select_regions(target, others))
        harmonized = model.apply(_select_regions(source, here))
        values[here] = harmonized.values
        missing += [replace(value, region=int(here[value.region])) for value in harmonized.missing]
    missing.sort(key=lambda value: value.region)
    return RegionFeatures(source.names, values, tuple(missing))


def _select_regions(table: RegionFeatures, regions: Shaped[np.ndarray, " n"]) -> RegionFeatures:
    """The table of some regions, numbered from 0 again."""
    values = table.values[regions]
    reasons = {(value.region, value.feature): value.reason for value in table.missing}
    missing = tuple(
        MissingValue(
            int(row),
            table.names[column],
            reasons.get((int(regions[row]), table.names[column]), _NOT_MEASURED),
        )
        for row, column in np.argwhere(np.isnan(values))
    )
    return RegionFeatures(table.names, values, missing)


def _varies(values: Float[np.ndarray, "regions features"]) -> Bool[np.ndarray, " features"]:
    """Features that are defined in every region and not constant."""
    size = np.maximum(np.abs(values).max(axis=0), 1e-300)
    usable: Bool[np.ndarray, " features"] = (
        np.ptp(values, axis=0) / size > _MIN_VARIATION
    )  # NaN: False
    return usable
