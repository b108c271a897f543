"""Classical methods against worlds whose kernels are known.

A world is a random smooth anatomy in a round body plus white noise, both seen through a kernel
given per mm. Source and target always show different anatomies.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from scipy import ndimage

from cvsct.core.errors import ModelError, TrainingError, UsageError
from cvsct.core.volume import CTVolume, HUWindow
from cvsct.io.read import read_all
from cvsct.methods.base import RETIRED, RunOptions, TrainingRequest
from cvsct.methods.histogram import load_histogram, train_histogram
from cvsct.methods.identity import load_input, train_input
from cvsct.methods.registry import METHODS
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum.expected_noise import WATER_PER_MM, expected_noise
from cvsct.methods.spectrum.kernel_ratio import fit_kernel_ratio
from cvsct.methods.spectrum.matched_tissue import smooth_log_gain
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.slice_filter import filter_slices
from cvsct.methods.spectrum.texture import TextureLayout, measure_patches
from cvsct.methods.spectrum.train import train_spectrum
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume

SOFT_MM, SHARP_MM = 0.45, 0.15
"""Gaussian kernels, by their standard deviation."""


def radius_per_mm(side: int, pixel_mm: float) -> np.ndarray:
    f = scipy.fft.fftfreq(side, pixel_mm)
    return np.hypot(f[:, None], f)


def kernel(f: np.ndarray, sigma_mm: float) -> np.ndarray:
    return np.exp(-2 * (np.pi * sigma_mm * f) ** 2)


@cache
def world(
    seed: int,
    sigma_mm: float,
    pixel_mm: float = 0.7,
    body_mm: float = 170.0,
    noise_hu_mm: float = 20.0,
    slices: int = 5,
) -> CTVolume:
    """A round body of smooth blobs and noise of a known power, through a Gaussian kernel."""
    rng = np.random.default_rng(seed)
    side = round(230 / pixel_mm)
    f = radius_per_mm(side, pixel_mm)
    falling = 1 / (f**2 + 0.01**2) ** 0.85
    falling[0, 0] = 0
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * pixel_mm
    planes = []
    for _ in range(slices):
        blobs = scipy.fft.ifft2(scipy.fft.fft2(rng.normal(size=(side, side))) * falling).real
        inside = np.hypot(y, x) < body_mm / 2
        plane = np.where(inside, 20 + blobs * (60 / blobs.std()), -1000)
        noise = rng.normal(0, noise_hu_mm / pixel_mm, (side, side))
        planes.append(scipy.fft.ifft2(scipy.fft.fft2(plane + noise) * kernel(f, sigma_mm)).real)
    return make_volume(np.array(planes), pixel_mm=pixel_mm)


def request(method: str = "spectrum-plain", **settings: object) -> TrainingRequest:
    return TrainingRequest(
        method, Path("unused"), settings={**METHODS[method].settings, **settings}
    )


@cache
def sharp_to_soft() -> Bundle:
    return train_spectrum([world(1, SHARP_MM)], [world(2, SOFT_MM)], request())


def gain_error(bundle: Bundle, truth: np.ndarray, f: np.ndarray) -> np.ndarray:
    fitted = np.interp(f, bundle.weights["frequencies_per_mm"], bundle.weights["log_gain"])
    return fitted - np.log(truth)


F = np.linspace(0.0, 0.7, 29)
TRUTH = kernel(F, SOFT_MM) / kernel(F, SHARP_MM)


def test_the_gain_of_two_kernels_is_recovered_from_different_bodies() -> None:
    assert np.abs(gain_error(sharp_to_soft(), TRUTH, F)).max() < 0.06


def test_kernels_are_recovered_across_pixel_spacings() -> None:
    bundle = train_spectrum(
        [world(3, SHARP_MM, pixel_mm=0.6)], [world(4, SOFT_MM, pixel_mm=0.9)], request()
    )
    reached = F <= 0.5
    assert np.abs(gain_error(bundle, TRUTH, F))[reached].max() < 0.08
    mixed = train_spectrum(
        [world(3, SHARP_MM, pixel_mm=0.6), world(5, SHARP_MM, pixel_mm=0.9)],
        [world(4, SOFT_MM, pixel_mm=0.9), world(2, SOFT_MM)],
        request(),
    )
    assert np.abs(gain_error(mixed, TRUTH, F)).max() < 0.08


def test_the_noise_of_a_thicker_body_is_not_taken_for_a_sharper_kernel() -> None:
    thin, thick = 130.0, 190.0
    louder = 20.0 * np.exp(0.25 * WATER_PER_MM * (thick - thin))  # noise power at half the exponent
    source = world(6, SHARP_MM, body_mm=thick, noise_hu_mm=float(louder))
    target = world(7, SOFT_MM, body_mm=thin)
    fixed = train_spectrum([source], [target], request())
    naive = train_spectrum([source], [target], request(dose_law=0.0))
    high = F[F > 0.3]
    truth = kernel(high, SOFT_MM) / kernel(high, SHARP_MM)
    assert np.abs(gain_error(fixed, truth, high)).max() < 0.1
    assert np.abs(gain_error(naive, truth, high)).max() > 0.2


def test_expected_noise_of_a_water_disc_is_the_attenuation_across_it() -> None:
    side, pixel_mm = 256, 1.0
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    hu = np.where(np.hypot(y, x) < 90, 0.0, -1000.0)[None]
    centre = expected_noise(make_volume(hu, pixel_mm=pixel_mm)).log_power[0, 15:17, 15:17]
    assert centre == pytest.approx(WATER_PER_MM * 180, rel=0.03)


def test_like_domains_are_left_as_they_are() -> None:
    volume = world(1, SHARP_MM)
    same = train_spectrum([volume], [volume], request())
    assert same.weights["log_gain"] == pytest.approx(0, abs=1e-9)
    other = train_spectrum([volume], [world(2, SHARP_MM)], request())
    assert np.abs(gain_error(other, np.ones_like(F), F)).max() < 0.06


def test_exchanging_the_domains_inverts_the_gain() -> None:
    a, b = (
        measure_patches([scan], TextureLayout(), 300, "source").texture()
        for scan in (world(1, SHARP_MM), world(2, SOFT_MM))
    )
    forth, back = (fit_kernel_ratio(*sides, SpectrumSettings()) for sides in ((a, b), (b, a)))
    assert back.log_gain == pytest.approx(-forth.log_gain, abs=1e-8)


def test_a_known_gaussian_is_applied_as_scipy_applies_it() -> None:
    volume = world(1, SHARP_MM)
    sigma_px = 2.0
    f = np.linspace(0, 1.1, 400)
    done = filter_slices(volume, f, np.log(kernel(f, sigma_px * 0.7)))
    direct = ndimage.gaussian_filter(
        volume.hu.astype(np.float64), (0, sigma_px, sigma_px), mode="mirror", truncate=8
    )
    assert np.abs(done - np.maximum(direct, -1024)).max() < 0.05


def test_the_mean_is_kept_and_the_floor_holds() -> None:
    volume = world(1, SOFT_MM)
    sharpened = load_spectrum(sharp_to_soft(), True)(volume)
    middle = np.s_[:, 100:230, 100:230]
    assert sharpened[middle].mean() == pytest.approx(volume.hu[middle].mean(), abs=0.5)
    assert sharpened.min() >= -1024
    assert sharpened.dtype == np.float32
    flat = make_volume(np.full((1, 300, 200), 55.0))
    assert load_spectrum(sharp_to_soft(), False)(flat) == pytest.approx(55, abs=1e-3)


def test_reverse_after_forward_gives_the_input_back() -> None:
    volume = make_volume(world(1, SHARP_MM).hu[:2, 60:260, 60:260])
    bundle = train_spectrum([world(1, SHARP_MM)], [world(2, SOFT_MM)], request(max_gain=100))
    there = volume.with_hu(load_spectrum(bundle, False)(volume))
    back = load_spectrum(bundle, True)(there)
    inner = np.s_[:, 40:-40, 40:-40]
    assert np.abs(there.hu - volume.hu)[inner].max() > 20
    assert np.abs(back - volume.hu)[inner].max() < 0.5


def test_no_frequency_is_amplified_beyond_the_cap() -> None:
    bundle = train_spectrum([world(1, SHARP_MM)], [world(2, SOFT_MM)], request(max_gain=2.0))
    impulse = np.zeros((1, 256, 256))
    impulse[0, 128, 128] = 1000.0
    response = load_spectrum(bundle, True)(make_volume(impulse))
    gain = np.abs(scipy.fft.rfft2(response[0])) / 1000
    assert gain.max() == pytest.approx(2.0, rel=0.02)


def test_softening_an_edge_does_not_ring() -> None:
    step = np.full((1, 256, 256), -1000.0)
    step[:, :, 128:] = 40.0
    sharp = ndimage.gaussian_filter1d(step, SHARP_MM / 0.7, axis=2)
    softened = load_spectrum(sharp_to_soft(), False)(make_volume(sharp))
    assert softened.max() - 40 < 0.01 * 1040
    assert -1000 - softened.min() < 0.01 * 1040


def test_smoothing_keeps_even_curves_and_removes_jitter() -> None:
    f = np.linspace(0, 1, 45)
    curve = -1.5 * f**2
    jitter = np.random.default_rng(0).normal(0, 0.05, len(f))
    smooth = smooth_log_gain(curve + jitter, np.full(len(f), 0.05), 1e5)
    assert np.abs(smooth - curve).max() < 0.06
    assert np.std((smooth - curve)[5:]) < 0.5 * np.std(jitter[5:])
    assert smooth[0] == 0


def test_histogram_matching_maps_quantiles_and_never_reorders() -> None:
    rng = np.random.default_rng(0)
    source = make_volume(rng.normal(40, 20, (2, 96, 96)))
    target = make_volume(rng.normal(70, 40, (2, 96, 96)))
    bundle = train_histogram([source], [target], request("histogram"))
    done = load_histogram(bundle, False)(source)
    at = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert np.quantile(done, at) == pytest.approx(np.quantile(target.hu, at), abs=1.5)
    assert done.dtype == np.float32
    ramp = make_volume(np.linspace(-1024, 3000, 96 * 96).reshape(1, 96, 96))
    for reverse in (False, True):
        mapped = load_histogram(bundle, reverse)(ramp)
        assert np.all(np.diff(mapped.ravel()) >= 0)
        assert mapped[0, 0] == pytest.approx(ramp.hu[0, 0])
        assert mapped[0, -10:] == pytest.approx(ramp.hu[0, -10:])
    back = load_histogram(bundle, True)(source.with_hu(done))
    assert np.median(np.abs(back - source.hu)) < 0.5


def test_histogram_matching_of_one_distribution_changes_nothing() -> None:
    volume = world(1, SHARP_MM)
    for region in ("body", "whole"):
        bundle = train_histogram([volume], [volume], request("histogram", region=region))
        change = load_histogram(bundle, False)(volume) - volume.hu
        assert np.abs(change).max() < 0.01


def test_the_input_row_is_the_input() -> None:
    volume = world(1, SHARP_MM)
    bundle = train_input([volume], [volume], request("input"))
    assert np.array_equal(load_input(bundle, True)(volume), volume.hu)
    assert bundle.weights == {}


@pytest.mark.parametrize("method", ["input", "histogram", "spectrum"])
def test_a_model_survives_its_folder_and_training_repeats_exactly(
    method: str, tmp_path: Path
) -> None:
    row = METHODS[method]
    source, target = [world(1, SHARP_MM)], [world(2, SOFT_MM)]
    bundle = row.train(source, target, request(method))
    again = row.train(source, target, request(method))
    written = bundle.write(tmp_path / "a")
    assert written.sha256 == again.write(tmp_path / "b").sha256
    read = Bundle.read(tmp_path / "a")
    for reverse in (False, True):
        mapped = [
            row.load(b, "b2a" if reverse else "a2b", RunOptions())(source[0])
            for b in (written, read)
        ]
        assert np.array_equal(*mapped)
        assert mapped[0].shape == source[0].hu.shape


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("input", {"anything": 1}, "no setting 'anything'; choose from nothing, it has none"),
        ("histogram", {"region": "head"}, r"setting region: .*'body' or 'whole'"),
        ("spectrum", {"pacth_mm": 30}, r"did you mean 'patch_mm'\? choose from patch_mm, freq"),
        ("spectrum", {"dose_law": "much"}, r"setting dose_law: .*number"),
    ],
)
def test_settings_that_do_not_exist_are_refused_with_those_that_do(
    method: str, settings: dict[str, object], message: str
) -> None:
    trainer = METHODS[method].train
    volume = world(1, SHARP_MM)
    with pytest.raises(UsageError, match=message):
        trainer([volume], [volume], request(method, **settings))


def test_scans_without_enough_of_a_patient_are_refused_with_a_remedy() -> None:
    air = make_volume(np.full((3, 128, 128), -1000.0))
    good = world(1, SHARP_MM)
    with pytest.raises(TrainingError, match=r"source scans hold 0 regions.*more slices"):
        train_spectrum([air], [good], request())
    with pytest.raises(TrainingError, match=r"target scans hold 0 regions"):
        train_spectrum([good], [make_volume(np.zeros((2, 16, 16)))], request())
    with pytest.raises(TrainingError, match="show no patient"):
        train_histogram([good], [air], request("histogram"))
    with pytest.raises(TrainingError, match="no target scans"):
        train_input([good], [], request("input"))


def test_scans_of_unlike_tissue_are_refused() -> None:
    smooth = make_volume(np.random.default_rng(0).normal(0, 0.5, (5, 256, 256)))
    with pytest.raises(TrainingError, match="too little similar tissue"):
        train_spectrum([world(1, SHARP_MM)], [smooth], request())


def test_a_model_that_lacks_an_array_says_so() -> None:
    bundle = train_input([world(1, SHARP_MM)], [world(2, SOFT_MM)], request("input"))
    with pytest.raises(ModelError, match="log_gain"):
        load_spectrum(bundle, False)


@pytest.mark.parametrize("method", ["spectrum", "spectrum-plain", "band-energy"])
def test_a_model_with_settings_of_earlier_versions_is_applied_as_ever(
    method: str, tmp_path: Path
) -> None:
    """Settings of the fit that no longer exist do not matter once it is fitted."""
    source, target = [world(1, SHARP_MM)], [world(2, SOFT_MM)]
    row = METHODS[method]
    trained = row.train(source, target, request(method))
    retired = {"classes": 12, "local_mm": 5.6}
    assert set(retired) == RETIRED
    replace(trained, settings={**trained.settings, **retired}).write(tmp_path / "old")
    old, new = Bundle.read(tmp_path / "old"), trained.write(tmp_path / "new")
    assert old.settings["classes"] == 12
    old = replace(old, sha256=new.sha256)  # the draw of added noise follows the model's hash
    for direction in ("a2b", "b2a"):
        mapped = [row.load(model, direction, RunOptions())(source[0]) for model in (old, new)]
        assert np.array_equal(*mapped)


@pytest.mark.shared
def test_real_kernels_are_matched_from_different_bodies(shared: Path) -> None:
    """One patient, two kernels (Siemens B70f, B40f), no slice position in common; both draws.

    A check on reality, not a study. Learned on the lower half, tested on the upper.
    """
    folder = shared / "real_ct" / "siemens_sensation10"
    sharp, soft = (read_all(folder / name)[0] for name in ("B70f", "B40f"))
    quarters = slice(0, 7), slice(8, 15)
    test = slice(15, 30)
    for learn_from, learn_to in (quarters, quarters[::-1]):
        bundle = train_spectrum(
            [sharp.select(learn_from)], [soft.select(learn_to)], request("spectrum")
        )
        pairs = ((False, sharp, soft, 48.0), (True, soft, sharp, 42.5))
        for reverse, scan, wanted, least_db in pairs:
            done = load_spectrum(bundle, reverse)(scan.select(test))
            window = HUWindow()
            error = window.to_fraction(done) - window.to_fraction(wanted.select(test).hu)
            assert -10 * np.log10(np.mean(error**2)) > least_db
