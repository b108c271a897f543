"""Share of the variance between patients that their group explains: omega squared.

Omega squared (Hays 1963; partial form: Olejnik and Algina, Psychological Methods 2003) of a linear
model with the group and covariates: the share of the variance that the covariates leave, less what
a group without any effect would explain by chance. It is 0 on average where groups do not differ,
and may be below 0. The figure of a table is the mean over features.

Its permutation null exchanges the residuals of patients (Freedman and Lane 1983), all features of a
patient together. The same figure for random halves of one group shows what is found where there is
one scanner.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as students_t

from cvsct.core.seeding import random_stream
from cvsct.evaluation.groups.settings import LEVEL

HALVES = 200
"""Number of random splits of one group into halves."""

BLOCKS = 20
"""Number of parts of the patients that the jackknife leaves out in turn."""


@dataclass(frozen=True)
class VarianceShare:
    """Mean omega squared of a table, with what chance gives.

    Args:
        omega: mean over features of omega squared of the group.
        p_value: share of permutations that reach it.
        chance_high: 95th percentile of the permutations.
        halves: mean over random halves of one group; None where it is too small.
        halves_high: 95th percentile over these halves.
        halves_of: name of that group.
        share_above_tenth: share of features whose omega squared exceeds 0.1.
        patients: number of rows.
        features: number of features, all of them defined in every row.
    """

    omega: float
    p_value: float
    chance_high: float
    halves: float | None
    halves_high: float | None
    halves_of: str
    share_above_tenth: float
    patients: int
    features: int

    @property
    def above_chance(self) -> bool:
        """Whether groups explain more than at most one in twenty permutations would."""
        return self.p_value <= LEVEL

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Change:
    """Change of the mean omega squared between two stages of the same patients.

    Args:
        change: after less before.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
    """

    change: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def omega_squared(
    values: Float[np.ndarray, "patients features"],
    group: Int[np.ndarray, " patients"],
    covariates: Float[np.ndarray, "patients columns"] | None = None,
) -> Float[np.ndarray, " features"]:
    """Partial omega squared of the group for each feature; NaN where a feature does not vary.

    Args:
        values: features, all defined.
        group: number of the group of each patient.
        covariates: columns of the covariates, without an intercept.
    """
    basis, group_basis = _bases(group, covariates)
    left = values - basis @ (basis.T @ values)
    return _omega(group_basis, left, basis.shape[1])


def variance_share(
    values: Float[np.ndarray, "patients features"],
    group: Int[np.ndarray, " patients"],
    names: list[str],
    covariates: Float[np.ndarray, "patients columns"] | None = None,
    permutations: int = 999,
    min_patients: int = 10,
    seed: int = 0,
) -> VarianceShare | None:
    """Measure the mean omega squared of the group, with its null and that of halves of one group.

    Args:
        values: features; those undefined in any row or constant are left out.
        group: number of the group of each row.
        names: names of the groups.
        covariates: columns of the covariates.
        permutations: number of permutations of the null.
        min_patients: smallest half of a group that is split.
        seed: seed of permutations and halves.

    Returns:
        None where no feature is left, or too few patients for the model.
    """
    values = _complete(values)
    basis, group_basis = _bases(group, covariates)
    if values.shape[1] == 0 or len(group) - basis.shape[1] - group_basis.shape[1] < 2:
        return None
    left = values - basis @ (basis.T @ values)
    by_feature = _omega(group_basis, left, basis.shape[1])
    omega = float(by_feature.mean())
    rng = random_stream(seed, "groups", "permutations")
    chance = np.empty(permutations)
    for i in range(permutations):
        order = rng.permutation(len(group))
        # permuting rows of both bases is permuting residuals, at the cost of a few columns
        chance[i] = _omega(group_basis[order], left, basis.shape[1], basis[order]).mean()
    halves, halves_high, halves_of = _halves(values, group, names, covariates, min_patients, seed)
    return VarianceShare(
        omega=omega,
        p_value=float((1 + (chance >= omega).sum()) / (1 + permutations)),
        chance_high=float(np.quantile(chance, 0.95)),
        halves=halves,
        halves_high=halves_high,
        halves_of=halves_of,
        share_above_tenth=float((by_feature > 0.1).mean()),
        patients=len(group),
        features=values.shape[1],
    )


def change_of_share(
    before: Float[np.ndarray, "patients features"],
    after: Float[np.ndarray, "patients features"],
    group: Int[np.ndarray, " patients"],
    covariates: Float[np.ndarray, "patients columns"] | None = None,
    seed: int = 0,
) -> Change | None:
    """Change of the mean omega squared, with an interval by a jackknife over patients.

    Args:
        before: features of the patients before.
        after: the same features of the same patients after.
        group: number of the group of each patient.
        covariates: columns of the covariates.
        seed: seed of the parts that are left out in turn.

    Returns:
        None where no feature is defined and varies on both sides, or groups are too small.
    """
    used = _usable(before) & _usable(after)
    if not used.any():
        return None
    sides = before[:, used], after[:, used]
    part = _blocks(group, random_stream(seed, "groups", "jackknife"))

    def difference(rows: Any) -> float:
        columns = None if covariates is None else covariates[rows]
        old, new = (np.nanmean(omega_squared(side[rows], group[rows], columns)) for side in sides)
        return float(new - old)

    everyone = difference(np.ones(len(group), dtype=bool))
    n_blocks = int(part.max()) + 1
    left_out = np.array([difference(part != block) for block in range(n_blocks)])
    spread = float(np.sqrt((n_blocks - 1) / n_blocks * ((left_out - left_out.mean()) ** 2).sum()))
    half = float(students_t.ppf(0.975, n_blocks - 1)) * spread
    return Change(everyone, everyone - half, everyone + half)


def _omega(
    group_basis: Float[np.ndarray, "patients groups"],
    left: Float[np.ndarray, "patients features"],
    columns: int,
    basis: Float[np.ndarray, "patients columns"] | None = None,
) -> Float[np.ndarray, " features"]:
    """Omega squared from what the covariates leave of each feature.

    Args:
        group_basis: orthonormal basis of the group beside the covariates.
        left: features less their fit on the covariates.
        columns: number of columns of the covariates, with the intercept.
        basis: their basis, where the residuals are permuted and fitted on them again.
    """
    total = (left**2).sum(axis=0)
    if basis is not None:
        total = total - ((basis.T @ left) ** 2).sum(axis=0)
    n, df = left.shape[0], group_basis.shape[1]
    explained = ((group_basis.T @ left) ** 2).sum(axis=0)
    error = (total - explained) / (n - columns - df)
    with np.errstate(divide="ignore", invalid="ignore"):
        omega = (explained - df * error) / (explained + (n - df) * error)
    return np.asarray(omega)


def _bases(
    group: Int[np.ndarray, " patients"], covariates: Float[np.ndarray, "patients columns"] | None
) -> tuple[Float[np.ndarray, "patients basis"], Float[np.ndarray, "patients groups"]]:
    """Orthonormal bases of intercept and covariates, and of the group beside them."""
    columns = np.ones((len(group), 1))
    if covariates is not None and covariates.shape[1]:
        spread = covariates.std(axis=0)
        varying = covariates[:, spread > 0]
        columns = np.hstack([columns, (varying - varying.mean(axis=0)) / spread[spread > 0]])
    basis = _orthonormal(columns)
    dummies = np.equal.outer(group, np.unique(group)[1:]).astype(np.float64)
    return basis, _orthonormal(dummies - basis @ (basis.T @ dummies))


def _orthonormal(columns: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "rows k"]:
    """Orthonormal basis of the space of some columns."""
    vectors, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(vectors[:, sizes > 1e-9 * max(float(sizes.max(initial=0.0)), 1e-300)])


def _usable(values: Float[np.ndarray, "patients features"]) -> Any:
    """True for features that are defined in every row and vary."""
    defined = np.isfinite(values).all(axis=0)
    with np.errstate(invalid="ignore"):
        varies = np.ptp(values, axis=0) > 1e-9 * np.abs(values).max(axis=0)
    return defined & varies


def _complete(values: Float[np.ndarray, "patients features"]) -> Float[np.ndarray, "patients used"]:
    """Standardized features that are defined in every row and vary."""
    kept = values[:, _usable(values)]
    if not kept.shape[1]:
        return np.asarray(kept)
    return np.asarray((kept - kept.mean(axis=0)) / kept.std(axis=0))


def _halves(
    values: Float[np.ndarray, "patients features"],
    group: Int[np.ndarray, " patients"],
    names: list[str],
    covariates: Float[np.ndarray, "patients columns"] | None,
    min_patients: int,
    seed: int,
) -> tuple[float | None, float | None, str]:
    """Mean and 95th percentile of the figure over random halves of the largest group."""
    counts = np.bincount(group, minlength=len(names))
    largest = int(counts.argmax())
    name = names[largest]
    if counts[largest] < 2 * min_patients:
        return None, None, name
    rows = group == largest
    own = None if covariates is None else covariates[rows]
    inside = values[rows]
    inside = inside[:, np.ptp(inside, axis=0) > 0]
    rng = random_stream(seed, "groups", "halves")
    half = np.arange(int(counts[largest])) % 2
    figures = [
        float(np.nanmean(omega_squared(inside, rng.permutation(half), own))) for _ in range(HALVES)
    ]
    return float(np.mean(figures)), float(np.quantile(figures, 0.95)), name


def _blocks(
    group: Int[np.ndarray, " patients"], rng: np.random.Generator
) -> Int[np.ndarray, " patients"]:
    """Part of each patient, dealt in turn within each group."""
    order = np.concatenate([rng.permutation(np.flatnonzero(group == g)) for g in np.unique(group)])
    part = np.empty(len(group), dtype=np.int64)
    part[order] = np.arange(len(group)) % min(BLOCKS, len(group))
    return part
