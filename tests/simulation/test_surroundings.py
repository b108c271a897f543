"""Table and arms: their attenuation, their place, and that they leave the body alone."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import GeometryError
from cvsct.simulation.phantom import surroundings
from cvsct.simulation.phantom.materials import BASIS, CARBON_FIBRE, TABLE_FOAM
from cvsct.simulation.phantom.surroundings import BodyOutline, Surroundings, beside
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.physics.scan import VirtualScanner

OUTLINE = BodyOutline(0.0, 0.0, 165.0, 110.0)
SIZE, EXTENT_MM = 640, 500.0
KEV = np.array([60.0])


def attenuation(amounts: np.ndarray) -> np.ndarray:
    """Attenuation per mm at 60 keV of two maps, or logarithmic attenuation of two paths."""
    soft, bone = (float(material.attenuation_per_mm(KEV)[0]) for material in BASIS)
    return amounts[0] * soft + amounts[1] * bone


@pytest.mark.parametrize("name", ["ge-revolution-evo", "siemens-somatom-force"])
def test_the_table_attenuates_the_ap_ray_as_its_layers_do(name: str) -> None:
    table = Surroundings(OUTLINE, table=True, arms="up").amounts(SIZE, EXTENT_MM)
    (paths,) = VirtualScanner(load_definition(name)).paths(table, EXTENT_MM)
    middle = paths.shape[2] // 2
    skin = 2 * surroundings.TABLE_SKIN_MM
    expected = skin * float(CARBON_FIBRE.attenuation_per_mm(KEV)[0]) + (
        surroundings.TABLE_THICK_MM - skin
    ) * float(TABLE_FOAM.attenuation_per_mm(KEV)[0])
    half_turn = paths.shape[1] // 2
    for view in (0, half_turn):
        measured = attenuation(paths[:, view, middle - 8 : middle + 8]).mean()
        assert measured == pytest.approx(expected, rel=0.03)
    assert 0.03 < expected < 0.15  # a table is worth a few mm of water, under 1.5 mm of aluminium


def test_arms_are_two_cylinders_with_bone_beside_the_body() -> None:
    arms = Surroundings(OUTLINE, table=False, arms="side").amounts(SIZE, EXTENT_MM)
    map_ = attenuation(arms)
    assert map_ == pytest.approx(map_[:, ::-1], abs=1e-6)
    pixel = EXTENT_MM / SIZE
    place = (np.arange(SIZE) + 0.5) * pixel - EXTENT_MM / 2
    filled = (map_ > 0.5 * map_[map_ > 0].mean()) & (place[None] > 0)
    assert filled.sum() * pixel**2 == pytest.approx(np.pi * surroundings.ARM_MM**2, rel=0.02)
    assert (arms[1] > 0.5).sum() > 0
    x, y = np.meshgrid(place, place)
    assert np.hypot(x, y)[map_ != 0].max() <= surroundings.SEEN_MM + pixel
    inside = (x / OUTLINE.half_width_mm) ** 2 + (y / OUTLINE.half_depth_mm) ** 2 < 1
    assert not map_[inside].any()


def test_arms_of_a_wide_body_lie_further_forward_and_of_a_vast_one_nowhere() -> None:
    lines = []
    for half_width in (130.0, 170.0):
        outline = BodyOutline(0.0, 0.0, half_width, 110.0)
        amounts = Surroundings(outline, table=False, arms="side").amounts(320, EXTENT_MM)
        lines.append(np.average(np.arange(320), weights=amounts.sum(axis=(0, 2))))
    assert lines[1] < lines[0] - 10
    vast = Surroundings(BodyOutline(0.0, 0.0, 230.0, 200.0), table=True, arms="side")
    with pytest.raises(GeometryError, match=r"choose a smaller body|no room for the arms"):
        vast.amounts(320, EXTENT_MM)


def test_the_outline_is_the_box_of_what_is_filled() -> None:
    filled = np.zeros((100, 100), bool)
    filled[20:60, 30:90] = True
    outline = BodyOutline.of(filled, 400.0)
    assert outline == BodyOutline(40.0, -40.0, 120.0, 80.0)
    with pytest.raises(GeometryError, match="empty"):
        BodyOutline.of(np.zeros((4, 4), bool), 400.0)


def test_the_body_covers_what_it_lies_on_and_stays_as_it_was() -> None:
    body = np.zeros((2, 64, 64), np.float32)
    body[0, 20:40, 20:40] = 1.0
    body[0, 19, 20:40] = 0.25
    around = np.full((2, 80, 80), 0.5, np.float32)
    both = beside(body, around)
    assert both.shape == around.shape
    assert (both[0, 28:48, 28:48] == 1.0).all()
    assert both[0, 27, 30] == pytest.approx(0.25 + 0.75 * 0.5)
    assert (both[:, :8] == 0.5).all()
