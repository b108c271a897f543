"""Texture statistics: sums of groups of scans, and what is read off them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cvsct.core.volume import CTVolume
from cvsct.methods.spectrum.kernel_ratio import fit_kernel_ratio
from cvsct.methods.spectrum.matched_tissue import MatchedTissue
from cvsct.methods.spectrum.settings import SpectrumSettings
from cvsct.methods.spectrum.texture import Texture, TextureLayout, measure_patches, texture_of
from tests.methods.test_classical import SHARP_MM, SOFT_MM, world
from tests.support.patches import made_patches

ALL_SLICES = 10_000
LAYOUT = TextureLayout()


def scan(seed: int, sigma_mm: float, pixel_mm: float, patient: str = "") -> CTVolume:
    """Two slices of a patient; a scan that names none is a patient of its own."""
    return replace(world(seed, sigma_mm, pixel_mm, slices=2), patient=patient)


@cache
def groups(sigma_mm: float) -> tuple[list[CTVolume], list[CTVolume]]:
    """Scans of one scanner in two groups of different patients; each with pixels of its own."""
    first = 10 * round(100 * sigma_mm)
    return (
        [
            scan(first, sigma_mm, 0.7, "p"),
            scan(first + 1, sigma_mm, 0.7),
            scan(first + 2, sigma_mm, 0.8, "p"),
        ],
        [scan(first + 3, sigma_mm, 0.7), scan(first + 4, sigma_mm, 1.7, "q")],
    )


def measured(scans: list[CTVolume]) -> Texture:
    return measure_patches(scans, LAYOUT, ALL_SLICES, "source").texture()


@cache
def added_and_joint(sigma_mm: float) -> tuple[Texture, Texture]:
    one, other = groups(sigma_mm)
    return measured(one) + measured(other), measured([*one, *other])


def assert_equal(a: Texture, b: Texture, rtol: float = 1e-9) -> None:
    assert a.layout == b.layout
    others = b.moments()
    for name, part in a.moments().items():
        size = np.abs(others[name].sums).max(initial=0.0)
        np.testing.assert_allclose(
            part.sums, others[name].sums, rtol=rtol, atol=rtol * size, err_msg=name
        )
        np.testing.assert_array_equal(part.patients, others[name].patients, err_msg=name)


def test_statistics_of_two_groups_of_patients_add_up_to_those_of_all() -> None:
    added, joint = added_and_joint(SHARP_MM)
    assert_equal(added, joint)
    assert joint.soft_mode.patients.sum() == 4
    assert joint.n_body > 100
    assert joint.n_soft > 500


@pytest.mark.parametrize("pixel_mm", [0.9, 1.7])
def test_statistics_of_coarser_scans_add_up_as_well(pixel_mm: float) -> None:
    """They reach fewer frequencies; power is measured in single precision."""
    fine, coarse = groups(SHARP_MM)[0], [scan(19, SHARP_MM, pixel_mm, "q")]
    one, other = measured(fine), measured(coarse)
    assert len(one.frequencies_per_mm) > len(other.frequencies_per_mm)
    assert_equal(other + one, measured([*fine, *coarse]), rtol=1e-9)


def test_a_fit_to_added_statistics_is_that_to_all_scans() -> None:
    (added_a, joint_a), (added_b, joint_b) = map(added_and_joint, (SHARP_MM, SOFT_MM))
    added, joint = (
        fit_kernel_ratio(*sides, SpectrumSettings(), dose_law_sd=0.4)
        for sides in ((added_a, added_b), (joint_a, joint_b))
    )
    assert np.array_equal(added.frequencies_per_mm, joint.frequencies_per_mm)
    np.testing.assert_allclose(added.log_gain, joint.log_gain, atol=1e-9)
    assert added.separate is not None
    assert joint.separate is not None
    for name in ("noise", "noise_radial", "structure", "source_noise", "target_noise"):
        np.testing.assert_allclose(
            getattr(added.separate, name), getattr(joint.separate, name), atol=1e-9, err_msg=name
        )


def test_statistics_up_to_a_frequency_are_the_first_of_all() -> None:
    joint = added_and_joint(SHARP_MM)[1]
    cut = joint.up_to(12)
    assert cut.frequencies_per_mm == pytest.approx(0.025 * np.arange(12))
    for name, part in cut.moments().items():
        whole = joint.moments()[name]
        n = min(12, whole.sums.shape[1])
        assert part.sums.shape[1] == n
        np.testing.assert_array_equal(part.sums, whole.sums[:, :n])
        np.testing.assert_array_equal(part.patients, whole.patients[:, :n])
    assert cut.n_body == joint.n_body


def test_statistics_with_other_patches_do_not_add_up() -> None:
    texture = added_and_joint(SHARP_MM)[1]
    with pytest.raises(ValueError, match=r"patch_mm=40.*patch_mm=30.*do not add up"):
        texture + replace(texture, layout=TextureLayout(patch_mm=30.0))


F = LAYOUT.step_per_mm * np.arange(25)
FROM = 1 + LAYOUT.n_low
"""First frequency at which the kernels of the bodies below differ."""


def bodies(
    seed: int, gain: np.ndarray, noise: np.ndarray, patches: int = 3000, hu: float = 0.0
) -> Texture:
    """Patches of structure that falls with frequency, and of noise by attenuation.

    Args:
        gain: log power gain of structure at each frequency.
        noise: log noise power where attenuation is as expected on average.
        hu: by which bodies are brighter; bright tissue has more structure.
    """
    rng = np.random.default_rng(seed)
    mean_hu = rng.normal(hu, 60, patches)
    energy = rng.normal(9.0, 1.2, patches) + 0.004 * mean_hu
    in_slice = rng.normal(0, 0.4, patches)
    log_noise = in_slice + rng.normal(0, 0.3, patches)
    structure = energy[:, None] - 2.7 * np.log(np.maximum(F, F[1]) / 0.05) + gain
    structure += 0.002 * mean_hu[:, None] + rng.normal(0, 0.5, (patches, len(F)))
    seen = np.logaddexp(structure, noise + (0.5 * in_slice + 0.9 * (log_noise - in_slice))[:, None])
    seen += rng.normal(0, 0.17, seen.shape)
    low = slice(1, FROM)
    seen[:, low] = energy[:, None] + rng.normal(0, 0.1, seen[:, low].shape)
    body = made_patches(seen, mean_hu=mean_hu, log_noise=log_noise, slice_log_noise=in_slice)
    patient = np.arange(patches) % 10
    return texture_of(body, body.take(patient[:0]), patient, patient[:0], LAYOUT)


def test_the_ratio_of_structure_is_recovered_beside_other_noise() -> None:
    """Noise is as strong as structure at 0.26 cycles/mm in the source, and 0.16 in the target."""
    truth = np.where(np.arange(len(F)) < FROM, 0.0, -4.0 * F**2)
    levels = np.full(len(F), 4.5), np.full(len(F), 5.8)
    textures = bodies(1, 0 * F, levels[0]), bodies(2, truth, levels[1], hu=20.0)
    matched = MatchedTissue.of(*textures)
    noise = [
        np.outer(level, side.body.form(one=1.0)) + side.body.form(noise=0.9, slice_noise=-0.4)
        for level, side in zip(levels, textures, strict=True)
    ]
    ratio, sd = matched.structure_log_ratio(*noise)
    told = (np.arange(len(F)) >= FROM) & (F < 0.4)
    assert np.abs(ratio - truth)[told].max() < 0.1
    assert np.abs((ratio - truth) / sd)[told].max() < 3.5
    assert np.all(np.diff(sd[FROM:]) > -0.01)  # the more noise, the less is told
    misled = matched.log_ratio()
    assert np.isnan(misled[0])
    assert np.abs(misled - truth)[told].max() > 0.5


def test_without_noise_the_ratio_of_structure_is_that_of_power() -> None:
    truth = np.where(np.arange(len(F)) < FROM, 0.0, -4.0 * F**2)
    nothing = np.full(len(F), -30.0)
    matched = MatchedTissue.of(bodies(3, 0 * F, nothing), bodies(4, truth, nothing, hu=20.0))
    form = np.outer(nothing, np.eye(len(matched.moments[0, 0]))[0])
    ratio, sd = matched.structure_log_ratio(form, form)
    assert np.abs(ratio - matched.log_ratio())[1:].max() < 0.01
    assert np.abs(ratio - truth)[FROM:].max() < 0.06
    assert np.all(sd[1:] < 0.05)


def test_frequencies_without_known_noise_are_not_told() -> None:
    level = np.full(len(F), 4.5)
    textures = bodies(1, 0 * F, level), bodies(2, 0 * F, level)
    form = np.outer(level, textures[0].body.form(one=1.0))
    unknown = form.copy()
    unknown[20:] = np.nan
    ratio, sd = MatchedTissue.of(*textures).structure_log_ratio(unknown, unknown)
    assert np.isnan(ratio[[0, *range(20, len(F))]]).all()
    assert np.isinf(sd[20:]).all()
    assert np.isfinite(ratio[1:20]).all()
