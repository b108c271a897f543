"""How alike two images of one body are: PSNR, SSIM, NCC and the bias in HU.

The three figures of the paper's Table 3 are read on [0, 1] after the HU window, one slice at a
time; the bias and the residual are in HU.
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
"""What identical images read: 0.02 HU over the default window, far below the rounding to 1 HU
(76 dB), and a number that JSON can hold."""

BIAS_BLUR_PX = 8.0


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
    """Structural similarity with Wang et al. 2004's Gaussian weights (eq. 11 is misprinted)."""
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

    Where a slice is all at the window's lower end it is 1 if the other is too, else 0.
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
    """The residual under a Gaussian blur: what is left of it once texture is averaged out."""
    difference = residual_hu(image_hu, target_hu).astype(np.float64)
    smooth: Float[np.ndarray, "rows columns"] = blurred(difference[None], sigma_px)[0]
    return smooth


def tissue_bias_hu(
    image_hu: Float[np.ndarray, "rows columns"],
    target_hu: Float[np.ndarray, "target_rows target_columns"],
    tissue: Bool[np.ndarray, "rows columns"] | None = None,
) -> tuple[float, int]:
    """Signed mean of `bias_map_hu` over soft tissue as the blurred *target* shows it.

    Returns:
        The bias and the number of pixels it was taken over; (0.0, 0) where there is no soft tissue.
    """
    mask = soft_tissue(target_hu[None])[0] if tissue is None else tissue
    count = int(mask.sum())
    return (float(bias_map_hu(image_hu, target_hu)[mask].mean()) if count else 0.0), count


@dataclass(frozen=True)
class ImageQuality:
    """Figures of paired slices: one spread each over slices, and the bias over all soft tissue."""

    psnr_db: Spread
    ssim: Spread
    ncc: Spread
    hu_bias: float | None


def image_quality(
    pairs: Sequence[tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]], window: HUWindow
) -> ImageQuality:
    """Compare slices, each with its target.

    `hu_bias` weighs every soft-tissue pixel of the target slices alike; None where there is none.
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
    if image_hu.shape != target_hu.shape:
        raise EvaluationError(
            f"an image of {image_hu.shape} pixels cannot be compared with one of "
            f"{target_hu.shape}; pair slices of one grid"
        )
    return (
        window.to_fraction(image_hu.astype(np.float64)),
        window.to_fraction(target_hu.astype(np.float64)),
    )
