"""Residuals of images against the target: maps on one scale, and their size by tissue.

The paper's Fig. 3 shows heat maps with a scale for each image. Here the maps of a slice share one
scale in HU, symmetric about 0, so that colors compare and signs are visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvsct.core.masks import body
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.quality import residual_hu
from cvsct.evaluation.image.tissues import TISSUES, Tissue, TissueMap

LIMITS_HU = (25.0, 50.0, 100.0, 200.0, 400.0, 1000.0)
"""Possible ends of the scale of maps; few, so that reports compare."""

SHOWN_PERCENT = 99.0
"""Percentage of a map's pixels in the body that the scale must hold."""

LARGE_HU = 50.0
"""Residual beyond which `beyond_50_share` counts a voxel."""

BIN_HU = 0.5
"""Width of the histogram bins from which percentiles are read."""

BINS = 8192
"""Number of histogram bins; the last holds all larger residuals."""


@dataclass(frozen=True)
class ResidualMaps:
    """Residual maps of one slice.

    Args:
        maps_hu: image minus target, by side.
        limit_hu: end of the scale, symmetric about 0, that all of them share.
    """

    maps_hu: Mapping[str, Float[np.ndarray, "rows columns"]]
    limit_hu: float


def residual_maps(
    images_hu: Mapping[str, Float[np.ndarray, "rows columns"]],
    target_hu: Float[np.ndarray, "rows columns"],
) -> ResidualMaps:
    """Residuals of one slice by side, on the smallest scale of `LIMITS_HU` that holds them.

    Args:
        images_hu: images by side.
        target_hu: the target's image.
    """
    maps = {side: residual_hu(hu, target_hu) for side, hu in images_hu.items()}
    inside = body(target_hu[None])[0]
    pixels = inside if inside.any() else np.ones_like(inside)
    highest = max(
        (float(np.percentile(np.abs(hu[pixels]), SHOWN_PERCENT)) for hu in maps.values()),
        default=0.0,
    )
    return ResidualMaps(maps, next((hu for hu in LIMITS_HU if hu >= highest), LIMITS_HU[-1]))


@dataclass(frozen=True)
class ResidualSize:
    """Size of the residuals of a set of voxels.

    Args:
        mean_abs_hu: mean absolute residual.
        rms_hu: root mean square residual.
        p95_abs_hu: 95th percentile of the absolute residual, to 0.5 HU.
        beyond_50_share: share of the voxels that differ by more than 50 HU.
        n_voxels: number of voxels.
    """

    mean_abs_hu: float
    rms_hu: float
    p95_abs_hu: float
    beyond_50_share: float
    n_voxels: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Residuals:
    """Size of one side's residuals in the body and in each tissue; None where there is none."""

    body: ResidualSize | None
    tissues: Mapping[Tissue, ResidualSize | None]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        record: dict[str, Any] = {"body": self.body.to_json() if self.body else None}
        for tissue, residual_size in self.tissues.items():
            record[tissue] = residual_size.to_json() if residual_size else None
        return record


def residuals(pairs: Sequence[tuple[CTVolume, CTVolume]], maps: Sequence[TissueMap]) -> Residuals:
    """Measure the residuals of images against their targets, one slice in memory at a time.

    Args:
        pairs: image and target, cut to the slices they share.
        maps: tissue maps of the targets, in this order.
    """
    whole = _Tally()
    tallies = {tissue: _Tally() for tissue in TISSUES}
    for (image, target), tissue_map in zip(pairs, maps, strict=True):
        for index, target_plane in enumerate(target.hu):
            residual = residual_hu(image.hu[index], target_plane)
            whole.add(residual[tissue_map.body(index)])
            for tissue, mask in tissue_map.masks(index).items():
                tallies[tissue].add(residual[mask])
    return Residuals(whole.size(), {tissue: tally.size() for tissue, tally in tallies.items()})


@dataclass
class _Tally:
    """Sums and a histogram of absolute residuals, filled slice by slice."""

    total: float = 0.0
    squares: float = 0.0
    beyond: int = 0
    counts: Int[np.ndarray, " bins"] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values_hu: Float[np.ndarray, " n"]) -> None:
        """Add the residuals of some voxels."""
        size = np.abs(values_hu.astype(np.float64))
        self.total += float(size.sum())
        self.squares += float(size @ size)
        self.beyond += int((size > LARGE_HU).sum())
        bins = np.minimum(size / BIN_HU, BINS - 1).astype(np.int64)
        self.counts += np.bincount(bins, minlength=BINS)

    def size(self) -> ResidualSize | None:
        """Size of all residuals added; None without any."""
        n = int(self.counts.sum())
        if n == 0:
            return None
        below = int(np.searchsorted(np.cumsum(self.counts), 0.95 * n))
        return ResidualSize(
            mean_abs_hu=self.total / n,
            rms_hu=float(np.sqrt(self.squares / n)),
            p95_abs_hu=(below + 0.5) * BIN_HU,
            beyond_50_share=self.beyond / n,
            n_voxels=n,
        )
