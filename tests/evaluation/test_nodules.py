"""Nodules in images against spheres whose CT number and volume are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.nodule_truth import (
    NoduleTruth,
    nodules_of,
    read_nodules,
    sphere_diameter_mm,
)
from cvsct.evaluation.image.nodules import (
    compare_nodules,
    measure_nodule,
    measure_nodules,
    summarize_nodules,
)
from tests.conftest import make_volume
from tests.support.bodies import noise

PIXEL_MM, FINE, MATRIX = 0.7, 4, 64
BACKGROUND_HU = -870.0


def truth(diameter_mm: float, hu: float, centre_mm: tuple[float, float, float]) -> NoduleTruth:
    volume_mm3 = np.pi / 6 * diameter_mm**3
    return NoduleTruth("body", 1, centre_mm, diameter_mm, hu, "spherical", volume_mm3)


def sphere(
    nodule: NoduleTruth, thickness_mm: float, sigma_mm: float = 0.4, noise_hu: float = 0.0
) -> CTVolume:
    """A sphere in lung seen by a Gaussian blur in plane and slices of a box profile."""
    slices = 2 * int(np.ceil(12 / thickness_mm)) + 1
    step_mm = PIXEL_MM / FINE
    position_mm = (np.arange(MATRIX * FINE) - (FINE - 1) / 2) * step_mm
    x, y, z = nodule.centre_mm
    distance_mm = np.hypot((position_mm - y)[:, None], position_mm - x)
    planes = []
    for index in range(slices):
        middle = (index - slices // 2) * thickness_mm
        share = np.zeros(distance_mm.shape)
        for part in (np.arange(20) + 0.5) / 20 - 0.5:
            chord_mm2 = nodule.diameter_mm**2 / 4 - (middle + part * thickness_mm - z) ** 2
            share += np.clip((np.sqrt(max(chord_mm2, 0)) - distance_mm) / step_mm + 0.5, 0, 1) / 20
        smooth = ndimage.gaussian_filter(share, sigma_mm / step_mm)
        planes.append(smooth.reshape(MATRIX, FINE, MATRIX, FINE).mean(axis=(1, 3)))
    hu = BACKGROUND_HU + (nodule.hu - BACKGROUND_HU) * np.stack(planes)
    hu = hu + noise(hu.shape, noise_hu, 0.3, np.random.default_rng(4)) if noise_hu else hu
    volume = make_volume(hu, thickness_mm, PIXEL_MM)
    positions = volume.geometry.positions_mm - [0, 0, (slices // 2) * thickness_mm]
    return replace(volume, geometry=replace(volume.geometry, positions_mm=positions))


@pytest.mark.parametrize(
    ("diameter_mm", "thickness_mm", "z_mm"),
    [
        (8.0, 1.0, 0.3),
        (10.0, 1.0, 0.0),
        (10.0, 3.0, 0.6),
        (12.0, 3.0, 1.2),
        (10.0, 5.0, 0.0),
        (12.0, 5.0, 0.4),
    ],
)
@pytest.mark.parametrize("hu", [100.0, -630.0])
def test_a_sphere_comes_back(
    diameter_mm: float, thickness_mm: float, z_mm: float, hu: float
) -> None:
    nodule = truth(diameter_mm, hu, (21.3, 22.9, z_mm))
    measured = measure_nodule(sphere(nodule, thickness_mm), nodule)
    assert measured.reason == ""
    assert measured.core_hu == pytest.approx(hu, abs=0.005 * abs(hu - BACKGROUND_HU))
    assert measured.volume_error == pytest.approx(0, abs=0.01)
    assert measured.diameter_error_mm == pytest.approx(0, abs=0.05)
    assert measured.excess_share == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sigma_mm", [0.25, 0.7])
def test_a_kernel_does_not_change_the_volume(sigma_mm: float) -> None:
    nodule = truth(10.0, 100.0, (22.0, 22.0, 0.0))
    measured = measure_nodule(sphere(nodule, 3.0, sigma_mm), nodule)
    assert measured.volume_error == pytest.approx(0, abs=0.02)
    assert measured.excess_share == pytest.approx(1, abs=0.01)


def test_noise_of_a_lung_kernel_leaves_a_tenth() -> None:
    nodule = truth(10.0, 100.0, (22.0, 22.0, 0.5))
    measured = measure_nodule(sphere(nodule, 1.0, noise_hu=120.0), nodule)
    assert measured.hu_error == pytest.approx(0, abs=30)
    assert measured.volume_error == pytest.approx(0, abs=0.1)
    assert measured.noise_hu == pytest.approx(120, rel=0.15)


def test_too_thin_a_nodule_says_so_and_keeps_its_excess() -> None:
    nodule = truth(5.0, 100.0, (22.0, 22.0, 1.1))
    measured = measure_nodule(sphere(nodule, 5.0), nodule)
    assert measured.core_hu is None
    assert measured.volume_mm3 is None
    assert measured.hu_error is measured.volume_error is measured.diameter_error_mm is None
    assert measured.reason == "too thin: 0 voxels of 5 mm slices lie wholly inside its 5 mm"
    assert measured.excess_share == pytest.approx(1, abs=0.02)
    assert measure_nodule(sphere(nodule, 1.0), nodule).excess_share == pytest.approx(1, abs=0.02)


def test_too_faint_a_nodule_says_so() -> None:
    nodule = truth(5.0, -800.0, (22.0, 22.0, 0.0))
    measured = measure_nodule(sphere(nodule, 5.0, noise_hu=80.0), nodule)
    assert measured.volume_mm3 is None
    assert measured.reason.startswith("too faint: noise of")


@pytest.mark.parametrize("centre_mm", [(22.0, 22.0, 16.0), (22.0, 3.0, 0.0), (44.0, 22.0, 0.0)])
def test_a_nodule_cut_off_by_the_images_is_not_measured(centre_mm: tuple[float, ...]) -> None:
    volume = sphere(truth(10.0, 100.0, (22.0, 22.0, 0.0)), 5.0)
    x, y, z = centre_mm
    measured = measure_nodule(volume, truth(10.0, 100.0, (x, y, z)))
    assert measured.reason.startswith("lies outside")
    assert measured.background_hu is None


def test_errors_are_summed_up_over_what_was_measured() -> None:
    nodule = truth(10.0, 100.0, (22.0, 22.0, 0.0))
    brighter = replace(nodule, hu=110.0)
    away = truth(10.0, 100.0, (22.0, 22.0, 99.0))
    measured = summarize_nodules(measure_nodules(sphere(nodule, 1.0), [nodule, brighter, away]))
    assert (measured.seen, measured.measured) == (2, 2)
    assert measured.hu_error == pytest.approx(5.0, abs=3)
    assert measured.to_json()["volume_error"] == pytest.approx(0, abs=0.02)
    nothing = summarize_nodules([])
    assert nothing.measured == 0
    assert nothing.hu_error is None


def test_the_benchmarks_table(tmp_path: Path) -> None:
    path = tmp_path / "nodules.csv"
    header = "body,nodule,x_mm,y_mm,z_mm,diameter_mm,hu,shape,volume_mm3\n"
    path.write_text(header + "lungman-0001,2,1.5,-2.0,3.25,8.0,-630.0,spiculated,300.0\n")
    (nodule,) = read_nodules(path)
    assert nodule == NoduleTruth(
        "lungman-0001", 2, (1.5, -2.0, 3.25), 8.0, -630.0, "spiculated", 300.0
    )
    assert nodule.radius_mm == pytest.approx(7.2)
    assert sphere_diameter_mm(np.pi / 6 * 8**3) == pytest.approx(8.0)
    path.write_text(header.replace("shape", "form"))
    with pytest.raises(EvaluationError, match="no column 'shape'"):
        read_nodules(path)
    path.write_text(header + "a,1,x,0,0,5,100,spherical,65\n")
    with pytest.raises(EvaluationError, match="could not convert"):
        read_nodules(path)


def with_patient(volume: CTVolume, patient: str) -> CTVolume:
    header = pydicom.Dataset()
    header.PatientID = patient
    return replace(volume, headers=(header,) * len(volume.hu))


def test_sides_are_compared_over_the_nodules_that_all_of_them_tell() -> None:
    nodule = truth(10.0, 100.0, (22.0, 22.0, 0.0))
    faint = replace(nodule, number=2, hu=-860.0)
    other = replace(nodule, body="another")
    thin, noisy = sphere(nodule, 1.0), sphere(nodule, 1.0, noise_hu=100.0)
    sides = {
        "source": [with_patient(noisy, "cvsct-body")],
        "target": [with_patient(thin, "cvsct-body")],
    }
    measured = compare_nodules(sides, [nodule, faint, other])
    assert [len(nodules) for nodules in measured.figures.values()] == [2, 2]
    assert measured.figures["source"][1].reason.startswith("too faint")
    assert measured.figures["target"][1].volume_mm3 is not None
    assert measured.summary["source"].measured == measured.summary["target"].measured == 1
    assert measured.summary["target"].seen == 2
    assert measured.summary["target"].volume_error == pytest.approx(0, abs=0.02)
    assert measured.to_json()["summary"]["source"]["measured"] == 1
    assert compare_nodules({"target": [thin]}, [nodule]).figures == {"target": ()}


def test_a_volumes_nodules_are_those_of_its_body() -> None:
    nodule = truth(10.0, 100.0, (22.0, 22.0, 0.0))
    volume = sphere(nodule, 5.0)
    assert nodules_of([nodule], volume) == ()
    assert nodules_of([nodule], with_patient(volume, "cvsct-body")) == (nodule,)
    assert nodules_of([nodule], with_patient(volume, "cvsct-somebody")) == ()
