"""Whether an image lies where another does: the shift between them to a fraction of a pixel.

Cross-correlation of band-passed, windowed images, its peak found on a finer grid by a matrix
Fourier transform (Guizar-Sicairos, Thurman and Fienup, Opt Lett 33, 2008). The band-pass takes off
the body's bulk, whose correlation is too broad to place, and the frequencies at which kernels and
noise differ. No phase normalization: it would weigh frequencies that hold nothing but noise like
those of edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.signal.windows import tukey

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import AIR_TO_VESSELS
from cvsct.core.volume import CTVolume
from cvsct.evaluation.extras import load_extra

BAND_SIGMAS_PX = (1.5, 6.0)
"""A Gaussian less a wider one: passes .02 to .12 cycles/px, where edges are and noise is low."""

TAPER = 0.2
"""Share of a slice's side over which its borders fade out, half at each end."""

UPSAMPLING = 100
MIN_CONTRAST_HU = 1.0
"""A band-passed slice with less (root mean square) shows nothing to align."""


@dataclass(frozen=True)
class Alignment:
    """Shift of images from where they should lie, in pixels, down rows and across columns.

    Args:
        median_px: median over slices, of each direction.
        length_px: length of that median shift.
        worst_px: the longest shift of a single slice.
        slices_px: each slice's; NaN where it shows nothing to align.
        n_slices: slices measured.
    """

    median_px: tuple[float, float]
    length_px: float
    worst_px: float
    n_slices: int
    slices_px: Float[np.ndarray, "slices 2"] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """As plain values, without the single slices."""
        down, across = self.median_px
        return {
            "down_px": down,
            "across_px": across,
            "length_px": self.length_px,
            "worst_px": self.worst_px,
            "n_slices": self.n_slices,
        }


def slice_shift_px(
    image_hu: Float[np.ndarray, "rows columns"], reference_hu: Float[np.ndarray, "rows columns"]
) -> tuple[float, float] | None:
    """How far an image lies down and across from a reference; None where there is nothing to see.

    Accurate to 0.02 px for images that differ by kernel and noise
    (tests/evaluation/test_alignment.py).
    """
    image, reference = _seen(image_hu), _seen(reference_hu)
    if min(float(np.std(image)), float(np.std(reference))) < MIN_CONTRAST_HU:
        return None
    correlate = load_extra("skimage.registration").phase_cross_correlation
    back = correlate(reference, image, upsample_factor=UPSAMPLING, normalization=None)[0]
    return -float(back[0]), -float(back[1])


def alignment(pairs: Sequence[tuple[CTVolume, CTVolume]]) -> Alignment | None:
    """Shift of every slice and its median; None where no slice shows anything to align.

    Args:
        pairs: image and what it should lie on (its source, or the target), slice by slice.

    Raises:
        EvaluationError: if a pair's slices differ in number or size.
    """
    shifts = []
    for image, reference in pairs:
        if image.hu.shape != reference.hu.shape:
            raise EvaluationError(
                f"a stack of {image.hu.shape} voxels cannot be aligned with one of "
                f"{reference.hu.shape}; cut both to the slices they share"
            )
        for plane, other in zip(image.hu, reference.hu, strict=True):
            shifts.append(slice_shift_px(plane, other) or (np.nan, np.nan))
    slices = np.array(shifts, dtype=np.float64).reshape(-1, 2)
    told = slices[np.isfinite(slices).all(axis=1)]
    if not len(told):
        return None
    down, across = (float(value) for value in np.median(told, axis=0))
    return Alignment(
        median_px=(down, across),
        length_px=float(np.hypot(down, across)),
        worst_px=float(np.hypot(*told.T).max()),
        n_slices=len(told),
        slices_px=slices,
    )


def _seen(hu: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """What of a slice is compared: edges of moderate sharpness, faded out at the borders."""
    clipped = np.clip(hu.astype(np.float64), *AIR_TO_VESSELS.limits_hu)
    fine, coarse = (ndimage.gaussian_filter(clipped, s, mode="nearest") for s in BAND_SIGMAS_PX)
    rows, columns = hu.shape
    window = tukey(rows, TAPER)[:, None] * tukey(columns, TAPER)
    return np.asarray((fine - coarse) * window)
