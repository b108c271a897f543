"""Difference in CT numbers between two scanners by tissue, and its correction.

Calibrations differ by a few HU, by tissue (`cvsct simulate --parts pairs/tone`), and so do
patients. A difference is corrected only where it is told from patients: the most frequent CT number
of fat and of soft tissue is found for each; the two sides are compared by least squares with body
size as a covariate, for larger bodies harden the beam more; and a tissue is moved where its
difference is three standard errors and 1 HU or more. Contrast agent moves soft tissue too: where
headers name one, or do not say, nothing is corrected. Lung differs between patients by far more
than between scanners: CT numbers below -500 HU are never moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cvsct.core.moments import Moments, centered
from cvsct.methods.spectrum.texture import Texture

MIN_PATIENTS = 8
"""Fewest patients of each side from whom a tone is matched."""

LEAST_SE, LEAST_HU = 3.0, 1.0
"""A difference is corrected from so many standard errors and HU on."""

MOST_HU, MOST_APART_HU = 6.0, 7.5
"""Largest correction of a tissue, and largest change of fat against soft tissue: more is no
calibration, and the guards of slices would object to it."""

LEAST_SPREAD = 1e-9
"""Share of the squares of size within sides up to which a side has one size of body, which tells
nothing."""

FLOOR_SE_HU = 0.3
"""Smallest standard error of a difference: a mode is read to about half a HU."""

LUNG_HU, FAT_HU, SOFT_HU = -500.0, -100.0, 50.0
"""CT numbers up to which nothing is moved, and at which fat and soft tissue are."""


@dataclass(frozen=True)
class TissueDifference:
    """Difference of one tissue's CT number, target less source.

    Args:
        hu: the difference; NaN where it is not known.
        se_hu: its standard error.
        n_patients: of source and target.
    """

    hu: float
    se_hu: float
    n_patients: tuple[int, int]

    @property
    def corrected_hu(self) -> float:
        """What is corrected: all of the difference where it is significant, else nothing."""
        least = max(LEAST_SE * self.se_hu, LEAST_HU)
        return self.hu if abs(self.hu) >= least else 0.0

    def __str__(self) -> str:
        if not np.isfinite(self.hu):
            return f"unknown ({self.n_patients[0]} and {self.n_patients[1]} patients)"
        return f"{self.hu:+.1f} +- {self.se_hu:.1f} HU"


@dataclass(frozen=True)
class ToneDifference:
    """Differences of tissues' CT numbers, target less source.

    Args:
        fat, soft: the differences.
        refusal: why they are not corrected; empty where they may be.
    """

    fat: TissueDifference
    soft: TissueDifference
    refusal: str

    @property
    def curve(self) -> Float[np.ndarray, "points 2"]:
        """CT numbers, and what is added to each on the way to the target; in between linear."""
        fat, soft = (0.0, 0.0) if self.refusal else (self.fat.corrected_hu, self.soft.corrected_hu)
        return np.array([[LUNG_HU, 0.0], [FAT_HU, fat], [SOFT_HU, soft]])

    def __str__(self) -> str:
        reason = self.refusal or ("" if self.curve[:, 1].any() else "not significant")
        return f"fat {self.fat}, soft tissue {self.soft}" + (reason and f" ({reason})")


def tone_difference(source: Texture, target: Texture) -> ToneDifference:
    """Compare the CT numbers of fat and soft tissue of both sides, patient by patient."""
    fat = _difference(source.fat_mode, target.fat_mode)
    organs = _difference(source.soft_mode, target.soft_mode)
    told = [side.contrast.patches for side in (source, target)]
    given, _, unknown = told[0] + told[1]
    refusal = ""
    if unknown or not all(side.any() for side in told):
        refusal = "headers do not say whether contrast agent was given"
    elif given:
        refusal = "contrast agent was given"
    elif min(*fat.n_patients, *organs.n_patients) < MIN_PATIENTS:
        refusal = f"fewer than {MIN_PATIENTS} patients of a side"
    elif _too_large(fat.corrected_hu, organs.corrected_hu):
        refusal = "larger than calibrations differ"
    return ToneDifference(fat, organs, refusal)


def soft_tissue_hu(texture: Texture) -> float | None:
    """Mean over the patients of their most frequent CT number of soft tissue; None without any."""
    return _mean_mode_hu(texture.soft_mode)


def fat_hu(texture: Texture) -> float | None:
    """Mean over the patients of their most frequent CT number of fat; None without any."""
    return _mean_mode_hu(texture.fat_mode)


def _mean_mode_hu(modes: Moments) -> float | None:
    sums = modes.total[0]
    return float(sums[0, -1] / sums[0, 0]) if sums[0, 0] else None


def _too_large(fat_hu: float, soft_hu: float) -> bool:
    return max(abs(fat_hu), abs(soft_hu)) > MOST_HU or abs(fat_hu - soft_hu) > MOST_APART_HU


def apply_tone(
    hu: Float[np.ndarray, "slices rows columns"],
    curve: Float[np.ndarray, "points 2"],
    share: float = 1.0,
) -> Float[np.ndarray, "slices rows columns"]:
    """CT numbers with a share of a tone curve's offsets added.

    Args:
        curve: CT numbers in ascending order, and the offset of each in HU.
    """
    offset = np.interp(hu, curve[:, 0], share * curve[:, 1])
    moved: Float[np.ndarray, "slices rows columns"] = hu + offset.astype(hu.dtype)
    return moved


def reversed_tone(curve: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 2"]:
    """The inverse of a tone curve: CT numbers after it, and what brings each back."""
    return np.column_stack([curve.sum(axis=1), -curve[:, 1]])


def _difference(source: Moments, target: Moments) -> TissueDifference:
    """Difference between sides with body size as a covariate, by least squares over patients."""
    sides = [side.total[0] for side in (source, target)]
    counts = round(float(sides[0][0, 0])), round(float(sides[1][0, 0]))
    if min(counts) < MIN_PATIENTS:
        return TissueDifference(np.nan, np.nan, counts)
    one, size, mode = np.eye(3)
    gram = np.zeros((4, 4))  # whether the target's, 1, size about its mean, mode
    mean = sum(side[0, 1] for side in sides) / sum(counts)
    for is_target, side in enumerate(sides):
        terms = np.stack([is_target * one, one, size - mean * one, mode])
        gram += terms @ side @ terms.T
    x, y = gram[:3, :3], gram[:3, 3]
    within = sum(float(centered(side)[1, 1]) for side in sides)
    if within <= LEAST_SPREAD * sum(float(side[1, 1]) for side in sides):
        return TissueDifference(np.nan, np.nan, counts)
    inverse = np.linalg.inv(x)
    coefficients = inverse @ y
    rest = max(float(gram[3, 3] - coefficients @ y), 0.0) / (sum(counts) - len(x))
    se = float(np.hypot(np.sqrt(rest * inverse[0, 0]), FLOOR_SE_HU))
    return TissueDifference(float(coefficients[0]), se, counts)
