"""Offset of a scanner's CT numbers, which models differences of calibration between scanners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from scipy.interpolate import PchipInterpolator


def add_hu_offset(
    image_hu: Float32[np.ndarray, "rows columns"], tone_hu: Sequence[tuple[float, float]]
) -> Float32[np.ndarray, "rows columns"]:
    """Add the offset of each CT number to an image.

    Args:
        image_hu: reconstructed image.
        tone_hu: pairs of CT number and offset, with rising CT numbers. Between them the offset is
            Fritsch and Carlson's monotone cubic (SIAM J Numer Anal 17, 1980), which never leaves
            the range of its neighbors; beyond them it is that of the nearest pair.
    """
    hu, offset = np.array(tone_hu, dtype=np.float64).T
    inside = np.clip(image_hu, hu[0], hu[-1])
    return np.asarray(image_hu + PchipInterpolator(hu, offset)(inside), dtype=np.float32)
