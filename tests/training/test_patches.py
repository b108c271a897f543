"""Patches: the same as from arrays in memory, seeded, soft tissue, turned and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from cvsct.core.errors import TrainingError
from cvsct.core.masks import covered_fraction, soft_tissue
from cvsct.core.volume import CTVolume, HUWindow
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.sampler import PatchSampler
from cvsct.training.data.store import Store, open_store
from tests.conftest import make_volume

WINDOW = HUWindow()


def body(seed: int, slices: int = 2, size: int = 64) -> np.ndarray:
    """A slab of tissue in air, its HU telling row and column apart."""
    hu = np.full((slices, size, size), -1000.0)
    tissue = np.random.default_rng(seed).normal(40, 10, (slices, size - 24, size - 24))
    hu[:, 16 : size - 8, 16 : size - 8] = tissue
    return np.rint(hu)


def store_of(folder: Path, *volumes: CTVolume, size_px: int = 24) -> Store:
    return open_store(folder / "store", list(volumes), PatchRule(size_px))


def drawn_from_arrays(
    volumes: list[CTVolume], size: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """The same drawing, with all places in one table and all voxels in memory."""
    places = []
    for index, volume in enumerate(volumes):
        share = covered_fraction(soft_tissue(volume.hu), size)
        places += [
            (index, plane, row, column)
            for plane, row, column in np.argwhere(share >= 0.8)
            if row % 4 == 0 and column % 4 == 0
        ]
    chosen = rng.integers(len(places), size=count)
    turns = rng.integers(2, size=(count, 3), dtype=np.int8)
    batch = np.empty((count, 1, size, size), np.float32)
    for patch, place, (down, across, transposed) in zip(batch, chosen, turns, strict=True):
        index, plane, row, column = places[place]
        cut = volumes[index].hu[plane, row : row + size, column : column + size]
        cut = cut[:: -1 if down else 1, :: -1 if across else 1]
        patch[0] = WINDOW.to_unit(cut.T if transposed else cut)
    return batch


def test_patches_are_bit_identical_to_those_cut_from_arrays(tmp_path: Path) -> None:
    """Series of several sizes, whole and broken HU, values beyond the window."""
    odd = body(2, 1, 76) + 0.25
    wide = np.pad(body(3, 3, 64), ((0, 0), (0, 0), (0, 9)), constant_values=-3000)
    wide[0, 20, 20] = 40_000
    volumes = [make_volume(hu) for hu in (body(0), wide, odd, body(1))]
    sampler = PatchSampler(store_of(tmp_path, *volumes), WINDOW)
    for seed in range(5):
        found = sampler.draw(60, np.random.default_rng(seed))
        expected = drawn_from_arrays(volumes, 24, 60, np.random.default_rng(seed))
        assert np.array_equal(found, expected)


def test_patches_are_seeded_soft_tissue_in_unit_range(tmp_path: Path) -> None:
    sampler = PatchSampler(store_of(tmp_path, make_volume(body(0)), make_volume(body(1))), WINDOW)
    batch = sampler.draw(64, np.random.default_rng(3))
    assert batch.shape == (64, 1, 24, 24)
    assert batch.dtype == np.float32
    assert np.array_equal(batch, sampler.draw(64, np.random.default_rng(3)))
    assert not np.array_equal(batch, sampler.draw(64, np.random.default_rng(4)))
    tissue = (batch > WINDOW.to_unit(np.array([-300.0]))).mean(axis=(1, 2, 3))
    assert tissue.min() > 0.7


def test_augmentation_leaves_texture_alone(tmp_path: Path) -> None:
    """Only flips and transposes: each patch is one of the eight turns of a piece of the image."""
    volume = make_volume(body(0)[:1])
    sampler = PatchSampler(store_of(tmp_path, volume), WINDOW)
    unit = WINDOW.to_unit(volume.hu[0])
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


def test_scans_without_tissue_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no patch of 24 px with 80% soft tissue in 1 series"):
        store_of(tmp_path, make_volume(np.full((1, 64, 64), -1000.0)))
    with pytest.raises(TrainingError, match="series 2 of the scans: slices of 64x64"):
        store_of(tmp_path, make_volume(body(0, 1, 128)), make_volume(body(0)), size_px=80)
    with pytest.raises(TrainingError, match="in 0 series"):
        store_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_validation_patches_and_crops_are_upright_and_the_same_each_time(tmp_path: Path) -> None:
    volume = make_volume(body(0))
    sampler = PatchSampler(store_of(tmp_path, volume), WINDOW, np.array([1]))
    patches = sampler.validation_patches(20, np.random.default_rng(0))
    crops = sampler.validation_patches(20, np.random.default_rng(0), size_px=40)
    assert np.array_equal(patches, sampler.validation_patches(20, np.random.default_rng(0)))
    unit = WINDOW.to_unit(volume.hu[1])
    for images, size in ((patches, 24), (crops, 40)):
        views = np.lib.stride_tricks.sliding_window_view(unit, (size, size))
        for image in images[:, 0]:
            assert (views == image).all(axis=(2, 3)).any()
    assert np.isin(patches[:, 0, 12, 12], crops[:, 0]).all()
    assert np.array_equal(sampler.slice_hu(0), volume.hu[1])
    assert sampler.slice_hu(0).dtype == np.float32
    with pytest.raises(TrainingError, match="slices of 64x64 pixels hold no crop of 65"):
        sampler.validation_patches(1, np.random.default_rng(0), size_px=65)


def test_a_sampler_goes_to_another_process_without_its_voxels(tmp_path: Path) -> None:
    sampler = PatchSampler(store_of(tmp_path, make_volume(body(0, 9, 128))), WINDOW)
    sent = pickle.dumps(sampler)
    assert len(sent) < 9 * 128 * 128
    first, second = (one.draw(8, np.random.default_rng(1)) for one in (sampler, pickle.loads(sent)))
    assert np.array_equal(first, second)
