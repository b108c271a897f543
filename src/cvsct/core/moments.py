"""Sums of products of covariates and values in fixed strata.

A regression needs no item by itself, only sums of products. Kept in strata whose edges never
change, the sums of two groups of scans add up to those of both together, and a scanner can be
described by a few thousand sums without any image (`methods.spectrum.texture`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Form = Float[np.ndarray, " terms"]
"""Linear form of a patch's terms: coefficients of 1, the covariates, and the value."""


@dataclass(frozen=True)
class Moments:
    """Sums of products of the terms of patches, by stratum and frequency.

    The terms of a patch are 1, its covariates, and its value, which is log power at a frequency. A
    patch counts at the frequencies at which its value is known.

    Args:
        names: of the covariates.
        sums: for each stratum and frequency the sum of the products of each two terms.
        patients: distinct patients behind each of those sums.
        by_patient: patches of each patient in each of them; no row where it is not known any more.
    """

    names: tuple[str, ...]
    sums: Float[np.ndarray, "strata n terms terms"]
    patients: Int[np.ndarray, "strata n"]
    by_patient: Int[np.ndarray, "people strata n"]

    @classmethod
    def of(
        cls,
        covariates: dict[str, Float[np.ndarray, " patches"]],
        values: Float[np.ndarray, "patches n"],
        stratum: Int[np.ndarray, " patches"],
        n_strata: int,
        patient: Int[np.ndarray, " patches"],
    ) -> Moments:
        """Sum over patches.

        Args:
            values: NaN where unknown.
            stratum: of each patch, from 0.
            patient: number of each patch's patient.
        """
        n, terms = values.shape[1], len(covariates) + 2
        sums = np.zeros((n_strata, n, terms, terms))
        people, person = np.unique(patient, return_inverse=True)
        by_patient = np.zeros((len(people), n_strata, n), dtype=np.int32)
        known = np.isfinite(values)
        np.add.at(by_patient, (person, stratum), known.astype(np.int32))
        x = np.column_stack([np.ones(len(values)), *covariates.values()])
        products: Float[np.ndarray, "patches square"] = (x[:, :, None] * x[:, None, :]).reshape(
            len(x), (terms - 1) ** 2
        )
        value = np.where(known, values, 0.0)
        for k in np.unique(stratum):
            mine = stratum == k
            counted, y = known[mine].astype(np.float64), value[mine]
            cross = y.T @ x[mine]
            sums[k, :, :-1, :-1] = (counted.T @ products[mine]).reshape(n, terms - 1, terms - 1)
            sums[k, :, :-1, -1] = sums[k, :, -1, :-1] = cross
            sums[k, :, -1, -1] = np.sum(y**2, axis=0)
        return cls(tuple(covariates), sums, (by_patient > 0).sum(axis=0), by_patient)

    @classmethod
    def nothing(cls, names: Sequence[str], n_strata: int, n: int) -> Moments:
        """Sums over no patches."""
        terms = len(names) + 2
        return cls(
            tuple(names),
            np.zeros((n_strata, n, terms, terms)),
            np.zeros((n_strata, n), dtype=np.int64),
            np.zeros((0, n_strata, n), dtype=np.int32),
        )

    def __add__(self, other: Moments) -> Moments:
        """Sums over the patches of both; the fewer frequencies are filled up with nothing."""
        n = max(self.sums.shape[1], other.sums.shape[1])
        a, b = self.to(n), other.to(n)
        people = np.concatenate([a.by_patient, b.by_patient])
        return Moments(self.names, a.sums + b.sums, a.patients + b.patients, people)

    def kept_where(self, keep: Bool[np.ndarray, "strata n"]) -> Moments:
        """Sums in the cells that are kept; the others hold nothing."""
        return Moments(
            self.names,
            np.where(keep[:, :, None, None], self.sums, 0.0),
            np.where(keep, self.patients, 0),
            np.where(keep, self.by_patient, 0),
        )

    def moved(self, to: Int[np.ndarray, " strata"]) -> Moments:
        """Sums with each stratum added to the one that is given for it."""
        sums, people = np.zeros_like(self.sums), np.zeros_like(self.by_patient)
        np.add.at(sums, to, self.sums)
        np.add.at(people.swapaxes(0, 1), to, self.by_patient.swapaxes(0, 1))
        return Moments(self.names, sums, (people > 0).sum(axis=0), people)

    def to(self, n: int) -> Moments:
        """The first n frequencies, of which those beyond hold nothing."""
        more = max(n - self.sums.shape[1], 0)
        return Moments(
            self.names,
            np.pad(self.sums[:, :n], ((0, 0), (0, more), (0, 0), (0, 0))),
            np.pad(self.patients[:, :n], ((0, 0), (0, more))),
            np.pad(self.by_patient[:, :, :n], ((0, 0), (0, 0), (0, more))),
        )

    def weighted(self, weight: Float[np.ndarray, " strata"]) -> Float[np.ndarray, "n terms terms"]:
        """Sum over strata, each with a weight."""
        total: Float[np.ndarray, "n terms terms"] = np.tensordot(weight, self.sums, axes=1)
        return total

    @property
    def total(self) -> Float[np.ndarray, "n terms terms"]:
        """Sum over all strata."""
        return self.weighted(np.ones(len(self.sums)))

    @property
    def counts(self) -> Float[np.ndarray, "strata n"]:
        """Patches of each stratum that reach each frequency."""
        return self.sums[:, :, 0, 0]

    @property
    def patches(self) -> Float[np.ndarray, " strata"]:
        """Patches of each stratum."""
        patches: Float[np.ndarray, " strata"] = self.counts.max(axis=1, initial=0.0)
        return patches

    def form(self, **coefficients: float) -> Form:
        """Linear form of the terms, by the names of covariates, `one` and `value`."""
        places = {name: i for i, name in enumerate(("one", *self.names, "value"))}
        form = np.zeros(len(places))
        for name, coefficient in coefficients.items():
            form[places[name]] = coefficient
        return form


def mean_value(sums: Float[np.ndarray, "n terms terms"], form: Form) -> Float[np.ndarray, " n"]:
    """Mean of a linear form over the patches at each frequency; NaN where there are none."""
    count = sums[:, 0, 0]
    total = sums[:, 0] @ form
    return np.where(count > 0, total / np.where(count > 0, count, 1.0), np.nan)


def centered(
    sums: Float[np.ndarray, "*lead terms terms"],
) -> Float[np.ndarray, "*lead terms terms"]:
    """Sums of products of the terms less their means; 0 where there are no patches."""
    count = sums[..., 0, 0][..., None, None]
    first = sums[..., 0, :]
    outer = first[..., :, None] * first[..., None, :]
    apart: Float[np.ndarray, "*lead terms terms"] = sums - outer / np.where(count > 0, count, 1.0)
    return apart


def squares_about_mean(
    sums: Float[np.ndarray, "n terms terms"], form: Form
) -> Float[np.ndarray, " n"]:
    """Sum of squares of a linear form about its mean, no less than 0 whatever rounding leaves."""
    squares: Float[np.ndarray, " n"] = np.maximum(
        np.einsum("t,ntu,u->n", form, centered(sums), form), 0.0
    )
    return squares


def mean_and_variance(sums: Float[np.ndarray, "terms terms"], form: Form) -> tuple[float, float]:
    """Mean and variance of a linear form over the patches of one sum; 0 where there are none."""
    count = max(float(sums[0, 0]), 1e-9)
    return float(sums[0] @ form) / count, float(squares_about_mean(sums[None], form)[0]) / count


def lowest(
    patches: Float[np.ndarray, " strata"], first: float, last: float
) -> Float[np.ndarray, " strata"]:
    """Share of each stratum that holds the patches from the `first` to the `last` in its order.

    A stratum that an end cuts through counts in part, as if its patches were alike.
    """
    ends = np.concatenate([[0.0], np.cumsum(patches)])
    inside = np.clip(ends[1:], first, last) - np.clip(ends[:-1], first, last)
    share: Float[np.ndarray, " strata"] = inside / np.maximum(patches, 1e-300)
    return np.where(patches > 0, share, 0.0)


def numbered(keys: Sequence[Hashable]) -> Int[np.ndarray, " items"]:
    """Number of each key, in the order in which they first come."""
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)
