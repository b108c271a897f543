"""Tissues of the target's images, and the low-frequency bias of each.

Tissues are classified on a *blurred* image of the target; on raw HU, noise would decide. Edges
belong to no tissue, because differences at edges are differences of resolution.
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
"""Range of each tissue on the blurred image, within the body; its upper end is not included."""

MIN_WIDTH_PX = 3
"""Smallest width of a tissue: a thinner structure is an edge that passes through its range."""

MAX_GRADIENT_HU_PER_PX = 40.0
"""Largest gradient of the blurred image in a tissue; a lung's edge has 130, lung-kernel noise 4."""

LOCAL_STEP_PX = 4
"""Step of the grid on which local bias is measured: half the blur; a finer one adds nothing."""

MIN_SHARE = 0.1
"""Smallest share of a Gaussian's weight in a tissue from which its local bias is computed."""


def tissue_masks(
    target_hu: Float[np.ndarray, "slices rows columns"],
    padding: Bool[np.ndarray, "slices rows columns"] | None = None,
) -> dict[Tissue, Bool[np.ndarray, "slices rows columns"]]:
    """Mask of each tissue, as the blurred target shows it.

    Args:
        target_hu: the target's volume.
        padding: voxels that the scanner did not measure, which belong to no tissue.
    """
    smooth = blurred(target_hu)
    steep = np.hypot(np.gradient(smooth, axis=1), np.gradient(smooth, axis=2))
    inside = body(target_hu) & (steep <= MAX_GRADIENT_HU_PER_PX)
    if padding is not None:
        inside &= ~padding
    square = np.ones((1, MIN_WIDTH_PX, MIN_WIDTH_PX), dtype=bool)
    return {
        tissue: ndimage.binary_opening(
            inside & (smooth >= hu_range.low_hu) & (smooth < hu_range.high_hu), square
        )
        for tissue, hu_range in RANGES.items()
    }


@dataclass(frozen=True)
class TissueMap:
    """Tissue of every voxel of a volume, classified once for all figures that need it.

    Args:
        codes: 0 outside the body and in padding, 1 in the body but in no tissue, from 2 on the
            tissues in the order of `TISSUES`, whose ranges do not overlap.
    """

    codes: UInt8[np.ndarray, "slices rows columns"]

    @classmethod
    def of(cls, target: CTVolume) -> TissueMap:
        """Classify a volume slice by slice, so that only one slice's masks are in memory."""
        codes = np.zeros(target.hu.shape, dtype=np.uint8)
        for index in range(len(codes)):
            here = slice(index, index + 1)
            padding = None if target.padding is None else target.padding[here]
            codes[here] = body(target.hu[here])
            if padding is not None:
                codes[here][padding] = 0
            for code, mask in enumerate(tissue_masks(target.hu[here], padding).values(), 2):
                codes[here][mask] = code
        return cls(codes)

    def body(self, index: int) -> Bool[np.ndarray, "rows columns"]:
        """Mask of the body in one slice."""
        return np.asarray(self.codes[index] > 0)

    def masks(self, index: int) -> dict[Tissue, Bool[np.ndarray, "rows columns"]]:
        """Mask of each tissue in one slice."""
        return {tissue: self.codes[index] == code for code, tissue in enumerate(TISSUES, 2)}


@dataclass(frozen=True)
class TissueBias:
    """Difference of one tissue's CT numbers from the target's.

    Args:
        mean_hu: signed mean over all pixels of the tissue, which averages texture out; None where
            the target shows no such tissue.
        local_p95_hu: 95th percentile of the absolute difference after a Gaussian blur of
            `BIAS_BLUR_PX` within the tissue. Far above `mean_hu`, the bias differs from place to
            place.
        n_pixels: number of pixels of the target in this tissue.
    """

    mean_hu: float | None
    local_p95_hu: float | None
    n_pixels: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def bias_by_tissue(
    pairs: Sequence[tuple[CTVolume, CTVolume]], maps: Sequence[TissueMap]
) -> dict[Tissue, TissueBias]:
    """Measure the low-frequency bias of each tissue.

    Args:
        pairs: image and target, cut to the slices they share.
        maps: tissue maps of the targets, in this order.
    """
    sums = dict.fromkeys(TISSUES, 0.0)
    counts = dict.fromkeys(TISSUES, 0)
    local: dict[Tissue, list[Float[np.ndarray, " n"]]] = {tissue: [] for tissue in TISSUES}
    for (image, target), tissue_map in zip(pairs, maps, strict=True):
        for index, planes in enumerate(zip(image.hu, target.hu, strict=True)):
            difference = residual_hu(*planes).astype(np.float64)
            for tissue, mask in tissue_map.masks(index).items():
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
    """Gaussian means of values within a tissue, at points of a grid of `LOCAL_STEP_PX`.

    Only pixels of the tissue count. The blur is `BIAS_BLUR_PX`; cells of the grid are averaged
    first, which saves fifteen sixteenths of the work and adds 2 % of blur.
    """
    step = LOCAL_STEP_PX
    rows, columns = (size // step for size in mask.shape)
    weight = mask.astype(np.float64)
    cells = np.stack([values * weight, weight])[:, : rows * step, : columns * step]
    coarse = cells.reshape(2, rows, step, columns, step).mean(axis=(2, 4))
    total, share = blurred(coarse, BIAS_BLUR_PX / step)
    inside = (coarse[1] > 0.5) & (share > MIN_SHARE)
    return np.asarray(total[inside] / share[inside])


def _p95(parts: Sequence[Float[np.ndarray, " _"]]) -> float | None:
    values = np.concatenate([np.empty(0), *parts])
    return float(np.percentile(np.abs(values), 95)) if len(values) else None
