"""Covariates of patients as columns of a linear model, and the check that batches do not fix them.

A covariate of numbers is one column. A covariate of words is one column of 0 and 1 for each word
but the first, in alphabetical order, as R's `model.matrix` codes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvsct.core.errors import EvaluationError

_TOLERANCE = 1e-8
"""Share of a column's length that the columns before it must leave unexplained."""


@dataclass(frozen=True)
class Covariate:
    """A covariate and how it is coded.

    Args:
        name: name of its column.
        levels: its words in order, the first being the baseline; empty for numbers.
    """

    name: str
    levels: tuple[str, ...] = ()

    def code(self, values: Sequence[Any]) -> Float[np.ndarray, "rows columns"]:
        """Columns of the values.

        Raises:
            EvaluationError: if a value is missing, no number, or a word that the fit did not see.
        """
        missing = sum(_is_missing(value) for value in values)
        if missing:
            raise EvaluationError(
                f"covariate {self.name} is missing for {missing} of {len(values)} rows; give it "
                "for every patient, or leave these patients out"
            )
        if not self.levels:
            return np.array([[_number(self.name, value)] for value in values], dtype=np.float64)
        words = [str(value) for value in values]
        unknown = sorted(set(words) - set(self.levels))
        if unknown:
            raise EvaluationError(
                f"covariate {self.name} has the value {unknown[0]!r}, which the fit did not see "
                f"(it saw {', '.join(self.levels)}); fit again with such patients"
            )
        return np.array([[float(word == level) for level in self.levels[1:]] for word in words])


def covariate_of(name: str, values: Sequence[Any]) -> Covariate:
    """How a covariate is coded: numbers as they are, anything else as words.

    Raises:
        EvaluationError: if all values are the same.
    """
    known = [value for value in values if not _is_missing(value)]
    distinct = sorted({str(value) for value in known})
    if len(distinct) < 2:
        shown = f"the value {distinct[0]} alone" if distinct else "no values"
        raise EvaluationError(
            f"covariate {name} has {shown}, expected at least two values; leave it out"
        )
    if all(_is_number(value) for value in known):
        return Covariate(name)
    return Covariate(name, tuple(distinct))


def design_of(
    covariates: Sequence[Covariate], values: Mapping[str, Sequence[Any]], rows: int
) -> Float[np.ndarray, "rows columns"]:
    """Columns of all covariates side by side; no columns without covariates."""
    blocks = [covariate.code(values[covariate.name]) for covariate in covariates]
    return np.hstack([np.zeros((rows, 0)), *blocks])


def refuse_confounded(
    batch: Int[np.ndarray, " rows"],
    covariates: Sequence[Covariate],
    values: Mapping[str, Sequence[Any]],
    batch_name: str = "batch",
) -> None:
    """Refuse a covariate that batches and the covariates before it determine.

    Args:
        batch: number of the batch of each row.
        covariates: the covariates, in order.
        values: values of each covariate.
        batch_name: name of the column of batches, for the message.

    Raises:
        EvaluationError: naming the covariate.
    """
    columns = np.eye(int(batch.max()) + 1)[batch]
    columns = columns[:, columns.any(axis=0)]
    before: list[str] = []
    for covariate in covariates:
        coded = covariate.code(values[covariate.name])
        coded = (coded - coded.mean(axis=0)) / np.maximum(coded.std(axis=0), 1e-300)
        basis, _ = np.linalg.qr(columns)
        left = coded - basis @ (basis.T @ coded)
        if (np.linalg.norm(left, axis=0) <= _TOLERANCE * np.linalg.norm(coded, axis=0)).any() or (
            np.linalg.matrix_rank(left, tol=_TOLERANCE * np.sqrt(len(batch))) < left.shape[1]
        ):
            others = f" and {', '.join(before)}" if before else ""
            raise EvaluationError(
                f"covariate {covariate.name} is confounded with {batch_name}{others}: they "
                "determine it, so that its effect cannot be told from theirs; leave it out, or add "
                f"patients of each {batch_name} in whom it differs"
            )
        columns = np.hstack([columns, coded])
        before.append(covariate.name)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and bool(np.isnan(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating | np.bool_)


def _number(name: str, value: Any) -> float:
    if not _is_number(value) or not np.isfinite(value):
        raise EvaluationError(
            f"covariate {name} has the value {value!r}, expected a number, as where it was fitted"
        )
    return float(value)
