"""ComBat by parametric empirical Bayes: estimates of each batch, and their application.

Johnson, Li and Rabinovic, Biostatistics 2007, sections 3.1 to 3.3; Fortin et al., NeuroImage 2018
(covariates, reference batch). Each feature is standardized by its mean, its regression on the
covariates and its pooled deviation. Each batch then has a shift and a scale, drawn towards their
means over features. The figures, the rule that ends the iteration included, are those of R's
`sva::ComBat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.combat.covariates import (
    Covariate,
    covariate_of,
    design_of,
    refuse_confounded,
)

MIN_DEFINED = 0.9
"""Share of a batch's rows that must define a feature for it to be fitted."""

_MIN_VARIATION = 1e-9
"""Smallest variation of a feature within a batch, as a share of its size, that has a scale."""

_CONVERGED = 1e-4
_MAX_ITERATIONS = 10_000

CONSTANT = "constant within a batch: unchanged"
UNDEFINED = "undefined in more than a tenth of a batch: left out"


@dataclass(frozen=True)
class ComBatEstimates:
    """Fitted ComBat of some features: what brings a row of a known batch to the common level.

    Args:
        features: names of the fitted features.
        batches: names of the batches.
        rows: number of rows of each batch that it was fitted on.
        covariates: covariates whose effect is kept.
        mean: level of each feature, without covariates.
        coefficients: effect of each column of the covariates.
        deviation: pooled standard deviation of each feature.
        shift: shift of each batch in these deviations.
        scale: standard deviation of each batch as a multiple of the pooled one.
        reference: batch that stays as it is; None where all move to a common level.
        mean_only: whether only shifts were fitted.
        not_fitted: reason for each feature that has no fit, by its name.
    """

    features: tuple[str, ...]
    batches: tuple[str, ...]
    rows: tuple[int, ...]
    covariates: tuple[Covariate, ...]
    mean: Float[np.ndarray, " features"] = field(repr=False)
    coefficients: Float[np.ndarray, "columns features"] = field(repr=False)
    deviation: Float[np.ndarray, " features"] = field(repr=False)
    shift: Float[np.ndarray, "batches features"] = field(repr=False)
    scale: Float[np.ndarray, "batches features"] = field(repr=False)
    reference: str | None = None
    mean_only: bool = False
    not_fitted: Mapping[str, str] = field(default_factory=dict)

    def apply(
        self,
        values: Float[np.ndarray, "rows features"],
        batch: Sequence[str],
        covariates: Mapping[str, Sequence[Any]] | None = None,
    ) -> Float[np.ndarray, "rows features"]:
        """Bring rows of known batches to the common level, or to the reference.

        Args:
            values: the fitted features in their order; undefined values stay undefined.
            batch: batch of each row.
            covariates: values of each covariate.

        Raises:
            EvaluationError: if a batch is not among the fitted ones, or a covariate is missing.
        """
        number = self._batch_numbers(batch)
        missing = [each.name for each in self.covariates if each.name not in (covariates or {})]
        if missing:
            raise EvaluationError(
                f"covariate {missing[0]} is not given, and the estimates were fitted with it; give "
                "it for every row"
            )
        design = design_of(self.covariates, covariates or {}, len(values))
        level = self.mean + design @ self.coefficients
        standard = (values - level) / self.deviation
        moved = (standard - self.shift[number]) / self.scale[number] * self.deviation + level
        moved = np.asarray(moved)
        if self.reference is not None:
            stays = number == self.batches.index(self.reference)
            moved[stays] = values[stays]
        return moved

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same estimates."""
        return {
            "features": list(self.features),
            "batches": dict(zip(self.batches, self.rows, strict=True)),
            "covariates": {each.name: list(each.levels) for each in self.covariates},
            "mean": self.mean.tolist(),
            "coefficients": self.coefficients.tolist(),
            "deviation": self.deviation.tolist(),
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "reference": self.reference,
            "mean_only": self.mean_only,
            "not_fitted": dict(self.not_fitted),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ComBatEstimates:
        """Estimates from the values of `to_json`.

        Raises:
            EvaluationError: if they are not such values.
        """
        try:
            features = tuple(record["features"])
            covariates = tuple(
                Covariate(name, tuple(levels)) for name, levels in record["covariates"].items()
            )
            return cls(
                features=features,
                batches=tuple(record["batches"]),
                rows=tuple(record["batches"].values()),
                covariates=covariates,
                coefficients=np.array(record["coefficients"], dtype=np.float64).reshape(
                    -1, len(features)
                ),
                **{
                    name: np.array(record[name], dtype=np.float64)
                    for name in ("mean", "deviation", "shift", "scale")
                },
                reference=record["reference"],
                mean_only=record["mean_only"],
                not_fitted=record["not_fitted"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvaluationError(
                f"these are no estimates of ComBat ({type(error).__name__}: {error}); give the "
                "file that the fit wrote"
            ) from error

    def _batch_numbers(self, batch: Sequence[str]) -> Int[np.ndarray, " rows"]:
        number_of = {name: number for number, name in enumerate(self.batches)}
        unknown = sorted({name for name in batch if name not in number_of})
        if unknown:
            raise EvaluationError(
                f"batch {unknown[0]!r} is not among those that ComBat was fitted on "
                f"({', '.join(self.batches)}); fit again with patients of that batch"
            )
        return np.array([number_of[name] for name in batch], dtype=np.int64)


def estimate_combat(
    values: Float[np.ndarray, "rows features"],
    features: Sequence[str],
    batch: Sequence[str],
    covariates: Mapping[str, Sequence[Any]] | None = None,
    *,
    reference: str | None = None,
    mean_only: bool = False,
    batch_name: str = "batch",
) -> ComBatEstimates:
    """Fit ComBat on rows that are independent, such as one row a patient.

    A feature that is constant within a batch has no scale to match and is not fitted, as in `sva`;
    one that is undefined in more than a tenth of a batch is not fitted either. Other undefined
    values are left out of their feature's fit.

    Args:
        values: features of each row, NaN where undefined.
        features: names of the features.
        batch: batch of each row.
        covariates: values of each covariate, by name; their effect on the features is kept.
        reference: batch to which the others are brought and that stays as it is.
        mean_only: fit shifts alone; the spread of each batch stays as it is.
        batch_name: name of the column of batches, for messages.

    Raises:
        EvaluationError: if there are fewer than two batches, if a batch has one row and
            `mean_only` is false, if a covariate cannot be used, or if fewer than two features can
            be fitted.
    """
    batches = tuple(sorted(set(batch)))
    number = np.array([batches.index(name) for name in batch], dtype=np.int64)
    rows = np.bincount(number, minlength=len(batches))
    _refuse_batches(batches, rows, reference, mean_only, batch_name)
    given = covariates or {}
    coded = tuple(covariate_of(name, column) for name, column in given.items())
    refuse_confounded(number, coded, given, batch_name)
    columns = design_of(coded, given, len(values))
    not_fitted = _not_fitted(values, features, number)
    used = np.array([name not in not_fitted for name in features], dtype=bool)
    if int(used.sum()) < 2:
        raise EvaluationError(
            f"ComBat can use {int(used.sum())} of {len(features)} features (defined in most rows "
            "and varying in every batch), expected at least 2; measure other regions"
        )
    anchor = None if reference is None else batches.index(reference)
    level = _standardization(values[:, used], number, rows, columns, anchor)
    standard = (values[:, used] - level.mean - columns @ level.coefficients) / level.deviation
    shift, scale = _batch_effects(standard, number, len(batches), mean_only)
    if anchor is not None:
        shift[anchor], scale[anchor] = 0.0, 1.0
    return ComBatEstimates(
        features=tuple(name for name in features if name not in not_fitted),
        batches=batches,
        rows=tuple(int(count) for count in rows),
        covariates=coded,
        mean=level.mean,
        coefficients=level.coefficients,
        deviation=level.deviation,
        shift=shift,
        scale=scale,
        reference=reference,
        mean_only=mean_only,
        not_fitted=not_fitted,
    )


def _refuse_batches(
    batches: Sequence[str],
    rows: Int[np.ndarray, " batches"],
    reference: str | None,
    mean_only: bool,
    batch_name: str,
) -> None:
    if len(batches) < 2:
        shown = f"{batches[0]!r} alone" if batches else "nothing"
        raise EvaluationError(
            f"column {batch_name} holds {shown}, expected at least two batches to bring together; "
            "choose another column"
        )
    if reference is not None and reference not in batches:
        raise EvaluationError(
            f"the reference {reference!r} is not among the batches ({', '.join(batches)}); "
            "choose one of them"
        )
    single = [name for name, count in zip(batches, rows, strict=True) if count < 2]
    if single and not mean_only:
        raise EvaluationError(
            f"{batch_name} {single[0]!r} has one patient, from whom no spread can be estimated; "
            "leave it out, or fit shifts alone"
        )


def _not_fitted(
    values: Float[np.ndarray, "rows features"],
    features: Sequence[str],
    number: Int[np.ndarray, " rows"],
) -> dict[str, str]:
    """Reason for each feature that cannot be fitted."""
    constant = np.zeros(len(features), dtype=bool)
    undefined = np.zeros(len(features), dtype=bool)
    for batch in range(int(number.max()) + 1):
        here = values[number == batch]
        defined = np.isfinite(here)
        undefined |= (defined.mean(axis=0) < MIN_DEFINED) | (defined.sum(axis=0) == 0)
        if len(here) > 1:
            constant |= _is_constant(here, defined)
    reasons = {}
    for name, is_undefined, is_constant in zip(features, undefined, constant, strict=True):
        if is_undefined:
            reasons[name] = UNDEFINED
        elif is_constant:
            reasons[name] = CONSTANT
    return reasons


def _is_constant(
    values: Float[np.ndarray, "rows features"], defined: Bool[np.ndarray, "rows features"]
) -> Bool[np.ndarray, " features"]:
    top = np.where(defined, values, -np.inf).max(axis=0)
    bottom = np.where(defined, values, np.inf).min(axis=0)
    size = np.where(defined, np.abs(values), 0.0).max(axis=0)
    return np.asarray(top - bottom <= _MIN_VARIATION * size)


@dataclass(frozen=True)
class _Standardization:
    mean: Float[np.ndarray, " features"]
    coefficients: Float[np.ndarray, "columns features"]
    deviation: Float[np.ndarray, " features"]


def _standardization(
    values: Float[np.ndarray, "rows features"],
    number: Int[np.ndarray, " rows"],
    rows: Int[np.ndarray, " batches"],
    columns: Float[np.ndarray, "rows columns"],
    anchor: int | None,
) -> _Standardization:
    """Level, covariates' effects and pooled deviation of each feature (Johnson 2007, section 3.1).

    With a reference they are the reference's.
    """
    n_batches = len(rows)
    design = np.hstack([np.eye(n_batches)[number], columns])
    effects = _least_squares(design, values)
    if anchor is None:
        mean = rows / rows.sum() @ effects[:n_batches]
        residual = values - design @ effects
    else:
        mean = effects[anchor]
        residual = (values - design @ effects)[number == anchor]
    has_holes = bool(np.isnan(values).any())  # then `sva` divides by n - 1, without them by n
    deviation = np.nanstd(residual, axis=0, ddof=int(has_holes))
    return _Standardization(mean, effects[n_batches:], deviation)


def _least_squares(
    design: Float[np.ndarray, "rows columns"], values: Float[np.ndarray, "rows features"]
) -> Float[np.ndarray, "columns features"]:
    """Least-squares fit of each feature on its defined rows."""
    defined = np.isfinite(values)
    complete = defined.all(axis=0)
    effects = np.full((design.shape[1], values.shape[1]), np.nan)
    effects[:, complete] = np.linalg.lstsq(design, values[:, complete], rcond=None)[0]
    for feature in np.flatnonzero(~complete):
        rows = defined[:, feature]
        effects[:, feature] = np.linalg.lstsq(design[rows], values[rows, feature], rcond=None)[0]
    return effects


def _batch_effects(
    standard: Float[np.ndarray, "rows features"],
    number: Int[np.ndarray, " rows"],
    n_batches: int,
    mean_only: bool,
) -> tuple[Float[np.ndarray, "batches features"], Float[np.ndarray, "batches features"]]:
    """Shift and scale of each batch, drawn towards their means over features (section 3.2)."""
    shift = np.zeros((n_batches, standard.shape[1]))
    scale = np.ones_like(shift)
    for batch in range(n_batches):
        here = standard[number == batch]
        mean = np.nanmean(here, axis=0)
        prior_mean, prior_variance = float(mean.mean()), float(mean.var(ddof=1))
        if mean_only:
            shift[batch] = (prior_variance * mean + prior_mean) / (prior_variance + 1)
        else:
            shift[batch], variance = _posterior(here, mean, prior_mean, prior_variance)
            scale[batch] = np.sqrt(variance)
    return shift, scale


def _posterior(
    rows: Float[np.ndarray, "rows features"],
    mean: Float[np.ndarray, " features"],
    prior_mean: float,
    prior_variance: float,
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, " features"]]:
    """Posterior mean of shift and variance of one batch, by iteration (section 3.2, eq. 3.1)."""
    n = np.isfinite(rows).sum(axis=0)
    variance = np.nanvar(rows, axis=0, ddof=1)
    m, v = float(variance.mean()), float(variance.var(ddof=1))
    if v <= 0.0:  # all features scatter alike: the prior is that scatter, exactly
        shift = (n * prior_variance * mean + m * prior_mean) / (n * prior_variance + m)
        return shift, np.full_like(mean, m)
    a, b = 2 + m**2 / v, m + m**3 / v
    old_shift, old_variance = mean, variance
    for _ in range(_MAX_ITERATIONS):
        shift = (n * prior_variance * mean + old_variance * prior_mean) / (
            n * prior_variance + old_variance
        )
        squares = np.nansum((rows - shift) ** 2, axis=0)
        variance = (0.5 * squares + b) / (n / 2 + a - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # relative to the signed shift, as in `sva`: the same number of iterations
            change = max(
                float(np.nanmax(np.abs(shift - old_shift) / old_shift)),
                float(np.nanmax(np.abs(variance - old_variance) / old_variance)),
            )
        old_shift, old_variance = shift, variance
        if not change > _CONVERGED:
            break
    return old_shift, old_variance
