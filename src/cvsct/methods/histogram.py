"""Histogram matching: a monotone map of CT numbers between the scanners' distributions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field

from cvsct.core.errors import TrainingError
from cvsct.core.masks import body
from cvsct.core.settings import Settings
from cvsct.core.volume import AIR_FLOOR_HU, CTVolume, Scans
from cvsct.methods.base import (
    TrainingRequest,
    bundle_weights,
    make_bundle,
    require_curves,
    require_scans,
)
from cvsct.methods.settings import read_settings
from cvsct.methods.volume_mapping import VolumeMapping
from cvsct.model.bundle import Bundle, Domain

HIGHEST_HU = 4095
"""Upper end of histograms; metal above counts as this."""


class HistogramSettings(Settings):
    """Settings of histogram matching: counted region and number of quantiles."""

    region: Literal["body", "whole"] = "body"
    """`body` for the patient, `whole` for the image with air and table."""

    quantiles: int = Field(default=1001, ge=2, le=100_001)
    """Points of the map from one distribution to the other."""


def train_histogram(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Train histogram matching: quantiles of the CT numbers of source and target.

    Raises:
        UsageError: for settings that do not exist.
        TrainingError: if a side shows no patient.
    """
    settings = read_settings(HistogramSettings, request.settings)
    require_scans("source", source)
    require_scans("target", target)
    quantiles = [
        _quantiles(scans, settings, name, request)
        for name, scans in (("source", source), ("target", target))
    ]
    median = settings.quantiles // 2
    return make_bundle(
        Domain.of(source),
        Domain.of(target),
        request,
        settings,
        {"source_hu": quantiles[0], "target_hu": quantiles[1]},
        {
            "median_source_hu": float(quantiles[0][median]),
            "median_target_hu": float(quantiles[1][median]),
        },
    )


def _quantiles(
    scans: Scans, settings: HistogramSettings, side: str, request: TrainingRequest
) -> Float[np.ndarray, " n"]:
    """Quantiles of CT numbers, taken as uniform within each interval of 1 HU."""
    low = int(AIR_FLOOR_HU)
    counts = np.zeros(HIGHEST_HU - low + 1, dtype=np.int64)

    def count(volume: CTVolume) -> None:
        mask = body(volume.hu) if settings.region == "body" else np.ones(volume.hu.shape, bool)
        if volume.padding is not None:
            mask &= ~volume.padding
        rounded = np.clip(np.rint(volume.hu[mask]), low, HIGHEST_HU).astype(np.int64)
        np.add(counts, np.bincount(rounded - low, minlength=len(counts)), out=counts)

    request.progress(f"histogram of the {side}", 0, len(scans))
    for done, _ in enumerate(map(count, scans), 1):
        request.progress(f"histogram of the {side}", done, len(scans))
    if counts.sum() == 0:
        raise TrainingError(
            f"the {side} scans show no patient (nothing above -300 HU); check that they are CT in "
            "Hounsfield units, or set region=whole"
        )
    filled = np.nonzero(counts)[0]
    first, last = int(filled[0]), int(filled[-1]) + 1
    cumulative = np.concatenate([[0], np.cumsum(counts[first:last])]) / counts.sum()
    edges = np.arange(first, last + 1) + low - 0.5
    quantiles: Float[np.ndarray, " n"] = np.interp(
        np.linspace(0, 1, settings.quantiles), cumulative, edges
    )
    return quantiles


def load_histogram(bundle: Bundle, reverse: bool) -> VolumeMapping:
    """Load histogram matching; CT numbers outside both distributions stay unchanged."""
    source, target = bundle_weights(bundle, "source_hu", "target_hu")
    require_curves(bundle, source, target)
    from_hu, to_hu = _monotone(*((target, source) if reverse else (source, target)))

    def apply(volume: CTVolume) -> Float32[np.ndarray, "slices rows columns"]:
        hu = volume.hu.astype(np.float32)
        outside = (hu <= from_hu[0]) | (hu >= from_hu[-1])
        return np.where(outside, hu, np.interp(hu, from_hu, to_hu)).astype(np.float32)

    return VolumeMapping(apply)


def _monotone(
    from_hu: Float[np.ndarray, " n"], to_hu: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Strictly increasing map that meets the identity at both ends."""
    ends = min(from_hu[0], to_hu[0]) - 1.0, max(from_hu[-1], to_hu[-1]) + 1.0
    x = np.concatenate([ends[:1], from_hu, ends[1:]])
    y = np.concatenate([ends[:1], to_hu, ends[1:]])
    values, which = np.unique(x, return_inverse=True)
    return values, np.bincount(which, weights=y) / np.bincount(which)
