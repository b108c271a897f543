"""The shift between images against known shifts of a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.image.alignment import alignment, slice_shift_px
from tests.conftest import make_volume
from tests.support.bodies import noise, seen, shifted, trunk

FINE = trunk(1)


def scanned(plane: np.ndarray, sd_hu: float, peak_per_px: float, seed: int) -> np.ndarray:
    """A slice as a file holds it: noise, whole numbers, clipped air."""
    noise_hu = noise(plane.shape, sd_hu, peak_per_px, np.random.default_rng(seed))
    return np.maximum(np.rint(plane + noise_hu), -1024)


@pytest.mark.parametrize(
    ("down_px", "across_px"), [(0.0, 0.0), (0.1, -0.1), (0.25, 0.0), (0.5, 0.25), (-0.5, 2.3)]
)
@pytest.mark.parametrize(("noise_hu", "within_px"), [(0.0, 0.011), (80.0, 0.02), (240.0, 0.06)])
def test_a_known_shift_between_kernels_in_noise(
    down_px: float, across_px: float, noise_hu: float, within_px: float
) -> None:
    """A sharp kernel's noise on a sharp image, a third of it, smoother, on a smooth one."""
    sharp = scanned(shifted(FINE, 0.5, down_px, across_px), noise_hu, 0.35, seed=1)
    smooth = scanned(seen(FINE, 0.9), noise_hu / 3, 0.2, seed=2)
    assert slice_shift_px(sharp, smooth) == pytest.approx((down_px, across_px), abs=within_px)
    assert slice_shift_px(smooth, sharp) == pytest.approx((-down_px, -across_px), abs=within_px)


def test_the_median_over_slices_and_slices_that_show_nothing() -> None:
    air = np.full((256, 256), -1000.0)
    shifts = [(0.5, 0.0), (0.5, 0.0), (2.0, 1.0)]
    image = make_volume(np.stack([*(shifted(FINE, 0.6, *shift) for shift in shifts), air]))
    result = alignment([(image, make_volume(np.stack([seen(FINE, 0.6)] * 3 + [air])))])
    assert result is not None
    assert result.n_slices == 3
    assert result.median_px == pytest.approx((0.5, 0.0), abs=0.01)
    assert result.worst_px == pytest.approx(5**0.5, abs=0.01)
    assert np.isnan(result.slices_px[3]).all()
    assert result.to_json()["length_px"] == pytest.approx(0.5, abs=0.01)
    empty = make_volume(air[None])
    assert alignment([(empty, empty)]) is None


def test_other_shapes_are_refused_with_both() -> None:
    a, b = make_volume(np.zeros((2, 8, 8))), make_volume(np.zeros((3, 8, 8)))
    with pytest.raises(EvaluationError, match=r"\(2, 8, 8\).*\(3, 8, 8\)"):
        alignment([(a, b)])
