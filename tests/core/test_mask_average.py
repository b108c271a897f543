"""Masks of thin slices on thicker ones, beside the body's own surface there."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.mask_average import HALF, mask_fraction
from cvsct.core.slice_average import average_slices

PIXEL_MM = 0.7


def body(z_mm: np.ndarray) -> np.ndarray:
    """A tilted ellipsoid with a dent, cut at slice centers."""
    rows, columns = PIXEL_MM * (np.mgrid[:64, :64] - 31.5)
    planes = []
    for z in z_mm:
        x, y = columns - 0.25 * z, rows + 0.15 * z
        inside = (x / 13) ** 2 + (y / 10) ** 2 + (z / 16) ** 2 <= 1
        planes.append(inside & ((x - 9) ** 2 + y**2 + (z - 3) ** 2 > 25))
    return np.stack(planes)


@pytest.mark.parametrize("thin_mm", [1.0, 1.5, 2.0, 2.5, 3.0])
def test_a_mask_on_thick_slices_is_what_is_drawn_there(thin_mm: float) -> None:
    z = thin_mm * (np.arange(round(60 / thin_mm)) + 0.5) - 30
    average = average_slices(z, thin_mm, 5.0)
    thin, truth = body(z), body(average.z_mm)
    made = np.stack([mask_fraction(thin, average, i) > HALF for i in range(len(average))])
    assert made.sum() == pytest.approx(truth.sum(), rel=0.03)
    assert 2 * (made & truth).sum() / (made.sum() + truth.sum()) > 0.96
