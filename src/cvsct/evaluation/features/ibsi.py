"""IBSI's fixed bin size discretization for PyRadiomics' feature classes.

IBSI counts gray levels from the lower end of the re-segmentation range, floor((x - low) / width)
+ 1, so that a CT number has one level in every region (reference manual, arXiv 1612.07003, section
on discretization). PyRadiomics counts from a multiple of the width at or below the region's own
minimum. Formulas and names of the features are PyRadiomics' with both;
`docs/reference/features-ibsi.md` lists where they differ from IBSI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import NETWORK_WINDOW

Binning = Literal["pyradiomics", "ibsi"]
"""Discretizations: PyRadiomics' own, or IBSI's fixed bin size."""

FILTERED_BINS = 32
"""Number of bins of a filtered image, whose values are no HU: a fixed bin number, as in IBSI's
configurations B, D and E. PyRadiomics' `binCount` is IBSI's fixed bin number."""


@dataclass(frozen=True)
class FixedBinSize:
    """IBSI's discretization of an image in HU, with the re-segmentation that it starts from.

    Args:
        width_hu: width of a bin.
        low_hu: lower end of the re-segmentation range, where the first bin begins.
        high_hu: upper end; both ends belong to the range.

    Raises:
        EvaluationError: if the width is not positive or the range is empty.

    Example:
        >>> FixedBinSize().levels(np.array([-1000.0, -975.0, 40.0])).tolist()
        [1, 2, 42]
    """

    width_hu: float = 25.0
    low_hu: float = NETWORK_WINDOW.low_hu
    high_hu: float = NETWORK_WINDOW.high_hu

    def __post_init__(self) -> None:
        if not (self.width_hu > 0 and self.low_hu < self.high_hu):
            raise EvaluationError(
                f"bins of {self.width_hu:g} HU from {self.low_hu:g} to {self.high_hu:g} HU; give a "
                "positive width and a lower end below the upper one"
            )

    def resegmented(
        self, hu: Float[np.ndarray, "*shape"], mask: Bool[np.ndarray, "*shape"]
    ) -> Bool[np.ndarray, "*shape"]:
        """The mask without the voxels outside the range."""
        return np.asarray(mask & (hu >= self.low_hu) & (hu <= self.high_hu))

    def levels(self, hu: Float[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """Gray level of each voxel; only those within the range are at least 1."""
        return np.asarray(np.floor((hu - self.low_hu) / self.width_hu).astype(np.int64) + 1)

    def record(self) -> dict[str, Any]:
        """Plain values, for settings, manifests and the cache."""
        return {
            "binning": "ibsi",
            "bin_width_hu": self.width_hu,
            "resegmented_hu": [self.low_hu, self.high_hu],
            "filtered_images": f"{FILTERED_BINS} bins",
        }


@cache
def with_levels(feature_class: Any, discretization: FixedBinSize) -> Any:
    """PyRadiomics' feature class with IBSI's gray levels in place of its own.

    The class that is returned takes the same arguments and gives the same features. Its mask must
    lie within the range of the discretization (`FixedBinSize.resegmented`).

    Args:
        feature_class: one of PyRadiomics' classes; those that need no gray levels, such as shape,
            come back unchanged in effect.
        discretization: the gray levels.
    """

    def apply_binning(self: Any, image: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        levels = np.where(self.maskArray, discretization.levels(image), 0)
        present = np.unique(levels[self.maskArray])
        if len(present) == 0 or present[0] < 1:
            raise EvaluationError(
                f"a region reaches below {discretization.low_hu:g} HU or is empty; re-segment its "
                "mask first"
            )
        self.coefficients["grayLevels"] = present
        self.coefficients["Ng"] = int(present[-1])
        return levels

    # the class logs under the name of its module, which is silenced
    namespace = {"_applyBinning": apply_binning, "__module__": feature_class.__module__}
    return type(feature_class.__name__, (feature_class,), namespace)


def binned(feature_class: Any, binning: Binning, discretization: FixedBinSize | None = None) -> Any:
    """PyRadiomics' feature class with the gray levels of a discretization of unfiltered images.

    Args:
        feature_class: one of PyRadiomics' classes.
        binning: `pyradiomics` returns the class as it is.
        discretization: IBSI's gray levels; None for the default ones.
    """
    if binning == "pyradiomics":
        return feature_class
    return with_levels(feature_class, discretization or FixedBinSize())
