"""Band energies against worlds whose kernels, and how they change with position, are known.

A world is a random smooth anatomy in a round body plus noise, both through a kernel given per mm;
source and target show different anatomies. Some worlds have noise that falls away from the middle.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from scipy import ndimage

from cvsct.core.errors import ModelError, TrainingError, UsageError
from cvsct.core.volume import CTVolume, ScanFacts
from cvsct.methods.band_energy import (
    BandEnergySettings,
    fit_band_gains,
    load_band_energy,
    train_band_energy,
)
from cvsct.methods.bands import UNSCALED, Bands, radius_sq, tissue_mask
from cvsct.methods.base import TrainingRequest
from cvsct.methods.spectrum.matched_tissue import soft_tissue_ratio
from cvsct.methods.spectrum.slice_filter import filter_slices
from cvsct.methods.spectrum.texture import Texture, TextureLayout, measure_patches, soft_texture
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume
from tests.support.patches import made_patches

SOFT_MM, SHARP_MM = 0.4, 0.15
LOCAL_MM = 5.6
FLAT = np.array([0.0, 1.0]), np.zeros(2)


def kernel(f: np.ndarray, sigma_mm: float) -> np.ndarray:
    return np.exp(-2 * (np.pi * sigma_mm * f) ** 2)


@cache
def world(
    seed: int, sigma_mm: float, pixel_mm: float = 0.7, falls: float = 0.0, slices: int = 3
) -> CTVolume:
    """A body of 180 mm; noise of 20 HU mm, white but for the kernel, times exp(-falls r²).

    Distances r in units of 100 mm.
    """
    rng = np.random.default_rng(seed)
    side = round(220 / pixel_mm)
    frequency = scipy.fft.fftfreq(side, pixel_mm)
    f = np.hypot(frequency[:, None], frequency)
    falling = 1 / (f**2 + 0.01**2) ** 0.85
    falling[0, 0] = 0
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * pixel_mm
    r = np.hypot(y, x)
    planes = []
    for _ in range(slices):
        blobs = scipy.fft.ifft2(scipy.fft.fft2(rng.normal(size=(side, side))) * falling).real
        body = np.where(r < 90, 20 + blobs * (30 / blobs.std()), -1000)
        noise = rng.normal(0, 20 / pixel_mm, (side, side)) * np.exp(-falls * (r / 100) ** 2)
        planes.append(scipy.fft.ifft2(scipy.fft.fft2(body + noise) * kernel(f, sigma_mm)).real)
    return make_volume(np.array(planes), pixel_mm=pixel_mm)


def request(**settings: object) -> TrainingRequest:
    return TrainingRequest("band-energy", Path("unused"), settings=settings)


@cache
def sharp_to_soft() -> Bundle:
    return train_band_energy([world(1, SHARP_MM)], [world(2, SOFT_MM)], request())


def filtered(bundle: Bundle, scan: CTVolume, reverse: bool = False) -> np.ndarray:
    """A scan through the model's filter alone."""
    f, log_gain = (bundle.weights[name] for name in ("frequencies_per_mm", "log_gain"))
    cap = np.log(bundle.settings["max_gain"])
    return filter_slices(scan, f, np.clip(-log_gain if reverse else log_gain, -cap, cap))


def largest(difference: np.ndarray) -> float:
    return float(np.abs(difference).max())


def energies(volume: CTVolume, near: float, far: float, bands: Bands) -> np.ndarray:
    """Mean log of local energy of each band but the lowest in soft tissue between two radii.

    Radii are in units of 100 mm.
    """
    squared = radius_sq(volume)
    ring = (squared >= near**2) & (squared < far**2)
    means = []
    for mask, parts in zip(tissue_mask(volume), bands.split(volume, *FLAT), strict=True):
        share = local(mask.astype(float), volume)
        seen = ring & (share > 0.7)
        means.append([np.log(local(part**2 * mask, volume) / share)[seen] for part in parts[1:]])
    return np.concatenate(means, axis=1).mean(axis=1)


def local(plane: np.ndarray, volume: CTVolume) -> np.ndarray:
    """Gaussian mean around each pixel."""
    sigma_px = LOCAL_MM / volume.pixel_mm
    return np.asarray(ndimage.gaussian_filter(plane, sigma_px, mode="nearest")) + 1e-12


@pytest.mark.parametrize("pixel_mm", [0.5, 0.7, 0.95])
def test_bands_sum_to_the_filter(pixel_mm: float) -> None:
    bands = Bands.of(pixel_mm, 0.15)
    f = np.linspace(0, 1.5, 301)
    shares = np.array([bands.share(band, f) for band in range(bands.count)])
    assert shares.sum(axis=0) == pytest.approx(1, abs=1e-12)
    assert shares.min() >= 0
    for band in range(bands.count):
        begin, end = bands.reach(band)
        assert np.all(shares[band][(f < begin) | (f > end)] < 1e-12)
    assert bands.share(0, np.zeros(1)) == 1
    volume = make_volume(world(1, SHARP_MM).hu[:1], pixel_mm=pixel_mm)
    gain = -2 * f**2
    whole = filter_slices(volume, f, gain)[0]
    for together in (1, 2):
        (parts,) = bands.split(volume, f, gain, together)
        assert len(parts) == bands.count + 1 - together
        assert largest(np.maximum(sum(parts), -1024) - whole) < 0.01


@pytest.mark.parametrize("pixel_mm", [0.5, 0.8])
def test_energy_of_white_noise_is_its_variance_in_the_band(pixel_mm: float) -> None:
    side, sd = 400, 30.0
    noise = np.random.default_rng(0).normal(0, sd, (2, side, side))
    bands = Bands.of(pixel_mm, 0.15)
    slices = bands.split(make_volume(noise, pixel_mm=pixel_mm), *FLAT)
    measured = np.mean([[np.mean(part**2) for part in parts[1:]] for parts in slices], axis=0)
    frequency = scipy.fft.fftfreq(side, pixel_mm)
    f = np.hypot(frequency[:, None], frequency)
    share = np.array([np.mean(bands.share(band, f) ** 2) for band in range(1, bands.count)])
    assert measured == pytest.approx(sd**2 * share, rel=0.05)


def test_the_radius_is_measured_from_the_middle_in_mm() -> None:
    squared = radius_sq(make_volume(np.zeros((1, 101, 51)), pixel_mm=2.0))
    assert squared[50, 25] == 0
    assert squared[0, 25] == pytest.approx(1.0)
    assert squared[50, 0] == pytest.approx(0.25)


@pytest.mark.parametrize(("here_mm", "there_mm"), [(0.7, 0.7), (0.6, 0.9)])
def test_bands_get_the_ratio_of_two_kernels_from_different_bodies(
    here_mm: float, there_mm: float
) -> None:
    bundle = train_band_energy(
        [world(3, SHARP_MM, here_mm)], [world(4, SOFT_MM, there_mm)], request()
    )
    bands = Bands.of(max(here_mm, there_mm), 0.15)
    for reverse, sigmas in ((False, (SHARP_MM, SOFT_MM)), (True, (SOFT_MM, SHARP_MM))):
        scan, wanted = (world(5, sigma_mm) for sigma_mm in sigmas)
        done = scan.with_hu(load_band_energy(bundle, reverse)(scan))
        before, after, right = (energies(v, 0.0, 0.8, bands) for v in (scan, done, wanted))
        reached = slice(0, bands.count - 2)
        assert np.abs(0.5 * (after - right))[reached].max() < 0.09
        assert np.abs(0.5 * (before - right))[reached].max() > 0.5


def test_a_gain_that_changes_away_from_the_middle_is_found_where_one_filter_misses_it() -> None:
    source, target = world(6, SHARP_MM), world(7, SHARP_MM, falls=0.6)
    bundle = train_band_energy([source], [target], request())
    bands = Bands.of(0.7, 0.15)
    scan = world(8, SHARP_MM)
    by_bands = scan.with_hu(load_band_energy(bundle, False)(scan))
    by_one = scan.with_hu(filtered(bundle, scan))
    for near, far in ((0.0, 0.3), (0.6, 0.8)):
        wanted = energies(world(9, SHARP_MM, falls=0.6), near, far, bands)[2:]
        misses = [
            np.abs(0.5 * (energies(done, near, far, bands)[2:] - wanted)).max()
            for done in (by_bands, by_one)
        ]
        assert misses[0] < 0.08
        assert misses[1] > 0.1


def test_equal_domains_are_left_as_they_are() -> None:
    volume = world(1, SHARP_MM)
    same = train_band_energy([volume], [volume], request())
    assert same.weights["band_log_gain"] == pytest.approx(0, abs=1e-9)
    done = load_band_energy(same, False)(volume)
    assert largest(done - np.maximum(volume.hu, -1024)) < 0.01
    other = train_band_energy([volume], [world(2, SHARP_MM)], request())
    assert np.abs(other.weights["band_log_gain"]).max() < 0.08


def test_reverse_after_forward_gives_the_input_back() -> None:
    scan = world(6, SHARP_MM)
    bundle = train_band_energy([scan], [world(7, SOFT_MM, falls=0.3)], request(max_gain=100))
    there = scan.with_hu(load_band_energy(bundle, False)(scan))
    back = load_band_energy(bundle, True)(there)
    inner = np.s_[:, 80:-80, 80:-80]
    assert (there.hu - scan.hu)[inner].std() > 10
    assert (back - scan.hu)[inner].std() < 0.5


def test_nothing_moves_and_the_mean_and_the_floor_hold() -> None:
    volume = world(1, SOFT_MM)
    apply = load_band_energy(sharp_to_soft(), True)
    sharpened = apply(volume)
    turned = apply(volume.with_hu(volume.hu[:, ::-1, ::-1].copy()))
    inside = np.s_[:, 80:-80, 80:-80]  # where the mask is not in doubt
    assert largest((turned[:, ::-1, ::-1] - sharpened)[inside]) < 0.05
    middle = np.s_[:, 100:210, 100:210]
    assert sharpened[middle].mean() == pytest.approx(volume.hu[middle].mean(), abs=0.3)
    assert sharpened.min() >= -1024
    assert sharpened.dtype == np.float32
    flat = make_volume(np.full((1, 300, 200), 55.0))
    assert largest(apply(flat) - 55) < 0.01


def test_only_soft_tissue_is_scaled_beyond_the_filter() -> None:
    bundle = sharp_to_soft()
    strong = replace(
        bundle, weights={**bundle.weights, "band_log_gain": np.full((4, 2), [0.3, 0.0])}
    )
    hu = np.random.default_rng(0).normal(0, 20, (1, 256, 256))
    hu[:, :, 128:] -= 850
    volume = make_volume(hu)
    change = load_band_energy(strong, False)(volume) - filtered(bundle, volume)
    assert np.abs(change[..., :110]).max() > 5
    assert np.abs(change[..., 160:]).max() < 0.01


def test_a_limit_of_one_leaves_the_filter() -> None:
    bundle = train_band_energy(
        [world(6, SHARP_MM)], [world(7, SOFT_MM, falls=0.6)], request(max_band_gain=1.0)
    )
    assert np.abs(bundle.weights["band_log_gain"]).max() > 0.05
    scan = world(1, SHARP_MM)
    for reverse in (False, True):
        done = load_band_energy(bundle, reverse)(scan)
        assert largest(done - filtered(bundle, scan, reverse)) < 0.01


def test_no_frequency_is_amplified_beyond_the_cap() -> None:
    bundle = train_band_energy([world(1, SHARP_MM)], [world(2, SOFT_MM)], request(max_gain=2.0))
    bold = replace(
        bundle, weights={**bundle.weights, "band_log_gain": np.full((4, 2), [-1.0, 0.0])}
    )
    impulse = np.zeros((1, 256, 256))
    impulse[0, 128, 128] = 100.0
    for model, greatest in ((bundle, 2.0), (bold, 2.0)):
        response = load_band_energy(model, True)(make_volume(impulse))
        assert np.abs(scipy.fft.rfft2(response[0])).max() / 100 < greatest * 1.01
    loose = replace(bold, settings={**bold.settings, "max_gain": 16.0})
    response = load_band_energy(loose, True)(make_volume(impulse))
    f = np.abs(scipy.fft.rfft2(response[0]))[:128, 0] / 100
    plain = filtered(loose, make_volume(impulse), True)
    ratio = f / (np.abs(scipy.fft.rfft2(plain[0]))[:128, 0] / 100)
    assert ratio.max() == pytest.approx(1.6, abs=0.01)


def soft_tissue(count: int, level: float, slope: float = 0.0) -> Texture:
    """Soft tissue of a log power that changes with squared radius, beside what is random."""
    rng = np.random.default_rng(count)
    squared, noise = rng.random(count), rng.normal(size=count)
    mean = level + slope * squared + 0.5 * noise
    patches = made_patches(
        mean[:, None] + rng.normal(size=(count, 29)),
        mean_hu=rng.normal(40, 20, count),
        log_noise=noise,
        roughness_hu=np.exp(rng.normal(1, 0.5, count)),
        radius_sq=squared,
    )
    return soft_texture(patches, TextureLayout())


def test_too_little_tissue_leaves_the_filter_alone() -> None:
    bands, f = Bands.of(0.7, 0.15), np.arange(29) * 0.025

    def fitted(source: Texture, target: Texture) -> np.ndarray:
        ratio = soft_tissue_ratio(source, target)
        return fit_band_gains(bands, f, np.zeros_like(f), ratio).log_gain

    assert np.all(fitted(soft_tissue(99, 0.0), soft_tissue(500, 1.0)) == 0)
    found = fitted(soft_tissue(2000, 0.0), soft_tissue(2001, 1.0))
    assert found.shape == (4, 2)
    assert found[:, 0] == pytest.approx(0.5, abs=0.1)


def test_a_ratio_of_soft_tissue_is_told_by_radius_within_its_error() -> None:
    ratio = soft_tissue_ratio(soft_tissue(4000, 1.0), soft_tissue(4001, 2.0, slope=-0.8))
    mean, least, largest = ratio.radius_sq
    assert (mean, least, largest) == pytest.approx((0.5, 0.0, 1.08), abs=0.03)
    for found, sd, truth in (
        (ratio.level, ratio.level_sd, 1.0 - 0.8 * mean),
        (ratio.slope, ratio.slope_sd, -0.8),
    ):
        assert np.isnan(found[0])
        assert np.abs(found - truth)[1:].max() < 3 * sd[1:].max()
        assert sd[1:].max() < 0.2


def test_bands_a_coarse_scan_does_not_reach_are_told_by_the_others() -> None:
    fine, coarse = world(3, SHARP_MM), world(10, SHARP_MM, 1.4)
    mixed, alone, other = (
        measure_patches(scans, TextureLayout(), 100, "source").texture()
        for scans in ([fine, coarse], [fine], [world(4, SOFT_MM)])
    )
    counts = mixed.by_roughness.counts.sum(axis=0)
    assert counts[1] == mixed.n_soft
    n = len(mixed.frequencies_per_mm)
    beyond = mixed.frequencies_per_mm > 0.5 / 1.4 * np.sqrt(2)
    assert np.array_equal(counts[beyond], alone.by_roughness.counts.sum(axis=0)[beyond])
    assert 0 < counts[beyond].max() < counts[1]
    ratio = soft_tissue_ratio(mixed, other.up_to(n))
    assert np.isfinite(ratio.level[1 : round(0.7 / 0.025)]).all()


def test_a_band_that_no_scan_of_a_side_reaches_is_not_scaled() -> None:
    coarse, fine = (
        measure_patches([scan], TextureLayout(), 100, "source").texture()
        for scan in (world(10, SHARP_MM, 1.4), world(4, SOFT_MM))
    )
    f = coarse.frequencies_per_mm
    bands = Bands.of(0.7, 0.15)
    reached = [bands.reach(band)[0] < f[-1] for band in range(UNSCALED, bands.count)]
    assert reached == [True, True, True, False]
    ratio = soft_tissue_ratio(coarse, fine.up_to(len(f)))
    level = fit_band_gains(bands, f, np.zeros_like(f), ratio).log_gain[:, 0]
    assert np.abs(level[:2]).min() > 0.1
    assert level[-1] == 0


class OneAtATime:
    """Scans that refuse to be read while the one before is still held."""

    def __init__(self, seeds: tuple[int, ...], sigma_mm: float) -> None:
        self.made = [world(seed, sigma_mm) for seed in seeds]
        self.facts = tuple(map(ScanFacts.of, self.made))
        self.held: weakref.ref[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self) -> Iterator[CTVolume]:
        for one in self.made:
            assert self.held is None or self.held() is None
            hu = one.hu.copy()
            self.held = weakref.ref(hu)
            volume = one.with_hu(hu)
            del hu
            yield volume
            del volume


def test_scans_are_held_one_at_a_time() -> None:
    bundle = train_band_energy(
        OneAtATime((1, 3), SHARP_MM), OneAtATime((2, 4), SOFT_MM), request(max_slices=4)
    )
    assert bundle.training["soft_patches_source"] > 0


def test_a_model_survives_its_folder_and_training_repeats_exactly(tmp_path: Path) -> None:
    again = train_band_energy([world(1, SHARP_MM)], [world(2, SOFT_MM)], request())
    written = sharp_to_soft().write(tmp_path / "a")
    assert written.sha256 == again.write(tmp_path / "b").sha256
    scan, read = world(1, SHARP_MM), Bundle.read(tmp_path / "a")
    for reverse in (False, True):
        mapped = [load_band_energy(one, reverse)(scan) for one in (again, read)]
        assert np.array_equal(*mapped)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"band_per_m": 3}, r"'band_per_m'; did you mean 'band_per_mm'\? .*band_per_mm, max_band"),
        ({"max_band_gain": 0.5}, r"max_band_gain: .*greater than or equal to 1"),
        ({"patch_mm": "wide"}, r"patch_mm: .*number"),
    ],
)
def test_settings_that_do_not_exist_are_refused_with_those_that_do(
    settings: dict[str, object], message: str
) -> None:
    volume = world(1, SHARP_MM)
    with pytest.raises(UsageError, match=message):
        train_band_energy([volume], [volume], request(**settings))


def test_what_cannot_be_fitted_or_applied_is_refused_with_a_remedy() -> None:
    air = make_volume(np.full((3, 128, 128), -1000.0))
    with pytest.raises(TrainingError, match=r"source scans hold 0 regions.*more slices"):
        train_band_energy([air], [world(1, SHARP_MM)], request())
    with pytest.raises(TrainingError, match="no target scans"):
        train_band_energy([air], [], request())
    bundle = sharp_to_soft()
    with pytest.raises(ModelError, match=r"without radius_sq; train it again"):
        load_band_energy(
            replace(
                bundle,
                weights={
                    name: array for name, array in bundle.weights.items() if name != "radius_sq"
                },
            ),
            False,
        )
    with pytest.raises(ModelError, match="settings this version does not know"):
        load_band_energy(replace(bundle, settings={"bands": 7}), False)
    assert BandEnergySettings.model_validate(bundle.settings) == BandEnergySettings()
