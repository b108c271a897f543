from __future__ import annotations

import numpy as np
import pytest

from cvsct.data.patches import PatchSampler
from cvsct.errors import TrainingError
from cvsct.volume import HUWindow
from tests.conftest import make_volume


def body(seed: int) -> np.ndarray:
    """A slab of tissue in air, its HU telling row and column apart."""
    hu = np.full((2, 64, 64), -1000.0)
    hu[:, 16:56, 16:56] = np.random.default_rng(seed).normal(40, 10, (2, 40, 40))
    return hu


def test_patches_are_seeded_soft_tissue_in_unit_range() -> None:
    sampler = PatchSampler([make_volume(body(0)), make_volume(body(1))], 24, HUWindow())
    batch = sampler.draw(64, np.random.default_rng(3))
    assert batch.shape == (64, 1, 24, 24)
    assert batch.dtype == np.float32
    assert np.array_equal(batch, sampler.draw(64, np.random.default_rng(3)))
    assert not np.array_equal(batch, sampler.draw(64, np.random.default_rng(4)))
    tissue = (batch > HUWindow().to_unit(np.array([-300.0]))).mean(axis=(1, 2, 3))
    assert tissue.min() > 0.7


def test_augmentation_leaves_texture_alone() -> None:
    """Only flips and transposes: each patch is one of the eight turns of a piece of the image."""
    volume = make_volume(body(0)[:1])
    sampler = PatchSampler([volume], 24, HUWindow())
    unit = HUWindow().to_unit(volume.hu[0])
    seen = set()
    for patch in sampler.draw(40, np.random.default_rng(0))[:, 0]:
        turns = [np.rot90(side, k) for side in (patch, patch.T) for k in range(4)]
        found = [
            index
            for index, turn in enumerate(turns)
            for row in range(0, 41, 4)
            for column in range(0, 41, 4)
            if np.array_equal(turn, unit[row : row + 24, column : column + 24])
        ]
        assert found
        seen.update(found)
    assert len(seen) == 8


def test_scans_without_tissue_are_refused() -> None:
    with pytest.raises(TrainingError, match="no patch of 24 px"):
        PatchSampler([make_volume(np.full((1, 64, 64), -1000.0))], 24, HUWindow())
    with pytest.raises(TrainingError, match="64x64"):
        PatchSampler([make_volume(body(0))], 80, HUWindow())
