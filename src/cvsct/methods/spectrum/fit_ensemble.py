"""Repeated fits of `spectrum` without some of its patients: how uncertain its gains are.

A delete-a-group jackknife (Kott 2001, Journal of Official Statistics 17:521): each side's patients
are divided into groups, and the fit is repeated without each group in turn. The variance of
anything that follows from the gains is, side by side, (k - 1)/k times the sum of squares of its
differences from their mean over the k repeated fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from jaxtyping import Float

from cvsct.methods.base import bundle_weights, require_consistent
from cvsct.methods.spectrum.separate_gains import SeparateGains
from cvsct.methods.spectrum.side import MeasuredSide
from cvsct.methods.spectrum.texture import Texture
from cvsct.methods.volume_mapping import RepeatedMapping, VolumeMapping
from cvsct.model.bundle import Bundle

GROUPS = 4
"""Most groups of patients of a side."""

PREFIX, SIDES, SHARES = "without_", "without_sides", "without_shares"
"""Names of the arrays of repeated fits in a model: of the gains after the prefix; the side that
each was fitted without a part of; (k - 1)/k of that side."""

NOT_CURVES = ("noise_laws", "expected_log_noise")
"""Arrays of gains that have no frequencies."""


@dataclass(frozen=True)
class RepeatedFit:
    """A fit without one group of patients of one side.

    Args:
        side: 0 for the source, 1 for the target.
        share: (k - 1)/k, with k groups of that side.
        gains: what was fitted.
    """

    side: int
    share: float
    gains: SeparateGains


def repeated_fits(
    source: MeasuredSide,
    target: MeasuredSide,
    fit: Callable[[Texture, Texture], SeparateGains],
) -> list[RepeatedFit]:
    """Fit without each group in turn; none unless both sides have two groups.

    Raises:
        TrainingError: if a side shows too little without one of its groups.
    """
    sides = source, target
    if any(len(side.groups) < 2 for side in sides):
        return []
    fits = []
    for number, side in enumerate(sides):
        share = 1 - 1 / len(side.groups)
        for left_out in range(len(side.groups)):
            rest = reduce(add, (g for i, g in enumerate(side.groups) if i != left_out))
            pair = (rest, target.texture) if number == 0 else (source.texture, rest)
            fits.append(RepeatedFit(number, share, fit(*pair)))
    return fits


def gain_weights(gains: SeparateGains) -> dict[str, Float[np.ndarray, "..."]]:
    """Arrays of a model that hold its gains."""
    laws = gains.laws
    return {
        "noise_log_gain": gains.noise,
        "noise_radial_log_gain": gains.noise_radial,
        "structure_log_gain": gains.structure,
        "source_noise_log_power": gains.source_noise,
        "target_noise_log_power": gains.target_noise,
        "all_noise_log_gain": np.stack(gains.all_noise),
        "noise_laws": np.array([[law.between, law.within] for law in (laws.source, laws.target)]),
        "expected_log_noise": np.array([laws.reference, laws.least, laws.most]),
    }


def repeated_weights(
    fits: Sequence[RepeatedFit], fitted: SeparateGains, corrected: SeparateGains
) -> dict[str, Float[np.ndarray, "..."]]:
    """Arrays of a model that hold its repeated fits; none where there are none.

    Args:
        fitted, corrected: the gains of all patients before and after the correction by what
            filtering leaves, which is not repeated.
    """
    if not fits:
        return {}
    n = len(fitted.noise)
    correction = {
        "noise_log_gain": corrected.noise - fitted.noise,
        "noise_radial_log_gain": corrected.noise_radial - fitted.noise_radial,
    }
    each = [
        {
            name: array if name in NOT_CURVES else _to(array, n) + correction.get(name, 0.0)
            for name, array in gain_weights(one.gains).items()
        }
        for one in fits
    ]
    stacked = {PREFIX + name: np.stack([w[name] for w in each]) for name in each[0]}
    return {
        **stacked,
        SIDES: np.array([one.side for one in fits], dtype=np.int64),
        SHARES: np.array([one.share for one in fits]),
    }


def _to(curves: Float[np.ndarray, "*lead m"], n: int) -> Float[np.ndarray, "*lead n"]:
    """Curves of n frequencies: cut, or with their last values beyond their ends.

    A fit without the scans of the finest pixels reaches fewer frequencies.
    """
    more = [(0, 0)] * (curves.ndim - 1) + [(0, max(n - curves.shape[-1], 0))]
    return np.pad(curves[..., :n], more, mode="edge")


def repeated_mappings(
    bundle: Bundle, load: Callable[[Bundle], VolumeMapping]
) -> tuple[RepeatedMapping, ...]:
    """Mappings of a model's repeated fits; none where it has none.

    Args:
        load: makes the mapping of a model.

    Raises:
        ModelError: if its arrays do not fit each other.
    """
    weights = bundle.weights
    if SIDES not in weights:
        return ()
    sides, shares = bundle_weights(bundle, SIDES, SHARES)
    names = [
        name.removeprefix(PREFIX)
        for name in weights
        if name.startswith(PREFIX) and name not in (SIDES, SHARES)
    ]
    require_consistent(
        bundle,
        sides.ndim == 1
        and shares.shape == sides.shape
        and all(
            name in weights and weights[PREFIX + name].shape == (len(sides), *weights[name].shape)
            for name in names
        ),
    )
    return tuple(
        RepeatedMapping(
            load(replace(bundle, weights=weights | {n: weights[PREFIX + n][i] for n in names})),
            int(side), float(share),
        )
        for i, (side, share) in enumerate(zip(sides, shares, strict=True))
    )  # fmt: skip
