"""Image quality of paired slices: PSNR, SSIM, NCC and bias in HU.

PSNR, SSIM and NCC, the figures of the paper's Table 3, are computed slice by slice on [0, 1] after
the HU window; the bias and the residual are in HU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import EvaluationError
from cvsct.core.fourier import (
    fast_shape,
    gaussian_radius,
    gaussian_transfer,
    image_of,
    spectrum_of,
)
from cvsct.core.masks import soft_tissue
from cvsct.core.volume import HUWindow
from cvsct.core.workers import threads
from cvsct.evaluation.spread import Spread

PSNR_CAP_DB = 100.0
"""PSNR of identical images, a number that JSON can hold. It stands for a difference of 0.02 HU over
the default window, far below the rounding to 1 HU (76 dB)."""

BIAS_BLUR_PX = 8.0
"""Standard deviation of the Gaussian blur that separates bias from texture."""


SSIM_SIGMA_PX = 1.5
"""Standard deviation of the Gaussian weights of SSIM (Wang et al. 2004)."""

SSIM_TRUNCATE = 3.5
"""Distance at which these weights are cut off, in standard deviations: 11 pixels across."""

SSIM_CONSTANTS = (0.01**2, 0.03**2)
"""Constants C1 and C2 of SSIM for images in [0, 1]."""


def psnr_db(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    window: HUWindow,
) -> float:
    """Peak signal-to-noise ratio with peak 1 (paper, eq. 10); at most `PSNR_CAP_DB`."""
    return _psnr_db(*_fractions(image_hu, target_hu, window))


def ssim(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    window: HUWindow,
) -> float:
    """Structural similarity with the Gaussian weights of Wang et al. 2004.

    The mean leaves out the border that the weights do not fit into, as scikit-image does. The
    paper's equation 11 is misprinted.

    Raises:
        EvaluationError: if shapes differ, or slices are smaller than the weights.
    """
    x, y = _fractions(image_hu, target_hu, window)
    return _LocalMoments.of(y).ssim(x)


def ncc(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    window: HUWindow,
) -> float:
    """Normalized cross-correlation, not mean-centred (paper, eq. 12).

    Where all of a slice is at the window's lower end, NCC is 1 if the other slice is too, else 0.
    """
    return _ncc(*_fractions(image_hu, target_hu, window))


def _psnr_db(x: Float[np.ndarray, "rows columns"], y: Float[np.ndarray, "rows columns"]) -> float:
    mean_square = float(np.mean((x - y) ** 2))
    if mean_square <= 10 ** (-PSNR_CAP_DB / 10):
        return PSNR_CAP_DB
    return float(-10 * np.log10(mean_square))


def _ncc(x: Float[np.ndarray, "rows columns"], y: Float[np.ndarray, "rows columns"]) -> float:
    norm = float(np.sqrt(np.sum(x**2) * np.sum(y**2)))
    if norm == 0:
        return float(np.array_equal(x, y))
    return float(np.sum(x * y)) / norm


@dataclass(frozen=True)
class _LocalMoments:
    """Local mean and mean square of a target slice in [0, 1], for SSIM with any number of images.

    Args:
        fraction: the slice.
        transfer: transfer function of the weights.
        mean: local mean.
        mean_square: local mean of the square.
    """

    fraction: Float[np.ndarray, "rows columns"]
    transfer: Float[np.ndarray, "_ _"]
    mean: Float[np.ndarray, "inner_rows inner_columns"]
    mean_square: Float[np.ndarray, "inner_rows inner_columns"]

    @classmethod
    def of(cls, fraction: Float[np.ndarray, "rows columns"]) -> _LocalMoments:
        across_px = 2 * gaussian_radius(SSIM_SIGMA_PX, SSIM_TRUNCATE) + 1
        if min(fraction.shape) < across_px:
            raise EvaluationError(
                f"slices of {fraction.shape} pixels are smaller than the {across_px} pixels over "
                "which SSIM weighs; compare larger slices"
            )
        transfer = gaussian_transfer(fast_shape(fraction.shape), SSIM_SIGMA_PX, SSIM_TRUNCATE)
        return cls(fraction, transfer, _local(fraction, transfer), _local(fraction**2, transfer))

    def ssim(self, image: Float[np.ndarray, "rows columns"]) -> float:
        """Structural similarity of an image in [0, 1]."""
        mean = _local(image, self.transfer)
        covariance = _local(image * self.fraction, self.transfer) - mean * self.mean
        both_means = mean**2 + self.mean**2
        both_variances = _local(image**2, self.transfer) + self.mean_square - both_means
        c1, c2 = SSIM_CONSTANTS
        likeness = (2 * mean * self.mean + c1) * (2 * covariance + c2)
        return float(np.mean(likeness / ((both_means + c1) * (both_variances + c2))))


def _local(
    image: Float[np.ndarray, "rows columns"], transfer: Float[np.ndarray, "_ _"]
) -> Float[np.ndarray, "inner_rows inner_columns"]:
    """Local means of an image, without the border that the weights do not fit into."""
    shape = fast_shape(image.shape)
    border = gaussian_radius(SSIM_SIGMA_PX, SSIM_TRUNCATE)
    means = image_of(spectrum_of(image, shape) * transfer, shape)
    return means[border : image.shape[0] - border, border : image.shape[1] - border]


def residual_hu(
    image_hu: Float[np.ndarray, "*shape"], target_hu: Float[np.ndarray, "*target_shape"]
) -> Float[np.ndarray, "*shape"]:
    """Image minus target, voxel by voxel."""
    difference: Float[np.ndarray, "*shape"] = image_hu - target_hu
    return difference


@dataclass(frozen=True)
class SoftTissueWeights:
    """Weights of a slice's pixels in the mean, over soft tissue, of its Gaussian blur.

    Blurring the mask instead of every residual gives the same mean, since both are linear: one blur
    serves all images that are compared with a target.

    Args:
        weights: weight of each pixel; their sum is `n_pixels`.
        n_pixels: number of pixels of soft tissue.
    """

    weights: Float[np.ndarray, "rows columns"]
    n_pixels: int

    @classmethod
    def of(
        cls, tissue: Bool[np.ndarray, "rows columns"], sigma_px: float = BIAS_BLUR_PX
    ) -> SoftTissueWeights:
        """Weights for a mask of soft tissue; the blur repeats the pixels at a slice's border."""
        reach = gaussian_radius(sigma_px)
        shape = fast_shape(tissue.shape, 2 * reach)
        spread = image_of(
            spectrum_of(np.pad(tissue, reach).astype(np.float64), shape)
            * gaussian_transfer(shape, sigma_px),
            shape,
        )
        rows, columns = tissue.shape
        weights = _folded(_folded(spread, reach, rows).T, reach, columns).T
        return cls(weights, int(tissue.sum()))

    def mean_hu(self, residual_hu: Float[np.ndarray, "rows columns"]) -> float:
        """Mean of the blurred residual over the tissue; 0 where there is none."""
        return float(np.vdot(self.weights, residual_hu)) / self.n_pixels if self.n_pixels else 0.0


def _folded(
    spread: Float[np.ndarray, "padded _"], reach: int, rows: int
) -> Float[np.ndarray, "rows _"]:
    """Rows within a slice, with those beyond its border added to its first and last one."""
    inner = spread[reach : reach + rows].copy()
    inner[0] += spread[:reach].sum(axis=0)
    inner[-1] += spread[reach + rows : 2 * reach + rows].sum(axis=0)
    return inner


def tissue_bias_hu(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    tissue: Bool[np.ndarray, "rows columns"] | None = None,
) -> tuple[float, int]:
    """Signed mean of the blurred residual over soft tissue, as the blurred *target* shows it.

    The Gaussian blur of `BIAS_BLUR_PX` averages texture out.

    Args:
        image_hu: a slice.
        target_hu: the target's slice.
        tissue: mask of the soft tissue; None computes it.

    Returns:
        The bias and the number of pixels in the mean; (0.0, 0) where there is no soft tissue.
    """
    mask = soft_tissue(target_hu[None])[0] if tissue is None else tissue
    weights = SoftTissueWeights.of(mask)
    return weights.mean_hu(residual_hu(image_hu, target_hu).astype(np.float64)), weights.n_pixels


@dataclass(frozen=True)
class ImageQuality:
    """Image quality of paired slices.

    Args:
        psnr_db: peak signal-to-noise ratio; mean and spread over the slices.
        ssim: structural similarity.
        ncc: normalized cross-correlation.
        hu_bias: signed mean of the blurred residual over all soft tissue; None where there is none.
    """

    psnr_db: Spread
    ssim: Spread
    ncc: Spread
    hu_bias: float | None


_SliceFigures = tuple[float, float, float, float, int]
"""PSNR, SSIM, NCC, bias, and number of pixels of soft tissue of a slice."""

SliceOfSides = tuple[
    Mapping[str, Float[np.ndarray, "_ _"]],
    Float[np.ndarray, "rows columns"],
    Bool[np.ndarray, "rows columns"],
]
"""Images of one slice by side, the target's image, and its soft tissue."""


def image_quality(
    pairs: Sequence[tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]], window: HUWindow
) -> ImageQuality:
    """Compare slices with their targets.

    Every soft-tissue pixel of the target slices has the same weight in `hu_bias`.

    Args:
        pairs: slice and target slice in HU; at least one pair.
        window: HU range that is scaled to [0, 1] for PSNR, SSIM and NCC.
    """
    slices = (({"image": image}, target, soft_tissue(target[None])[0]) for image, target in pairs)
    return image_qualities(slices, window)["image"]


def image_qualities(
    slices: Iterable[SliceOfSides],
    window: HUWindow,
    workers: int = 1,
) -> dict[str, ImageQuality]:
    """`image_quality` of several sides; what depends on the target alone is computed once.

    Args:
        slices: images of one slice by side, the target's image and its soft tissue; at least one
            slice.
        window: HU range that is scaled to [0, 1] for PSNR, SSIM and NCC.
        workers: number of threads.
    """

    def measure(planes: SliceOfSides) -> dict[str, _SliceFigures]:
        images, target, soft = planes
        return _slice_quality(images, target, soft, window)

    with threads(workers) as pool:
        rows = list(pool.map(measure, slices))
    return {side: _summary(np.array([row[side] for row in rows])) for side in rows[0]}


def _slice_quality(
    images: Mapping[str, Float[np.ndarray, "_ _"]],
    target: Float[np.ndarray, "rows columns"],
    soft: Bool[np.ndarray, "rows columns"],
    window: HUWindow,
) -> dict[str, _SliceFigures]:
    """Figures of one slice by side."""
    weights = SoftTissueWeights.of(soft)
    moments: _LocalMoments | None = None
    figures: dict[str, _SliceFigures] = {}
    for side, image in images.items():
        x, y = _fractions(image, target, window)
        moments = moments or _LocalMoments.of(y)
        bias_hu = weights.mean_hu(residual_hu(image, target).astype(np.float64))
        figures[side] = _psnr_db(x, y), moments.ssim(x), _ncc(x, y), bias_hu, weights.n_pixels
    return figures


def _summary(rows: Float[np.ndarray, "slices 5"]) -> ImageQuality:
    """Quality over slices from their PSNR, SSIM, NCC, bias and pixels of soft tissue."""
    psnr, similarity, correlation, bias_hu, n_pixels = rows.T
    total = n_pixels.sum()
    return ImageQuality(
        psnr_db=Spread.of(psnr.tolist()),
        ssim=Spread.of(similarity.tolist()),
        ncc=Spread.of(correlation.tolist()),
        hu_bias=float(bias_hu @ n_pixels / total) if total else None,
    )


def _fractions(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    window: HUWindow,
) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "rows columns"]]:
    """Both slices scaled to [0, 1] over the window.

    Raises:
        EvaluationError: if their shapes differ.
    """
    if image_hu.shape != target_hu.shape:
        raise EvaluationError(
            f"an image of {image_hu.shape} pixels cannot be compared with one of "
            f"{target_hu.shape}; pair slices of one grid"
        )
    return (
        window.to_fraction(image_hu.astype(np.float64)),
        window.to_fraction(target_hu.astype(np.float64)),
    )
