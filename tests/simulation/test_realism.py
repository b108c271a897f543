"""Patients look like CT: their parts lie within published ranges, or those of real slices.

Real ranges are those of notebook/realism.md: the left lung of one patient in 14 slices of 8 mm, and
tissue of that patient and of others where the page names them.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cvsct.simulation.phantom.phantom import Phantom, RasterGrid, lungman, patient
from cvsct.simulation.phantom.shapes import Tubes
from cvsct.simulation.phantom.vessels import airway_walls

GRID = RasterGrid(512, 400.0)


def hu(amounts: np.ndarray) -> np.ndarray:
    """CT numbers at about 65 keV: polyurethane 0 HU, epoxy bone 356 HU."""
    return 1000 * (amounts[0] + 1.356 * amounts[1] - 1)


def points_at(z_mm: float) -> np.ndarray:
    """Scanner coordinates of all pixels of a slice."""
    axis = GRID.first_mm + GRID.pixel_mm * np.arange(GRID.size_px)
    x, y = np.meshgrid(axis, axis)
    return np.stack((x, y, np.full_like(x, z_mm)), axis=-1).reshape(-1, 3)


@pytest.fixture(scope="module")
def people() -> list[Phantom]:
    return [patient(2), patient(3)]


@pytest.mark.parametrize(
    ("parenchyma", "moments"),
    [
        (False, (331333.30421498837, 329885.8469822119, 336526.5628884512, 335165.235265158)),
        (True, (352270.4169289917, 350894.8093146704, 358031.0494901254, 356734.02015639545)),
    ],
)
def test_the_papers_phantom_is_what_it_was(parenchyma: bool, moments: tuple[float, ...]) -> None:
    chest = lungman(3, parenchyma)
    ramp = np.linspace(0.5, 1.5, GRID.size_px)
    planes = np.stack([chest.raster(z, GRID) for z in (-120.0, -60.0, -20.0, 30.0)])
    weights = (1.0, ramp, ramp[:, None], ramp * ramp[:, None])
    measured = [float((planes.astype(float) * weight).sum()) for weight in weights]
    assert measured == pytest.approx(moments, rel=1e-7)


def vessel_shares(body: Phantom) -> dict[tuple[int, int, int], float]:
    """Share of the left lung above its median by so many HU, by distance from the chest wall.

    In slabs of 8 mm, blurred as by a soft kernel.
    """
    shares: dict[tuple[int, int, int], list[float]] = {}
    for level in (-75.0, -45.0, 10.0):
        z_mm = level * body.body.posture.scale[2]
        planes = [body.raster(z_mm + step, GRID) for step in np.linspace(-3.5, 3.5, 6)]
        image = hu(np.mean(planes, axis=0))
        smooth = ndimage.gaussian_filter(image, 0.9 / GRID.pixel_mm)
        points = points_at(z_mm)
        torso, organs = body.anatomy.torso, body.anatomy.organs
        depth = -torso.cavity.at(points).reshape(image.shape)
        inside = organs.fields["mediastinum"].at(points).reshape(image.shape) > 4.0
        inside &= torso.diaphragm.at(points).reshape(image.shape) > 8.0
        inside &= (points[:, 0] > 0).reshape(image.shape)
        middle = float(np.median(smooth[inside & (depth > 4.0)]))
        for low, high in ((5, 12), (12, 18)):
            band = inside & (depth >= low) & (depth < high)
            for rise in (80, 200):
                share = float((smooth[band] > middle + rise).mean())
                shares.setdefault((rise, low, high), []).append(share)
    return {key: float(np.median(values)) for key, values in shares.items()}


def test_vessels_reach_the_pleura_and_are_thin_there(people: list[Phantom]) -> None:
    for body in people:
        share = vessel_shares(body)
        assert 0.01 < share[80, 5, 12] < 0.13  # real: 0.008 to 0.11
        assert 0.03 < share[80, 12, 18] < 0.17  # real: 0.05 to 0.15
        assert share[200, 5, 12] < 0.007  # real: at most 0.006
        assert share[200, 12, 18] < 0.025  # real: at most 0.020


def nearest(points: np.ndarray, tubes: Tubes) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the nearest tube's axis, and its radius there."""
    way = (tubes.ends - tubes.starts).astype(float)
    from_start = points[:, None] - tubes.starts[None]
    t = (from_start * way).sum(axis=2) / np.maximum((way * way).sum(axis=1), 1e-9)
    t = np.clip(t, 0, 1)
    apart = np.linalg.norm(from_start - t[..., None] * way, axis=2)
    radius = tubes.radii[:, 0] + t * (tubes.radii[:, 1] - tubes.radii[:, 0])
    index = np.argmin(apart - radius, axis=1)
    rows = np.arange(len(points))
    return apart[rows, index], radius[rows, index]


def test_airways_have_walls_and_run_beside_arteries(people: list[Phantom]) -> None:
    trees = people[0].anatomy.trees
    airways = trees.airways
    small = np.flatnonzero((airways.radii[:, 1] > 0.7) & (airways.radii[:, 1] < 1.6))
    assert len(small) > 100  # several generations below the lobar bronchi
    lumen = airways.radii[small, 1]
    ratio = lumen / airway_walls(airways).radii[small, 1]
    assert ratio.min() > 0.51  # lumen over outer diameter in healthy people (PubMed 7790543)
    assert ratio.max() < 0.86
    assert 0.60 < ratio.mean() < 0.72
    ends = airways.ends[small][::5].astype(float)
    apart, radius = nearest(ends, trees.vessels.tubes)
    touching = radius + airway_walls(airways).radii[small][::5, 1]
    assert np.median(apart / touching) == pytest.approx(1.0, abs=0.15)
    to_artery = np.median(lumen[::5] / radius)
    assert 0.36 < to_artery < 0.88  # 0.62 +- 2 x 0.13 in healthy people (PubMed 9071307)
    joined = np.concatenate((airways.ends, airways.starts)).astype(float)
    gap = np.linalg.norm(airways.starts[small][:, None] - joined[None], axis=2)
    assert np.sort(gap, axis=1)[:, 1].max() < 0.01  # each starts where another ends


def test_fat_is_divided_and_holds_vessels(people: list[Phantom]) -> None:
    for body in people:
        z_mm = -40.0 * body.body.posture.scale[2]
        image = hu(body.raster(z_mm, GRID))
        points = points_at(z_mm)
        torso = body.anatomy.torso
        skin = torso.skin.at(points).reshape(image.shape)
        fascia = torso.fascia.at(points).reshape(image.shape)
        smooth = ndimage.gaussian_filter(image, 1.0 / GRID.pixel_mm)
        fat = smooth[(skin < -4.5) & (fascia > 2.5)]
        middle = float(np.median(fat))
        assert -125 < middle < -75  # real slices: medians of -118 to -71
        strands = float((fat > middle + 30).mean())
        assert 0.03 < strands < 0.25  # real slices: 0.07 to 0.19
        assert fat.max() < 120


def test_muscle_is_in_bundles_with_fat_between(people: list[Phantom]) -> None:
    body = people[0]
    z_mm = -40.0 * body.body.posture.scale[2]
    image = hu(body.raster(z_mm, GRID))
    muscle = body.anatomy.torso.muscle.at(points_at(z_mm)).reshape(image.shape) < -1.5
    bone = ndimage.binary_dilation(image > 150, iterations=3)
    values = image[muscle & ~bone]
    assert 35 < np.median(values) < 65
    assert 0.02 < (values < 0).mean() < 0.25
    assert values.min() < -80  # fat itself, not a darker muscle


def test_vertebrae_are_as_deep_as_wide_with_a_marrow_of_their_own(people: list[Phantom]) -> None:
    for body in people:
        scale = body.body.posture.scale
        z_mm = -33.5 * scale[2]  # the middle of the seventh thoracic vertebra
        image = hu(body.raster(z_mm, GRID))
        points = points_at(z_mm)
        spine = body.anatomy.skeleton.spine.at(points).reshape(image.shape)
        rows = np.flatnonzero((spine < 0).any(axis=1))
        front = GRID.first_mm + GRID.pixel_mm * rows[0]
        y = points[:, 1].reshape(image.shape)
        x = points[:, 0].reshape(image.shape)
        level = (y > front) & (y < front + 22.0 * scale[1]) & (spine < 0)
        width = np.ptp(x[level]) / scale[0]
        assert 25 < width < 33  # 29 +- 2 SD (Panjabi et al. 1991)
        marrow = image[level & (spine < -4.0)]
        assert 30 < np.median(marrow) < 260
        assert 15 < np.diff(np.percentile(marrow, (16, 84)))[0] < 200  # trabeculae
