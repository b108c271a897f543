"""Image quality of paired slices: PSNR, SSIM, NCC and bias in HU.

PSNR, SSIM and NCC, the figures of the paper's Table 3, are computed slice by slice on [0, 1] after
the HU window; the bias and the residual are in HU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import blurred, soft_tissue
from cvsct.core.volume import HUWindow
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.spread import Spread

PSNR_CAP_DB = 100.0
"""PSNR of identical images, a number that JSON can hold. It stands for a difference of 0.02 HU over
the default window, far below the rounding to 1 HU (76 dB)."""

BIAS_BLUR_PX = 8.0
"""Standard deviation of the Gaussian blur that separates bias from texture."""


def psnr_db(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    window: HUWindow,
) -> float:
    """Peak signal-to-noise ratio with peak 1 (paper, eq. 10); at most `PSNR_CAP_DB`."""
    x, y = _fractions(image_hu, target_hu, window)
    mean_square = float(np.mean((x - y) ** 2))
    if mean_square <= 10 ** (-PSNR_CAP_DB / 10):
        return PSNR_CAP_DB
    return float(-10 * np.log10(mean_square))


def ssim(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    window: HUWindow,
) -> float:
    """Structural similarity with the Gaussian weights of Wang et al. 2004.

    The paper's equation 11 is misprinted.

    Raises:
        MissingExtraError: if scikit-image is not installed.
    """
    x, y = _fractions(image_hu, target_hu, window)
    similarity = load_extra("skimage.metrics").structural_similarity
    return float(
        similarity(
            x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def ncc(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    window: HUWindow,
) -> float:
    """Normalized cross-correlation, not mean-centred (paper, eq. 12).

    Where all of a slice is at the window's lower end, NCC is 1 if the other slice is too, else 0.
    """
    x, y = _fractions(image_hu, target_hu, window)
    norm = float(np.sqrt(np.sum(x**2) * np.sum(y**2)))
    if norm == 0:
        return float(np.array_equal(x, y))
    return float(np.sum(x * y)) / norm


def residual_hu(
    image_hu: Float[np.ndarray, "*shape"], target_hu: Float[np.ndarray, "*target_shape"]
) -> Float[np.ndarray, "*shape"]:
    """Image minus target, voxel by voxel."""
    difference: Float[np.ndarray, "*shape"] = image_hu - target_hu
    return difference


def bias_map_hu(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    sigma_px: float = BIAS_BLUR_PX,
) -> Float[np.ndarray, "rows columns"]:
    """The residual after a Gaussian blur, which averages texture out."""
    difference = residual_hu(image_hu, target_hu).astype(np.float64)
    smooth: Float[np.ndarray, "rows columns"] = blurred(difference[None], sigma_px)[0]
    return smooth


def tissue_bias_hu(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    tissue: Bool[np.ndarray, "rows columns"] | None = None,
) -> tuple[float, int]:
    """Signed mean of `bias_map_hu` over soft tissue, as the blurred *target* shows it.

    Args:
        image_hu: a slice.
        target_hu: the target's slice.
        tissue: mask of the soft tissue; None computes it.

    Returns:
        The bias and the number of pixels in the mean; (0.0, 0) where there is no soft tissue.
    """
    mask = soft_tissue(target_hu[None])[0] if tissue is None else tissue
    count = int(mask.sum())
    return (float(bias_map_hu(image_hu, target_hu)[mask].mean()) if count else 0.0), count


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


def image_quality(
    pairs: Sequence[tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]], window: HUWindow
) -> ImageQuality:
    """Compare slices with their targets.

    Every soft-tissue pixel of the target slices has the same weight in `hu_bias`.

    Args:
        pairs: slice and target slice in HU; at least one pair.
        window: HU range that is scaled to [0, 1] for PSNR, SSIM and NCC.
    """
    bias = np.array([tissue_bias_hu(image, target) for image, target in pairs])
    pixels = bias[:, 1].sum()
    return ImageQuality(
        psnr_db=Spread.of([psnr_db(image, target, window) for image, target in pairs]),
        ssim=Spread.of([ssim(image, target, window) for image, target in pairs]),
        ncc=Spread.of([ncc(image, target, window) for image, target in pairs]),
        hu_bias=float(bias[:, 0] @ bias[:, 1] / pixels) if pixels else None,
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
