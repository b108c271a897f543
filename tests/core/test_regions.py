from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import GeometryError
from cvsct.core.masks import covered_fraction, sample_regions, soft_tissue


def test_noise_does_not_decide_what_is_tissue() -> None:
    rng = np.random.default_rng(0)
    hu = np.full((1, 96, 96), 40.0)
    hu[:, :, :48] = -800.0
    noisy = hu + rng.normal(0, 120, hu.shape)
    mask = soft_tissue(noisy)
    assert mask[:, :, 56:].mean() > 0.999
    assert mask[:, :, :40].mean() < 0.001
    assert abs(noisy[mask].mean() - 40.0) < 3.0


def test_covered_fraction_counts_pixels() -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((2, 12, 15)) < 0.4
    found = covered_fraction(mask, 5)
    assert found.shape == (2, 8, 11)
    assert found[1, 3, 7] == mask[1, 3:8, 7:12].mean()
    with pytest.raises(GeometryError, match="12x15"):
        covered_fraction(mask, 13)


def test_regions_are_seeded_apart_and_inside() -> None:
    mask = np.zeros((3, 64, 64), dtype=bool)
    mask[:, 8:56, 8:56] = True
    padding = np.zeros_like(mask)
    padding[0, 30, 30] = True
    chosen = sample_regions(mask, 12, 18, np.random.default_rng(5), 1.0, exclude=padding)
    assert chosen == sample_regions(mask, 12, 18, np.random.default_rng(5), 1.0, exclude=padding)
    assert len(chosen) == 18
    assert {region.slice_index for region in chosen} == {0, 1, 2}
    taken = np.zeros(mask.shape, dtype=int)
    for region in chosen:
        assert region.cut(mask).all()
        assert not region.cut(padding).any()
        region.cut(taken)[:] += 1
    assert taken.max() == 1


def test_fewer_regions_where_tissue_runs_out() -> None:
    mask = np.ones((1, 20, 20), dtype=bool)
    assert 1 <= len(sample_regions(mask, 12, 10, np.random.default_rng(0))) <= 2
    assert sample_regions(~mask, 12, 10, np.random.default_rng(0)) == []
