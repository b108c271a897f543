"""Agreement of radiomic features between two sets of images: Lin's concordance correlation (CCC).

It is computed in two ways. *Within* regions: over the features of a class in one region, then
averaged over regions; this is the paper's way, and features of large values dominate it. *Across*
regions: over the regions for one feature, then averaged over the features of a class; this is the
field's way, and the stricter one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.agreement.resampling import interval, mean_defined, resamples, weighted_ccc
from cvsct.evaluation.features.radiomics import CLASSES, RegionFeatures
from cvsct.evaluation.spread import Spread

MIN_REGIONS = 3
"""Smallest number of regions from which agreement across regions is computed: two points always lie
on a line."""

_CONSTANT = 1e-9
"""Relative variation up to which a feature counts as constant, because rounding explains it."""


def lin_ccc(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " m"]) -> float | None:
    """Lin's concordance correlation, 2 s_xy / (s_x² + s_y² + (m_x - m_y)²), population moments.

    Source: Lin 1989, eq. 2; the paper's eq. 9 has a product in place of the sum of variances. Where
    one side is constant, the concordance is 0.

    Returns:
        The concordance; None where both sides are constant or have fewer than two values.

    Raises:
        EvaluationError: if the sides have different numbers of values.
    """
    if len(x) != len(y):
        raise EvaluationError(
            f"{len(x)} values cannot be compared with {len(y)}; measure both in the same regions"
        )
    if len(x) < 2 or (_constant(x) and _constant(y)):
        return None
    mean_x, mean_y = float(x.mean()), float(y.mean())
    covariance = float(((x - mean_x) * (y - mean_y)).mean())
    return 2 * covariance / (float(x.var()) + float(y.var()) + (mean_x - mean_y) ** 2)


@dataclass(frozen=True)
class Agreement:
    """Concordance of one feature over regions, with its bootstrap interval.

    Args:
        feature: name of the feature.
        ccc: concordance; None where it is undefined (see `lin_ccc`) or too few regions have the
            feature.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        n: number of regions in which both sides have the feature.
    """

    feature: str
    ccc: float | None
    low: float | None
    high: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ClassAgreement:
    """Mean concordance over the features of a class, or over all classes, with its interval.

    Args:
        ccc: mean concordance; None where no feature has one.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        features: number of features (or classes) in the mean.
        undefined: number of those left out because their concordance is undefined.
    """

    ccc: float | None
    low: float | None
    high: float | None
    features: int
    undefined: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class AcrossRegions:
    """Agreement of two sets of images across regions.

    Args:
        features: concordance of each feature.
        classes: mean concordance of each class.
        mean: mean concordance of the classes.
        samples: bootstrap values of the mean of the classes. Those of two comparisons with one seed
            and one set of regions resample the same regions, so that they can be subtracted.
        feature_samples: bootstrap values of each feature, NaN where it is undefined.
    """

    features: tuple[Agreement, ...]
    classes: Mapping[str, ClassAgreement]
    mean: ClassAgreement
    samples: Float[np.ndarray, " resamples"] = field(repr=False)
    feature_samples: Float[np.ndarray, "resamples features"] = field(repr=False)

    @property
    def ccc(self) -> Float[np.ndarray, " features"]:
        """Concordance of each feature, NaN where it is undefined."""
        values = [agreement.ccc for agreement in self.features]
        return np.array([np.nan if ccc is None else ccc for ccc in values])


def within_regions(x: RegionFeatures, y: RegionFeatures) -> dict[str, Spread | None]:
    """Measure the concordance over the features of a class in one region.

    Args:
        x: features of one side.
        y: features of the other side, in the same regions.

    Returns:
        Mean and spread over the regions by class; None for a class of which no region has two
        features that both sides define.

    Raises:
        EvaluationError: if the tables have other features or regions.
    """
    refuse_other_layout(x, y)
    both = x.defined & y.defined
    result: dict[str, Spread | None] = {}
    for name in CLASSES:
        columns = x.columns(name)
        regions = [
            lin_ccc(x_row[keep], y_row[keep])
            for x_row, y_row, keep in zip(
                x.values[:, columns], y.values[:, columns], both[:, columns], strict=True
            )
        ]
        values = [value for value in regions if value is not None]
        result[name] = Spread.of(values) if values else None
    return result


def across_regions(
    x: RegionFeatures,
    y: RegionFeatures,
    bootstrap: int = 1000,
    seed: int = 0,
    groups: Shaped[np.ndarray, " regions"] | None = None,
) -> AcrossRegions:
    """Measure the concordance of each feature over the regions, with bootstrap intervals.

    Regions are resampled together for all features, so that the interval of a class mean includes
    their correlation. A resample in which a feature is undefined does not count for it. In
    simulation with 24 regions the nominal 95 % intervals cover 88 to 92 %.

    Args:
        x: features of one side.
        y: features of the other side, in the same regions.
        bootstrap: number of resamples.
        seed: seed of the resamples.
        groups: group of each region, such as its patient; whole groups are resampled, so that the
            intervals hold for new patients. None resamples single regions.

    Raises:
        EvaluationError: if the tables have other features or regions, or the groups do not fit.
    """
    refuse_other_layout(x, y)
    both = x.defined & y.defined
    counts = both.sum(axis=0)
    point: Float[np.ndarray, " features"] = np.full(len(x.names), np.nan)
    for i in np.flatnonzero(counts >= MIN_REGIONS):
        value = lin_ccc(x.values[both[:, i], i], y.values[both[:, i], i])
        point[i] = np.nan if value is None else value
    weights = resamples(len(x.values), bootstrap, seed, groups)
    resampled = weighted_ccc(x.values, y.values, both, weights)
    resampled[:, np.isnan(point)] = np.nan
    low, high = interval(point, resampled)
    features = tuple(
        Agreement(
            name,
            number_or_none(point[i]),
            number_or_none(low[i]),
            number_or_none(high[i]),
            int(counts[i]),
        )
        for i, name in enumerate(x.names)
    )
    classes: dict[str, ClassAgreement] = {}
    class_samples: list[Float[np.ndarray, " resamples"]] = []
    for name in CLASSES:
        columns = x.columns(name)
        samples = mean_defined(resampled[:, columns])
        classes[name] = _summary(point[columns], samples)
        if classes[name].ccc is not None:
            class_samples.append(samples)
    mean_samples = (
        mean_defined(np.array(class_samples).T) if class_samples else np.full(bootstrap, np.nan)
    )
    means = np.array([np.nan if c.ccc is None else c.ccc for c in classes.values()])
    return AcrossRegions(features, classes, _summary(means, mean_samples), mean_samples, resampled)


def difference_interval(a: AcrossRegions, b: AcrossRegions) -> tuple[float, float] | None:
    """Bootstrap interval of the difference of two mean concordances, `a` less `b`.

    Both must come from the same regions, seed and number of resamples.

    Returns:
        None where one of them is undefined.
    """
    if a.mean.ccc is None or b.mean.ccc is None:
        return None
    change = np.array([a.mean.ccc - b.mean.ccc])
    low, high = interval(change, (a.samples - b.samples)[:, None])
    return None if np.isnan(low[0]) else (float(low[0]), float(high[0]))


def _summary(
    values: Float[np.ndarray, " n"], samples: Float[np.ndarray, " resamples"]
) -> ClassAgreement:
    """Mean of the defined values, with the interval of their bootstrap means."""
    defined = values[~np.isnan(values)]
    point = defined.mean() if len(defined) else np.nan
    low, high = interval(np.array([point]), samples[:, None])
    return ClassAgreement(
        ccc=number_or_none(point),
        low=number_or_none(low[0]),
        high=number_or_none(high[0]),
        features=len(defined),
        undefined=len(values) - len(defined),
    )


def _constant(values: Float[np.ndarray, " n"]) -> bool:
    return float(np.ptp(values)) <= _CONSTANT * float(np.abs(values).max()) + 1e-12


def number_or_none(value: float) -> float | None:
    """A plain number, or None for NaN, which JSON cannot hold."""
    return None if np.isnan(value) else float(value)


def refuse_other_layout(x: RegionFeatures, y: RegionFeatures) -> None:
    """Refuse two tables that differ in their features or their number of regions.

    Raises:
        EvaluationError: if they differ.
    """
    if x.names != y.names or x.values.shape != y.values.shape:
        raise EvaluationError(
            f"features of {len(x.values)} regions cannot be compared with those of "
            f"{len(y.values)}; measure the same features in the same regions of both"
        )
