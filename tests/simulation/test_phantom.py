"""The phantom: anatomy where it belongs, nodules of the volume stated, slices that repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.simulation.phantom.anatomy import patient_body
from cvsct.simulation.phantom.layers import emphysema_holes
from cvsct.simulation.phantom.painting import Canvas
from cvsct.simulation.phantom.phantom import Phantom, RasterGrid, lungman, patient
from cvsct.simulation.phantom.shapes import noise_nodes
from cvsct.simulation.phantom.tissues import tissue

GRID = RasterGrid(256, 400.0)


def hu(amounts: np.ndarray) -> np.ndarray:
    """CT numbers at about 65 keV: polyurethane 0 HU, epoxy bone 356 HU."""
    return 1000 * (amounts[0] + 1.356 * amounts[1] - 1)


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return lungman(3)


@pytest.fixture(scope="module")
def people() -> list[Phantom]:
    return [patient(1), patient(2)]


def axis(grid: RasterGrid) -> np.ndarray:
    return (np.arange(grid.size_px) + 0.5) * grid.pixel_mm - grid.extent_mm / 2


def test_the_same_seed_gives_the_same_bytes_in_any_order(people: list[Phantom]) -> None:
    first = people[0].raster(-40.0, GRID)
    again = patient(1)
    again.raster(10.0, GRID)
    assert again.raster(-40.0, GRID).tobytes() == first.tobytes()
    assert people[0].raster(-40.0, GRID).tobytes() == first.tobytes()
    assert again.nodules[0].centre_mm == people[0].nodules[0].centre_mm


def test_a_slab_is_the_mean_of_its_rasters(chest: Phantom) -> None:
    slab = chest.slab(-30.0, 1.25, GRID)
    rasters = [chest.raster(-30.3125, GRID), chest.raster(-29.6875, GRID)]
    assert slab == pytest.approx(np.mean(rasters, axis=0), abs=1e-6)
    with pytest.raises(UsageError, match="more than 0"):
        chest.slab(0.0, 0.0, GRID)


def test_air_is_exactly_nothing_and_all_amounts_are_bounded(
    chest: Phantom, people: list[Phantom]
) -> None:
    for phantom in (chest, *people):
        for z in np.linspace(*phantom.z_range_mm, 7):
            amounts = phantom.raster(float(z), GRID)
            assert np.isfinite(amounts).all()
            assert not amounts[:, :3].any()
            assert not amounts[:, :, :3].any()
            assert hu(amounts).min() >= -1000.0
            assert hu(amounts).max() < 1900.0
    lungs = chest.raster(-30.0, GRID)
    assert (lungs[:, 20:236, 20:236].max(axis=0) == 0).sum() > 2000  # lungs without parenchyma
    assert lungs.min() >= 0.0
    assert lungs.max() <= 1.1 + 1e-6  # a nodule of +100 HU


def test_bodies_fit_the_field_of_view(chest: Phantom, people: list[Phantom]) -> None:
    x = axis(GRID)
    radius = np.hypot(x[None, :], x[:, None])
    for phantom in (chest, *people):
        for z in np.linspace(*phantom.z_range_mm, 7):
            amounts = phantom.raster(float(z), GRID)
            assert not amounts[:, radius > 175.0].any()
            assert (amounts[0] > 0.5).sum() * GRID.pixel_mm**2 > 20000


def test_organs_lie_where_they_belong(chest: Phantom, people: list[Phantom]) -> None:
    x = axis(GRID)
    for phantom in (chest, *people):
        body = phantom.body
        heart = hu(phantom.raster(-65.0 * body.posture.scale[2], GRID))
        front = (x > -80) & (x < 10)
        soft = (heart > -200) & front[:, None] & (np.abs(x) < 80)[None]
        assert x[np.nonzero(soft)[1]].mean() > 3.0  # apex to the left
        bone = hu(phantom.raster(-20.0, GRID)) > 200
        rows, columns = np.nonzero(bone & (np.abs(x) < 20)[None])
        behind = x[rows] > 0
        assert behind.mean() > 0.6  # spine behind, sternum in front
        assert abs(x[columns][behind].mean()) < 9.0
    one = people[1]
    dome = hu(one.raster((one.body.domes_mm[0] - 12) * one.body.posture.scale[2], GRID))
    solid = (dome > 20) & (dome < 100)
    inner = (np.abs(x) > 30) & (np.abs(x) < 90)
    middle = (x > -50) & (x < 50)
    right = solid[np.ix_(middle, inner & (x < 0))].mean()
    left = solid[np.ix_(middle, inner & (x > 0))].mean()
    assert right > 1.3 * left  # the liver under the higher, right dome


def test_nodules_have_the_place_and_volume_stated(chest: Phantom) -> None:
    bare = replace(chest, nodules=())
    grid = RasterGrid(512, 400.0)
    x = axis(grid)
    assert 8 <= len(chest.nodules) <= 12
    for nodule in [n for n in chest.nodules if n.shape == "spherical"][::5]:
        reach = nodule.diameter_mm / 2 + 1.5
        levels = nodule.centre_mm[2] + np.arange(-reach, reach, 0.6)
        density = (1000 + nodule.hu) / 1000
        extra = np.stack([(chest.raster(z, grid) - bare.raster(z, grid))[0] for z in levels])
        near = np.abs(x - nodule.centre_mm[0]) < reach
        rows = np.abs(x - nodule.centre_mm[1]) < reach
        extra = extra[:, rows][:, :, near]
        volume = extra.sum() / density * 0.6 * grid.pixel_mm**2
        assert volume == pytest.approx(nodule.volume_mm3, rel=0.05)
        assert nodule.volume_mm3 == pytest.approx(np.pi / 6 * nodule.diameter_mm**3, rel=1e-6)
        weights = extra.sum(axis=0)
        centre_x = (weights.sum(axis=0) * x[near]).sum() / weights.sum()
        centre_y = (weights.sum(axis=1) * x[rows]).sum() / weights.sum()
        assert centre_x == pytest.approx(nodule.centre_mm[0], abs=0.3 * grid.pixel_mm)
        assert centre_y == pytest.approx(nodule.centre_mm[1], abs=0.3 * grid.pixel_mm)


def test_areas_change_smoothly_from_slice_to_slice(chest: Phantom) -> None:
    levels = np.arange(-60.0, -56.0, 0.25)
    areas = np.array([chest.raster(z, GRID)[0].sum() for z in levels]) * GRID.pixel_mm**2
    jumps = np.diff(areas, 2)
    assert np.abs(jumps).max() < 0.004 * areas.mean()


def test_edges_are_shared_between_pixels(chest: Phantom) -> None:
    fine = chest.raster(-30.0, RasterGrid(1024, 400.0))[0]
    coarse = chest.raster(-30.0, GRID)[0]
    averaged = fine.reshape(256, 4, 256, 4).mean(axis=(1, 3))
    assert np.abs(averaged - coarse).mean() < 0.01
    assert coarse.sum() == pytest.approx(averaged.sum(), rel=0.005)


def test_patients_differ_and_lungmen_hardly(people: list[Phantom], chest: Phantom) -> None:
    def air(phantom: Phantom, z: float) -> np.ndarray:
        return hu(phantom.raster(z, GRID)) < -400

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / (a | b).sum())

    other = lungman(4)
    assert overlap(air(chest, -50.0), air(other, -50.0)) > 0.93
    assert overlap(air(people[0], -50.0), air(people[1], -50.0)) < 0.93
    assert {n.centre_mm for n in chest.nodules}.isdisjoint(n.centre_mm for n in other.nodules)
    assert 2 <= len(people[0].nodules) <= 8


def test_lungs_of_a_patient_are_denser_behind(people: list[Phantom]) -> None:
    x = axis(GRID)
    for phantom in people:
        image = hu(phantom.raster(-30.0 * phantom.body.posture.scale[2], GRID))
        lung = (image < -600) & (np.abs(x) > 40)[None] & (np.abs(x) < 100)[None]
        front, back = (
            np.median(image[lung & part[:, None]])
            for part in ((x > -60) & (x < -20), (x > 35) & (x < 75))
        )
        assert -950 < front < back - 15 < -660


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_emphysema_destroys_the_share_of_parenchyma_that_is_asked_for(share: float) -> None:
    rng = np.random.default_rng(0)
    noise = tuple(noise_nodes(rng, 72) for _ in range(5))
    body = replace(patient_body(7001), destroyed=share)
    grid = RasterGrid(256, 400.0)
    window = (slice(0, 256), slice(0, 256))
    inside = np.full((256, 256), -50.0, np.float32)
    destroyed = []
    for z_mm in np.arange(-200.0, 120.0, 20.0):
        canvas = Canvas(float(z_mm), grid, noise)
        canvas.prepare_noise(window)
        gradient = (0.12, 0.0, 0.0, 5.0, 0.0, *emphysema_holes(body))
        canvas.paint_lung(window, inside, -inside, gradient, tissue((1.0, 0.0)))
        destroyed.append(np.mean(canvas.amounts[0] < 0.05))
    assert np.mean(destroyed) == pytest.approx(share, rel=0.25)
    with pytest.raises(UsageError, match="expected 0 or more"):
        patient(1, emphysema=0.95)
