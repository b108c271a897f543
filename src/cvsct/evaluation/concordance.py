"""How well radiomic features agree between two sets of images: Lin's concordance correlation.

Two readings. *Within*: over the features of a class, one region at a time, then averaged over
regions; it is the paper's, and large-valued features dominate it. *Across*: one feature at a time
over the regions, then averaged over the features of a class; it is the field's and the stricter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri

from cvsct.errors import EvaluationError
from cvsct.evaluation.metrics import Spread
from cvsct.evaluation.radiomics import CLASSES, FeatureTable
from cvsct.runs import random_stream

MIN_REGIONS = 3
"""Two points always lie on a line: below three, agreement over regions says nothing."""

CONFIDENCE = 0.95
_CONSTANT = 1e-9
"""A feature that varies by less than this share of its size varies by rounding only."""


def lin_ccc(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " m"]) -> float | None:
    """Lin's concordance correlation, 2 s_xy / (s_x² + s_y² + (m_x - m_y)²), population moments.

    Lin 1989, eq. 2; the paper's eq. 9 has a product where the sum of variances belongs. A constant
    on one side gives 0: the other varies and is not followed. Constants on both sides, equal or
    not, leave nothing to correlate.

    Returns:
        None where both sides are constant, or fewer than two values are given.
    """
    if len(x) != len(y):
        raise EvaluationError(f"{len(x)} values cannot agree with {len(y)}; measure both alike")
    if len(x) < 2 or (_constant(x) and _constant(y)):
        return None
    mean_x, mean_y = float(x.mean()), float(y.mean())
    covariance = float(((x - mean_x) * (y - mean_y)).mean())
    return 2 * covariance / (float(x.var()) + float(y.var()) + (mean_x - mean_y) ** 2)


@dataclass(frozen=True)
class Agreement:
    """Concordance of one feature over regions, with its bootstrap interval.

    Args:
        ccc: None where it is undefined (see `lin_ccc`), or where too few regions have the feature.
        low: lower end of the 95 % interval.
        high: upper end.
        n: regions in which both sides have the feature.
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
    """Mean concordance over the features of a class (or over all classes), with its interval.

    Args:
        features: how many features the mean is over.
        undefined: how many were left out because their concordance is undefined.
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
class Across:
    """Concordance over regions: each feature's, each class's mean, and the mean of the classes.

    Args:
        samples: bootstrap values of the mean of the classes; those of two comparisons made with
            one seed and one number of regions resample the same regions, so they subtract.
    """

    features: tuple[Agreement, ...]
    classes: Mapping[str, ClassAgreement]
    mean: ClassAgreement
    samples: Float[np.ndarray, " resamples"] = field(repr=False)


def within(x: FeatureTable, y: FeatureTable) -> dict[str, Spread | None]:
    """For each class, concordance over its features in each region; mean and sd over regions.

    None for a class where no region has two features defined on both sides.
    """
    _same_layout(x, y)
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


def across(x: FeatureTable, y: FeatureTable, bootstrap: int = 1000, seed: int = 0) -> Across:
    """Each feature's concordance over the regions, and class means, with bootstrap intervals.

    Regions are resampled together for all features, so the interval of a class mean holds their
    correlation. A resample in which a feature is undefined does not count for it. In simulation
    with 24 regions the nominal 95 % intervals cover 88 to 92 %.
    """
    _same_layout(x, y)
    both = x.defined & y.defined
    counts = both.sum(axis=0)
    point: Float[np.ndarray, " features"] = np.full(len(x.names), np.nan)
    for i in np.flatnonzero(counts >= MIN_REGIONS):
        value = lin_ccc(x.values[both[:, i], i], y.values[both[:, i], i])
        point[i] = np.nan if value is None else value
    resampled = _bootstrap_ccc(x.values, y.values, both, bootstrap, seed)
    resampled[:, np.isnan(point)] = np.nan
    low, high = _interval(point, resampled)
    features = tuple(
        Agreement(name, _number(point[i]), _number(low[i]), _number(high[i]), int(counts[i]))
        for i, name in enumerate(x.names)
    )
    classes: dict[str, ClassAgreement] = {}
    class_samples: list[Float[np.ndarray, " resamples"]] = []
    for name in CLASSES:
        columns = x.columns(name)
        samples = _mean_defined(resampled[:, columns])
        classes[name] = _summary(point[columns], samples)
        if classes[name].ccc is not None:
            class_samples.append(samples)
    mean_samples = (
        _mean_defined(np.array(class_samples).T) if class_samples else np.full(bootstrap, np.nan)
    )
    means = np.array([np.nan if c.ccc is None else c.ccc for c in classes.values()])
    return Across(features, classes, _summary(means, mean_samples), mean_samples)


def difference_interval(a: Across, b: Across) -> tuple[float, float] | None:
    """Bootstrap interval of a's mean concordance minus b's, over the same resampled regions."""
    if a.mean.ccc is None or b.mean.ccc is None:
        return None
    change = np.array([a.mean.ccc - b.mean.ccc])
    low, high = _interval(change, (a.samples - b.samples)[:, None])
    return None if np.isnan(low[0]) else (float(low[0]), float(high[0]))


def _bootstrap_ccc(
    x: Float[np.ndarray, "regions features"],
    y: Float[np.ndarray, "regions features"],
    both: Bool[np.ndarray, "regions features"],
    bootstrap: int,
    seed: int,
) -> Float[np.ndarray, "resamples features"]:
    """Concordance of each feature in each resample of the regions, NaN where undefined.

    A resample is a count for each region, so all its moments are matrix products. Values are
    centred and scaled first: concordance does not change, and no digits are lost in the squares.
    """
    regions = len(x)
    rng = random_stream(seed, "concordance", "bootstrap")
    draws = rng.multinomial(regions, np.full(regions, 1 / regions), size=bootstrap)
    weights = draws.astype(np.float64)
    count = np.maximum(both.sum(axis=0), 1)
    centre = np.where(both, x + y, 0.0).sum(axis=0) / (2 * count)
    x0, y0 = np.where(both, x - centre, 0.0), np.where(both, y - centre, 0.0)
    scale = np.sqrt((x0**2 + y0**2).sum(axis=0) / (2 * count))
    scale[scale == 0] = 1.0
    x0, y0 = x0 / scale, y0 / scale
    drawn = weights @ both
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = weights @ x0 / drawn, weights @ y0 / drawn
        var_x = weights @ x0**2 / drawn - mean_x**2
        var_y = weights @ y0**2 / drawn - mean_y**2
        covariance = weights @ (x0 * y0) / drawn - mean_x * mean_y
        ccc: Float[np.ndarray, "resamples features"] = (
            2 * covariance / (var_x + var_y + (mean_x - mean_y) ** 2)
        )
    ccc[(drawn < 2) | ((var_x < 1e-12) & (var_y < 1e-12))] = np.nan
    return ccc


def _summary(
    values: Float[np.ndarray, " n"], samples: Float[np.ndarray, " resamples"]
) -> ClassAgreement:
    defined = values[~np.isnan(values)]
    point = defined.mean() if len(defined) else np.nan
    low, high = _interval(np.array([point]), samples[:, None])
    return ClassAgreement(
        ccc=_number(point),
        low=_number(low[0]),
        high=_number(high[0]),
        features=len(defined),
        undefined=len(values) - len(defined),
    )


def _mean_defined(samples: Float[np.ndarray, "resamples n"]) -> Float[np.ndarray, " resamples"]:
    """Mean of each row over its defined values; NaN where it has none."""
    defined = ~np.isnan(samples)
    count = defined.sum(axis=1)
    total = np.where(defined, samples, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _interval(
    point: Float[np.ndarray, " n"], samples: Float[np.ndarray, "resamples n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Bias-corrected percentile ends (Efron 1987) over each column's defined values.

    Resampled regions repeat, vary less than the originals, and so agree less; plain percentiles
    would sit too low. NaN where a column has no defined value.
    """
    ends = np.full((2, samples.shape[1]), np.nan)
    z = ndtri((1 + CONFIDENCE) / 2)
    for i, column in enumerate(samples.T):
        defined = column[~np.isnan(column)]
        if len(defined) == 0 or np.isnan(point[i]):
            continue
        below = (np.mean(defined < point[i]) + np.mean(defined <= point[i])) / 2
        edge = 1 / (2 * len(defined))
        shift = ndtri(np.clip(below, edge, 1 - edge))
        ends[:, i] = np.quantile(defined, ndtr(2 * shift + np.array([-z, z])))
    return ends[0], ends[1]


def _constant(values: Float[np.ndarray, " n"]) -> bool:
    return float(np.ptp(values)) <= _CONSTANT * float(np.abs(values).max()) + 1e-12


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _same_layout(x: FeatureTable, y: FeatureTable) -> None:
    if x.names != y.names or x.values.shape != y.values.shape:
        raise EvaluationError(
            f"features of {len(x.values)} regions cannot be compared with those of "
            f"{len(y.values)}; measure the same features in the same regions of both"
        )
