"""Image quality against hand-worked figures, and pairing by geometry alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvsct.errors import EvaluationError, MissingExtraError
from cvsct.evaluation.metrics import (
    PSNR_CEILING_DB,
    Spread,
    image_quality,
    load_extra,
    ncc,
    psnr_db,
    residual_hu,
    ssim,
    tissue_bias_hu,
)
from cvsct.evaluation.pairing import nearest_gap_mm, pair_slices, pair_volumes
from cvsct.volume import CTVolume, HUWindow
from tests.conftest import make_volume

WINDOW = HUWindow()


def noisy(shape: tuple[int, ...], sd_hu: float = 30.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(40.0, sd_hu, shape).astype(np.float32)


def moved(volume: CTVolume, z_mm: float = 0.0, x_mm: float = 0.0, y_mm: float = 0.0) -> CTVolume:
    shift = np.array([x_mm, y_mm, z_mm])
    positions = volume.geometry.positions_mm + shift
    return replace(volume, geometry=replace(volume.geometry, positions_mm=positions))


def test_psnr_by_hand() -> None:
    target = np.zeros((4, 4))
    image = target + 19.0  # 1 % of the 1,900 HU window everywhere: 10 log10(1 / 1e-4)
    assert psnr_db(image, target, WINDOW) == pytest.approx(40.0)
    image = target.copy()
    image[0, 0] = 190.0  # one pixel of 16 off by 10 %
    assert psnr_db(image, target, WINDOW) == pytest.approx(10 * np.log10(16 / 0.01))


def test_differences_outside_the_window_do_not_count() -> None:
    target = np.full((4, 4), 1200.0)
    assert psnr_db(np.full((4, 4), 3000.0), target, WINDOW) == PSNR_CEILING_DB


def test_identical_images() -> None:
    image = noisy((32, 32))
    assert psnr_db(image, image, WINDOW) == PSNR_CEILING_DB
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


def test_pairing_follows_position_not_order() -> None:
    volume = make_volume(noisy((5, 16, 16)))
    shuffled = volume.select([3, 0, 4, 2, 1])
    assert pair_slices(volume, shuffled) == [(0, 1), (1, 4), (2, 3), (3, 0), (4, 2)]
    for i, j in pair_slices(volume, shuffled):
        assert np.array_equal(volume.hu[i], shuffled.hu[j])


def test_pairing_of_overlapping_ranges() -> None:
    volume = make_volume(noisy((6, 16, 16)))
    assert pair_slices(volume.select(slice(0, 4)), volume.select(slice(2, 6))) == [(2, 0), (3, 1)]


def test_every_other_slice_pairs_with_a_thicker_series() -> None:
    thin, thick = make_volume(noisy((6, 16, 16)), 2.5), make_volume(noisy((3, 16, 16)), 5.0)
    assert pair_slices(thin, thick) == [(0, 0), (2, 1), (4, 2)]


@pytest.mark.parametrize(("offset_mm", "count"), [(0.05, 4), (0.2, 0), (2.4, 0)])
def test_slices_pair_within_a_tenth_of_a_millimetre(offset_mm: float, count: int) -> None:
    volume = make_volume(noisy((4, 16, 16)))
    assert len(pair_slices(volume, moved(volume, z_mm=offset_mm))) == count


def test_other_grids_are_refused_with_the_figure() -> None:
    volume = make_volume(noisy((3, 16, 16)), pixel_mm=0.7)
    with pytest.raises(EvaluationError, match=r"0\.7000 x 0\.7000 mm against 0\.8000 x 0\.8000"):
        pair_slices(volume, make_volume(noisy((3, 16, 16)), pixel_mm=0.8))
    with pytest.raises(EvaluationError, match="16x16 pixels against 16x20"):
        pair_slices(volume, make_volume(noisy((3, 16, 20))))
    with pytest.raises(EvaluationError, match=r"3\.0 pixels apart"):
        pair_slices(volume, moved(volume, x_mm=2.1))
    assert len(pair_slices(volume, moved(volume, x_mm=0.3, y_mm=-0.3))) == 3
    turned = replace(
        volume.geometry, row_direction=(0.0, 1.0, 0.0), column_direction=(-1.0, 0.0, 0.0)
    )
    with pytest.raises(EvaluationError, match="orientations differ"):
        pair_slices(volume, replace(volume, geometry=turned))


def test_an_in_plane_shift_is_measured_along_each_axis() -> None:
    volume = make_volume(noisy((2, 16, 16)))
    oblong = replace(volume, geometry=replace(volume.geometry, pixel_mm=(2.0, 0.5)))
    assert len(pair_slices(oblong, moved(oblong, y_mm=0.9))) == 2  # along y rows are 2 mm apart
    with pytest.raises(EvaluationError, match="in plane"):
        pair_slices(oblong, moved(oblong, x_mm=0.9))


def test_another_frame_of_reference_has_no_slices_in_common() -> None:
    volume = make_volume(noisy((3, 16, 16)))
    other = replace(volume, geometry=replace(volume.geometry, frame_of_reference="9.9"))
    unnamed = replace(volume, geometry=replace(volume.geometry, frame_of_reference=""))
    assert pair_slices(volume, other) == []
    assert len(pair_slices(volume, unnamed)) == 3
    assert nearest_gap_mm([volume], [other]) is None
    assert nearest_gap_mm([volume], [moved(volume, z_mm=2.0)]) == pytest.approx(2.0)


def test_volumes_pair_across_lists() -> None:
    one, far = make_volume(noisy((3, 16, 16))), moved(make_volume(noisy((3, 16, 16))), z_mm=500)
    pairs = pair_volumes([one, far], [far, one])
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (1, 0)]
    assert pair_volumes([one], [far]) == []


def test_a_series_on_another_grid_is_skipped_where_one_fits() -> None:
    one, coarse = make_volume(noisy((3, 16, 16))), make_volume(noisy((3, 8, 8)), pixel_mm=1.4)
    assert [pair.second for pair in pair_volumes([one], [coarse, one])] == [1]
    with pytest.raises(EvaluationError, match="16x16 pixels against 8x8"):
        pair_volumes([one], [coarse])


def test_ambiguous_partners_are_refused() -> None:
    one = make_volume(noisy((3, 16, 16)))
    with pytest.raises(EvaluationError, match="2 of the series"):
        pair_volumes([one], [one, one])


def test_among_scans_of_a_phantom_that_stayed_in_place_the_same_voltage_and_thickness_pair() -> (
    None
):
    def scanned(kvp: float, thickness_mm: float) -> CTVolume:
        volume = make_volume(noisy((3, 16, 16)))
        return replace(
            volume,
            acquisition=replace(volume.acquisition, kvp=kvp),
            geometry=replace(volume.geometry, thickness_mm=thickness_mm),
        )

    series = [scanned(kvp, mm) for kvp in (70.0, 120.0) for mm in (1.0, 5.0)]
    pairs = pair_volumes(series, series[::-1])
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 3), (1, 2), (2, 1), (3, 0)]
    assert [pair.second for pair in pair_volumes([scanned(100.0, 1.0)], series[:1])] == [0]
    with pytest.raises(EvaluationError, match="2 of the series"):
        pair_volumes([scanned(100.0, 1.0)], series)
