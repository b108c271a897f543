"""Image quality against hand-worked figures."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import EvaluationError, MissingExtraError
from cvsct.core.volume import HUWindow
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.image.quality import (
    PSNR_CAP_DB,
    Spread,
    image_quality,
    ncc,
    psnr_db,
    residual_hu,
    ssim,
    tissue_bias_hu,
)

WINDOW = HUWindow()


def noisy(shape: tuple[int, ...], sd_hu: float = 30.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(40.0, sd_hu, shape).astype(np.float32)


def test_psnr_by_hand() -> None:
    target = np.zeros((4, 4))
    image = target + 19.0  # 1 % of the 1,900 HU window everywhere: 10 log10(1 / 1e-4)
    assert psnr_db(image, target, WINDOW) == pytest.approx(40.0)
    image = target.copy()
    image[0, 0] = 190.0  # one pixel of 16 off by 10 %
    assert psnr_db(image, target, WINDOW) == pytest.approx(10 * np.log10(16 / 0.01))


def test_differences_outside_the_window_do_not_count() -> None:
    target = np.full((4, 4), 1200.0)
    assert psnr_db(np.full((4, 4), 3000.0), target, WINDOW) == PSNR_CAP_DB


def test_identical_images() -> None:
    image = noisy((32, 32))
    assert psnr_db(image, image, WINDOW) == PSNR_CAP_DB
    assert ssim(image, image, WINDOW) == pytest.approx(1.0)
    assert ncc(image, image, WINDOW) == pytest.approx(1.0)
    assert tissue_bias_hu(image, image)[0] == 0.0


def test_ncc_by_hand_is_not_mean_centred() -> None:
    window = HUWindow(0.0, 1.0)
    image, target = np.array([[0.3, 0.4]]), np.array([[0.4, 0.3]])
    assert ncc(image, target, window) == pytest.approx(0.24 / 0.25)  # centred it would be -1
    empty = np.zeros((1, 2))
    assert ncc(empty, empty, window) == 1.0
    assert ncc(empty, target, window) == 0.0


def test_ssim_is_wang_2004() -> None:
    x = WINDOW.to_fraction(noisy((48, 40)).astype(np.float64))
    y = WINDOW.to_fraction(noisy((48, 40), seed=1).astype(np.float64))
    from scipy.ndimage import gaussian_filter

    def mean(a: np.ndarray) -> np.ndarray:
        return gaussian_filter(a, 1.5, truncate=3.5)  # 11 x 11 window

    c1, c2 = 0.01**2, 0.03**2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    values = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    expected = values[5:-5, 5:-5].mean()
    got = ssim(noisy((48, 40)), noisy((48, 40), seed=1), WINDOW)
    assert got == pytest.approx(expected, rel=1e-9)


def test_bias_is_signed_and_measured_in_the_targets_soft_tissue() -> None:
    target = np.full((128, 128), -1000.0)
    target[32:96, 32:96] = 40.0
    image = target.copy()
    image[:, :] += 12.0
    bias, pixels = tissue_bias_hu(image, target)
    assert bias == pytest.approx(12.0)
    assert 64 * 64 * 0.8 < pixels < 64 * 64 * 1.2
    assert tissue_bias_hu(target, image)[0] == pytest.approx(-12.0)
    assert tissue_bias_hu(np.full((8, 8), -1000.0), np.full((8, 8), -1000.0)) == (0.0, 0)


def test_texture_is_not_bias() -> None:
    target = np.full((128, 128), 40.0)
    assert abs(tissue_bias_hu(target + noisy((128, 128)) - 40.0, target)[0]) < 1.5


def test_image_quality_weighs_the_bias_by_tissue() -> None:
    tissue, air = np.full((32, 32), 40.0), np.full((32, 32), -1000.0)
    quality = image_quality([(tissue + 10.0, tissue), (air + 500.0, air)], WINDOW)
    assert quality.hu_bias == pytest.approx(10.0)
    assert quality.psnr_db.n == 2
    assert image_quality([(air, air)], WINDOW).hu_bias is None


def test_spread() -> None:
    assert Spread.of([1.0, 3.0]) == Spread(2.0, 1.0, 2)


def test_residual_is_image_minus_target() -> None:
    assert residual_hu(np.array([[5.0]]), np.array([[2.0]]))[0, 0] == 3.0


def test_slices_of_other_shapes_are_refused_with_both_sizes() -> None:
    with pytest.raises(EvaluationError, match=r"\(8, 8\).*\(8, 9\)"):
        psnr_db(np.zeros((8, 8)), np.zeros((8, 9)), WINDOW)


def test_a_missing_library_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'cvsct\[evaluate\]'"):
        load_extra("no_such_library.part")
