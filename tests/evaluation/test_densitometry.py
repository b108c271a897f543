"""Lung densitometry against lungs of known density, emphysema and noise."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.densitometry import LungDensity, densitometry, lung_density
from cvsct.evaluation.image.lungs import lung_mask
from tests.conftest import make_volume

PIXEL_MM = 1.25
PX = 256
Y, X = (np.mgrid[:PX, :PX] - PX / 2) * PIXEL_MM


def disc(x_mm: float, y_mm: float, radius_mm: float) -> np.ndarray:
    return np.hypot(X - x_mm, Y - y_mm) < radius_mm


LUNGS = disc(-65, 0, 45) | disc(65, 0, 45)
TRACHEA = disc(0, 10, 9)
VESSELS = disc(-60, 20, 6) | disc(70, -10, 6)


def chest(lung_hu: float = -850.0, holes: float = 0.0, seed: int = 0) -> np.ndarray:
    """A slice of a chest; `holes` is the share of the lung at -985 HU, in clusters of some mm."""
    hu = np.where(np.hypot(X / 150, Y / 100) < 1, 40.0, -1000.0)
    hu[LUNGS] = lung_hu + 0.4 * Y[LUNGS]  # denser behind
    if holes:
        rng = np.random.default_rng(seed)
        field = ndimage.gaussian_filter(rng.normal(size=hu.shape), 2.5)
        hu[LUNGS & (field > np.quantile(field[LUNGS], 1 - holes))] = -985.0
    hu[VESSELS] = 40.0
    hu[TRACHEA] = -1000.0
    return hu


def scan(slices: list[np.ndarray], noise_hu: float = 0.0) -> CTVolume:
    rng = np.random.default_rng(1)
    return make_volume(
        np.stack(slices) + rng.normal(0, max(noise_hu, 1e-9), (len(slices), PX, PX)),
        pixel_mm=PIXEL_MM,
    )


def test_the_mask_is_lung_without_trachea_vessels_and_border() -> None:
    mask = lung_mask(scan([chest()], 20.0)).mask[0]
    assert not (mask & ~LUNGS).any()
    assert not (mask & ndimage.binary_dilation(TRACHEA | VESSELS, iterations=1)).any()
    inner = ndimage.binary_erosion(LUNGS & ~VESSELS, iterations=6)
    assert mask[inner].mean() > 0.98


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_low_attenuation_of_a_quiet_scan_is_the_share_of_emphysema(share: float) -> None:
    volume = scan([chest(holes=share, seed=seed) for seed in range(3)])
    density = lung_density(volume)
    assert density.laa950_percent == pytest.approx(100 * share, abs=1.0)
    expected = -850.0 if share == 0 else (1 - share) * -850.0 + share * -985.0
    assert density.mean_hu == pytest.approx(expected, abs=4)
    assert density.thickness_mm == 5.0


def test_noise_adds_low_attenuation_as_a_normal_distribution_tells() -> None:
    flat = chest()
    flat[LUNGS & ~VESSELS] = -860.0
    density = lung_density(scan([flat] * 3, 60.0))
    assert density.laa950_percent == pytest.approx(100 * NormalDist(-860, 60).cdf(-950), abs=0.5)
    assert density.perc15_hu == pytest.approx(NormalDist(-860, 60).inv_cdf(0.15), abs=1.5)


def test_a_phantoms_lungs_of_air_have_no_densitometry_but_a_reason() -> None:
    for noise_hu in (0.0, 60.0):
        density = lung_density(scan([np.maximum(chest(-1000.0), -1024.0)] * 2, noise_hu))
        assert density.laa950_percent is None
        assert "without parenchyma" in density.why_none
    no_lung = np.where(np.hypot(X / 150, Y / 100) < 1, 40.0, -1000.0)
    assert "too little" in lung_density(scan([no_lung])).why_none


def test_gas_in_the_stomach_is_no_lung() -> None:
    belly = np.where(np.hypot(X / 150, Y / 100) < 1, 40.0, -1000.0)
    belly[disc(40, -30, 35)] = -960.0  # scatter lifts gas in a large body
    mask = lung_mask(scan([chest(), belly], 15.0)).mask
    assert mask[0].any()
    assert not mask[1].any()


def test_bronchi_with_walls_are_left_out_and_bullae_stay() -> None:
    with_bronchus, with_bulla = chest(), chest()
    with_bronchus[disc(-70, -15, 6)] = 0.0
    for slice_hu in (with_bronchus, with_bulla):
        slice_hu[disc(-70, -15, 4)] = -1000.0
    bronchus, bulla = lung_mask(scan([with_bronchus, with_bulla])).mask
    assert not bronchus[disc(-70, -15, 4)].any()
    assert bulla[disc(-70, -15, 4)].all()


def test_sampled_slices_have_the_masks_of_the_whole_scan() -> None:
    volume = scan([chest(holes=0.1, seed=seed) for seed in range(6)], 30.0)
    part = volume.select([1, 4])
    assert np.array_equal(lung_mask(part).mask, lung_mask(volume).mask[[1, 4]])
    assert lung_density(volume, slices=2) == lung_density(volume.select([1, 4]))


def test_paired_sides_differ_in_their_voxels_alone() -> None:
    target = scan([chest(holes=0.1, seed=seed) for seed in range(3)], 10.0)
    sharp = target.with_hu(
        target.hu + np.random.default_rng(2).normal(0, 60, target.hu.shape).astype(np.float32)
    )
    measured = densitometry({"source": [sharp], "target": [target]}, paired=True)
    assert measured["source"].series[0].n_voxels == measured["target"].series[0].n_voxels
    gap = measured["source"].mean("laa950_percent") - measured["target"].mean("laa950_percent")
    assert measured["source"].difference["laa950_percent"] == pytest.approx(gap)
    assert gap > 1
    apart = densitometry({"source": [sharp], "target": [target]}, paired=False)
    assert apart["source"].mean("laa950_percent") == pytest.approx(
        measured["source"].mean("laa950_percent"), abs=0.5
    )
    assert apart["source"].difference == {}
    air = scan([chest(-1000.0)] * 3)
    reason = densitometry({"source": [air], "target": [air]}, paired=True)["source"]
    assert reason.to_json()["laa950_percent"] is None
    assert "without parenchyma" in reason.to_json()["not_applicable"]
    with pytest.raises(EvaluationError, match="does not fit"):
        LungDensity.of(target, np.zeros((1, 2, 2), bool))


def test_padding_is_no_lung() -> None:
    volume = scan([chest()])
    padding = np.zeros(volume.hu.shape, bool)
    padding[:, :, : PX // 2] = True
    mask = lung_mask(replace(volume, padding=padding)).mask
    assert mask.any()
    assert not mask[padding].any()
