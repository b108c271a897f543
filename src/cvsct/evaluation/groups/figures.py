"""Figures of a comparison of groups: those of each contrast, stage and region."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from cvsct.evaluation.groups.identification import GroupIdentification
from cvsct.evaluation.groups.variance_share import Change, VarianceShare


@dataclass(frozen=True)
class ContrastFigures:
    """Difference of one contrast, over the features.

    Args:
        name: the contrast, such as `A / others`.
        median_difference: median over features of the absolute standardized difference; None where
            no feature is defined.
        share_above_half: share of features that differ by more than half a standard deviation.
        found: number of features found to differ, after Benjamini and Hochberg's correction over
            all contrasts of the stage.
        tested: number of features that were tested.
    """

    name: str
    median_difference: float | None
    share_above_half: float | None
    found: int
    tested: int


@dataclass(frozen=True)
class FeatureFigures:
    """One feature in one contrast: for the table of all features."""

    feature: str
    contrast: str
    difference: float
    p_value: float
    found: bool


@dataclass(frozen=True)
class StageFigures:
    """Figures of one stage of one region.

    Args:
        stage: name of the stage.
        contrasts: differences between groups.
        share: share of the variance; None where it cannot be measured.
        change: its change from the first stage; None for the first.
        identification: whether a classifier recognizes the group; None where it cannot be trained.
        by_feature: every feature in every contrast.
        components: first two principal components of each patient, on the axes of the first stage.
        components_share: share of the variance of the first stage along these axes.
    """

    stage: str
    contrasts: tuple[ContrastFigures, ...]
    share: VarianceShare | None
    change: Change | None
    identification: GroupIdentification | None
    by_feature: tuple[FeatureFigures, ...] = field(repr=False)
    components: Float[np.ndarray, "patients 2"] | None = field(repr=False, default=None)
    components_share: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, without those of single features and patients."""
        return {
            "stage": self.stage,
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "variance_share": self.share.to_json() if self.share else None,
            "change": self.change.to_json() if self.change else None,
            "identification": self.identification.to_json() if self.identification else None,
        }


@dataclass(frozen=True)
class RegionFigures:
    """Figures of one region name, of the same patients in every stage.

    Args:
        region: name of the region.
        patients: number of patients of each group; those of too few included.
        groups: the groups that are compared.
        group: group of each patient in the figures.
        stages: figures of each stage, the first one before harmonization.
        reason: why there are no figures; empty where there are.
    """

    region: str
    patients: dict[str, int]
    groups: tuple[str, ...]
    group: tuple[str, ...] = field(repr=False)
    stages: tuple[StageFigures, ...]
    reason: str = ""

    @property
    def too_few(self) -> tuple[str, ...]:
        """Groups that have too few patients for figures."""
        return tuple(name for name in self.patients if name not in self.groups)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "region": self.region,
            "patients": self.patients,
            "too_few": list(self.too_few),
            "reason": self.reason or None,
            "stages": [stage.to_json() for stage in self.stages],
        }


@dataclass(frozen=True)
class PhysicsSummary:
    """Quartiles of one figure of images in one group and stage; None where patients are too few."""

    figure: str
    stage: str
    group: str
    patients: int
    quartiles: tuple[float, float, float] | None
