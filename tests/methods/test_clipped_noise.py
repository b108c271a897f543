"""Noise cut off by the file, against normal noise whose mean is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.volume import CTVolume
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum.clipped_noise import restore_clipped_noise
from cvsct.methods.spectrum.train import train_spectrum
from tests.conftest import make_volume
from tests.methods.test_classical import SHARP_MM, SOFT_MM, request, world

FLOOR_HU = -1024.0


def noisy(mean_hu: np.ndarray | float, sd_hu: float, seed: int = 0) -> np.ndarray:
    """A slice of noise a little blurred, as a kernel leaves it."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(256, 256)), 0.6)
    return (mean_hu + noise * (sd_hu / noise.std()))[None]


def stored(hu: np.ndarray, floor_hu: float = FLOOR_HU) -> CTVolume:
    return make_volume(np.maximum(np.rint(hu), floor_hu))


@pytest.mark.parametrize(
    ("mean_hu", "sd_hu"), [(-1000, 30), (-1000, 90), (-870, 150), (-950, 60), (-1010, 60)]
)
def test_the_mean_of_cut_noise_comes_back(mean_hu: float, sd_hu: float) -> None:
    cut = stored(noisy(mean_hu, sd_hu))
    bias = cut.hu.mean() - mean_hu
    left = restore_clipped_noise(cut, 1.0).hu.mean() - mean_hu
    assert abs(left) < 0.2 * bias + 0.5
    half = restore_clipped_noise(cut, 0.5).hu.mean() - mean_hu
    assert half == pytest.approx(0.5 * (bias + left), abs=0.01)


def test_what_is_not_cut_is_left_alone() -> None:
    for hu in (noisy(-700, 60), noisy(40, 20), np.full((1, 64, 64), -1000.0)):
        volume = make_volume(hu)
        assert np.array_equal(restore_clipped_noise(volume, 1.0).hu, volume.hu.astype(np.float32))


def test_only_cut_pixels_move_and_only_down() -> None:
    cut = stored(noisy(-1000, 60))
    change = restore_clipped_noise(cut, 1.0).hu - cut.hu
    assert np.all(change[cut.hu > FLOOR_HU] == 0)
    assert np.all(change[cut.hu == FLOOR_HU] < 0)
    assert change.min() > -3 * 60


def test_a_lowest_value_of_the_scanner_s_own_is_found() -> None:
    cut = stored(noisy(-1000, 60), floor_hu=-1000.0)
    before = cut.hu.mean() + 1000
    assert abs(restore_clipped_noise(cut, 1.0).hu.mean() + 1000) < 0.25 * before


def test_padding_is_not_noise() -> None:
    hu = np.maximum(noisy(-1000, 60), FLOOR_HU)
    padding = np.zeros(hu.shape, dtype=bool)
    padding[:, :, :90] = True
    hu[padding] = FLOOR_HU
    volume = replace(make_volume(hu), padding=padding)
    assert np.all(restore_clipped_noise(volume, 1.0).hu[padding] == FLOOR_HU)


def test_an_edge_to_tissue_does_not_deepen_the_air_beside_it() -> None:
    mean = np.full((256, 256), -1000.0)
    mean[:, 128:] = 40.0
    cut = stored(noisy(mean, 60))
    flat = stored(noisy(-1000.0, 60))
    depth = (cut.hu - restore_clipped_noise(cut, 1.0).hu)[0, :, 112:128].max()
    usual = (flat.hu - restore_clipped_noise(flat, 1.0).hu).max()
    assert depth < 1.5 * usual


def test_the_filter_restores_only_where_it_calms() -> None:
    sharp, soft = world(1, SHARP_MM), world(2, SOFT_MM)
    scan = stored(noisy(-1000, 60))
    for reverse in (False, True):
        means = [
            load_spectrum(
                train_spectrum([sharp], [soft], request("spectrum", restore_clipped=share)),
                reverse,
            )(scan).mean()
            for share in (0.0, 0.6)
        ]
        assert (means[0] == means[1]) == reverse
        assert reverse or means[1] < means[0] - 1
