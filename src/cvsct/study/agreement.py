"""How well groups agree in their features: distance to the reference, what did not harmonize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from cvsct.core.seeding import random_stream
from cvsct.evaluation.agreement.concordance import lin_ccc
from cvsct.evaluation.cohort_table import (
    COMBAT,
    SHAPE,
    PatientRows,
    feature_columns,
    patient_rows,
    region_name,
    stage_rows,
    stages_of,
)
from cvsct.evaluation.groups.variance_share import omega_squared

RESAMPLES = 200
"""Number of resamples of patients."""

REMAINING = 0.06
"""Omega squared of the group from which a feature counts as not harmonized: a medium effect
(Cohen 1988)."""

MOST = 0.5
"""Least share of resamples in which such a feature must be found."""

EXCHANGES = 10
"""How often groups are exchanged between patients, to see what chance gives."""

FEWEST_BODIES = 3
"""Fewest bodies whose scans have a concordance."""

SUBSAMPLE = 0.8
"""Share of each group's patients in a resample of `not_harmonized`."""


def rows_of(
    table: Any, region: str, groups: Sequence[str], combat: bool = True
) -> dict[str, PatientRows]:
    """Rows of the patients that every stage has, by stage, of texture features.

    Args:
        table: wide table of a study.
        region: name of the regions.
        groups: groups to use.
        combat: whether ComBat's stages are among them, which not every group may have.
    """
    features = [name for name in feature_columns(table) if not SHAPE.search(name)]
    rows = {}
    for stage in (s for s in stages_of(table) if combat or not s.endswith(COMBAT)):
        own = stage_rows(table, stage, "batch")
        own = own[own["region"].astype(str).map(region_name) == region]
        part = patient_rows(own[own["batch"].isin(list(groups))], features, "batch")
        if part.patient:
            rows[stage] = part
    common = set.intersection(*(set(part.keys) for part in rows.values())) if rows else set()
    return {
        stage: part.select([i for i, key in enumerate(part.keys) if key in common])
        for stage, part in rows.items()
    }


@dataclass(frozen=True)
class Distance:
    """Distance of a group's features to the reference's in one stage.

    Args:
        group, stage: of what.
        median: median over features of the absolute standardized difference.
        low, high: 95 % interval over patients.
        patients: of the group.
    """

    group: str
    stage: str
    median: float
    low: float
    high: float
    patients: int


def distances(
    rows: Mapping[str, PatientRows], reference: str, groups: Sequence[str]
) -> list[Distance]:
    """Distance of each group to the reference in every stage, with jackknife over patients."""
    found = []
    for group in groups:
        if group == reference:
            continue
        for stage, part in rows.items():
            own = np.array([name == group for name in part.group])
            other = np.array([name == reference for name in part.group])
            if min(own.sum(), other.sum()) < 3:
                continue
            a, b = np.flatnonzero(own), np.flatnonzero(other)
            value = _median_difference(part.values, a, b)
            margin = _margin(part.values, a, b)
            found.append(
                Distance(group, stage, value, max(value - margin, 0.0), value + margin,
                         int(own.sum()))
            )  # fmt: skip
    return found


def _margin(
    values: Float[np.ndarray, "patients features"],
    own: Int[np.ndarray, " a"],
    other: Int[np.ndarray, " b"],
) -> float:
    """Half of the 95 % interval of the median difference: jackknife over the patients of both.

    It is up to twice as wide as it need be, for a median is not smooth. A bootstrap would not do:
    differences of few patients grow in resamples, which repeat some.
    """
    variance = 0.0
    for side, rest in ((own, other), (other, own)):
        without = [_median_difference(values, np.delete(side, i), rest) for i in range(len(side))]
        variance += (len(side) - 1) * float(np.var(without))
    degrees = max(min(len(own), len(other)) - 1, 1)
    return float(stats.t.ppf(0.975, degrees) * variance**0.5)


def _median_difference(
    values: Float[np.ndarray, "patients features"],
    own: Int[np.ndarray, " a"],
    other: Int[np.ndarray, " b"],
) -> float:
    """Median over features of the difference of means over the pooled standard deviation."""
    complete = np.isfinite(values[np.concatenate([own, other])]).all(axis=0)
    a, b = values[own][:, complete], values[other][:, complete]
    pooled = (len(a) * a.var(axis=0) + len(b) * b.var(axis=0)) / (len(a) + len(b) - 2)
    differs = pooled > 0
    sizes = np.abs(a.mean(axis=0) - b.mean(axis=0))[differs] / np.sqrt(pooled[differs])
    return float(np.median(sizes)) if len(sizes) else 0.0


@dataclass(frozen=True)
class RemainingFeature:
    """A feature that still tells groups apart after harmonization.

    Args:
        feature: its name.
        before, after: omega squared of the group.
        frequency: share of resamples of patients in which it counts as not harmonized.
    """

    feature: str
    before: float
    after: float
    frequency: float


@dataclass(frozen=True)
class RemainingFeatures:
    """Features that still tell groups apart.

    Args:
        features: the features, the most frequent in resamples first.
        by_chance: how many are found on average where groups are exchanged between patients.
        tested: number of features that were looked at.
    """

    features: tuple[RemainingFeature, ...]
    by_chance: float
    tested: int


def not_harmonized(before: PatientRows, after: PatientRows, seed: int) -> RemainingFeatures:
    """Features that still tell groups apart, in all patients and in most resamples of them.

    No outcome is looked at.
    """
    usable = [
        i
        for i in range(len(after.features))
        if np.isfinite(before.values[:, i]).all() and np.isfinite(after.values[:, i]).all()
    ]
    if not usable:
        return RemainingFeatures((), 0.0, 0)
    names = sorted(set(after.group))
    number = np.array([names.index(name) for name in after.group], dtype=np.int64)
    x, y = before.values[:, usable], after.values[:, usable]
    rng = random_stream(seed, "study features")
    found, frequency, whole = _remaining(y, number, rng, RESAMPLES)
    chance = [
        int(_remaining(y, rng.permutation(number), rng, RESAMPLES // 10)[0].sum())
        for _ in range(EXCHANGES)
    ]
    earlier = omega_squared(x, number)
    features = [
        RemainingFeature(
            after.features[column], float(earlier[i]), float(whole[i]), float(frequency[i])
        )
        for i, column in enumerate(usable)
        if found[i]
    ]
    ordered = sorted(features, key=lambda each: (-each.frequency, -each.after, each.feature))
    return RemainingFeatures(tuple(ordered), float(np.mean(chance)), len(usable))


def _remaining(
    values: Float[np.ndarray, "patients features"],
    number: Int[np.ndarray, " patients"],
    rng: np.random.Generator,
    resamples: int,
) -> tuple[
    Bool[np.ndarray, " features"], Float[np.ndarray, " features"], Float[np.ndarray, " features"]
]:
    """Whether each feature still tells groups apart, in how many resamples, and how far."""
    whole = np.nan_to_num(omega_squared(values, number))
    count = np.zeros(values.shape[1])
    for _ in range(resamples):
        picked = np.concatenate(
            [
                rng.permutation(np.flatnonzero(number == k))[
                    : max(2, round(SUBSAMPLE * int((number == k).sum())))
                ]
                for k in np.unique(number)
            ]
        )
        count += np.nan_to_num(omega_squared(values[picked], number[picked])) >= REMAINING
    frequency = count / resamples
    return (whole >= REMAINING) & (frequency >= MOST), frequency, whole


@dataclass(frozen=True)
class PairedAgreement:
    """Agreement of the features of bodies that were scanned in two groups.

    Args:
        groups: the two groups, or `any two groups`.
        stage: the stage.
        bodies: number of bodies.
        concordance: median over features of Lin's concordance of their two scans; None of fewer
            than three bodies.
        difference: median over features and bodies of the absolute difference, in deviations of
            the source's features over patients.
    """

    groups: str
    stage: str
    bodies: int
    concordance: float | None
    difference: float


ANY_TWO = "any two groups"


def paired_agreement(rows: Mapping[str, PatientRows], reference: str) -> list[PairedAgreement]:
    """Agreement of bodies scanned in several groups: with the reference, and between any two.

    Between any two each body counts once, by its first two groups.
    """
    if not rows:
        return []
    first = next(iter(rows.values()))
    places: dict[str, dict[str, int]] = {}
    for i, (patient, group) in enumerate(first.keys):
        places.setdefault(patient, {})[group] = i
    pairs: dict[str, list[tuple[int, int]]] = {}
    for own in places.values():
        names = sorted(own)
        if len(names) > 1:
            pairs.setdefault(ANY_TWO, []).append((own[names[0]], own[names[1]]))
        for name in names if reference in own else ():
            if name != reference:
                key = f"{name} and {reference}"
                pairs.setdefault(key, []).append((own[name], own[reference]))
    spread = np.nanstd(first.values, axis=0)
    agreements = []
    for name, indices in sorted(pairs.items(), key=lambda item: (item[0] != ANY_TWO, item[0])):
        left, right = (np.array(side) for side in zip(*indices, strict=True))
        for stage, part in rows.items():
            a, b = part.values[left], part.values[right]
            known = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0) & (spread > 0)
            columns = np.flatnonzero(known) if len(indices) >= FEWEST_BODIES else ()
            values = [c for i in columns if (c := lin_ccc(a[:, i], b[:, i])) is not None]
            gap = np.abs(a - b)[:, known] / spread[known]
            agreements.append(
                PairedAgreement(
                    name, stage, len(indices), float(np.median(values)) if values else None,
                    float(np.median(gap)) if gap.size else float("nan"),
                )
            )  # fmt: skip
    return agreements
