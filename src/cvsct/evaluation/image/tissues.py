"""Figures tissue by tissue: which voxels are which, and the low-frequency bias of each.

Tissues are told apart on a *blurred* image of the target, for on raw HU the noise does the
choosing (`regions`). Edges belong to no tissue: what they differ by is resolution, not tone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from cvsct.core.masks import BONE, FAT, LUNG, ORGANS, HURange, blurred, body
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.quality import BIAS_BLUR_PX, residual_hu

Tissue = Literal["lung", "fat", "soft", "bone"]
TISSUES: tuple[Tissue, ...] = get_args(Tissue)

RANGES: Mapping[Tissue, HURange] = {"lung": LUNG, "fat": FAT, "soft": ORGANS, "bone": BONE}
"""Of the blurred image, within the body; the upper end belongs to the next tissue."""

MIN_WIDTH_PX = 3
"""What is thinner is an edge passing through a range, not a tissue."""

MAX_GRADIENT_HU_PER_PX = 40.0
"""Of the blurred image: steeper is an edge. That of lung has 130, noise of a lung kernel 4."""

LOCAL_STEP_PX = 4
"""Half the blur: a finer grid of the local bias would say nothing more."""

MIN_SHARE = 0.1
"""Of a Gaussian's weight that must lie in a tissue for its local bias there to be told."""


def tissue_masks(
    target_hu: Float[np.ndarray, "slices rows columns"],
    padding: Bool[np.ndarray, "slices rows columns"] | None = None,
) -> dict[Tissue, Bool[np.ndarray, "slices rows columns"]]:
    """Each tissue's voxels, as the blurred target shows them."""
    smooth = blurred(target_hu)
    steep = np.hypot(np.gradient(smooth, axis=1), np.gradient(smooth, axis=2))
    inside = body(target_hu) & (steep <= MAX_GRADIENT_HU_PER_PX)
    if padding is not None:
        inside &= ~padding
    square = np.ones((1, MIN_WIDTH_PX, MIN_WIDTH_PX), dtype=bool)
    return {
        tissue: ndimage.binary_opening(
            inside & (smooth >= each.low_hu) & (smooth < each.high_hu), square
        )
        for tissue, each in RANGES.items()
    }


@dataclass(frozen=True)
class TissueMap:
    """What every voxel of a volume shows, a byte each: told once, asked by every figure.

    Args:
        codes: 0 outside the body and where there is padding, 1 in the body but of no tissue, 2 and
            on the tissues in the order of `TISSUES`. No voxel is of two: their ranges do not meet.
    """

    codes: UInt8[np.ndarray, "slices rows columns"]

    @classmethod
    def of(cls, target: CTVolume) -> TissueMap:
        """`tissue_masks` of one slice after another, so that masks never lie there for all."""
        codes = np.zeros(target.hu.shape, dtype=np.uint8)
        for index in range(len(codes)):
            one = slice(index, index + 1)
            padding = None if target.padding is None else target.padding[one]
            codes[one] = body(target.hu[one])
            if padding is not None:
                codes[one][padding] = 0
            for code, mask in enumerate(tissue_masks(target.hu[one], padding).values(), 2):
                codes[one][mask] = code
        return cls(codes)

    def body(self, index: int) -> Bool[np.ndarray, "rows columns"]:
        """Where one slice shows the body."""
        return np.asarray(self.codes[index] > 0)

    def masks(self, index: int) -> dict[Tissue, Bool[np.ndarray, "rows columns"]]:
        """Where one slice shows each tissue."""
        return {tissue: self.codes[index] == code for code, tissue in enumerate(TISSUES, 2)}


@dataclass(frozen=True)
class TissueBias:
    """How far one tissue's CT numbers lie from the target's.

    Args:
        mean_hu: signed mean over all its pixels, which averages texture out; None where there is
            no such tissue.
        local_p95_hu: 95th percentile of the absolute difference after a Gaussian blur of
            `BIAS_BLUR_PX` within the tissue. Far above `mean_hu`, the bias differs from place to
            place.
        n_pixels: how many pixels of the target are this tissue.
    """

    mean_hu: float | None
    local_p95_hu: float | None
    n_pixels: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def bias_by_tissue(
    pairs: Sequence[tuple[CTVolume, CTVolume]], maps: Sequence[TissueMap]
) -> dict[Tissue, TissueBias]:
    """Low-frequency bias of each tissue.

    Args:
        pairs: image and target, cut to the slices they share.
        maps: of the targets, in this order.
    """
    sums = dict.fromkeys(TISSUES, 0.0)
    counts = dict.fromkeys(TISSUES, 0)
    local: dict[Tissue, list[Float[np.ndarray, " n"]]] = {tissue: [] for tissue in TISSUES}
    for (image, target), shown in zip(pairs, maps, strict=True):
        for index, (plane, other) in enumerate(zip(image.hu, target.hu, strict=True)):
            difference = residual_hu(plane, other).astype(np.float64)
            for tissue, mask in shown.masks(index).items():
                if not mask.any():
                    continue
                sums[tissue] += float(difference[mask].sum())
                counts[tissue] += int(mask.sum())
                local[tissue].append(local_means(difference, mask))
    return {
        tissue: TissueBias(
            mean_hu=sums[tissue] / counts[tissue] if counts[tissue] else None,
            local_p95_hu=_p95(local[tissue]),
            n_pixels=counts[tissue],
        )
        for tissue in TISSUES
    }


def local_means(
    values: Float[np.ndarray, "rows columns"], mask: Bool[np.ndarray, "rows columns"]
) -> Float[np.ndarray, " n"]:
    """Gaussian means (`BIAS_BLUR_PX`) around places of a tissue, from pixels of that tissue only.

    The places lie on a grid of `LOCAL_STEP_PX`, whose cells are averaged first: a sixteenth of the
    work, and 2 % more blur.
    """
    step = LOCAL_STEP_PX
    rows, columns = (size // step for size in mask.shape)
    weight = mask.astype(np.float64)
    cells = np.stack([values * weight, weight])[:, : rows * step, : columns * step]
    coarse = cells.reshape(2, rows, step, columns, step).mean(axis=(2, 4))
    total, share = blurred(coarse, BIAS_BLUR_PX / step)
    told = (coarse[1] > 0.5) & (share > MIN_SHARE)
    return np.asarray(total[told] / share[told])


def _p95(parts: Sequence[Float[np.ndarray, " _"]]) -> float | None:
    values = np.concatenate([np.empty(0), *parts])
    return float(np.percentile(np.abs(values), 95)) if len(values) else None
