"""What separates images from the target: residual maps on one scale, and their size by tissue.

The paper's Fig. 3 shows heat maps on a scale of its own for each image. Here every map of a row
shares one scale, in HU and symmetric about 0, so that colors compare and signs show.
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
"""Ends of the scales a map may have: few, so that reports compare."""

SHOWN_PERCENT = 99.0
"""Of a map's pixels within the body that its scale holds."""

LARGE_HU = 50.0
BIN_HU = 0.5
BINS = 8192


@dataclass(frozen=True)
class ResidualMaps:
    """Image minus target for each side of one slice, and the end of the scale they share."""

    maps_hu: Mapping[str, Float[np.ndarray, "rows columns"]]
    limit_hu: float


def residual_maps(
    images_hu: Mapping[str, Float[np.ndarray, "rows columns"]],
    target_hu: Float[np.ndarray, "rows columns"],
) -> ResidualMaps:
    """The residuals of one slice, by side, on the smallest scale that holds nearly all of them."""
    maps = {side: residual_hu(hu, target_hu) for side, hu in images_hu.items()}
    inside = body(target_hu[None])[0]
    where = inside if inside.any() else np.ones_like(inside)
    highest = max(
        (float(np.percentile(np.abs(one[where]), SHOWN_PERCENT)) for one in maps.values()),
        default=0.0,
    )
    return ResidualMaps(maps, next((hu for hu in LIMITS_HU if hu >= highest), LIMITS_HU[-1]))


@dataclass(frozen=True)
class ResidualSize:
    """How large residuals are over some voxels.

    Args:
        p95_abs_hu: to 0.5 HU.
        beyond_50_share: share of the voxels that differ by more than 50 HU.
    """

    mean_abs_hu: float
    rms_hu: float
    p95_abs_hu: float
    beyond_50_share: float
    n_voxels: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Residuals:
    """Residuals of one side over the body and over each tissue; None where there is none."""

    body: ResidualSize | None
    tissues: Mapping[Tissue, ResidualSize | None]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        record: dict[str, Any] = {"body": self.body.to_json() if self.body else None}
        for tissue, one in self.tissues.items():
            record[tissue] = one.to_json() if one else None
        return record


def residuals(pairs: Sequence[tuple[CTVolume, CTVolume]], maps: Sequence[TissueMap]) -> Residuals:
    """Size of the residuals of images against their targets, slice by slice in little memory.

    Args:
        pairs: image and target, cut to the slices they share.
        maps: of the targets, in this order.
    """
    whole = _Tally()
    tallies = {tissue: _Tally() for tissue in TISSUES}
    for (image, target), shown in zip(pairs, maps, strict=True):
        for index, other in enumerate(target.hu):
            plane = residual_hu(image.hu[index], other)
            whole.add(plane[shown.body(index)])
            for tissue, mask in shown.masks(index).items():
                tallies[tissue].add(plane[mask])
    return Residuals(whole.size(), {tissue: tally.size() for tissue, tally in tallies.items()})


@dataclass
class _Tally:
    """Sums and a histogram of absolute residuals, filled slice by slice."""

    total: float = 0.0
    squares: float = 0.0
    beyond: int = 0
    counts: Int[np.ndarray, " bins"] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values_hu: Float[np.ndarray, " n"]) -> None:
        size = np.abs(values_hu.astype(np.float64))
        self.total += float(size.sum())
        self.squares += float(size @ size)
        self.beyond += int((size > LARGE_HU).sum())
        places = np.minimum(size / BIN_HU, BINS - 1).astype(np.int64)
        self.counts += np.bincount(places, minlength=BINS)

    def size(self) -> ResidualSize | None:
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
