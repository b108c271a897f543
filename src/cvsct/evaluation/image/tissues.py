"""Tissues of the target's images, and the low-frequency bias of each.

Tissues are classified on a *blurred* image of the target; on raw HU, noise would decide. Edges
belong to no tissue, because differences at edges are differences of resolution.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from cvsct.core.masks import BONE, FAT, LUNG, ORGANS, HURange, blurred, body_of, soft_tissue_of
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.quality import BIAS_BLUR_PX, residual_hu
from cvsct.evaluation.resampled import Resampled, draw_weights

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

COLUMN_MM = 20.0
"""Side of the columns through all slices of a series that the bootstrap of the mean bias draws:
what shifts CT numbers at one place mostly does so in the slices above and below too."""

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
    return tissues_of(smooth, body_of(smooth), padding)


def tissues_of(
    smooth: Float[np.ndarray, "slices rows columns"],
    inside: Bool[np.ndarray, "slices rows columns"],
    padding: Bool[np.ndarray, "slices rows columns"] | None = None,
) -> dict[Tissue, Bool[np.ndarray, "slices rows columns"]]:
    """`tissue_masks` of an image that is already blurred, within a known mask of the body."""
    steep = np.hypot(np.gradient(smooth, axis=1), np.gradient(smooth, axis=2))
    inside = inside & (steep <= MAX_GRADIENT_HU_PER_PX)
    if padding is not None:
        inside &= ~padding
    return {
        tissue: _opened(inside & (smooth >= hu_range.low_hu) & (smooth < hu_range.high_hu))
        for tissue, hu_range in RANGES.items()
    }


def _opened(
    mask: Bool[np.ndarray, "slices rows columns"],
) -> Bool[np.ndarray, "slices rows columns"]:
    """Binary opening by squares of `MIN_WIDTH_PX`; nothing beyond the border belongs to the mask.

    Combining shifted masks takes a twentieth of the time of `scipy.ndimage.binary_opening`.
    """
    border = MIN_WIDTH_PX - 1
    padded = np.pad(mask, ((0, 0), (border, border), (border, border)))
    return _combined(np.logical_or, _combined(np.logical_and, padded))


def _combined(
    combine: np.ufunc, mask: Bool[np.ndarray, "slices _ _"]
) -> Bool[np.ndarray, "slices _ _"]:
    """The pixels of each square of `MIN_WIDTH_PX` within the image, combined into one."""
    for axis in (1, 2):
        count = mask.shape[axis] - MIN_WIDTH_PX + 1
        shifted = [
            mask[:, i : i + count] if axis == 1 else mask[:, :, i : i + count]
            for i in range(MIN_WIDTH_PX)
        ]
        mask = functools.reduce(combine, shifted)
    return mask


@dataclass(frozen=True)
class TissueMap:
    """Tissue of every voxel of a volume, classified once for all figures that need it.

    Args:
        codes: 0 outside the body and in padding, 1 in the body but in no tissue, from 2 on the
            tissues in the order of `TISSUES`, whose ranges do not overlap.
        soft: soft tissue in the wider sense of `cvsct.core.masks.soft_tissue`, fat and edges
            included, where features and texture are measured.
    """

    codes: UInt8[np.ndarray, "slices rows columns"]
    soft: Bool[np.ndarray, "slices rows columns"]

    @classmethod
    def of(cls, target: CTVolume) -> TissueMap:
        """Classify a volume slice by slice, so that only one slice's masks are in memory."""
        codes = np.zeros(target.hu.shape, dtype=np.uint8)
        soft = np.zeros(target.hu.shape, dtype=bool)
        for index in range(len(codes)):
            here = slice(index, index + 1)
            padding = None if target.padding is None else target.padding[here]
            smooth = blurred(target.hu[here])
            inside = body_of(smooth)
            soft[here] = soft_tissue_of(smooth)
            codes[here] = inside
            if padding is not None:
                codes[here][padding] = 0
            for code, mask in enumerate(tissues_of(smooth, inside, padding).values(), 2):
                codes[here][mask] = code
        return cls(codes, soft)

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
        resampled: the mean, resampled over columns of `COLUMN_MM` through the slices, alike for all
            sides; None where the target shows no such tissue.
        of_series: the same of each series that shows it, by its number from 1.
    """

    mean_hu: float | None
    local_p95_hu: float | None
    n_pixels: int
    resampled: Resampled | None = field(default=None, repr=False)
    of_series: Mapping[int, Resampled] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "mean_hu": self.mean_hu,
            "mean_interval": self.resampled.interval if self.resampled else None,
            "local_p95_hu": self.local_p95_hu,
            "n_pixels": self.n_pixels,
        }


def bias_by_tissue(
    pairs: Sequence[tuple[CTVolume, CTVolume]], maps: Sequence[TissueMap]
) -> dict[Tissue, TissueBias]:
    """Measure the low-frequency bias of each tissue.

    Args:
        pairs: image and target, cut to the slices they share.
        maps: tissue maps of the targets, in this order.
    """
    stacks = [{"image": image, "target": target} for image, target in pairs]
    return bias_of_sides(["image"], stacks, maps)["image"]


def bias_of_sides(
    sides: Sequence[str],
    stacks: Sequence[Mapping[str, CTVolume]],
    maps: Sequence[TissueMap],
    seed: int = 0,
) -> dict[str, dict[Tissue, TissueBias]]:
    """`bias_by_tissue` of several sides; what depends on the target alone is computed once.

    Args:
        sides: the sides to compare with the target.
        stacks: volumes by side, with `target`, which show the same slices.
        maps: tissue maps of the targets.
        seed: seed of the bootstrap.
    """
    tallies = {side: {tissue: _BiasTally() for tissue in TISSUES} for side in sides}
    for stack, tissue_map in zip(stacks, maps, strict=True):
        columns = _columns(stack["target"])
        for by_tissue in tallies.values():
            for tally in by_tissue.values():
                tally.begin_series(columns)
        for index, target_plane in enumerate(stack["target"].hu):
            masks = tissue_map.masks(index).items()
            tissues = {tissue: LocalMeans.of(mask) for tissue, mask in masks if mask.any()}
            for side in sides:
                difference = residual_hu(stack[side].hu[index], target_plane).astype(np.float64)
                for tissue, local_means in tissues.items():
                    tallies[side][tissue].add(difference, local_means)
    return {
        side: {tissue: tally.bias(seed) for tissue, tally in by_tissue.items()}
        for side, by_tissue in tallies.items()
    }


def _columns(volume: CTVolume) -> Int[np.ndarray, "rows columns"]:
    """Number of the column of `COLUMN_MM` that each pixel of a slice lies in."""
    rows, columns = (
        (np.arange(size) * pixel_mm // COLUMN_MM).astype(int)
        for size, pixel_mm in zip(volume.hu.shape[1:], volume.geometry.pixel_mm, strict=True)
    )
    return np.asarray(rows[:, None] * (columns[-1] + 1) + columns)


@dataclass
class _BiasTally:
    """Sums of the differences of one tissue by column, and their local means, slice by slice."""

    columns: list[Int[np.ndarray, "rows columns"]] = field(default_factory=list)
    totals: list[Float[np.ndarray, " columns"]] = field(default_factory=list)
    counts: list[Float[np.ndarray, " columns"]] = field(default_factory=list)
    local: list[Float[np.ndarray, " _"]] = field(default_factory=list)

    def begin_series(self, columns: Int[np.ndarray, "rows columns"]) -> None:
        """Begin a series, whose pixels lie in these columns."""
        self.columns.append(columns)
        for sums in (self.totals, self.counts):
            sums.append(np.zeros(int(columns.max()) + 1))

    def add(self, difference: Float[np.ndarray, "rows columns"], local_means: LocalMeans) -> None:
        """Add the differences of a slice."""
        column, values = self.columns[-1][local_means.mask], difference[local_means.mask]
        n = len(self.totals[-1])
        self.totals[-1] += np.bincount(column, values, n)
        self.counts[-1] += np.bincount(column, minlength=n)
        self.local.append(local_means.of_values(difference))

    def bias(self, seed: int) -> TissueBias:
        """Bias over all slices added."""
        series = {
            number: (totals[counts > 0], counts[counts > 0])
            for number, (totals, counts) in enumerate(zip(self.totals, self.counts, strict=True), 1)
            if counts.any()
        }
        if not series:
            return TissueBias(None, _p95(self.local), 0)
        totals, counts = (np.concatenate(parts) for parts in zip(*series.values(), strict=True))
        mean = _resampled_mean(totals, counts, seed)
        of_series = {number: _resampled_mean(*sums, seed) for number, sums in series.items()}
        return TissueBias(mean.value, _p95(self.local), int(counts.sum()), mean, of_series)


def _resampled_mean(
    totals: Float[np.ndarray, " columns"], counts: Float[np.ndarray, " columns"], seed: int
) -> Resampled:
    """Mean over pixels, resampled over the columns they lie in."""
    weights = draw_weights(len(counts), seed, "columns of tissue")
    return Resampled(float(totals.sum() / counts.sum()), weights @ totals / (weights @ counts))


@dataclass(frozen=True)
class LocalMeans:
    """Gaussian means of values within a tissue, at points of a grid of `LOCAL_STEP_PX`.

    Only pixels of the tissue count. The blur is `BIAS_BLUR_PX`; cells of the grid are averaged
    first, which saves fifteen sixteenths of the work and adds 2 % of blur.

    Args:
        mask: pixels of the tissue.
        n_pixels: number of these pixels.
        inside: cells of the grid at which means are computed.
        share: share of the Gaussian's weight in the tissue, at these cells.
    """

    mask: Bool[np.ndarray, "rows columns"]
    n_pixels: int
    inside: Bool[np.ndarray, "_ _"]
    share: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "rows columns"]) -> LocalMeans:
        """Weights of a tissue, for any number of images."""
        weight = _cell_means(mask.astype(np.float64))
        share = _cell_blur(weight)
        inside = (weight > 0.5) & (share > MIN_SHARE)
        return cls(mask, int(mask.sum()), inside, share[inside])

    def of_values(self, values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " n"]:
        """Local means of an image's values."""
        if not len(self.share):
            return self.share
        total = _cell_blur(_cell_means(np.where(self.mask, values, 0.0)))
        return np.asarray(total[self.inside] / self.share)


def _cell_means(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "_ _"]:
    """Mean of each cell of the grid; pixels that fill no cell are left out."""
    step = LOCAL_STEP_PX
    rows, columns = (size // step for size in values.shape)
    whole = values[: rows * step, : columns * step].reshape(rows, step, columns * step)
    return np.asarray(whole.sum(axis=1).reshape(rows, columns, step).sum(axis=2) / step**2)


def _cell_blur(cells: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, "_ _"]:
    return np.asarray(blurred(cells[None], BIAS_BLUR_PX / LOCAL_STEP_PX)[0])


def _p95(parts: Sequence[Float[np.ndarray, " _"]]) -> float | None:
    values = np.concatenate([np.empty(0), *parts])
    return float(np.percentile(np.abs(values), 95)) if len(values) else None
