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

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from jaxtyping import Float

from cvsct.core.masks import FAT, UNENHANCED_ORGANS, HURange
from cvsct.core.volume import Scans, facts_of
from cvsct.methods.spectrum.hu_offset import tissue_mode_hu
from cvsct.methods.spectrum.patches import Patches

MIN_PATIENTS = 8
"""Fewest patients of each side from whom a tone is matched."""

LEAST_SE, LEAST_HU = 3.0, 1.0
"""A difference is corrected from so many standard errors and HU on."""

MOST_HU, MOST_APART_HU = 6.0, 7.5
"""Largest correction of a tissue, and largest change of fat against soft tissue: more is no
calibration, and the guards of slices would object to it."""

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


def tone_difference(soft: tuple[Patches, Patches], scans: tuple[Scans, Scans]) -> ToneDifference:
    """Compare the CT numbers of fat and soft tissue of both sides, patient by patient.

    Args:
        soft: patches of soft tissue of source and target.
        scans: of source and target.
    """
    numbers = [_patient_of_patches(*side) for side in zip(soft, scans, strict=True)]
    fat, organs = (
        _difference([
            _patient_modes(side, number, tissue)
            for side, number in zip(soft, numbers, strict=True)
        ])
        for tissue in (FAT, UNENHANCED_ORGANS)
    )  # fmt: skip
    agent = np.concatenate([side.contrast_agent for side in soft])
    refusal = ""
    if not np.isfinite(agent).all():
        refusal = "headers do not say whether contrast agent was given"
    elif agent.any():
        refusal = "contrast agent was given"
    elif min(*fat.n_patients, *organs.n_patients) < MIN_PATIENTS:
        refusal = f"fewer than {MIN_PATIENTS} patients of a side"
    elif _too_large(fat.corrected_hu, organs.corrected_hu):
        refusal = "larger than calibrations differ"
    return ToneDifference(fat, organs, refusal)


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


def _patient_of_patches(soft: Patches, scans: Scans) -> list[str]:
    """Patient of each patch; a scan that names none is a patient of its own."""
    facts = facts_of(scans)
    ends = list(accumulate(scan.shape[0] for scan in facts))
    patients = [scan.patient or f"scan {number}" for number, scan in enumerate(facts)]
    return [patients[i] for i in np.searchsorted(ends, soft.slice_number, side="right")]


def _patient_modes(
    soft: Patches, patient_of: Sequence[str], tissue: HURange
) -> Float[np.ndarray, "patients 2"]:
    """Most frequent CT number of a tissue in each patient, and mean expected log noise."""
    patients = np.array(patient_of)
    rows = []
    for patient in dict.fromkeys(patient_of):
        mine = patients == patient
        mode = tissue_mode_hu(soft.mean_hu[mine], tissue)
        if mode is not None:
            rows.append((mode, float(soft.slice_log_noise[mine].mean())))
    return np.array(rows).reshape(-1, 2)


def _difference(sides: Sequence[Float[np.ndarray, "_ 2"]]) -> TissueDifference:
    """Difference between sides with body size as a covariate."""
    counts = len(sides[0]), len(sides[1])
    if min(counts) < MIN_PATIENTS:
        return TissueDifference(np.nan, np.nan, counts)
    modes, size = np.concatenate(sides).T
    target = np.repeat([0.0, 1.0], counts)
    x = np.column_stack([target, np.ones(len(size)), size - size.mean()])
    if np.linalg.matrix_rank(x) < x.shape[1]:  # one size of body a side tells nothing
        return TissueDifference(np.nan, np.nan, counts)
    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ modes
    variance = float(np.sum((modes - x @ coefficients) ** 2)) / (len(modes) - 3)
    se = float(np.hypot(np.sqrt(variance * inverse[0, 0]), FLOOR_SE_HU))
    return TissueDifference(float(coefficients[0]), se, counts)
