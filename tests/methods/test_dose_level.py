"""Scans at another dose than a model's: each brought to the target's level of noise, on request."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest

from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum.expected_noise import expected_noise
from cvsct.methods.spectrum.noise_law import BEYOND, NoiseLaw, SideLaws
from cvsct.methods.spectrum.scan_noise import MOST_OFFSET, noise_offset
from cvsct.model.bundle import Bundle
from tests.conftest import make_volume
from tests.methods.test_noise_synthesis import noise_sd
from tests.methods.test_separate_gains import train, world


@cache
def model(dose_level: str) -> Bundle:
    return train(world(3, 0.15, 0.15, 25.0), world(4, 0.4, 0.4, 25.0), dose_level=dose_level)


def test_each_scan_is_brought_to_the_noise_of_the_target() -> None:
    target = noise_sd(world(4, 0.4, 0.4, 25.0).hu)
    for seed, noise in ((11, 15.0), (12, 25.0), (13, 45.0)):
        scan = world(seed, 0.15, 0.15, noise)
        fixed, by_law = (
            load_spectrum(model(level), False).fitted_to(scan) for level in ("fixed", "target-law")
        )
        assert noise_sd(fixed(scan)) == pytest.approx(target * noise / 25.0, rel=0.15)
        assert noise_sd(by_law(scan)) == pytest.approx(target, rel=0.15)
        if noise == 45.0:
            assert re.search(r"noise 1\.[78]\d times that of its side", by_law.remark)


def test_a_scan_of_the_target_passes_unchanged() -> None:
    scan = world(14, 0.4, 0.4, 25.0)
    mapping = load_spectrum(model("target-law"), False).fitted_to(scan)
    assert np.array_equal(mapping(scan), scan.hu.astype(np.float32))
    assert "left as it is" in mapping.remark


def test_a_scan_without_soft_tissue_is_filtered_for_its_sides_dose() -> None:
    lung = make_volume(np.full((3, 330, 330), -800.0), pixel_mm=0.7)
    mapping = load_spectrum(model("target-law"), False).fitted_to(lung)
    assert "too little soft tissue to measure its noise" in mapping.remark


def test_the_offset_is_limited_and_unknown_on_coarse_pixels() -> None:
    scan = world(15, 0.15, 0.15, 25.0)
    f = np.arange(0.0, 0.8, 0.025)
    reference = float(expected_noise(scan).slice_mean.mean())
    law = NoiseLaw(0.5, 1.0)
    laws = SideLaws(law, law, reference, reference, reference)
    assert noise_offset(scan, f, f * 0 - 20, law, laws) == MOST_OFFSET
    assert noise_offset(scan, f, f * 0 + 20, law, laws) == -MOST_OFFSET
    assert noise_offset(scan, f[f < 0.4], f[f < 0.4] * 0, law, laws) is None


def test_a_law_is_followed_no_further_than_the_filter_follows_it() -> None:
    """A small body, beyond the training's: its noise is compared with what the filter expects."""
    scan = world(16, 0.15, 0.15, 25.0)
    f = np.arange(0.0, 0.8, 0.025)
    reference = float(expected_noise(scan).slice_mean.mean())
    law = NoiseLaw(1.0, 1.0)
    near, far = (
        noise_offset(scan, f, f * 0 + 6.4, law, SideLaws(law, law, level, level, level))
        for level in (reference, reference + 3.0)
    )
    assert near is not None
    assert far == pytest.approx(near + BEYOND, abs=0.01)
