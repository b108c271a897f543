"""Settings of a comparison of groups."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

LEVEL = 0.05
"""Largest share of permutations that reach a figure which is called above chance."""


class GroupSettings(BaseModel):
    """What is compared, and how.

    Args:
        group: column of the groups: `scanner`, `site`, `batch` or any other.
        covariates: columns that the share of variance is adjusted for, such as age and sex.
        reference: group that the others are compared with; None to compare each with all others.
        min_patients: smallest number of patients of a group that has figures.
        permutations: number of permutations behind the share of variance.
        identification_permutations: number of permutations behind the identification.
        seed: seed of permutations, folds and halves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str = "scanner"
    covariates: tuple[str, ...] = ()
    reference: str | None = None
    min_patients: int = Field(10, ge=5)
    permutations: int = Field(999, ge=19)
    identification_permutations: int = Field(199, ge=19)
    seed: int = Field(0, ge=0)
