"""Noise that is added where no gain can make it: its law, its draw, and what is told of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from pydicom import Dataset

from cvsct.core.volume import CTVolume
from cvsct.inference.harmonize_volume import harmonize_volume
from cvsct.inference.streaming import synthesis_report, with_synthesis
from cvsct.io.dicom.derive import derived_header
from cvsct.io.dicom.pixels import encoding_of
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum.block_filter import AddedVariance, filter_blocks
from cvsct.methods.spectrum.block_gains import AddedNoise, BlockGains
from cvsct.methods.spectrum.expected_noise import DIRECTIONS, WATER_PER_MM, expected_noise
from cvsct.methods.spectrum.noise_field import NoiseField, series_key
from cvsct.methods.spectrum.noise_law import NoiseLaw, SideLaws
from cvsct.methods.spectrum.patches import log_tube_load
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume
from tests.methods.test_separate_gains import train, world
from tests.support.dicom_files import DERIVATION, slice_dataset, stored_values

SHAPE = (96, 80)
PINNED = [0.8036794, 0.1136447, 1.0277179, -0.1358186]


def test_noise_of_a_slice_depends_on_its_key_and_position_alone() -> None:
    forth, back = NoiseField("key", 5.0), NoiseField("key", 5.0)
    positions = np.arange(0, 30, 2.5)
    first = {z: forth.slice_noise(z, SHAPE) for z in positions}
    for z in positions[::-1]:
        assert np.array_equal(back.slice_noise(z, SHAPE), first[z])
    assert not np.array_equal(NoiseField("other", 5.0).slice_noise(0.0, SHAPE), first[0.0])
    assert not np.array_equal(first[0.0], first[2.5])


def test_the_draw_is_the_same_in_every_version() -> None:
    """Integers of Philox by a key of SHA-256: these values must never change."""
    noise = NoiseField("key", 0.0).slice_noise(12.34, (2, 2))
    assert noise.ravel().tolist() == pytest.approx(PINNED, abs=1e-6)


def test_noise_is_white_normal_and_of_unit_variance() -> None:
    noise = NoiseField("key", 5.0).slice_noise(1.0, (512, 512)).astype(float)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert np.mean(noise**4) == pytest.approx(3, abs=0.15)
    power = np.abs(scipy.fft.rfft2(noise)) ** 2 / noise.size
    rows, columns = power.shape
    quarters = [power[: rows // 4, :], power[:, : columns // 4], power[:, -columns // 4 :]]
    assert [quarter.mean() for quarter in quarters] == pytest.approx([1, 1, 1], abs=0.02)


def test_slices_share_noise_as_they_overlap() -> None:
    field = NoiseField("key", 5.0)
    first = field.slice_noise(10.0, (256, 256))
    for step_mm, shared in ((1.25, 0.75), (2.5, 0.5), (5.0, 0.0), (7.0, 0.0)):
        other = NoiseField("key", 5.0).slice_noise(10.0 + step_mm, (256, 256))
        assert np.mean(first * other) == pytest.approx(shared, abs=0.015), step_mm


def disc(hu: float = 20.0, slices: int = 3, ratio: float = 1.0) -> CTVolume:
    """Homogeneous disc, or an ellipse that is wider than high by a ratio."""
    y, x = (np.mgrid[:300, :300] - 149.5) * 1.0
    inside = np.hypot(y * ratio, x) < 130
    return make_volume(np.where(inside, hu, -1000.0)[None].repeat(slices, 0), pixel_mm=1.0)


def adding(sd_hu: float, law: NoiseLaw, reference: float = 0.0) -> BlockGains:
    """Gains of one, and white noise of a standard deviation at the reference added to it."""
    f = np.array([0.0, 0.05, 1.5])
    zeros = np.zeros(3)
    return BlockGains(
        f, zeros + 9.0, zeros, zeros, zeros, max_gain=16.0,
        laws=SideLaws(law, law, reference, reference, reference),
        added=AddedNoise(zeros, zeros + 9.0, zeros + 2 * np.log(sd_hu), law),
    )  # fmt: skip


def test_added_noise_has_the_level_of_its_law() -> None:
    volume = disc()
    expected = expected_noise(volume)
    gains = adding(10.0, NoiseLaw(1.0, 1.0), float(expected.slice_mean[0]))
    made = filter_blocks(volume, gains, NoiseField("key", 0.0))
    middle, rim = (made - volume.hu)[:, 130:170, 130:170], (made - volume.hu)[:, 130:170, 40:70]
    rows, columns = expected.log_power.shape[1:]
    local = expected.log_power[0] - expected.slice_mean[0]
    for region, at in (
        (middle, (rows // 2, columns // 2)),
        (rim, (rows // 2, columns * 55 // 300)),
    ):
        assert region.std() == pytest.approx(10 * np.exp(0.5 * local[at]), rel=0.1)
    assert middle.std() > 1.1 * rim.std()


def test_noise_is_added_up_to_edges() -> None:
    """The floor bounds noise in air; the edge of a body is no noise."""
    volume = disc()
    expected = expected_noise(volume)
    gains = adding(20.0, NoiseLaw(1.0, 0.0), float(expected.slice_mean[0]))
    made = filter_blocks(volume, gains, NoiseField("key", 0.0)) - volume.hu
    y, x = np.mgrid[:300, :300] - 149.5
    radius = np.hypot(y, x)
    inner = made[:, (radius > 60) & (radius < 90)].std()
    rim = made[:, (radius > 118) & (radius < 127)].std()
    assert rim == pytest.approx(inner, rel=0.1)


def test_added_noise_has_the_direction_of_the_rays() -> None:
    """Rays along an ellipse's long axis are noisier; their frequencies point across it."""
    volume = disc(ratio=1.8)
    directional = expected_noise(volume, by_direction=True).directional
    middle = directional[:, 0, directional.shape[2] // 2, directional.shape[3] // 2]
    assert int(np.argmax(middle)) == DIRECTIONS // 2  # down the rows: across the long axis
    gains = adding(10.0, NoiseLaw(1.0, 1.0), float(expected_noise(volume).slice_mean[0]))
    made = filter_blocks(volume, gains, NoiseField("key", 0.0)) - volume.hu
    region = made[:, 118:182, 118:182]
    power = np.mean(np.abs(scipy.fft.fft2(region)) ** 2, axis=0)
    down, across = power[8:24, :4].mean(), power[:4, 8:24].mean()
    most = np.exp(middle[DIRECTIONS // 2] - middle[0])  # of directions 15 degrees wide
    assert 0.5 * most < down / across < 1.1 * most


def test_expected_noise_of_a_disc_is_the_mean_line_integral() -> None:
    """Rays through the middle of a disc all cross its diameter; a bowtie adds nothing there."""
    expected = expected_noise(disc(hu=0.0)).log_power[0]
    middle = expected[len(expected) // 2, len(expected) // 2]
    assert middle == pytest.approx(WATER_PER_MM * 260, rel=0.03)


@cache
def higher_dose(synthesis: str = "auto") -> Bundle:
    """The source has a third of the target's noise, by dose alone."""
    return train(world(21, 0.2, 0.2, 8.0), world(22, 0.2, 0.2, 24.0), synthesis=synthesis)


def noise_sd(hu: np.ndarray) -> float:
    """Standard deviation in the homogeneous half of a world."""
    return float(np.std(hu[:, 120:210, 70:120] - hu[:, 120:210, 70:120].mean(axis=0)))


def test_missing_noise_is_added_and_structure_kept() -> None:
    quiet, noisy = world(23, 0.2, 0.2, 8.0), world(23, 0.2, 0.2, 24.0)
    mapping = load_spectrum(higher_dose(), False).fitted_to(quiet)
    made = mapping(quiet)
    assert noise_sd(made) == pytest.approx(noise_sd(noisy.hu), rel=0.1)
    assert mapping.synthesis is not None
    assert mapping.synthesis.predicted_share == pytest.approx(8 / 9, abs=0.06)
    assert mapping.synthesis.measured_share() == pytest.approx(8 / 9, abs=0.06)
    clean = world(23, 0.2, 0.2, 1e-3).hu[:, 100:230, 175:230]
    structure = [
        float(np.sum(clean * hu[:, 100:230, 175:230]) / np.sum(clean**2)) for hu in (quiet.hu, made)
    ]
    assert structure[1] == pytest.approx(structure[0], rel=0.05)


def test_the_other_way_adds_none_and_off_adds_none() -> None:
    back = load_spectrum(higher_dose(), True).fitted_to(world(22, 0.2, 0.2, 24.0))
    assert back.synthesis is None
    off = load_spectrum(higher_dose("off"), False)
    assert off.synthesis is None
    quiet = world(23, 0.2, 0.2, 8.0)
    loud = noise_sd(world(22, 0.2, 0.2, 24.0).hu)
    assert noise_sd(off(quiet)) == pytest.approx(loud, rel=0.2)  # amplified


def test_one_kernel_needs_no_noise() -> None:
    bundle = train(world(3, 0.15, 0.15, 25.0), world(4, 0.4, 0.4, 25.0))
    assert "one linear kernel explains both" in bundle.training["noise_over_structure"]
    assert load_spectrum(bundle, True).synthesis is None
    assert "is added" in higher_dose().training["noise_over_structure"]


def test_chunks_and_order_change_nothing() -> None:
    volume = world(23, 0.2, 0.2, 8.0)
    mapping = load_spectrum(higher_dose(), False).fitted_to(volume)
    whole = mapping(volume)
    for i in (7, 2, 4):
        assert np.array_equal(mapping.run(volume.select([i]))[0], whole[i])
    assert np.array_equal(mapping.run(volume.select([3, 4, 5])), whole[3:6])


HASHED = """
import hashlib
import numpy as np
from cvsct.core.volume import CTVolume
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.model.bundle import Bundle
from cvsct.model.pretrained import bundled

y, x = np.mgrid[:512, :512] - 255.5
body = np.where(np.hypot(y, 1.4 * x) < 230, 40.0, -1000.0)
hu = body + np.random.default_rng(0).normal(0, 20, (2, 512, 512))
volume = CTVolume.from_array(np.maximum(hu, -1024).astype(np.float32), (5.0, 0.68, 0.68))
bundle = Bundle.read(bundled("ge-lung-siemens-bl64-spectrum"))
for reverse in (False, True):
    print(hashlib.sha256(load_spectrum(bundle, reverse)(volume).tobytes()).hexdigest())
"""


def test_threads_of_libraries_change_no_byte() -> None:
    """Workers have as many as there are cores for each; sums of BLAS depend on their number."""
    printed = {
        subprocess.run(
            [sys.executable, "-c", HASHED], check=True, capture_output=True, text=True,
            env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        ).stdout
        for threads in ("1", "2", "3")
    }  # fmt: skip
    assert len(printed) == 1
    assert len(set(printed.pop().split())) == 2


def test_the_series_or_a_seed_chooses_the_draw() -> None:
    volume = replace(world(23, 0.2, 0.2, 8.0), series_uid="")
    mapping = load_spectrum(higher_dose(), False)
    plain, again, named, seeded = (
        mapping.fitted_to(sample, seed)(volume)
        for sample, seed in (
            (volume, None), (volume, None), (replace(volume, series_uid="1.2"), None), (volume, 5),
        )
    )  # fmt: skip
    assert np.array_equal(plain, again)
    for other in (named, seeded):
        difference = (other - plain)[:, 120:210, 70:120]
        assert difference.std() > 0.5 * 24
    assert series_key(replace(volume, series_uid="1.2")) == "1.2"
    assert series_key(volume) != series_key(volume.with_hu(volume.hu + 1))


def test_a_scan_of_the_target_passes_to_the_bit() -> None:
    noisy = world(22, 0.2, 0.2, 24.0)
    mapping = load_spectrum(higher_dose(), False).fitted_to(noisy)
    assert np.array_equal(mapping(noisy), noisy.hu)
    assert synthesis_report(mapping) == {}


def test_padding_gets_no_noise_and_air_keeps_its_mean() -> None:
    volume = world(23, 0.2, 0.2, 8.0)
    padding = np.zeros(volume.hu.shape, bool)
    padding[:, :40, :40] = True
    padded = replace(volume, hu=np.where(padding, np.float32(-1024), volume.hu), padding=padding)
    made = harmonize_volume(padded, load_spectrum(higher_dose(), False)).hu
    assert np.all(made[padding] == -1024)
    air = np.s_[:, 5:30, -30:-5]
    assert made[air].mean() - volume.hu[air].mean() == pytest.approx(0, abs=1.0)


def test_what_was_added_is_told_in_headers_and_manifest() -> None:
    volume = world(23, 0.2, 0.2, 8.0)
    mapping = load_spectrum(higher_dose(), False).fitted_to(volume)
    derivation = with_synthesis(DERIVATION, mapping)
    source = slice_dataset(0, stored_values(1)[0])
    header = derived_header(source, encoding_of("source", source), derivation, "1.2.3.9")
    assert header.SyntheticData == "YES"
    share = f"{derivation.synthesized_share:.0%}"
    assert header.DerivationDescription.startswith(f"Noise was synthesized: {share}")
    assert "Research use only" in header.DerivationDescription
    mapping(volume)
    report = synthesis_report(mapping)
    assert report["predicted_share"] == derivation.synthesized_share
    assert report["measured_share"] == pytest.approx(report["predicted_share"], abs=0.05)
    plain = derived_header(source, encoding_of("source", source), DERIVATION, "1.2.3.9")
    assert "SyntheticData" not in plain


def test_variance_is_counted_over_blocks() -> None:
    variance = AddedVariance()
    assert variance.share == 0
    filter_blocks(disc(), adding(5.0, NoiseLaw(1.0, 1.0)), NoiseField("key", 0.0), variance)
    assert variance.share == pytest.approx(1.0)  # amplified to its gain of 9, to none of it


def test_tube_load_is_read_from_headers() -> None:
    headers = []
    for current in (100, 200, None):
        header = Dataset()
        header.ExposureTime = 500
        if current:
            header.XRayTubeCurrent = current
        headers.append(header)
    volume = replace(make_volume(np.zeros((3, 8, 8))), headers=tuple(headers))
    load = log_tube_load(volume)
    assert load[1] - load[0] == pytest.approx(np.log(2))
    assert np.isnan(load[2])
    assert np.isnan(log_tube_load(make_volume(np.zeros((2, 8, 8))))).all()


def test_a_model_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    new = higher_dose()
    kept = {
        name: array
        for name, array in new.weights.items()
        if name not in ("noise_laws", "expected_log_noise", "one_kernel")
    }
    settings = {key: value for key, value in new.settings.items() if key != "synthesis"}
    replace(new, weights=kept, settings=settings).write(tmp_path)
    mapping = load_spectrum(Bundle.read(tmp_path), False)
    assert mapping.synthesis is None
    assert mapping(world(23, 0.2, 0.2, 8.0)).shape == world(23, 0.2, 0.2, 8.0).hu.shape
