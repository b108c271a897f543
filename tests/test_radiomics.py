"""Features against numpy, their number, and what happens where they are undefined."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest

from cvsct.evaluation import radiomics
from cvsct.evaluation.radiomics import (
    FeatureTable,
    Missing,
    Patch,
    class_of,
    extract,
    feature_names,
    settings_record,
)


def noise(seed: int = 0, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(40.0, 60.0, (size, size)).astype(np.float32)


def value(table: FeatureTable, feature: str, region: int = 0) -> float:
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
    # Grey levels: 1 2 / 2 3 with 25 HU bins. Differences over the four directions at distance 1:
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
    assert {one.region for one in table.missing} == {1}
    reasons = {one.feature: one.reason for one in table.missing}
    assert reasons["firstorder_Skewness"] == "all pixels have one value"
    assert reasons["ngtdm_Coarseness"] == "all pixels fall in one grey level"
    assert len(reasons) == 9
    assert np.isnan(value(table, "glcm_Correlation", 1))
    assert value(table, "firstorder_Mean", 1) == 40.0
    assert table.defined.sum() == 2 * 93 - 9


def test_one_grey_level_without_being_constant() -> None:
    hu = 30.0 + np.random.default_rng(0).uniform(0, 10, (16, 16))
    missing = {one.feature for one in extract([Patch(hu)]).missing}
    assert len(missing) == 7
    assert not any(name.startswith("firstorder") for name in missing)


def test_every_missing_value_has_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        FeatureTable(("glcm_A",), np.array([[np.nan]]))


def test_rows_keep_their_reasons() -> None:
    table = FeatureTable(
        ("glcm_A",), np.array([[1.0], [np.nan], [3.0]]), (Missing(1, "glcm_A", "why"),)
    )
    assert table.rows(1, 3).missing == (Missing(0, "glcm_A", "why"),)
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
