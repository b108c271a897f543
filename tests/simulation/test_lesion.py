"""Lesions: shape, texture and place, against sums over points and the image of a body."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.simulation.benchmark import LesionTraits
from cvsct.simulation.phantom.lesion import RADIUS_LIMITS, Lesion
from cvsct.simulation.phantom.materials import WATER, basis_amounts
from cvsct.simulation.phantom.phantom import Phantom, RasterGrid, patient

TRAITS = LesionTraits(diameter_mm=20.0, hu=40.0, heterogeneity_hu=25.0, grain_mm=2.4)
CENTRE_MM = (-80.0, 12.0, -61.0)
GRID = RasterGrid(size_px=800, extent_mm=400.0)


def lesions(count: int = 40) -> list[Lesion]:
    return [Lesion(CENTRE_MM, TRAITS, seed) for seed in range(count)]


def test_the_texture_has_unit_variance_and_the_correlation_length_stated() -> None:
    along = np.arange(0.0, 12.0, 0.4)
    lines = np.array([lesion.field(CENTRE_MM[0] + along, *np.array(CENTRE_MM[1:]))
                      for lesion in lesions(400)])  # fmt: skip
    assert np.mean(lines**2) == pytest.approx(1, abs=0.08)
    correlation = np.mean(lines * lines[:, :1], axis=0)
    np.testing.assert_allclose(correlation, np.exp(-(along**2) / 2 / 2.4**2), atol=0.16)


def test_volume_and_reach_follow_from_the_diameter() -> None:
    edge = np.arange(-14.0, 14.0, 0.5)
    z, y, x = np.meshgrid(*(edge + c for c in CENTRE_MM[::-1]), indexing="ij")
    for lesion in lesions(6):
        inside = lesion.distance_mm(x, y, z) < 0
        volume = inside.sum() * 0.5**3
        assert volume == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.3)
        far = np.sqrt((x - CENTRE_MM[0]) ** 2 + (y - CENTRE_MM[1]) ** 2 + (z - CENTRE_MM[2]) ** 2)
        assert far[inside].max() <= lesion.reach_mm == RADIUS_LIMITS[1] * 10


def test_the_mask_is_the_sign_of_the_distance_and_the_contour_its_border() -> None:
    lesion = lesions(1)[0]
    x, y = np.arange(-100.0, -60.0, 0.7), np.arange(-10.0, 40.0, 0.9)
    z = np.array([-64.0, -61.0, -40.0])
    mask = lesion.mask(x, y, z)
    full = lesion.distance_mm(*np.meshgrid(z, y, x, indexing="ij")[::-1]) < 0
    assert np.array_equal(mask, full)
    assert mask[0].any()
    outline = lesion.contour_mm(-64.0)
    assert outline is not None
    assert np.abs(lesion.distance_mm(*outline.T, np.array(-64.0))).max() < 0.06
    a, b = outline.T
    area = abs(np.sum(a * np.roll(b, -1) - b * np.roll(a, -1))) / 2
    assert area == pytest.approx(mask[0].sum() * 0.7 * 0.9, rel=0.05)
    assert lesion.contour_mm(-40.0) is None


def test_a_record_makes_the_same_lesion() -> None:
    lesion = lesions(2)[1]
    assert Lesion.from_record(lesion.record()) == lesion


@pytest.fixture(scope="module")
def body() -> Phantom:
    return patient(7001, TRAITS)


def test_a_bodys_lesion_lies_in_the_lung_and_has_its_traits(body: Phantom) -> None:
    lesion = body.lesion
    assert lesion is not None
    z = lesion.centre_mm[2]
    assert abs(z - sum(body.z_range_mm) / 2) < 10
    plain = patient(7001)
    assert [n.centre_mm for n in plain.nodules] == [n.centre_mm for n in body.nodules]
    assert plain.lesion is None
    soft, plain_soft = body.raster(z, GRID)[0], plain.raster(z, GRID)[0]
    at = (np.arange(GRID.size_px) + 0.5) * GRID.pixel_mm - 200
    distance = lesion.distance_mm(at[None, :], at[:, None], np.array(z))
    assert np.array_equal(soft[distance > 1], plain_soft[distance > 1])
    water_soft, _ = basis_amounts(WATER)
    hu = 1000 * (soft / water_soft - 1)
    assert hu[distance < -1].mean() == pytest.approx(40, abs=30)
    assert hu[distance < -1].std() == pytest.approx(25, rel=0.5)
    assert np.median(1000 * (plain_soft / water_soft - 1)[distance < 3]) < -500
