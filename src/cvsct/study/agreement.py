"""How well groups agree in their features: distance to the reference, what did not harmonize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.core.seeding import random_stream
from cvsct.evaluation.agreement.concordance import lin_ccc
from cvsct.evaluation.cohort_table import (
    SHAPE,
    PatientRows,
    feature_columns,
    patient_rows,
    region_name,
    stage_rows,
    stages_of,
)
from cvsct.evaluation.groups.distributions import standardized_differences
from cvsct.evaluation.groups.variance_share import omega_squared

RESAMPLES = 200
"""Number of resamples of patients."""

REMAINING = 0.06
"""Omega squared of the group from which a feature counts as not harmonized: a medium effect
(Cohen 1988)."""

SUBSAMPLE = 0.8
"""Share of each group's patients in a resample of `not_harmonized`."""


def rows_of(table: Any, region: str, groups: Sequence[str]) -> dict[str, PatientRows]:
    """Rows of the patients that every stage has, by stage, of texture features."""
    features = [name for name in feature_columns(table) if not SHAPE.search(name)]
    rows = {}
    for stage in stages_of(table):
        own = stage_rows(table, stage, "batch")
        own = own[own["region"].astype(str).map(region_name) == region]
        rows[stage] = patient_rows(own[own["batch"].isin(list(groups))], features, "batch")
    common = set.intersection(
        *(set(zip(part.patient, part.group, strict=True)) for part in rows.values())
    )
    return {
        stage: part.select(
            [i for i, key in enumerate(zip(part.patient, part.group, strict=True)) if key in common]
        )
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
    rows: Mapping[str, PatientRows], reference: str, groups: Sequence[str], seed: int
) -> list[Distance]:
    """Distance of each group to the reference in every stage, with bootstrap over patients."""
    found = []
    for group in groups:
        if group == reference:
            continue
        for stage, part in rows.items():
            own = np.array([name == group for name in part.group])
            other = np.array([name == reference for name in part.group])
            if min(own.sum(), other.sum()) < 2:
                continue
            value = _median_difference(part.values, np.flatnonzero(own), np.flatnonzero(other))
            rng = random_stream(seed, "study distance", group)
            drawn = [
                _median_difference(
                    part.values,
                    rng.choice(np.flatnonzero(own), int(own.sum())),
                    rng.choice(np.flatnonzero(other), int(other.sum())),
                )
                for _ in range(RESAMPLES)
            ]
            low, high = np.nanquantile(drawn, [0.025, 0.975])
            found.append(Distance(group, stage, value, float(low), float(high), int(own.sum())))
    return found


def _median_difference(
    values: Float[np.ndarray, "patients features"], own: Any, other: Any
) -> float:
    picked = np.concatenate([values[own], values[other]])
    first = np.arange(len(picked)) < len(own)
    sizes = np.abs(standardized_differences(picked, first, ~first))
    return float(np.nanmedian(sizes)) if np.isfinite(sizes).any() else float("nan")


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


def not_harmonized(before: PatientRows, after: PatientRows, seed: int) -> list[RemainingFeature]:
    """Features that still tell groups apart, the most frequent in resamples of patients first.

    No outcome is looked at.
    """
    usable = [
        i
        for i in range(len(after.features))
        if np.isfinite(before.values[:, i]).all() and np.isfinite(after.values[:, i]).all()
    ]
    names = sorted(set(after.group))
    number = np.array([names.index(name) for name in after.group], dtype=np.int64)
    x, y = before.values[:, usable], after.values[:, usable]
    whole = omega_squared(y, number)
    rng = random_stream(seed, "study features")
    count = np.zeros(len(usable))
    for _ in range(RESAMPLES):
        picked = np.concatenate(
            [
                rng.permutation(np.flatnonzero(number == k))[
                    : max(2, round(SUBSAMPLE * int((number == k).sum())))
                ]
                for k in range(len(names))
            ]
        )
        count += np.nan_to_num(omega_squared(y[picked], number[picked])) >= REMAINING
    earlier = omega_squared(x, number)
    remaining = [
        RemainingFeature(
            after.features[column], float(earlier[i]), float(whole[i]), float(count[i] / RESAMPLES)
        )
        for i, column in enumerate(usable)
        if np.isfinite(whole[i]) and count[i] > 0
    ]
    return sorted(remaining, key=lambda each: (-each.frequency, -each.after, each.feature))


@dataclass(frozen=True)
class PairedAgreement:
    """Agreement of the features of patients who were scanned in two groups.

    Args:
        stage: the stage.
        pairs: number of pairs of scans.
        concordance: median over features of Lin's concordance of the pairs.
        difference: median over features and pairs of the absolute difference, in deviations of
            the source's features over patients.
    """

    stage: str
    pairs: int
    concordance: float | None
    difference: float


def paired_agreement(rows: Mapping[str, PatientRows]) -> list[PairedAgreement]:
    """Agreement of patients scanned in several groups; empty where there are fewer than two."""
    first = next(iter(rows.values()))
    places: dict[str, list[int]] = {}
    for i, patient in enumerate(first.patient):
        places.setdefault(patient, []).append(i)
    pairs = [(own[0], other) for own in places.values() for other in own[1:]]
    if len(pairs) < 2:
        return []
    spread = np.nanstd(first.values, axis=0)
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    agreements = []
    for stage, part in rows.items():
        a, b = part.values[left], part.values[right]
        known = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0) & (spread > 0)
        values = [c for i in np.flatnonzero(known) if (c := lin_ccc(a[:, i], b[:, i])) is not None]
        gap = np.abs(a - b)[:, known] / spread[known]
        agreements.append(
            PairedAgreement(
                stage, len(pairs), float(np.median(values)) if values else None,
                float(np.median(gap)) if gap.size else float("nan"),
            )
        )  # fmt: skip
    return agreements
