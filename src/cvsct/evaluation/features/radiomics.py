"""The 93 radiomic features of regions of one slice, by PyRadiomics.

There are six classes: 18 first-order, 24 GLCM, 14 GLDM, 16 GLRLM, 16 GLSZM and 5 NGTDM features,
on HU without normalization or resampling. A region is a square, a whole slice or any mask, and is
given to the library as a 3-D image one slice thick.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import EvaluationError
from cvsct.core.platform import cores, ctrl_c_kept_from_children
from cvsct.core.progress import Progress, silent
from cvsct.core.workers import script_kept_from_children
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.features.cache import FeatureCache, MeasuredFeatures, content_key
from cvsct.evaluation.features.extractor import (
    CLASS_TYPES,
    feature_classes,
    feature_values,
    undefined,
)
from cvsct.evaluation.features.ibsi import Binning, FixedBinSize

logger = logging.getLogger(__name__)

CLASSES = tuple(CLASS_TYPES)
"""Names of the feature classes."""

BIN_WIDTH_HU = 25.0
"""Default width of the gray-level bins."""

PARALLEL_FROM = 500
"""Number of regions of 32 px (13 ms each) from which starting processes (over 2 s) saves time."""

_PIXELS_PER_REGION = 4000
"""Number of pixels that take as long to measure as the constant part of a region's time."""

_CHUNK = 32
"""Largest number of regions sent to a process at once; more would delay the progress reports."""

_KEEP_EVERY = 256
"""Number of regions after which new results are cached, so that a stopped run keeps most."""


@dataclass(frozen=True)
class Patch:
    """Pixels of one region.

    Args:
        hu: the smallest rectangle around the region.
        voxel_mm: size of a voxel along slices, rows and columns.
        mask: true where a pixel belongs to the region; None where all do.

    Raises:
        EvaluationError: if the mask has another shape, or holds nothing.
    """

    hu: Float[np.ndarray, "rows columns"]
    voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mask: Bool[np.ndarray, "mask_rows mask_columns"] | None = None

    def __post_init__(self) -> None:
        if self.mask is None:
            return
        if self.mask.shape != self.hu.shape:
            raise EvaluationError(
                f"a mask of {self.mask.shape} pixels does not fit a region of {self.hu.shape}; "
                "cut both from one slice"
            )
        if not self.mask.any():
            raise EvaluationError("a mask that holds no pixel has no features; leave it out")

    @property
    def inside(self) -> Bool[np.ndarray, "rows columns"]:
        """True where a pixel belongs to the region."""
        return np.ones(self.hu.shape, dtype=bool) if self.mask is None else self.mask


@dataclass(frozen=True)
class MissingValue:
    """A feature that is not defined for a region.

    Args:
        region: number of the region.
        feature: name of the feature.
        reason: why it is undefined.
    """

    region: int
    feature: str
    reason: str


@dataclass(frozen=True)
class RegionFeatures:
    """Features of regions.

    Args:
        names: names of the columns, `class_Feature`.
        values: a row for each region; NaN exactly where `missing` has a reason.
        missing: the undefined values.

    Raises:
        ValueError: if a NaN has no reason.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "regions features"]
    missing: tuple[MissingValue, ...] = ()

    def __post_init__(self) -> None:
        if len(self.missing) != int(np.isnan(self.values).sum()):
            raise ValueError("every missing feature value needs a reason")

    @property
    def defined(self) -> Bool[np.ndarray, "regions features"]:
        """True where a feature has a value."""
        defined: Bool[np.ndarray, "regions features"] = ~np.isnan(self.values)
        return defined

    def columns(self, feature_class: str) -> list[int]:
        """Numbers of the columns of one class."""
        return [i for i, name in enumerate(self.names) if class_of(name) == feature_class]

    def rows(self, start: int, stop: int) -> RegionFeatures:
        """The table of the regions from `start` to before `stop`, numbered from 0 again."""
        missing = tuple(
            replace(value, region=value.region - start)
            for value in self.missing
            if start <= value.region < stop
        )
        return RegionFeatures(self.names, self.values[start:stop], missing)


def class_of(feature: str) -> str:
    """Class of a feature named `class_Feature`."""
    return feature.split("_", 1)[0]


def feature_names() -> tuple[str, ...]:
    """Names of all 93 features in order of class and name, without PyRadiomics' deprecated ones."""
    return tuple(
        f"{name}_{feature}"
        for name, feature_class in feature_classes().items()
        for feature, deprecated in feature_class.getFeatureNames().items()
        if not deprecated
    )


def settings_record(
    bin_width_hu: float = BIN_WIDTH_HU, binning: Binning = "pyradiomics"
) -> dict[str, Any]:
    """Library and settings that determine the values, for reports, manifests and the cache."""
    discretization = FixedBinSize(bin_width_hu).record() if binning == "ibsi" else {}
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
    } | discretization


def extract(
    patches: Sequence[Patch],
    bin_width_hu: float = BIN_WIDTH_HU,
    workers: int = 0,
    cache: FeatureCache | None = None,
    progress: Progress = silent,
    binning: Binning = "pyradiomics",
) -> RegionFeatures:
    """Measure the features of every region.

    Args:
        patches: pixels of the regions.
        bin_width_hu: width of the gray-level bins.
        workers: largest number of processes, 0 for one per core. Less work than `PARALLEL_FROM`
            regions is done in this process.
        cache: cache that is read first and written to; None for no cache.
        progress: called with `("features", done, total)`.
        binning: `pyradiomics`, or `ibsi` for IBSI's gray levels of the re-segmented regions.

    Returns:
        Features in the order of the patches, whatever the number of workers.

    Raises:
        EvaluationError: if a worker process dies.
        MissingExtraError: if PyRadiomics is not installed.
    """
    names = feature_names()
    measure = functools.partial(_measure, names=names, bin_width_hu=bin_width_hu, binning=binning)
    if cache is None:
        rows = []
        for done, row in enumerate(_measure_all(measure, patches, workers), start=1):
            rows.append(row)
            progress("features", done, len(patches))
        return _feature_table(names, rows)
    settings = settings_record(bin_width_hu, binning)
    keys = [content_key(patch.hu, patch.inside, patch.voxel_mm, settings) for patch in patches]
    known = cache.get(keys, len(names))
    todo = {key: patch for key, patch in zip(keys, patches, strict=True) if key not in known}
    new: dict[str, MeasuredFeatures] = {}
    try:
        rows_of_todo = _measure_all(measure, list(todo.values()), workers)
        for done, (key, row) in enumerate(zip(todo, rows_of_todo, strict=True), start=1):
            known[key] = new[key] = row
            progress("features", len(patches) - len(todo) + done, len(patches))
            if len(new) == _KEEP_EVERY:
                cache.put(new)
                new = {}
    finally:
        if new:
            cache.put(new)
    return _feature_table(names, [known[key] for key in keys])


def _feature_table(names: tuple[str, ...], rows: Sequence[MeasuredFeatures]) -> RegionFeatures:
    missing = [
        MissingValue(region, feature, reason)
        for region, row in enumerate(rows)
        for feature, reason in row.reasons.items()
    ]
    if missing:
        logger.info("%d feature values of %d regions are undefined", len(missing), len(rows))
    values = np.array([row.values for row in rows], dtype=np.float64)
    return RegionFeatures(names, values.reshape(len(rows), len(names)), tuple(missing))


def _measure_all(
    measure: Callable[[Patch], MeasuredFeatures], patches: Sequence[Patch], workers: int
) -> Iterator[MeasuredFeatures]:
    """Measure all patches in this process or in several, and yield the results in order."""
    count = min(workers or cores(), len(patches))
    work = sum(1 + patch.hu.size / _PIXELS_PER_REGION for patch in patches)
    if count <= 1 or work < PARALLEL_FROM:
        yield from map(measure, patches)
        return
    # spawn: a fork would copy the locks of whatever threads OpenVINO or torch run here
    context = multiprocessing.get_context("spawn")
    chunk = min(_CHUNK, -(-len(patches) // (4 * count)))
    try:
        with ProcessPoolExecutor(count, mp_context=context) as pool, _ended_by_an_error():
            # processes start as work is submitted
            with ctrl_c_kept_from_children(), script_kept_from_children(measure):
                measured = pool.map(measure, patches, chunksize=chunk)
            yield from measured
    except BrokenProcessPool as error:
        raise EvaluationError(
            "a process that measures features died, perhaps for lack of memory; use fewer workers"
        ) from error


@contextlib.contextmanager
def _ended_by_an_error() -> Iterator[None]:
    """End processes that are started in a block if an error or Ctrl-C ends the block.

    Their pool would wait until all work is done.
    """
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise


def _measure(
    patch: Patch, names: tuple[str, ...], bin_width_hu: float, binning: Binning
) -> MeasuredFeatures:
    """Features of one region, NaN with a reason where undefined."""
    mask, discretization = patch.inside, None
    if binning == "ibsi":
        discretization = FixedBinSize(bin_width_hu)
        mask = discretization.resegmented(patch.hu, mask)
        if not mask.any():
            reason = (
                f"no pixel lies within {discretization.low_hu:g} to {discretization.high_hu:g} HU"
            )
            return MeasuredFeatures(np.full(len(names), np.nan), dict.fromkeys(names, reason))
    by_name = feature_values(
        patch.hu[None], mask[None], patch.voxel_mm, discretization, binWidth=bin_width_hu
    )
    reasons = undefined(patch.hu, mask, by_name, bin_width_hu, discretization)
    values = np.array([np.nan if name in reasons else by_name[name] for name in names])
    return MeasuredFeatures(values, reasons)
