"""Noise power from patients' tissue against noise of known power in a body with anatomy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.image.mean_image import MeanImage
from cvsct.evaluation.image.noise import homogeneous_regions, tissue_noise
from tests.conftest import make_volume
from tests.support.bodies import noise, noise_power, seen, trunk

PIXEL_MM = 0.7
SLICES = 24
PLANE = seen(trunk(3), 0.7)


def scanned(sd_hu: float, peak_per_px: float, seed: int, structure_hu: float = 0.0) -> np.ndarray:
    """The same anatomy in every slice, with muscle as uneven as wanted, and noise."""
    rng = np.random.default_rng(99)
    uneven = ndimage.gaussian_filter(rng.normal(0, 1, PLANE.shape), 6)
    anatomy = PLANE + structure_hu * uneven / uneven.std() * (np.abs(PLANE - 40) < 20)
    shape = (SLICES, *PLANE.shape)
    return anatomy + noise(shape, sd_hu, peak_per_px, np.random.default_rng(seed))


@pytest.mark.parametrize(("sd_hu", "peak_per_px"), [(20.0, 0.15), (60.0, 0.3)])
@pytest.mark.parametrize("structure_hu", [0.0, 8.0])
def test_known_noise_comes_back(sd_hu: float, peak_per_px: float, structure_hu: float) -> None:
    image = make_volume(scanned(sd_hu, peak_per_px, 1, structure_hu), pixel_mm=PIXEL_MM)
    measured = tissue_noise({"source": [image]})["source"]
    assert measured.n_regions >= 50
    assert measured.power.sd_hu == pytest.approx(sd_hu, rel=0.03)
    f = measured.power.f_per_mm
    truth = noise_power(f * PIXEL_MM, sd_hu, peak_per_px) * PIXEL_MM**2
    is_strong = (f > 0.1) & (truth > 0.02 * truth.max())
    assert measured.power.power_hu2_mm2[is_strong] == pytest.approx(
        truth[is_strong], rel=0.2, abs=0.005 * truth.max()
    )
    fine = np.linspace(0, 0.5, 2001)
    weight = noise_power(fine, sd_hu, peak_per_px)
    mean = np.sum(fine * weight) / np.sum(weight) / PIXEL_MM
    assert measured.mean_per_mm == pytest.approx(mean, rel=0.03)
    assert measured.peak_per_mm == pytest.approx(peak_per_px / PIXEL_MM, rel=0.12)


def test_sides_are_measured_on_the_same_patches_against_the_target() -> None:
    sharp, soft = scanned(60.0, 0.3, 1), scanned(20.0, 0.15, 2)
    sides = {
        "source": [make_volume(sharp)],
        "harmonized": [make_volume(scanned(20.0, 0.15, 5))],
        "target": [make_volume(soft)],
    }
    measured = tissue_noise(sides, count=96)
    assert len({side.n_regions for side in measured.values()}) == 1
    assert measured["target"].distance_db is None
    source_db, harmonized_db = measured["source"].distance_db, measured["harmonized"].distance_db
    assert source_db is not None and source_db > 8
    assert harmonized_db is not None and harmonized_db < 1
    assert measured["source"].to_json()["sd_hu"] == pytest.approx(60, rel=0.05)


def test_regions_keep_clear_of_edges_and_of_one_another() -> None:
    volume = make_volume(scanned(30.0, 0.3, 1))
    regions = homogeneous_regions(MeanImage.of([volume]), 32, 60)
    clean = np.broadcast_to(PLANE, volume.hu.shape)
    assert all(np.ptp(region.cut(clean)) < 40 for region in regions)
    for i, region in enumerate(regions):
        for other in regions[:i]:
            apart = max(abs(region.row - other.row), abs(region.column - other.column))
            assert region.slice_index != other.slice_index or apart >= 32
    assert homogeneous_regions(MeanImage.of([volume]), 32, 60) == regions


def test_no_tissue_has_no_noise_and_other_slices_are_refused() -> None:
    air = make_volume(np.full((2, 64, 64), -1000.0))
    assert tissue_noise({"target": [air]}) == {}
    assert tissue_noise({"target": []}) == {}
    small = make_volume(np.zeros((1, 16, 16)))
    assert tissue_noise({"target": [small]}) == {}
    with pytest.raises(EvaluationError, match="different numbers of volumes"):
        tissue_noise({"source": [air], "target": [air, air]})
    with pytest.raises(EvaluationError, match="do not show the same slices"):
        tissue_noise({"source": [air], "target": [small]})
