"""The slice guard against slices whose every change is known: discs with analytic blurred edges."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import erfc

from cvsct.core.errors import EvaluationError
from cvsct.guard.output_check import (
    SliceChange,
    SliceLimits,
    describe_excess,
    excesses,
    judge_slice,
    learn_slice_limits,
    measure_change,
)

PIXEL_MM = 0.7
Disc = tuple[float, float, float, float]
"""Centre down and across from the middle in mm, radius in mm, contrast in HU."""

CHEST: tuple[Disc, ...] = (
    (0, 0, 150, 1040),
    (-10, -70, 52, -890),
    (-10, 70, 52, -890),
    (90, 0, 14, 500),
    (-30, -60, 4, 800),
    (15, -85, 2.5, 800),
    (-20, 80, 3, 800),
    (10, 60, 1.5, 800),
    (60, -30, 25, 40),
)


def draw(
    discs: tuple[Disc, ...], psf_mm: float, offset_mm: tuple[float, float] = (0, 0), size: int = 512
) -> np.ndarray:
    """Discs in air under a Gaussian blur, as straight edges have it: good to psf over radius."""
    pixel_mm = PIXEL_MM * 512 / size
    where = (np.arange(size) - (size - 1) / 2) * pixel_mm
    image = np.full((size, size), -1000.0)
    for down, across, radius, contrast in discs:
        away = np.hypot(
            where[:, None] - down - offset_mm[0], where[None, :] - across - offset_mm[1]
        )
        image += contrast * 0.5 * erfc((away - radius) / (psf_mm * np.sqrt(2)))
    return image


def noise(hu: float, seed: int, grain_px: float = 0.6) -> np.ndarray:
    """Band-limited noise of a standard deviation."""
    white = np.random.default_rng(seed).standard_normal((512, 512))
    fine = ndimage.gaussian_filter(white, grain_px) - ndimage.gaussian_filter(white, 2 * grain_px)
    return hu * fine / fine.std()


def limits(**changed: float) -> SliceLimits:
    """The least limits, as the most alike good slices would set them; some changed."""
    still = SliceChange(**{field.name: 0.0 for field in fields(SliceChange)})
    return replace(learn_slice_limits([still]), **changed)


BEFORE = draw(CHEST, 0.4) + noise(20, 0)
GOOD = draw(CHEST, 0.7) + 0.5 * noise(20, 0)


def test_an_unchanged_slice_has_not_changed() -> None:
    change = measure_change(BEFORE, BEFORE, PIXEL_MM)
    assert asdict(replace(change, grid_ratio=0.0)) == {f.name: 0.0 for f in fields(SliceChange)}
    assert judge_slice(change, limits()) == ()


@pytest.mark.parametrize("psf_mm", [0.2, 0.3, 0.6, 0.8])
def test_another_sharpness_is_no_failure(psf_mm: float) -> None:
    change = measure_change(draw(CHEST, 0.4), draw(CHEST, psf_mm), PIXEL_MM)
    assert judge_slice(change, limits()) == ()
    assert change.shift_mm < 0.005
    assert abs(change.tissue_shift_hu) < 0.1


@pytest.mark.parametrize("hu", [5.0, 20.0, 60.0])
def test_noise_that_comes_or_goes_is_no_failure(hu: float) -> None:
    # independent noise of 60 HU on both sides reads 4.0 at 8 mm: as high as the least limit
    for before, after in ((0, hu), (hu, 0), (hu, hu)):
        change = measure_change(
            draw(CHEST, 0.4) + noise(before, 1), draw(CHEST, 0.4) + noise(after, 2), PIXEL_MM
        )
        assert (
            judge_slice(change, limits(mottle_hu=10.0, lung_shift_hu=3.0, medium_structure=4.5))
            == ()
        )


@pytest.mark.parametrize("hu", [-5.0, -2.0, 2.0, 20.0])
def test_a_shift_is_measured_with_its_sign(hu: float) -> None:
    change = measure_change(BEFORE, GOOD + hu, PIXEL_MM)
    assert change.tissue_shift_hu == pytest.approx(hu, abs=0.2)
    assert change.lung_shift_hu == pytest.approx(hu, abs=0.3)
    reasons = judge_slice(change, limits())
    assert any(f"soft tissue shifted by {change.tissue_shift_hu:.1f} HU" in one for one in reasons)


def test_an_organ_that_shifts_is_told_from_the_slice() -> None:
    organ = draw(((60, -30, 25, 10),), 0.7) + 1000
    change = measure_change(BEFORE, GOOD + organ, PIXEL_MM)
    assert abs(change.tissue_shift_hu) < 0.5
    assert change.regional_shift_hu == pytest.approx(10, rel=0.25)
    assert measure_change(BEFORE, GOOD, PIXEL_MM).regional_shift_hu < 2


@pytest.mark.parametrize("pixels", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.6, -0.8)])
def test_a_displacement_is_measured_whatever_the_sharpness(
    pixels: float, direction: tuple[float, float]
) -> None:
    down, across = (pixels * PIXEL_MM * part for part in direction)
    moved = draw(CHEST, 0.7, (down, across)) + 0.5 * noise(20, 0)
    change = measure_change(BEFORE, moved, PIXEL_MM)
    assert change.shift_mm == pytest.approx(pixels * PIXEL_MM, rel=0.05)
    assert any("moved" in reason for reason in judge_slice(change, limits()))


def test_a_place_that_moves_is_told_from_a_slice_that_stays() -> None:
    other = tuple((d, a + 1.0, r, c) if r == 52 and a > 0 else (d, a, r, c) for d, a, r, c in CHEST)
    change = measure_change(BEFORE, draw(other, 0.7) + 0.5 * noise(20, 0), PIXEL_MM)
    assert change.shift_mm < 0.5
    assert change.local_shift_mm == pytest.approx(1.0, rel=0.15)
    assert measure_change(BEFORE, GOOD, PIXEL_MM).local_shift_mm < 0.1


@pytest.mark.parametrize(
    ("nodule", "field"),
    [
        ((20, -60, 2.0, 400), "small_structure"),
        ((20, -60, 4.0, 200), "medium_structure"),
        ((20, -60, 7.5, 100), "medium_structure"),
        ((0, 0, 5.0, 80), "medium_structure"),
        ((0, 0, 8.0, -60), "medium_structure"),
    ],
)
@pytest.mark.parametrize("erased", [False, True])
def test_a_nodule_that_one_image_lacks_stands_out(nodule: Disc, field: str, erased: bool) -> None:
    lump = draw((nodule,), 0.5) + 1000
    good = measure_change(BEFORE, GOOD, PIXEL_MM)
    pair = (BEFORE + lump, GOOD) if erased else (BEFORE, GOOD + lump)
    change = measure_change(*pair, PIXEL_MM)
    assert getattr(change, field) > 2 * max(getattr(good, field), 5.0)
    assert any("came or went" in reason for reason in judge_slice(change, limits()))


def test_a_nodule_that_both_images_show_is_no_failure() -> None:
    lump, soft = (draw(((20, -60, 4.0, 600),), psf) + 1000 for psf in (0.4, 0.7))
    change = measure_change(BEFORE + lump, GOOD + soft, PIXEL_MM)
    assert judge_slice(change, limits()) == ()


@pytest.mark.parametrize("period", [2, 4])
def test_a_checkerboard_is_seen(period: int) -> None:
    rows, columns = np.indices(BEFORE.shape) // (period // 2)
    board = 5.0 * (1 - 2 * ((rows + columns) % 2))
    assert measure_change(BEFORE, GOOD, PIXEL_MM).grid_ratio < 2
    assert measure_change(BEFORE, GOOD + board, PIXEL_MM).grid_ratio > 4


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_the_pixel_grid_does_not_matter(size: int) -> None:
    pixel_mm = PIXEL_MM * 512 / size
    before = draw(CHEST, 0.7, size=size)
    after = draw(CHEST, 0.7, (0.5, 0), size=size) + 4
    change = measure_change(before, after, pixel_mm)
    assert change.shift_mm == pytest.approx(0.5, rel=0.07)
    assert change.tissue_shift_hu == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("shape", [(512, 512), (40, 300), (20, 20), (3, 5)])
def test_a_slice_without_a_patient_gives_no_alarm(shape: tuple[int, int]) -> None:
    air = np.full(shape, -1024.0)
    change = measure_change(air, air + 3, PIXEL_MM)
    assert judge_slice(change, limits()) == ()
    assert all(np.isfinite(list(asdict(change).values())))


def test_padding_of_any_value_below_air_is_air() -> None:
    padded_before, padded_after = BEFORE.copy(), GOOD.copy()
    padded_before[:60], padded_after[:60] = -1024, -1024
    expected = measure_change(padded_before, padded_after, PIXEL_MM)
    padded_before[:60], padded_after[:60] = -2000, -3024
    assert measure_change(padded_before, padded_after, PIXEL_MM) == expected


def test_limits_lie_above_what_good_slices_read() -> None:
    changes = [
        measure_change(BEFORE, draw(CHEST, psf) + 0.5 * noise(20, seed), PIXEL_MM)
        for psf, seed in ((0.6, 3), (0.7, 4), (0.8, 5))
    ]
    found = learn_slice_limits(changes)
    assert all(judge_slice(change, found) == () for change in changes)
    for name, limit in found.to_json().items():
        assert limit >= 1.2 * max(abs(getattr(change, name)) for change in changes)


def test_output_that_is_not_good_sets_no_limits() -> None:
    """Half of the soft tissue 60 HU up: the limits stay where tissue may not go."""
    left = np.where(np.arange(512)[None, :] < 256, 60.0, 0.0) * (draw(CHEST, 0.7) > -200)
    changes = [measure_change(BEFORE, GOOD + left, PIXEL_MM)] * 3
    found = learn_slice_limits(changes)
    beyond = excesses(changes)
    assert beyond["regional_shift_hu"] > 20
    assert found.regional_shift_hu == 8.0
    assert judge_slice(changes[0], found) != ()
    told = describe_excess("regional_shift_hu", beyond["regional_shift_hu"])
    assert "highest limit 8" in told
    assert "organ or a lesion" in told
    assert excesses([measure_change(BEFORE, GOOD, PIXEL_MM)]) == {}


def test_limits_of_older_models_are_brought_down() -> None:
    wide = limits(regional_shift_hu=25.9, mottle_hu=1.7)
    assert wide.within_highest() == replace(wide, regional_shift_hu=8.0)


def test_limits_come_back_from_json() -> None:
    found = limits(small_structure=7.25, lung_shift_hu=2.5)
    assert SliceLimits.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_limits_that_are_none_are_refused() -> None:
    good = limits().to_json()
    for record, what in (
        ({k: v for k, v in good.items() if k != "shift_mm"}, "shift_mm"),
        ({**good, "more": 1.0}, "more"),
        ({**good, "shift_mm": float("nan")}, "positive number"),
        ({**good, "shift_mm": -1}, "positive number"),
        ({**good, "shift_mm": "1"}, "positive number"),
        ({**good, "shift_mm": True}, "positive number"),
    ):
        with pytest.raises(EvaluationError, match=what):
            SliceLimits.from_json(record)
    with pytest.raises(EvaluationError, match="at least one"):
        learn_slice_limits([])


def test_a_judgement_names_value_limit_and_meaning() -> None:
    change = measure_change(BEFORE, GOOD, PIXEL_MM)
    bad = replace(change, tissue_shift_hu=-6.4, local_shift_mm=0.8)
    first, second = judge_slice(bad, limits(local_shift_mm=0.3))
    assert first.startswith("soft tissue shifted by -6.4 HU (limit 1.00)")
    assert second.startswith("edges moved by 0.80 mm in one place (limit 0.30)")
    (only,) = judge_slice(replace(change, shift_mm=float("nan")), limits())
    assert "whole slice" in only
