"""Repeated fits of `spectrum`: their groups, the arrays of a model, what they say of its gains."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import ModelError
from cvsct.core.volume import CTVolume
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import find_method
from cvsct.methods.spectrum.apply import load_repeated, load_spectrum
from cvsct.methods.spectrum.fit_ensemble import GROUPS, PREFIX, SHARES, SIDES
from cvsct.methods.spectrum.side import MeasuredSide
from cvsct.methods.spectrum.texture import TextureLayout, measure_patches
from cvsct.methods.spectrum.train import train_spectrum
from cvsct.model.bundle import Bundle
from tests.methods.test_separate_gains import train, world
from tests.methods.test_texture import assert_equal

LAYOUT = TextureLayout()


def patients(first: int, count: int, blur_mm: float) -> list[CTVolume]:
    """Scans of two slices of so many patients."""
    return [
        replace(world(first + i, blur_mm, blur_mm, 20.0, slices=2), patient=f"p{i}")
        for i in range(count)
    ]


@cache
def of_patients() -> Bundle:
    """A model of five patients a side."""
    request = TrainingRequest("spectrum", Path("unused"), settings={"refine": False})
    return train_spectrum(patients(60, 5, 0.2), patients(70, 5, 0.35), request)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_groups_add_up_to_the_whole(count: int) -> None:
    measured = measure_patches(patients(60, count, 0.2), LAYOUT, 1000, "source")
    groups = measured.groups(GROUPS)
    assert len(groups) == min(GROUPS, count if count > 1 else 2)  # two slices of one patient
    together = reduce(add, groups)
    if count > 1:
        assert_equal(together, measured.texture())
    else:  # who is one patient in all is one in each group
        assert together.n_body == measured.texture().n_body


def test_patients_stay_whole() -> None:
    scans = [replace(each, patient="pq"[i % 2]) for i, each in enumerate(patients(60, 4, 0.2))]
    groups = measure_patches(scans, LAYOUT, 1000, "source").groups(GROUPS)
    assert len(groups) == 2
    for group, own in zip(groups, (scans[::2], scans[1::2]), strict=True):
        assert_equal(group, measure_patches(own, LAYOUT, 1000, "source").texture())


def test_a_model_holds_a_fit_without_each_group_of_each_side() -> None:
    weights = of_patients().weights
    assert weights[SIDES].tolist() == [0] * GROUPS + [1] * GROUPS
    assert weights[SHARES].tolist() == [1 - 1 / GROUPS] * 2 * GROUPS
    for name in weights:
        if name.startswith(PREFIX) and name not in (SIDES, SHARES):
            whole = weights[name.removeprefix(PREFIX)]
            assert weights[name].shape == (2 * GROUPS, *whole.shape)
    noise = weights[PREFIX + "noise_log_gain"]
    assert 0 < np.abs(noise - weights["noise_log_gain"]).max() < 0.3
    assert len(np.unique(noise.round(12), axis=0)) == 2 * GROUPS


def test_a_fit_without_a_group_is_the_fit_of_the_others() -> None:
    source, target = patients(60, 5, 0.2), patients(70, 5, 0.35)
    request = TrainingRequest("spectrum", Path("unused"), settings={"refine": False})
    others = train_spectrum(source[2:], target, request)  # the first group holds two of five
    n = len(others.weights["noise_log_gain"])
    repeated = of_patients().weights[PREFIX + "noise_log_gain"][0]
    np.testing.assert_allclose(repeated[:n], others.weights["noise_log_gain"], atol=1e-9)


def test_repeated_fits_survive_writing_and_map_like_models(tmp_path: Path) -> None:
    written = of_patients().write(tmp_path)
    repeated = load_repeated(Bundle.read(tmp_path), reverse=False)
    assert [each.side for each in repeated] == [0] * GROUPS + [1] * GROUPS
    scan = patients(80, 1, 0.2)[0]
    whole = load_spectrum(written, False)(scan)
    for each in repeated:
        difference = np.abs(each.mapping(scan) - whole)
        assert 0 < difference.mean() < 3


@pytest.mark.parametrize("settings", [{"repeated_fits": False}, {"gains": "one"}])
def test_models_without_repeated_fits_have_none(settings: dict[str, object]) -> None:
    bundle = train(world(61, 0.2, 0.2, 20.0), world(71, 0.35, 0.35, 20.0), **settings)
    assert load_repeated(bundle, reverse=False) == ()
    assert find_method("spectrum").load_repeated(bundle, "a2b") == ()


def test_a_profile_tells_no_groups() -> None:
    request = TrainingRequest("spectrum", Path("unused"), settings={"refine": False})
    source = MeasuredSide.of(patients(60, 2, 0.2), LAYOUT, 1000, "source", lambda *_: None)
    bundle = train_spectrum(source, patients(70, 2, 0.35), request)
    assert load_repeated(bundle, reverse=False) == ()
    assert bundle.training["uncertainty"].startswith("not known: a side is a profile")


@pytest.mark.parametrize("name", [SHARES, PREFIX + "noise_log_gain", PREFIX + "foreign"])
def test_repeated_fits_that_do_not_fit_the_model_are_refused(name: str) -> None:
    weights = {**of_patients().weights, name: np.zeros((2, 3))}
    with pytest.raises(ModelError, match="do not fit"):
        load_repeated(replace(of_patients(), weights=weights), reverse=False)


@pytest.mark.slow
def test_what_is_told_is_how_much_fits_to_other_patients_differ() -> None:
    """Independent truth: models of other patients, each with an error told of its own."""
    bundles = [
        train_spectrum(
            patients(1000 + 20 * i, 4, 0.2), patients(3000 + 20 * i, 4, 0.35),
            TrainingRequest("spectrum", Path("unused"), settings={"refine": False}),
        )
        for i in range(10)
    ]  # fmt: skip
    f = bundles[0].weights["frequencies_per_mm"]
    band = (f > 0.15) & (f < 0.6)
    spread = np.std([each.weights["noise_log_gain"][band] for each in bundles], axis=0, ddof=1)
    told = []
    for each in bundles:
        without = each.weights[PREFIX + "noise_log_gain"][:, band]
        sides = without.reshape(2, GROUPS, -1)
        told.append((1 - 1 / GROUPS) * ((sides - sides.mean(1, keepdims=True)) ** 2).sum((0, 1)))
    ratio = np.sqrt(np.mean(told, axis=0)) / spread
    assert 0.6 < np.exp(np.log(ratio).mean()) < 1.8
