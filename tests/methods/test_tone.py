"""Differences of CT numbers between patients of two scanners, and their correction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from cvsct.core.masks import FAT
from cvsct.methods.base import TrainingRequest
from cvsct.methods.spectrum.apply import load_spectrum
from cvsct.methods.spectrum.hu_offset import tissue_mode_hu
from cvsct.methods.spectrum.patches import contrast_agent
from cvsct.methods.spectrum.texture import Texture, TextureLayout, texture_of
from cvsct.methods.spectrum.tone import (
    MIN_PATIENTS,
    apply_tone,
    reversed_tone,
    tone_difference,
)
from cvsct.methods.spectrum.train import train_spectrum
from tests.conftest import make_volume
from tests.methods.test_separate_gains import world
from tests.support.patches import made_patches

PER_PATIENT = 80


def side(
    fat_hu: float,
    soft_hu: float,
    patients: int = 20,
    seed: int = 0,
    agent: float = 0.0,
    size: float = 0.0,
    by_size_hu: float = 0.0,
    size_sd: float = 0.3,
) -> Texture:
    """Soft tissue of patients whose tissues scatter by 4 HU, in one slice each.

    Args:
        size: mean expected log noise; tissues darken by `by_size_hu` for each unit of it.
    """
    rng = np.random.default_rng(seed)
    means, slices, sizes = [], [], []
    for patient in range(patients):
        own = size + rng.normal(0, size_sd)
        for hu in (fat_hu, soft_hu):
            middle = hu + rng.normal(0, 4) - by_size_hu * own
            means.append(middle + rng.normal(0, 3, PER_PATIENT))
        slices.append(np.full(2 * PER_PATIENT, patient))
        sizes.append(np.full(2 * PER_PATIENT, own))
    mean_hu, number, noise = (np.concatenate(part) for part in (means, slices, sizes))
    soft = made_patches(
        np.zeros((len(mean_hu), 40)),
        mean_hu=mean_hu,
        slice_log_noise=noise,
        contrast_agent=np.full(len(mean_hu), agent),
        slice_number=number,
    )
    nothing = number[:0]
    return texture_of(soft.take(nothing), soft, nothing, number, TextureLayout())


def test_a_tone_curve_is_recovered_within_its_error() -> None:
    told = tone_difference(side(-100, 50, seed=1, patients=60), side(-102, 54, seed=2, patients=60))
    assert told.refusal == ""
    for tissue, truth in ((told.fat, -2.0), (told.soft, 4.0)):
        assert tissue.hu == pytest.approx(truth, abs=2.5 * tissue.se_hu)
        assert 0.5 < tissue.se_hu < 1
    np.testing.assert_allclose(told.curve[:, 1], [0, told.fat.corrected_hu, told.soft.hu])
    assert "significant" not in str(told)


def test_patients_alone_are_rarely_taken_for_a_difference_of_scanners() -> None:
    changed = [
        bool(
            tone_difference(side(-100, 50, seed=k), side(-100, 50, seed=k + 500)).curve[:, 1].any()
        )
        for k in range(40)
    ]
    assert sum(changed) <= 2


def test_larger_bodies_explain_a_difference() -> None:
    """Tissue of larger patients is darker on both scanners alike, and one has the larger ones."""
    told = tone_difference(
        side(-100, 50, seed=5, by_size_hu=6.0),
        side(-100, 50, seed=6, size=1.0, by_size_hu=6.0),
    )
    assert not told.curve[:, 1].any()


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (side(-100, 50, agent=1.0), side(-100, 70, seed=3), "contrast agent was given"),
        (side(-100, 50, agent=np.nan), side(-100, 70, seed=3), "headers do not say"),
        (side(-100, 50, seed=8), side(-100, 70, seed=9), "larger than calibrations differ"),
        (side(-100, 50, patients=MIN_PATIENTS - 1), side(-100, 70, seed=3), "patients of a side"),
    ],
)
def test_what_may_have_other_reasons_is_kept(a: Texture, b: Texture, said: str) -> None:
    told = tone_difference(a, b)
    assert said in told.refusal
    assert said in str(told)
    assert not told.curve[:, 1].any()


@pytest.mark.parametrize(("small", "large"), [(0.0, 1.0), (9.3, 10.1)])
def test_one_size_of_body_a_side_tells_nothing(small: float, large: float) -> None:
    a = side(-100, 50, seed=1, size=small, size_sd=0.0)
    b = side(-100, 56, seed=2, size=large, size_sd=0.0)
    assert "unknown" in str(tone_difference(a, b).soft)


def test_mixtures_of_fat_and_muscle_are_no_tissue() -> None:
    rng = np.random.default_rng(0)
    assert tissue_mode_hu(-50 - rng.exponential(10, 500), FAT) is None
    assert tissue_mode_hu(rng.normal(-100, 8, 500), FAT) == pytest.approx(-100, abs=3)


def test_a_curve_moves_fat_and_soft_tissue_alone_and_back() -> None:
    curve = np.array([[-500.0, 0.0], [-100.0, -4.0], [50.0, 5.0]])
    hu = np.array([[[-1000.0, -800.0, -500.0, -100.0, 50.0, 900.0]]], dtype=np.float32)
    moved = apply_tone(hu, curve)
    np.testing.assert_allclose(moved - hu, [[[0, 0, 0, -4, 5, 5]]], atol=1e-4)
    np.testing.assert_allclose(apply_tone(moved, reversed_tone(curve)), hu, atol=1e-3)
    np.testing.assert_allclose(apply_tone(hu, curve, 0.5) - hu, [[[0, 0, 0, -2, 2.5, 2.5]]])


def test_a_contrast_agent_is_read_from_headers() -> None:
    volume = make_volume(np.zeros((7, 8, 8)))
    assert np.isnan(contrast_agent(volume)).all()
    headers = [Dataset() for _ in range(7)]
    headers[1].ContrastBolusAgent = "Iomeron 350"
    headers[2].ContrastBolusAgent = "NONE"
    headers[3].ContrastBolusAgentSequence = [Dataset()]
    headers[4].ContrastBolusAgent = ""
    headers[5].ContrastBolusAgent, headers[5].ContrastBolusVolume = "", 100
    headers[6].PatientIdentityRemoved = "YES"
    told = contrast_agent(replace(volume, headers=tuple(headers)))
    np.testing.assert_array_equal(told, [0, 1, 0, 1, np.nan, 1, np.nan])


def test_a_model_applies_its_curve_both_ways() -> None:
    a, b = world(1, 0.15, 0.15, 25.0), world(2, 0.15, 0.15, 25.0)
    model = train_spectrum([a], [b], TrainingRequest("spectrum", Path("unused")))
    assert "tone_curve" not in model.weights
    assert "kept" in model.training["tone_by_patient"]
    curve = np.array([[-500.0, 0.0], [-100.0, -4.0], [50.0, 5.0]])
    model = replace(model, weights={**model.weights, "tone_curve": curve})
    flat = make_volume(np.full((1, 64, 64), 50.0))
    assert load_spectrum(model, False)(flat) == pytest.approx(55.0, abs=0.05)
    assert load_spectrum(model, True)(flat) == pytest.approx(45.2, abs=0.2)
