"""The 93 radiomic features of square regions, by PyRadiomics.

Six classes: 18 first-order, 24 GLCM, 14 GLDM, 16 GLRLM, 16 GLSZM and 5 NGTDM features, on HU
without normalisation or resampling. The feature classes are called directly: the figures are the
extractor's own, bit for bit, at a third of its time (13 against 37 ms a 32-px region).
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvsct.errors import EvaluationError
from cvsct.evaluation.metrics import load_extra

logger = logging.getLogger(__name__)

CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
BIN_WIDTH_HU = 25.0
PARALLEL_FROM = 500
"""Regions (13 ms each) below which starting processes (2 s and more) does not pay."""

_TYPES = {
    "firstorder": "RadiomicsFirstOrder",
    "glcm": "RadiomicsGLCM",
    "gldm": "RadiomicsGLDM",
    "glrlm": "RadiomicsGLRLM",
    "glszm": "RadiomicsGLSZM",
    "ngtdm": "RadiomicsNGTDM",
}
_UNDEFINED_IF_CONSTANT = ("firstorder_Kurtosis", "firstorder_Skewness")
_UNDEFINED_IF_ONE_LEVEL = (
    "glcm_Correlation",
    "glcm_Imc1",
    "glcm_MCC",
    "ngtdm_Busyness",
    "ngtdm_Coarseness",
    "ngtdm_Contrast",
    "ngtdm_Strength",
)


@dataclass(frozen=True)
class Patch:
    """The pixels of one region and the size of its voxels along slices, rows and columns."""

    hu: Float[np.ndarray, "rows columns"]
    voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Missing:
    """A feature that is not defined for a region."""

    region: int
    feature: str
    reason: str


@dataclass(frozen=True)
class FeatureTable:
    """Features of regions: one row a region, one column a feature named `class_Feature`.

    Args:
        values: NaN exactly where `missing` says why.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "regions features"]
    missing: tuple[Missing, ...] = ()

    def __post_init__(self) -> None:
        if len(self.missing) != int(np.isnan(self.values).sum()):
            raise ValueError("every missing feature value needs a reason")

    @property
    def defined(self) -> Bool[np.ndarray, "regions features"]:
        """True where a feature has a value."""
        defined: Bool[np.ndarray, "regions features"] = ~np.isnan(self.values)
        return defined

    def columns(self, feature_class: str) -> list[int]:
        """The columns of one class."""
        return [i for i, name in enumerate(self.names) if class_of(name) == feature_class]

    def rows(self, start: int, stop: int) -> FeatureTable:
        """Some of the regions, numbered from 0 again."""
        missing = tuple(
            replace(one, region=one.region - start)
            for one in self.missing
            if start <= one.region < stop
        )
        return FeatureTable(self.names, self.values[start:stop], missing)


def class_of(feature: str) -> str:
    """The class of a feature named `class_Feature`."""
    return feature.split("_", 1)[0]


def feature_names() -> tuple[str, ...]:
    """All 93, in order of class and name; deprecated ones are left out as PyRadiomics does."""
    return tuple(
        f"{name}_{feature}"
        for name, kind in _feature_classes().items()
        for feature, deprecated in kind.getFeatureNames().items()
        if not deprecated
    )


def settings_record(bin_width_hu: float = BIN_WIDTH_HU) -> dict[str, Any]:
    """What shapes the values, for reports and manifests."""
    return {
        "library": f"PyRadiomics {load_extra('radiomics').__version__.lstrip('v')}",
        "bin_width_hu": bin_width_hu,
        "image_type": "original",
        "normalised": False,
        "resampled": False,
        "dimensions": "one slice, a 3-D image one voxel thick",
        "glcm_distance_px": 1,
        "classes": list(CLASSES),
        "features": len(feature_names()),
    }


def extract(
    patches: Sequence[Patch], bin_width_hu: float = BIN_WIDTH_HU, workers: int = 0
) -> FeatureTable:
    """Features of every region, in the order given whatever the number of workers.

    Args:
        workers: processes at most, 0 for one a core. Fewer than `PARALLEL_FROM` regions are
            measured in this process.

    Raises:
        EvaluationError: if PyRadiomics is not installed, or a worker process dies.
    """
    names = feature_names()
    measure = functools.partial(_measure, names=names, bin_width_hu=bin_width_hu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(workers or cores or 1, len(patches))
    if count <= 1 or len(patches) < PARALLEL_FROM:
        rows = [measure(patch) for patch in patches]
    else:
        # spawn: a fork would copy the locks of whatever threads OpenVINO or torch run here
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(count, mp_context=context) as pool:
                rows = list(pool.map(measure, patches, chunksize=-(-len(patches) // (4 * count))))
        except BrokenProcessPool as error:
            raise EvaluationError(
                "a process that measures features died, perhaps for lack of memory; "
                "use fewer workers"
            ) from error
    missing = [
        Missing(region, feature, reason)
        for region, (_, reasons) in enumerate(rows)
        for feature, reason in reasons.items()
    ]
    if missing:
        logger.info("%d feature values of %d regions are undefined", len(missing), len(patches))
    values = np.array([row for row, _ in rows], dtype=np.float64).reshape(len(rows), len(names))
    return FeatureTable(names, values, tuple(missing))


def _measure(
    patch: Patch, names: tuple[str, ...], bin_width_hu: float
) -> tuple[Float[np.ndarray, " features"], dict[str, str]]:
    """One region's values, NaN where undefined, and the reasons for those."""
    sitk = load_extra("SimpleITK")
    # The mask gets a rim: one that fills its image has no bounding box in some versions.
    image = sitk.GetImageFromArray(np.pad(patch.hu.astype(np.float64), 1, mode="edge")[None])
    mask = sitk.GetImageFromArray(np.pad(np.ones(patch.hu.shape, np.uint8), 1)[None])
    spacing = tuple(mm if mm > 0 else 1.0 for mm in reversed(patch.voxel_mm))
    image.SetSpacing(spacing)
    mask.SetSpacing(spacing)
    found: dict[str, float] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # 0/0 in degenerate regions: told below as undefined
        for name, kind in _feature_classes().items():
            features = kind(image, mask, binWidth=bin_width_hu, label=1).execute()
            found |= {f"{name}_{feature}": float(value) for feature, value in features.items()}
    reasons = _undefined(patch.hu, found, bin_width_hu)
    values = np.array([np.nan if name in reasons else found[name] for name in names])
    return values, reasons


def _undefined(
    hu: Float[np.ndarray, "rows columns"], found: dict[str, float], bin_width_hu: float
) -> dict[str, str]:
    """Features that divide by zero for this region, for which PyRadiomics fills in a constant."""
    reasons = {
        name: "its formula gave no finite number"
        for name, value in found.items()
        if not np.isfinite(value)
    }
    if np.ptp(np.floor(hu.astype(np.float64) / bin_width_hu)) == 0:
        reasons |= dict.fromkeys(_UNDEFINED_IF_ONE_LEVEL, "all pixels fall in one grey level")
    if np.ptp(hu) == 0:
        reasons |= dict.fromkeys(_UNDEFINED_IF_CONSTANT, "all pixels have one value")
    return reasons


@functools.cache
def _feature_classes() -> dict[str, Any]:
    """PyRadiomics' six classes by name, silenced: this package says itself what is undefined."""
    load_extra("radiomics").setVerbosity(logging.CRITICAL + 10)
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 10)
    return {name: getattr(load_extra(f"radiomics.{name}"), kind) for name, kind in _TYPES.items()}
