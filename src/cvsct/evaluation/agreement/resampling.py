"""Bootstrap of the concordance over regions, for all features at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import ndtr, ndtri

from cvsct.core.errors import EvaluationError
from cvsct.core.seeding import random_stream

CONFIDENCE = 0.95
"""Level of all intervals."""


def group_index(
    groups: Shaped[np.ndarray, " n"] | None, regions: int
) -> tuple[Int[np.ndarray, " regions"], int]:
    """Number the groups of regions.

    Args:
        groups: group of each region; None makes each region a group of its own.
        regions: number of regions.

    Returns:
        The number of each region's group, and the number of groups.

    Raises:
        EvaluationError: if not every region has a group, or all are in one group.
    """
    if groups is None:
        return np.arange(regions), regions
    if len(groups) != regions:
        raise EvaluationError(
            f"{len(groups)} groups for {regions} regions, expected one for each; name the group of "
            "every region"
        )
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise EvaluationError(
            "all regions are in one group, expected at least 2 to resample; give no groups"
        )
    return index, len(names)


def resamples(
    regions: int, bootstrap: int, seed: int, groups: Shaped[np.ndarray, " n"] | None
) -> Float[np.ndarray, "resamples regions"]:
    """Draw bootstrap resamples: the number of times that each region is in each of them.

    Args:
        regions: number of regions.
        bootstrap: number of resamples.
        seed: seed of the draws.
        groups: group of each region; whole groups are drawn. None draws single regions.
    """
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

    A resample is a count for each region, so that its moments are matrix products. Values are
    centred and scaled first, which keeps the concordance and loses no digits in the squares.

    Args:
        x: features of one side.
        y: features of the other side.
        both: true where both sides define a feature.
        weights: number of times that each region is in each resample.
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
    """Bias-corrected percentile intervals (Efron 1987) of each column's defined values.

    Resampled regions repeat, vary less than the originals and so agree less, which makes plain
    percentiles too low.

    Args:
        point: estimate of each column.
        samples: bootstrap values of each column.

    Returns:
        Lower and upper ends; NaN where a column has no defined value.
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
