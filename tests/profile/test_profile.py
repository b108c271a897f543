"""Profiles: merging is addition, few patients are left out, and a fit needs no image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.moments import Moments
from cvsct.core.volume import Acquisition
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import find_method
from cvsct.methods.spectrum.side import Side
from cvsct.model.bundle import Bundle
from cvsct.profile.compare import RULE, compare_profiles
from cvsct.profile.privacy import MIN_FOR_SPREAD, MIN_PATCHES, MIN_PATIENTS
from cvsct.profile.profile import OTHER, POOLED, measure_profile
from tests.support.profiles import SOFT_PX, patient, patients, profile_of

ABLE = ("spectrum", "spectrum-plain", "band-energy")


def fitted(method: str, source: Side, target: Side) -> Bundle:
    row = find_method(method)
    assert row.fit is not None
    needs_images = {"refine": False, "repeated_fits": False}
    settings = row.settings | (needs_images if method == "spectrum" else {})
    return row.fit(source, target, TrainingRequest(method, Path("unused"), settings))


def largest_difference(a: Bundle, b: Bundle) -> float:
    assert a.weights.keys() == b.weights.keys()
    return max(float(np.abs(a.weights[name] - b.weights[name]).max()) for name in a.weights)


def test_merging_two_profiles_is_measuring_all_scans_together() -> None:
    merged = profile_of(0, 3) + profile_of(3, 6)
    together = profile_of(0, 6)
    for name, part in together.moments().items():
        other = merged.moments()[name]
        np.testing.assert_array_equal(other.patients, part.patients, name)
        np.testing.assert_allclose(other.sums, part.sums, rtol=1e-9, atol=1e-9, err_msg=name)
    assert merged.groups == together.groups
    assert merged.n_patients == together.n_patients == 6


def test_another_split_of_the_scans_gives_the_same_figures() -> None:
    target = profile_of(6, 9, SOFT_PX)
    splits = (profile_of(0, 3) + profile_of(3, 6), profile_of(4, 6) + profile_of(0, 4))
    first, second = (fitted("spectrum", split.side, target.side) for split in splits)
    assert largest_difference(first, second) < 1e-9


@pytest.mark.parametrize("method", ABLE)
def test_a_model_from_merged_profiles_is_the_model_from_all_scans(method: str) -> None:
    merged = profile_of(0, 3) + profile_of(3, 6)
    target = profile_of(6, 9, SOFT_PX)
    from_profiles = fitted(method, merged.side, target.side)
    from_images = fitted(method, patients(0, 6), patients(6, 9, SOFT_PX))
    assert largest_difference(from_profiles, from_images) < 1e-9
    assert from_profiles.source == from_images.source


def test_one_side_may_be_images() -> None:
    from_profiles = fitted("spectrum", profile_of(0, 6).side, profile_of(6, 9, SOFT_PX).side)
    half = fitted("spectrum", profile_of(0, 6).side, patients(6, 9, SOFT_PX))
    assert largest_difference(from_profiles, half) == 0


@pytest.mark.parametrize("method", ABLE)
def test_swapped_profiles_invert_the_gains(method: str) -> None:
    a, b = profile_of(0, 6).side, profile_of(6, 9, SOFT_PX).side
    forth, back = fitted(method, a, b), fitted(method, b, a)
    np.testing.assert_allclose(forth.weights["log_gain"], -back.weights["log_gain"], atol=1e-9)


def test_no_shared_sum_has_few_patches_or_patients() -> None:
    shared = profile_of(0, 6).shareable()
    assert any(part.patches.sum() > 0 for part in shared.moments().values())
    for name, part in shared.moments().items():
        held = part.counts > 0
        assert (part.patients[held] >= MIN_PATIENTS).all(), name
        assert name not in POOLED or (part.counts[held] >= MIN_PATCHES).all(), name
        assert not part.sums[~held].any()
    assert not shared.few_patients


def test_nothing_is_lost_where_strata_of_few_are_added_to_their_neighbors() -> None:
    whole = profile_of(0, 6)
    shared = whole.shareable()
    lowest = slice(1, 20)  # frequencies that all pixels reach
    for name in ("by_ratio", "by_roughness"):
        before, after = (p.moments()[name] for p in (whole, shared))
        np.testing.assert_allclose(after.total[lowest], before.total[lowest])
    assert shared.share_kept(whole) > 0.98


def test_no_difference_of_two_frequencies_is_of_few_patients() -> None:
    """Scans of coarser pixels end at lower frequencies: what ends must not be one patient's."""
    fine, coarse = patients(0, 6), [patient(9, pixel_mm=0.85)]
    shared = measure_profile([*fine, *coarse]).shareable()
    for name in ("body", "by_ratio", "by_roughness"):
        part = shared.moments()[name]
        for counts, persons in zip(part.counts, part.patients, strict=True):
            held = np.flatnonzero(counts)
            steps = -np.diff(counts[held])
            assert (steps >= 0).all()
            assert (steps[steps > 0] >= MIN_PATCHES).all(), name
            assert (-np.diff(persons[held])[steps > 0] >= MIN_PATIENTS).all(), name


def test_no_sum_is_mostly_of_one_patient() -> None:
    large = [replace(patient(0), patient="large", series_uid=f"1.2.9.{i}") for i in range(20)]
    shared = measure_profile([*large, patient(1), patient(2)]).shareable()
    assert shared.texture.n_body == 0


def test_values_of_patients_are_squared_only_from_eight_on() -> None:
    """The sum and the sum of squares of whole numbers of three patients give them away."""
    few = profile_of(0, 6).shareable()
    for name in ("load", "fat_mode", "soft_mode"):
        assert not few.moments()[name].sums.any(), name
    noise = few.guard.noise.sums[0]
    spread = noise[:, -1, -1] - noise[:, 0, -1] ** 2 / np.maximum(noise[:, 0, 0], 1)
    np.testing.assert_allclose(spread, 0, atol=1e-6 * noise[:, -1, -1].max())
    enough = profile_of(0, MIN_FOR_SPREAD).shareable()
    assert enough.texture.soft_mode.patches.sum() == MIN_FOR_SPREAD


def test_scans_that_name_no_patient_are_one_patient() -> None:
    unnamed = [replace(patient(i), patient=name) for i, name in enumerate(("", "", "study-1"))]
    assert measure_profile(unnamed).n_patients == 1
    assert not any(
        part.sums.any() for part in measure_profile(unnamed).shareable().moments().values()
    )


def test_only_patients_whose_slices_are_used_count() -> None:
    profile = measure_profile(patients(0, 6), max_slices=3)
    assert profile.n_patients == profile.n_series == profile.n_slices == 3


def test_a_scanner_compared_with_itself_has_not_changed() -> None:
    """Leaving out must not look like a change."""
    whole = profile_of(0, 8)
    constancy = compare_profiles(whole.shareable(), whole)
    assert constancy.is_constant
    assert str(constancy).startswith("8 patients in the profile and 8 today; the verdict was tried")
    assert str(constancy).endswith(f"{RULE}\nthe scanner is as it was")
    gain = fitted("spectrum", whole.side, whole.shareable().side).weights["noise_log_gain"]
    assert np.abs(gain[:28]).max() < 0.02


def test_enough_patients_tell_a_change_and_few_do_not() -> None:
    then, now = (
        replace(profile_of(0, 6), n_patients=20),
        replace(profile_of(6, 9, SOFT_PX), n_patients=20),
    )
    changed = compare_profiles(then, now)
    assert changed.is_constant is False
    assert not changed.caveats
    assert "CHANGED" in str(changed)
    few = compare_profiles(then, replace(now, n_patients=7))
    assert few.is_constant is None
    assert str(few).startswith("whether the scanner has changed cannot be told: 20 patients in")
    assert "CHANGED" not in str(few)


def test_unlike_bodies_tell_no_change() -> None:
    whole = profile_of(0, 8)
    tissue = whole.guard.tissue
    shifted = replace(tissue, sums=np.roll(tissue.sums, 3, axis=1))
    other = replace(whole, guard=replace(whole.guard, tissue=shifted))
    constancy = compare_profiles(whole, other)
    assert constancy.is_constant is None
    assert "their bodies are unlike" in constancy.untold[0]


def test_what_is_left_out_does_not_turn_into_its_opposite() -> None:
    """One patient with a contrast agent of many: it is not that nobody had one."""
    whole = profile_of(0, 6)
    people = np.repeat(np.arange(6), 80)
    given = np.where(people == 0, 0, 1)
    contrast = Moments.of({}, np.zeros((len(people), 1)), given, 3, people)
    texture = replace(whole.texture, contrast=contrast)
    shared = replace(whole, texture=texture).shareable()
    assert not shared.texture.contrast.patches.any()


def test_few_patients_are_kept_only_if_that_is_allowed() -> None:
    alone = profile_of(0, 2)
    assert not any(part.patients.any() for part in alone.shareable().moments().values())
    kept = alone.shareable(few_patients=True)
    assert kept.few_patients
    assert kept.texture.n_body > 0
    assert not profile_of(0, 6).shareable(few_patients=False).few_patients


def test_an_acquisition_of_one_patient_is_not_named() -> None:
    scans = [*patients(0, 4), patient(9, kernel="Rare")]
    profile = measure_profile(scans)
    assert any(group.acquisition.kernel == "Rare" for group in profile.groups)
    shared = profile.shareable()
    assert {group.acquisition.kernel for group in shared.groups} == {"K1", ""}
    assert shared.groups[-1].acquisition == OTHER == Acquisition()
    assert shared.n_patients == 5
    assert "Rare" not in str(shared.to_json())


def test_ranges_of_lengths_are_no_single_scans() -> None:
    profile = replace(profile_of(0, 3), pixel_mm=(0.683, 0.977), thickness_mm=(2.5, 5.0))
    shared = profile.shareable()
    assert shared.pixel_mm == (0.65, 1.0)
    assert shared.thickness_mm == (2.5, 5.0)


def test_two_series_of_one_patient_are_one_patient() -> None:
    again = replace(patient(0, noise_of=50), series_uid="1.2.77")
    profile = measure_profile([patient(0), again])
    assert profile.n_patients == 1
    assert profile.n_series == 2
    assert profile.texture.body.patients.max() == 1
