"""Bootstrap of concordance over regions, for all features at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import ndtr, ndtri

from cvsct.core.errors import EvaluationError
from cvsct.core.seeding import random_stream

CONFIDENCE = 0.95


def group_index(
    groups: Shaped[np.ndarray, " n"] | None, regions: int
) -> tuple[Int[np.ndarray, " regions"], int]:
    """Each region's group as a number, and how many groups there are; alone where not grouped.

    Raises:
        EvaluationError: if not every region has a group, or all share one.
    """
    if groups is None:
        return np.arange(regions), regions
    if len(groups) != regions:
        raise EvaluationError(
            f"{len(groups)} groups for {regions} regions; name the group of each region"
        )
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise EvaluationError(
            "all regions are of one group: nothing can be resampled; leave the groups out"
        )
    return index, len(names)


def resamples(
    regions: int, bootstrap: int, seed: int, groups: Shaped[np.ndarray, " n"] | None
) -> Float[np.ndarray, "resamples regions"]:
    """How often each region is drawn in each resample."""
    index, count = group_index(groups, regions)
    rng = random_stream(seed, "concordance", "bootstrap")
    draws = rng.multinomial(count, np.full(count, 1 / max(count, 1)), size=bootstrap)
    return draws[:, index].astype(np.float64)


def weighted_ccc(
    x: Float[np.ndarray, "regions features"],
    y: Float[np.ndarray, "regions features"],
    both: Bool[np.ndarray, "regions features"],
    weights: Float[np.ndarray, "resamples regions"],
) -> Float[np.ndarray, "resamples features"]:
    """Concordance of each feature in each resample of the regions, NaN where undefined.

    A resample is a count for each region, so all its moments are matrix products. Values are
    centred and scaled first: concordance does not change, and no digits are lost in the squares.
    """
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


def mean_defined(samples: Float[np.ndarray, "resamples n"]) -> Float[np.ndarray, " resamples"]:
    """Mean of each row over its defined values; NaN where it has none."""
    defined = ~np.isnan(samples)
    count = defined.sum(axis=1)
    total = np.where(defined, samples, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def interval(
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
