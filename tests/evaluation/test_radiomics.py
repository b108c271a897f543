"""Features against numpy, their number, and what happens where they are undefined."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cvsct.core.errors import EvaluationError
from cvsct.core.masks import MaskedRegion, Region, masked_regions
from cvsct.evaluation.features import radiomics
from cvsct.evaluation.features.radiomics import (
    MissingValue,
    Patch,
    RegionFeatures,
    class_of,
    extract,
    feature_names,
    settings_record,
)
from cvsct.evaluation.features.roi import patch_of, whole_slices
from tests.conftest import make_volume


def noise(seed: int = 0, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(40.0, 60.0, (size, size)).astype(np.float32)


def value(table: RegionFeatures, feature: str, region: int = 0) -> float:
    return float(table.values[region, table.names.index(feature)])


def test_ninety_three_features_in_six_classes() -> None:
    counts = Counter(class_of(name) for name in feature_names())
    assert counts == {
        "firstorder": 18, "glcm": 24, "gldm": 14, "glrlm": 16, "glszm": 16, "ngtdm": 5,
    }  # fmt: skip
    table = extract([Patch(noise())])
    assert table.values.shape == (1, 93)
    assert table.missing == ()
    assert table.columns("ngtdm") == list(range(88, 93))


def test_first_order_features_by_numpy() -> None:
    hu = noise().astype(np.float64)
    table = extract([Patch(noise(), (5.0, 0.5, 0.5))])
    assert value(table, "firstorder_Mean") == pytest.approx(hu.mean())
    assert value(table, "firstorder_Variance") == pytest.approx(hu.var())
    assert value(table, "firstorder_Energy") == pytest.approx(np.sum(hu**2))
    assert value(table, "firstorder_TotalEnergy") == pytest.approx(1.25 * np.sum(hu**2))
    share = np.unique(np.floor(hu / 25), return_counts=True)[1] / hu.size
    assert value(table, "firstorder_Entropy") == pytest.approx(-np.sum(share * np.log2(share)))
    assert value(table, "firstorder_Uniformity") == pytest.approx(np.sum(share**2))


def test_glcm_contrast_by_hand() -> None:
    # Gray levels: 1 2 / 2 3 with 25 HU bins. Differences over the four directions at distance 1:
    # along rows 1, 1; along columns 1, 1; one diagonal 2; the other 0. Mean of (1, 1, 4, 0).
    table = extract([Patch(np.array([[10.0, 30.0], [30.0, 60.0]]))])
    assert value(table, "glcm_Contrast") == pytest.approx((1 + 1 + 4 + 0) / 4)


def test_runs_and_zones_by_hand() -> None:
    # Two stripes of 4 x 8: two zones of 32 pixels.
    hu = np.zeros((8, 8))
    hu[4:] = 100.0
    table = extract([Patch(hu)])
    assert value(table, "glszm_ZonePercentage") == pytest.approx(2 / 64)
    assert value(table, "glszm_LargeAreaEmphasis") == pytest.approx(32**2)
    assert value(table, "glszm_GrayLevelNonUniformity") == pytest.approx((1 + 1) / 2)


def test_bin_width_matters_and_is_recorded() -> None:
    fine, coarse = (extract([Patch(noise())], width) for width in (10.0, 50.0))
    assert value(fine, "firstorder_Entropy") > value(coarse, "firstorder_Entropy") + 1
    record = settings_record(10.0)
    assert record["bin_width_hu"] == 10.0
    assert record["features"] == 93
    assert "PyRadiomics 3" in record["library"]


def test_a_constant_region_has_missing_features_with_reasons() -> None:
    table = extract([Patch(noise()), Patch(np.full((16, 16), 40.0))])
    assert {entry.region for entry in table.missing} == {1}
    reasons = {entry.feature: entry.reason for entry in table.missing}
    assert reasons["firstorder_Skewness"] == "all pixels have one value"
    assert reasons["ngtdm_Coarseness"] == "all pixels fall in one gray level"
    assert len(reasons) == 9
    assert np.isnan(value(table, "glcm_Correlation", 1))
    assert value(table, "firstorder_Mean", 1) == 40.0
    assert table.defined.sum() == 2 * 93 - 9


def test_one_gray_level_without_being_constant() -> None:
    hu = 30.0 + np.random.default_rng(0).uniform(0, 10, (16, 16))
    missing = {entry.feature for entry in extract([Patch(hu)]).missing}
    assert len(missing) == 7
    assert not any(name.startswith("firstorder") for name in missing)


def test_every_missing_value_has_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        RegionFeatures(("glcm_A",), np.array([[np.nan]]))


def test_rows_keep_their_reasons() -> None:
    table = RegionFeatures(
        ("glcm_A",), np.array([[1.0], [np.nan], [3.0]]), (MissingValue(1, "glcm_A", "why"),)
    )
    assert table.rows(1, 3).missing == (MissingValue(0, "glcm_A", "why"),)
    assert table.rows(2, 3).missing == ()


def test_nothing_to_measure() -> None:
    assert extract([]).values.shape == (0, 93)


def test_processes_change_neither_values_nor_order(monkeypatch: pytest.MonkeyPatch) -> None:
    patches = [Patch(noise(seed, 8)) for seed in range(6)]
    alone = extract(patches, workers=2)  # too few to start processes for
    monkeypatch.setattr(radiomics, "PARALLEL_FROM", 6)
    together = extract(patches, workers=2)
    assert np.array_equal(alone.values, together.values)


def test_the_library_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    extract([Patch(np.zeros((8, 8)))])
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("radiomics").level > logging.CRITICAL


def test_size_of_the_region_decides_about_processes() -> None:
    assert radiomics.PARALLEL_FROM > 3 * 24  # a default evaluation stays in one process


def test_a_mask_that_is_a_square_gives_the_squares_features() -> None:
    hu, mask = noise(size=20), np.zeros((20, 20), bool)
    mask[3:15, 4:16] = True
    masked, square = extract([Patch(hu, mask=mask), Patch(hu[3:15, 4:16])]).values
    assert masked == pytest.approx(square, rel=1e-9)


def test_a_mask_of_any_shape_by_numpy() -> None:
    hu = noise(size=20)
    mask = np.hypot(*np.mgrid[-9.5:10, -9.5:10]) < 8
    table = extract([Patch(hu, mask=mask)])
    inside = hu[mask].astype(np.float64)
    assert value(table, "firstorder_Mean") == pytest.approx(inside.mean())
    assert value(table, "firstorder_Variance") == pytest.approx(inside.var())
    levels = np.floor(hu / 25).astype(int)
    zones = sum(ndimage.label((levels == n) & mask, np.ones((3, 3)))[1] for n in np.unique(levels))
    assert value(table, "glszm_ZonePercentage") == pytest.approx(zones / mask.sum())


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EvaluationError, match="does not fit a region"):
        Patch(noise(), mask=np.ones((3, 3), bool))
    with pytest.raises(EvaluationError, match="holds no pixel"):
        Patch(noise(), mask=np.zeros((16, 16), bool))


def test_pixels_without_neighbors_have_no_texture_of_neighbors() -> None:
    mask = np.zeros((16, 16), bool)
    mask[::4, ::4] = True
    table = extract([Patch(noise(), mask=mask)])
    reasons = {entry.feature: entry.reason for entry in table.missing}
    assert reasons["ngtdm_Coarseness"] == "no two pixels are neighbors"
    assert all(name in reasons for name in table.names if name.startswith(("glcm", "ngtdm")))
    assert value(table, "glszm_ZonePercentage") == 1.0
    one_pixel = np.zeros((16, 16), bool)
    one_pixel[5, 5] = True
    single = extract([Patch(noise(), mask=one_pixel)])
    assert value(single, "firstorder_Mean") == pytest.approx(float(noise()[5, 5]))


def test_regions_of_a_volume_become_patches() -> None:
    volume = make_volume(np.stack([noise(seed, 40) for seed in range(3)]))
    square = patch_of(volume, Region(1, 4, 5, 16))
    assert np.array_equal(square.hu, volume.hu[1, 4:20, 5:21])
    assert square.voxel_mm == (5.0, 0.7, 0.7)
    mask = np.zeros((3, 40, 40), bool)
    mask[2, 30:33, 2:9] = mask[2, 32, 2:20] = True
    (region,) = masked_regions(mask, "lesion")
    patch = patch_of(volume, region)
    assert np.array_equal(patch.hu[patch.inside], volume.hu[2][mask[2]])
    for outside in (Region(3, 0, 0, 16), Region(0, 30, 0, 16), replace(region, row=39)):
        with pytest.raises(EvaluationError, match="does not lie in a volume"):
            patch_of(volume, outside)


def test_whole_slices_hold_tissue_or_the_body() -> None:
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    hu = np.full((3, 96, 96), -1000.0)
    hu[:2, np.hypot(x, y) < 0.8] = 40.0
    hu[:2, np.hypot(x - 0.3, y) < 0.25] = -850.0  # a lung
    hu[:2, np.hypot(x + 0.3, y) < 0.12] = 900.0  # a bone
    hu[:2, y > 0.93] = 60.0  # a table
    volume = make_volume(hu)
    tissue, body = (whole_slices(volume, part=part) for part in ("soft tissue", "body"))
    assert (
        [region.slice_index for region in tissue]
        == [region.slice_index for region in body]
        == [0, 1]
    )

    def full(region: MaskedRegion) -> np.ndarray:
        out = np.zeros((3, 96, 96), bool)
        region.cut(out)[region.mask] = True
        return out[region.slice_index]

    row, lung, bone, table = 48, 62, 33, 94
    assert not full(tissue[0])[row, [lung, bone]].any()
    assert full(tissue[0])[20, 48]
    assert full(body[0])[row, [lung, bone]].all()
    assert not full(body[0])[table].any()
    values = extract([patch_of(volume, region) for region in tissue])
    assert value(values, "firstorder_Median") == pytest.approx(40.0, abs=0.5)
    padding = np.zeros(hu.shape, bool)
    padding[0, :48] = True
    assert not full(whole_slices(replace(volume, padding=padding))[0])[:48].any()
    with pytest.raises(EvaluationError, match="no slice shows any"):
        whole_slices(volume, [2])


def test_progress_counts_regions() -> None:
    calls: list[tuple[str, int, int]] = []
    extract([Patch(noise(seed, 8)) for seed in range(3)], progress=lambda *call: calls.append(call))
    assert calls == [("features", 1, 3), ("features", 2, 3), ("features", 3, 3)]


def test_large_regions_count_for_more_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Pool:
        def __init__(self, count: int, **_: object) -> None:
            started.append(count)

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def map(self, measure: Any, patches: Any, chunksize: int) -> Any:
            assert 1 <= chunksize <= 32
            return map(measure, patches)

    monkeypatch.setattr(radiomics, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(radiomics, "PARALLEL_FROM", 10)
    small, large = Patch(noise(size=8)), Patch(noise(size=96))
    extract([small] * 8, workers=2)
    assert started == []
    extract([large] * 4, workers=2)
    assert started == [2]
