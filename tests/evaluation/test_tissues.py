"""Tissue masks, bias by tissue and residuals against a body whose tissues are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvsct.core.masks import body
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.residuals import Residuals, residual_maps, residuals
from cvsct.evaluation.image.tissues import (
    TISSUES,
    Tissue,
    TissueBias,
    TissueMap,
    bias_by_tissue,
    tissue_masks,
)
from tests.conftest import make_volume
from tests.support.bodies import noise, seen, trunk

PLANE = seen(trunk(2), 0.7)
TRUE_HU = {"lung": -850.0, "fat": -100.0, "soft": 40.0}


def noisy(sd_hu: float, seed: int) -> np.ndarray:
    return PLANE + noise(PLANE.shape, sd_hu, 0.3, np.random.default_rng(seed))


def bias(image: CTVolume, target: CTVolume) -> dict[Tissue, TissueBias]:
    return bias_by_tissue([(image, target)], [TissueMap.of(target)])


def residuals_of(image: CTVolume, target: CTVolume) -> Residuals:
    return residuals([(image, target)], [TissueMap.of(target)])


@pytest.mark.parametrize("noise_hu", [0.0, 80.0])
def test_masks_hold_their_tissue_and_no_edges(noise_hu: float) -> None:
    masks = tissue_masks(noisy(noise_hu, 0)[None])
    for tissue, hu in TRUE_HU.items():
        inside = PLANE[masks[tissue][0]]
        assert np.mean(np.abs(inside - hu) < 20) > 0.93, tissue
    assert PLANE[masks["bone"][0]].min() > 100
    assert np.sum([masks[tissue] for tissue in TISSUES], axis=0).max() == 1
    air = PLANE < -990
    assert not any((masks[tissue][0] & air).any() for tissue in TISSUES)


def test_a_map_holds_the_masks_and_the_body_without_padding() -> None:
    hu = np.stack([noisy(60.0, 3), noisy(60.0, 4)])
    padding = np.zeros(hu.shape, dtype=bool)
    padding[1, :, :100] = True
    tissue_map = TissueMap.of(replace(make_volume(hu), padding=padding))
    masks = tissue_masks(make_volume(hu).hu, padding)
    for index in range(2):
        for tissue, mask in tissue_map.masks(index).items():
            assert np.array_equal(mask, masks[tissue][index]), tissue
        inside = body(make_volume(hu).hu[index][None])[0] & ~padding[index]
        assert np.array_equal(tissue_map.body(index), inside)
    assert tissue_map.codes.nbytes == hu.size


def test_bias_of_each_tissue_is_its_own_and_texture_is_none() -> None:
    shifts = {"lung": 12.0, "fat": -6.0, "soft": 3.0, "bone": -40.0}
    masks = tissue_masks(PLANE[None])
    image = noisy(60.0, 1)
    for tissue, hu in shifts.items():
        image[masks[tissue][0]] += hu
    measured = bias(make_volume(image[None]), make_volume(PLANE[None]))
    for tissue, hu in shifts.items():
        within_hu = 3 * 60.0 / masks[tissue].sum() ** 0.5  # what noise leaves of so many pixels
        assert measured[tissue].mean_hu == pytest.approx(hu, abs=within_hu), tissue
        assert measured[tissue].n_pixels == masks[tissue].sum()
    assert measured["soft"].local_p95_hu == pytest.approx(3.0, abs=2.0)


def test_a_bias_that_cancels_shows_locally() -> None:
    image = PLANE + np.where(np.arange(256) < 128, 15.0, -15.0)
    measured = bias(make_volume(image[None]), make_volume(PLANE[None]))["soft"]
    assert measured.mean_hu == pytest.approx(0.0, abs=0.5)
    assert measured.local_p95_hu == pytest.approx(15.0, abs=0.5)


def test_no_body_has_no_bias_and_no_residuals() -> None:
    air = make_volume(np.full((2, 64, 64), -1000.0))
    assert all(b.mean_hu is None and b.n_pixels == 0 for b in bias(air, air).values())
    assert residuals_of(air, air).body is None
    assert residuals_of(air, air).to_json()["soft"] is None


def test_residuals_by_hand() -> None:
    target = make_volume(np.stack([PLANE, PLANE]))
    constant = residuals_of(make_volume(target.hu + 60.0), target)
    assert constant.body is not None
    assert constant.body.mean_abs_hu == pytest.approx(60.0)
    assert constant.body.rms_hu == pytest.approx(60.0)
    assert constant.body.p95_abs_hu == pytest.approx(60.0, abs=0.5)
    assert constant.body.beyond_50_share == 1.0
    normal = np.random.default_rng(0).normal(0, 40.0, target.hu.shape)
    measured = residuals_of(make_volume(target.hu + normal), target).tissues["soft"]
    assert measured is not None
    assert measured.mean_abs_hu == pytest.approx(40 * np.sqrt(2 / np.pi), rel=0.02)
    assert measured.p95_abs_hu == pytest.approx(1.96 * 40, rel=0.02)
    assert measured.beyond_50_share == pytest.approx(0.2113, abs=0.01)
    assert measured.n_voxels == tissue_masks(target.hu)["soft"].sum()


def test_maps_share_one_symmetric_scale() -> None:
    maps = residual_maps({"source": noisy(60.0, 1), "harmonized": noisy(5.0, 2)}, PLANE)
    assert maps.limit_hu == 200.0  # 99 % of a normal distribution: 2.6 deviations
    assert maps.maps_hu["source"] == pytest.approx(noisy(60.0, 1) - PLANE)
    assert residual_maps({"harmonized": noisy(5.0, 2)}, PLANE).limit_hu == 25.0
    assert residual_maps({}, PLANE).maps_hu == {}
