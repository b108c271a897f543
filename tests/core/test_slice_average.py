"""Thin slices averaged to thicker ones: widths, centers and noise, each against its own truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvsct.core.errors import GeometryError
from cvsct.core.slice_average import SliceAverage, average_slices
from cvsct.core.thick_slices import average_of, plan_average, thick_geometry, thick_slices
from cvsct.core.volume import CTVolume
from tests.conftest import make_volume


def thin(count: int, step_mm: float = 1.0, first_mm: float = -37.25) -> np.ndarray:
    return first_mm + step_mm * np.arange(count)


def body_seen(z_mm: np.ndarray, thickness_mm: float) -> np.ndarray:
    """What slices with a box's sensitivity see of a body, from its integral along the normal."""

    def integral(z: np.ndarray) -> np.ndarray:
        return 40 * z - 300 * np.cos(z / 7) + 90 * np.arctan(z - 3) + 0.02 * z**3

    half = thickness_mm / 2
    return (integral(z_mm + half) - integral(z_mm - half)) / thickness_mm


@pytest.mark.parametrize(("step_mm", "times"), [(1.0, 5), (0.625, 8), (1.25, 2), (2.0, 3)])
def test_contiguous_slices_make_exactly_the_thicker_slice(step_mm: float, times: int) -> None:
    z = thin(41, step_mm)
    average = average_slices(z, step_mm, times * step_mm)
    made = average.apply(body_seen(z, step_mm)[:, None, None])[:, 0, 0]
    np.testing.assert_allclose(made, body_seen(average.z_mm, times * step_mm), rtol=1e-12)
    assert len(average) == 41 // times
    assert {len(weights) for weights in average.weights} == {times}


def test_overlapping_slices_that_step_by_whole_thicknesses_are_exact_too() -> None:
    """Slices of 2 mm every 1 mm: averages of every other one would be exact; all come near it."""
    z = thin(40)
    average = average_slices(z, 2.0, 5.0)
    made = average.apply(body_seen(z, 2.0)[:, None, None])[:, 0, 0]
    contrast = np.ptp(body_seen(average.z_mm, 5.0))
    assert np.abs(made - body_seen(average.z_mm, 5.0)).max() < 0.01 * contrast
    apart = average.apply(body_seen(z, 2.0)[:, None, None])[:, 0, 0] - body_seen(average.z_mm, 4.0)
    assert np.abs(made - body_seen(average.z_mm, 5.0)).max() < np.abs(apart).max() / 4


def moments(average: SliceAverage, z: np.ndarray, i: int) -> tuple[float, float]:
    """Mean and variance of the weighted positions of a thicker slice."""
    weights, places = average.weights[i], z[list(average.sources(i))]
    mean = float(weights @ places)
    return mean, float(weights @ (places - mean) ** 2)


@settings(deadline=None)
@example(step=1.0, gap=1.4516815711490665, thicker=1.0, spacing=0.40625)
@given(
    step=st.floats(0.3, 3),
    gap=st.floats(1 / 3, 1.49),
    thicker=st.floats(1, 8),
    spacing=st.none() | st.floats(0.3, 1.2),
)
def test_the_sensitivity_has_the_width_of_the_thicker_slice(
    step: float, gap: float, thicker: float, spacing: float | None
) -> None:
    """A box of width T has the variance T² / 12; so have the weights and the slices' own boxes."""
    thickness = step / gap
    wanted = thicker * thickness
    z = thin(int(4 * (wanted + thickness) / step) + 10, step)
    average = average_slices(z, thickness, wanted, None if spacing is None else spacing * wanted)
    for i, center in enumerate(average.z_mm):
        mean, variance = moments(average, z, i)
        assert np.sqrt(12 * variance + thickness**2) == pytest.approx(wanted, rel=0.025)
        assert mean == pytest.approx(center, abs=0.02 * step)
        assert average.weights[i].sum() == pytest.approx(1)
        assert average.weights[i].min() >= -1 / 16 - 1e-9
        assert average.nearest(i) in average.sources(i)


def test_the_nearest_slice_is_the_middle_one_of_equals() -> None:
    average = average_slices(thin(10), 1.0, 5.0)
    assert [average.nearest(i) for i in range(len(average))] == [2, 7]


def test_averaged_noise_falls_with_the_number_of_slices() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 30, (100, 60, 60))
    made = average_slices(thin(100), 1.0, 5.0).apply(noise)
    assert made.var() == pytest.approx(noise.var() / 5, rel=0.02)


def test_thicker_slices_may_overlap_or_lie_where_they_are_asked_for() -> None:
    z = thin(30, first_mm=0.0)
    assert np.diff(average_slices(z, 1.0, 5.0, 2.5).z_mm) == pytest.approx(2.5)
    wanted = [-3.0, 7.0, 12.0, 17.0, 28.5]
    assert average_slices(z, 1.0, 5.0, to_z_mm=wanted).z_mm.tolist() == [7, 12, 17]


def test_slices_of_that_thickness_stay_as_they_are() -> None:
    average = average_slices(thin(7, 2.5), 5.0, 5.0, 2.5)
    assert [(list(average.sources(i)), average.weights[i].tolist()) for i in range(7)] == [
        ([i], [1.0]) for i in range(7)
    ]


@pytest.mark.parametrize(
    ("count", "step", "thickness", "wanted", "message"),
    [
        (20, 5.0, 5.0, 3.0, "never made up"),
        (20, 1.0, 0.0, 5.0, "tells no slice thickness"),
        (4, 1.0, 1.0, 5.0, "too few"),
        (1, 1.0, 1.0, 5.0, "a single slice"),
        (20, 10.0, 1.0, 20.0, "not seen"),
    ],
)
def test_what_cannot_be_made_is_refused(
    count: int, step: float, thickness: float, wanted: float, message: str
) -> None:
    with pytest.raises(GeometryError, match=message):
        average_slices(thin(count, step), thickness, wanted)


def test_slices_of_3_mm_become_slices_of_5_mm_every_5_mm() -> None:
    """Between two slices four make one of the right thickness, the outer ones a little below 0."""
    average = average_slices(thin(30, 3.0, 0.0), 3.0, 5.0, to_z_mm=[30.0, 31.5])
    on_slice, between = average.weights
    np.testing.assert_allclose(on_slice, [2 / 27, 23 / 27, 2 / 27])
    np.testing.assert_allclose(between, np.array([-1, 20.6, 20.6, -1]) / 39.2, atol=1e-3)


def test_a_gap_between_slices_is_told() -> None:
    assert average_slices(thin(20, 1.25), 1.0, 5.0).gap == pytest.approx(1.25)


def volume_of(hu: np.ndarray, padding: np.ndarray | None = None) -> CTVolume:
    volume = make_volume(hu, spacing_mm=1.0)
    if padding is None:
        return volume
    return CTVolume(**{**vars(volume), "hu": np.where(padding, -1024, volume.hu).astype(np.float32),
                       "padding": padding})  # fmt: skip


def test_padding_is_where_most_of_the_weight_is_padding() -> None:
    hu = np.arange(5.0)[:, None, None] * np.full((1, 1, 6), 10.0)
    padding = np.tril(np.ones((5, 6), dtype=bool), -1)[:, None, :][:, :, ::-1]
    made, padded = average_of(
        [volume_of(hu, padding).select([i]) for i in range(5)], np.full(5, 0.2)
    )
    counts = padding.sum(axis=0)[0]
    np.testing.assert_array_equal(padded[0], counts > 2)
    for column in np.flatnonzero(counts <= 2):
        seen = hu[:, 0, column][~padding[:, 0, column]]
        assert made[0, column] == pytest.approx(seen.mean())
    assert (made[padded] == -1024).all()


def test_each_slice_is_read_once_and_few_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = volume_of(np.random.default_rng(0).normal(size=(60, 4, 5)))
    read: list[int] = []
    whole = CTVolume.read

    def counted(self: CTVolume, start: int = 0, stop: int | None = None) -> CTVolume:
        assert stop is not None
        read.extend(range(start, stop))
        return whole(self, start, stop)

    monkeypatch.setattr(CTVolume, "read", counted)
    average = plan_average(volume.geometry, 5.0, 2.0)
    for i, thick in enumerate(thick_slices(volume, average)):
        assert len(thick.sources) == len(average.weights[i]) <= 7
        assert read[-1] < average.sources(i).stop
        expected = np.tensordot(average.weights[i], volume.hu[list(average.sources(i))], 1)
        np.testing.assert_allclose(thick.hu, expected, atol=1e-5)
    assert read == sorted(set(read))


def test_thicker_slices_lie_on_the_line_of_the_thin_ones() -> None:
    geometry = volume_of(np.zeros((20, 2, 2))).geometry
    average = plan_average(geometry, 4.0)
    thick = thick_geometry(geometry, average)
    np.testing.assert_allclose(thick.z_mm, average.z_mm)
    assert (thick.thickness_mm, thick.spacing_mm) == (4.0, 4.0)


def test_centers_that_are_not_even_are_refused() -> None:
    geometry = volume_of(np.zeros((40, 2, 2))).geometry
    assert plan_average(geometry, 4.0, to_z_mm=[5.0, 11.0, 17.0]).spacing_mm == pytest.approx(6)
    for wanted in ([5.0, 11.0, 18.0], [17.0, 11.0, 5.0]):
        with pytest.raises(GeometryError, match="even distances"):
            plan_average(geometry, 4.0, to_z_mm=wanted)
