"""Shift between two images to a fraction of a pixel.

It is the peak of the cross-correlation of band-passed, windowed images, found on a finer grid by a
matrix Fourier transform (Guizar-Sicairos, Thurman and Fienup, Opt Lett 33, 2008). The band-pass
removes the body's bulk, whose correlation has too broad a peak, and the frequencies at which
kernels and noise differ. There is no phase normalization, which would give frequencies of pure
noise the weight of those of edges.
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
"""Standard deviations of the two Gaussians whose difference is the band-pass. It passes 0.02 to
0.12 cycles/px, where edges are and noise is low."""

TAPER = 0.2
"""Share of a slice's side over which its borders are faded out, half of it at each end."""

UPSAMPLING = 100
"""Number of steps in a pixel at which the peak is searched."""

MIN_CONTRAST_HU = 1.0
"""Smallest root mean square of a band-passed slice that can be aligned."""


@dataclass(frozen=True)
class Alignment:
    """Shift of images against their reference in pixels, down rows and across columns.

    Args:
        median_px: median over slices, in each direction.
        length_px: length of that median shift.
        worst_px: largest shift of a single slice.
        n_slices: number of slices measured.
        slices_px: shift of each slice; NaN where it has no contrast to align.
    """

    median_px: tuple[float, float]
    length_px: float
    worst_px: float
    n_slices: int
    slices_px: Float[np.ndarray, "slices 2"] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without those of single slices."""
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
    """Shift of an image against a reference, down rows and across columns, in pixels.

    It is accurate to 0.02 px for images that differ by kernel and noise
    (tests/evaluation/test_alignment.py).

    Returns:
        None where an image has no contrast to align.

    Raises:
        MissingExtraError: if scikit-image is not installed.
    """
    image, reference = _band_passed(image_hu), _band_passed(reference_hu)
    if min(float(np.std(image)), float(np.std(reference))) < MIN_CONTRAST_HU:
        return None
    correlate = load_extra("skimage.registration").phase_cross_correlation
    to_reference = correlate(reference, image, upsample_factor=UPSAMPLING, normalization=None)[0]
    return -float(to_reference[0]), -float(to_reference[1])


def alignment(pairs: Sequence[tuple[CTVolume, CTVolume]]) -> Alignment | None:
    """Measure the shift of every slice and its median; None where no slice has contrast to align.

    Args:
        pairs: volume and its reference (its source, or the target), slice by slice.

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
        for planes in zip(image.hu, reference.hu, strict=True):
            shifts.append(slice_shift_px(*planes) or (np.nan, np.nan))
    slices = np.array(shifts, dtype=np.float64).reshape(-1, 2)
    measured = slices[np.isfinite(slices).all(axis=1)]
    if not len(measured):
        return None
    down, across = (float(value) for value in np.median(measured, axis=0))
    return Alignment(
        median_px=(down, across),
        length_px=float(np.hypot(down, across)),
        worst_px=float(np.hypot(*measured.T).max()),
        n_slices=len(measured),
        slices_px=slices,
    )


def _band_passed(hu: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """A slice band-passed to edges of moderate sharpness and faded out at its borders."""
    clipped = np.clip(hu.astype(np.float64), *AIR_TO_VESSELS.limits_hu)
    fine, coarse = (ndimage.gaussian_filter(clipped, s, mode="nearest") for s in BAND_SIGMAS_PX)
    rows, columns = hu.shape
    window = tukey(rows, TAPER)[:, None] * tukey(columns, TAPER)
    return np.asarray((fine - coarse) * window)
