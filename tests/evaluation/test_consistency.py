"""Flicker along z and idempotence against changes made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume
from cvsct.evaluation.image.consistency import (
    SliceConsistency,
    idempotence,
    idempotence_of,
    slice_consistency,
)
from cvsct.evaluation.image.tissues import TissueMap
from tests.conftest import make_volume
from tests.support.bodies import noise, seen, trunk

PLANE = seen(trunk(4), 0.7)
SLICES = 8


def scanned(noise_hu: float, seed: int, along_z: float = 0.0) -> CTVolume:
    """Slices of one body whose muscle changes by 4 HU from each to the next, and noise.

    `along_z` is the correlation of neighboring slices' noise.
    """
    white = noise((SLICES + 1, *PLANE.shape), noise_hu, 0.3, np.random.default_rng(seed))
    shared = along_z / (0.5 + np.sqrt(0.25 - along_z**2)) if along_z else 0.0
    mixed = (white[1:] + shared * white[:-1]) / np.sqrt(1 + shared**2)
    steps = 4.0 * np.arange(SLICES)[:, None, None]
    return make_volume(PLANE + np.where(np.abs(PLANE - 40) < 30, steps, 0.0) + mixed)


def consistency(**sides: CTVolume) -> dict[str, SliceConsistency]:
    reference = sides.get("target", next(iter(sides.values())))
    return slice_consistency(
        {side: [volume] for side, volume in sides.items()}, [TissueMap.of(reference)]
    )


def test_flicker_is_what_the_method_adds() -> None:
    source, target = scanned(20.0, 1), scanned(20.0, 2)
    jitter = np.where(np.arange(SLICES) % 2, 3.0, -3.0)[:, None, None]
    harmonized = make_volume(source.hu + jitter)
    result = consistency(source=source, harmonized=harmonized, target=target)
    assert result["harmonized"].flicker_hu == pytest.approx(6.0, abs=1e-3)
    assert result["source"].flicker_hu is None
    assert result["target"].step_over_target is None
    assert result["source"].step_over_target == pytest.approx(1.0, abs=0.1)
    assert result["target"].step_hu == pytest.approx(4.0, abs=0.5)
    assert result["harmonized"].step_hu > 5.5
    assert result["target"].n_gaps == SLICES - 1


def test_a_method_that_does_the_same_to_every_slice_does_not_flicker() -> None:
    source = scanned(20.0, 1)
    harmonized = make_volume(source.hu * 0.98 + 5.0)
    result = consistency(source=source, harmonized=harmonized)
    assert result["harmonized"].flicker_hu == pytest.approx(0.08, abs=0.03)  # 2 % of 4 HU
    assert result["harmonized"].step_over_target is None


@pytest.mark.parametrize("along_z", [0.0, 0.4])
def test_noise_correlation_along_z(along_z: float) -> None:
    result = consistency(target=scanned(40.0, 3, along_z))["target"]
    assert result.noise_correlation == pytest.approx(along_z, abs=0.03)


def test_only_neighbors_are_compared() -> None:
    volume = scanned(20.0, 1)
    z = np.array([0.0, 5, 10, 40, 45, 90, 95, 100])
    positions = np.stack([np.zeros(SLICES), np.zeros(SLICES), z], axis=-1)
    apart = replace(volume, geometry=replace(volume.geometry, positions_mm=positions))
    assert consistency(target=apart)["target"].n_gaps == 5
    assert consistency(target=volume.select([0])) == {}
    air = make_volume(np.full((3, 64, 64), -1000.0))
    assert consistency(target=air) == {}
    with pytest.raises(EvaluationError, match="source volume 1 has"):
        consistency(source=air, target=volume)


def test_the_identity_is_idempotent_and_a_filter_is_not() -> None:
    target = scanned(30.0, 5)
    unchanged = idempotence_of(lambda volume: volume.hu, [target], size_px=32)
    assert unchanged.change.body is not None
    assert unchanged.change.body.mean_abs_hu == 0.0
    assert unchanged.spectrum_db == 0.0
    assert unchanged.bias["soft"].mean_hu == 0.0

    def softer(volume: CTVolume) -> np.ndarray:
        return ndimage.gaussian_filter(volume.hu, (0, 0.6, 0.6)) + np.float32(4.0)

    changed = idempotence_of(softer, [target], size_px=32)
    assert changed.bias["soft"].mean_hu == pytest.approx(4.0, abs=0.5)
    assert changed.gain_db is not None
    assert changed.spectrum_db is not None
    assert changed.gain_db < -3
    assert changed.spectrum_db > 3
    assert changed.to_json()["change"]["soft"]["mean_abs_hu"] > 4


def test_idempotence_wants_the_same_volumes() -> None:
    target = scanned(10.0, 1)
    with pytest.raises(EvaluationError, match="0 mapped volumes do not fit 1"):
        idempotence([target], [], [TissueMap.of(target)])
    air = make_volume(np.full((2, 64, 64), -1000.0))
    assert idempotence([air], [air], [TissueMap.of(air)]).spectrum_db is None
