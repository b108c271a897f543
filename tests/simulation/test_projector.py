"""The projector against its adjoint and the analytic sinogram of a disc."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import GeometryError
from cvsct.simulation.physics.projector import FanGeometry, project, project_adjoint
from tests.support.slices import disc

EXTENT_MM = 400.0


@pytest.fixture(scope="module")
def fan() -> FanGeometry:
    """A coarse GE-like gantry with an offset detector; 45 degree rays lie inside its views."""
    return FanGeometry(541.0, views=64, elements=444, element_rad=0.00216, offset_rad=0.0005)


def test_projection_and_adjoint_agree(fan: FanGeometry) -> None:
    rng = np.random.default_rng(0)
    size = 96
    place = (np.arange(size) + 0.5) * (EXTENT_MM / size) - EXTENT_MM / 2
    inside = place[:, None] ** 2 + place[None] ** 2 < 195.0**2
    amounts = (rng.random((2, size, size)) * inside).astype(np.float32)
    lines = rng.standard_normal((fan.views, fan.elements, 2)).astype(np.float32)
    forward = np.vdot(project(amounts, EXTENT_MM, fan).astype(np.float64), lines)
    backward = np.vdot(amounts.astype(np.float64), project_adjoint(lines, EXTENT_MM, size, fan))
    assert forward == pytest.approx(backward, rel=2e-5)


def test_sinogram_of_a_disc_is_the_analytic_one(fan: FanGeometry) -> None:
    radius, centre = 80.0, (45.0, -35.0)
    amounts = np.zeros((2, 1024, 1024), np.float32)
    amounts[0] = disc(1024, EXTENT_MM, radius, centre)
    amounts[1] = 0.5 * disc(1024, EXTENT_MM, 30.0, (-70.0, 20.0))
    lines = project(amounts, EXTENT_MM, fan)

    fine = 9  # an element's reading is the mean over its strip
    offsets = (np.arange(fine) - (fine - 1) / 2) / fine * fan.element_rad
    gamma = fan.centre_rad[:, None] + offsets
    for basis, scale, (x, y), r in ((0, 1.0, centre, radius), (1, 0.5, (-70.0, 20.0), 30.0)):
        angle = fan.view_rad[:, None, None] - gamma
        distance = 541.0 * np.sin(gamma) - (x * np.cos(angle) + y * np.sin(angle))
        chord = scale * 2 * np.sqrt(np.maximum(r**2 - distance**2, 0)).mean(axis=-1)
        error = lines[:, :, basis] - chord
        assert np.abs(error.mean()) < 2e-3  # mm: nothing is lost or gained
        assert np.sqrt((error**2).mean()) < 0.12 * scale
        deep = (np.abs(distance) < 0.9 * r).all(axis=-1)
        assert np.abs(error[deep]).max() < 0.3 * scale


def test_air_beside_the_object_projects_to_nothing(fan: FanGeometry) -> None:
    amounts = np.zeros((2, 256, 256), np.float32)
    amounts[0] = disc(256, EXTENT_MM, 50.0)
    lines = project(amounts, EXTENT_MM, fan)
    outside = np.abs(541.0 * np.sin(fan.centre_rad)) > 54.0
    assert not lines[:, outside].any()
    assert not lines[:, :, 1].any()


def test_an_object_beyond_the_detector_is_refused(fan: FanGeometry) -> None:
    narrow = FanGeometry(541.0, views=8, elements=100, element_rad=0.002)
    amounts = np.zeros((2, 64, 64), np.float32)
    amounts[0, 32, 2] = 1
    with pytest.raises(GeometryError, match=r"reaches 1\d\d mm.*sees 5\d mm"):
        project(amounts, EXTENT_MM, narrow)
