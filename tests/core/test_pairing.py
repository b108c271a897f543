"""Which slices show the same place: by geometry alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvsct.core.errors import EvaluationError, GeometryError
from cvsct.core.pairing import nearest_gap_mm, pair_slices, pair_volumes, unpaired_reason
from cvsct.core.volume import CTVolume
from cvsct.evaluation.shared_slices import pairs_to_compare
from tests.conftest import make_volume


def noisy(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(40.0, 30.0, shape).astype(np.float32)


def moved(volume: CTVolume, z_mm: float = 0.0, x_mm: float = 0.0, y_mm: float = 0.0) -> CTVolume:
    shift = np.array([x_mm, y_mm, z_mm])
    positions = volume.geometry.positions_mm + shift
    return replace(volume, geometry=replace(volume.geometry, positions_mm=positions))


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
def test_slices_pair_within_a_tenth_of_a_millimeter(offset_mm: float, count: int) -> None:
    volume = make_volume(noisy((4, 16, 16)))
    assert len(pair_slices(volume, moved(volume, z_mm=offset_mm))) == count


def test_other_grids_are_refused_with_the_figure() -> None:
    volume = make_volume(noisy((3, 16, 16)), pixel_mm=0.7)
    with pytest.raises(GeometryError, match=r"0\.7000 x 0\.7000 mm against 0\.8000 x 0\.8000"):
        pair_slices(volume, make_volume(noisy((3, 16, 16)), pixel_mm=0.8))
    with pytest.raises(GeometryError, match="16x16 pixels against 16x20"):
        pair_slices(volume, make_volume(noisy((3, 16, 20))))
    with pytest.raises(GeometryError, match=r"3\.0 pixels apart"):
        pair_slices(volume, moved(volume, x_mm=2.1))
    assert len(pair_slices(volume, moved(volume, x_mm=0.3, y_mm=-0.3))) == 3
    turned = replace(
        volume.geometry, row_direction=(0.0, 1.0, 0.0), column_direction=(-1.0, 0.0, 0.0)
    )
    with pytest.raises(GeometryError, match="orientations differ"):
        pair_slices(volume, replace(volume, geometry=turned))


def test_an_in_plane_shift_is_measured_along_each_axis() -> None:
    volume = make_volume(noisy((2, 16, 16)))
    oblong = replace(volume, geometry=replace(volume.geometry, pixel_mm=(2.0, 0.5)))
    assert len(pair_slices(oblong, moved(oblong, y_mm=0.9))) == 2  # along y rows are 2 mm apart
    with pytest.raises(GeometryError, match="in plane"):
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
    with pytest.raises(GeometryError, match="16x16 pixels against 8x8"):
        pair_volumes([one], [coarse])


def test_ambiguous_partners_are_refused() -> None:
    one = make_volume(noisy((3, 16, 16)))
    with pytest.raises(GeometryError, match="2 of the series"):
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
    with pytest.raises(GeometryError, match="2 of the series"):
        pair_volumes([scanned(100.0, 1.0)], series)


def test_an_evaluation_refuses_with_its_own_error() -> None:
    one = make_volume(noisy((3, 16, 16)))
    with pytest.raises(EvaluationError, match="2 of the series"):
        pairs_to_compare([one], [one, one])


def test_why_nothing_pairs() -> None:
    volume = make_volume(noisy((3, 16, 16)))
    elsewhere = replace(volume, geometry=replace(volume.geometry, frame_of_reference="9.9"))
    assert unpaired_reason([volume], [elsewhere]) == (
        "source and target series share no frame of reference"
    )
    assert unpaired_reason([volume], [elsewhere], names=("harmonized", "target")).startswith("harm")
    beside = moved(volume, z_mm=2.0)
    assert "nearest slices lie 2.00 mm apart, more than 0.1 mm" in unpaired_reason(
        [volume], [beside]
    )
    assert "different pixel grids" in unpaired_reason([volume], [volume])
