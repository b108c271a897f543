"""Simulated wide tables of features: patients of several scanners, with planted effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

FEATURES = tuple(f"original_glcm_F{i}" for i in range(12))


@dataclass(frozen=True)
class Effects:
    """What differs in a simulated cohort, in standard deviations of a feature between patients.

    Args:
        scanner: shift that each scanner after the first adds to every feature, and its scale.
        population: how far the disease shifts every feature; it is more common at later scanners.
        disease: share of diseased patients at the first scanner and at the last.
    """

    scanner: float = 0.0
    scale: float = 1.0
    population: float = 0.0
    disease: tuple[float, float] = (0.5, 0.5)


def cohort(
    counts: Mapping[str, int] | Sequence[int] = (30, 30),
    effects: Effects | None = None,
    seed: int = 0,
    features: Sequence[str] = FEATURES,
    regions: Sequence[str] = ("nodule-1",),
    correlation: float = 0.5,
) -> pd.DataFrame:
    """Rows of the stage `source`, one a patient and region, with columns age, sex and disease."""
    effects = effects or Effects()
    rng = np.random.default_rng(seed)
    named = dict(counts) if isinstance(counts, Mapping) else {
        f"scanner {'ABCDEFGH'[i]}": n for i, n in enumerate(counts)
    }  # fmt: skip
    rows = []
    shares = np.linspace(*effects.disease, len(named))
    for number, (scanner, n) in enumerate(named.items()):
        for i in range(n):
            diseased = bool(rng.uniform() < shares[number])
            patient = {
                "patient": f"{scanner[-1]}{i:03d}",
                "study_uid": f"1.{number}.{i}",
                "series_uid": f"1.{number}.{i}.1",
                "site": f"site {scanner[-1]}",
                "stage": "source",
                "scanner": scanner,
                "batch": scanner,
                "error": "",
                "age": float(rng.integers(40, 85)),
                "sex": "F" if rng.uniform() < 0.5 else "M",
                "disease": int(diseased),
            }
            common = rng.normal()
            for region in regions:
                body = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * rng.normal(
                    size=len(features)
                )
                body = body + effects.population * diseased
                moved = body * effects.scale + effects.scanner if number else body
                values = dict(zip(features, 100 + 10 * moved, strict=True))
                rows.append(
                    {**patient, "region": region, "voxels": 500, "volume_mm3": 400.0, **values}
                )
    return pd.DataFrame(rows)


def with_stage(table: pd.DataFrame, stage: str, values: pd.DataFrame | None = None) -> pd.DataFrame:
    """A table's `source` rows again as another stage, with other values of features."""
    source = table[table["stage"] == "source"]
    rows = source.copy()
    rows["stage"] = stage
    if values is not None:
        rows[list(values.columns)] = values.to_numpy()
    return pd.concat([table, rows], ignore_index=True)


def without_scanner(table: pd.DataFrame, effects: Effects) -> pd.DataFrame:
    """Feature values of `source` rows as the first scanner would have given them."""
    source = table[table["stage"] == "source"]
    names = [name for name in source.columns if name.startswith("original_")]
    values = source[names]
    moved = source["scanner"] != source["scanner"].iloc[0]
    undone = ((values - 100) / 10 - effects.scanner) / effects.scale * 10 + 100
    return values.where(~moved, undone, axis=0)
