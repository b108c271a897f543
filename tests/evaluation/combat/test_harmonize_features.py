"""ComBat on wide tables: stages, joined regions, refusals, kept estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cvsct
from cvsct.core.errors import EvaluationError
from cvsct.evaluation.combat.estimates import estimate_combat
from cvsct.evaluation.combat.harmonize_features import FeatureComBat
from tests.support.feature_tables import FEATURES, Effects, cohort, with_stage

SHIFTED = Effects(scanner=2.0, scale=1.5)


def gap(table: pd.DataFrame, stage: str, feature: str = FEATURES[0]) -> float:
    means = table[table["stage"] == stage].groupby("scanner")[feature].mean()
    return float(means.iloc[1] - means.iloc[0])


def test_stages_are_added_below_the_rows_that_they_come_from() -> None:
    table = cohort((20, 20), SHIFTED)
    half = table[FEATURES[0]] - gap(table, "source") / 2
    with_images = with_stage(table, "harmonized", half.to_frame())
    result = cvsct.harmonize_features(with_images, "scanner")
    stages = result.table["stage"].value_counts().to_dict()
    assert stages == dict.fromkeys(("source", "harmonized", "combat", "harmonized+combat"), 40)
    pd.testing.assert_frame_equal(result.table.iloc[:80], with_images)
    assert abs(gap(result.table, "combat")) < 0.15 * abs(gap(table, "source"))
    assert not result.failed
    again = cvsct.harmonize_features(result.table, "scanner")
    pd.testing.assert_frame_equal(again.table, result.table)


def test_the_target_scanner_which_is_not_harmonized_takes_part_with_its_source_rows() -> None:
    table = with_stage(cohort((20, 20), SHIFTED), "harmonized")
    is_target = (table["scanner"] == "scanner B") & (table["stage"] == "harmonized")
    result = cvsct.harmonize_features(table[~is_target], "scanner")
    both = result.table[result.table["stage"] == "harmonized+combat"]
    assert both["scanner"].value_counts().to_dict() == {"scanner A": 20, "scanner B": 20}


def test_a_patient_with_several_regions_counts_once_by_their_weighted_mean() -> None:
    table = cohort((15, 15), SHIFTED, regions=("nodule-1", "nodule-2"))
    table["volume_mm3"] = np.where(table["region"] == "nodule-1", 300.0, 100.0)
    result = cvsct.harmonize_features(table, "scanner")
    first, second = (
        table[table["region"] == name][list(FEATURES)].to_numpy()
        for name in ("nodule-1", "nodule-2")
    )
    scanners = table[table["region"] == "nodule-1"]["scanner"].tolist()
    expected = estimate_combat(0.75 * first + 0.25 * second, FEATURES, scanners)
    harmonized = result.table[result.table["stage"] == "combat"]
    own = harmonized[harmonized["region"] == "nodule-2"][list(FEATURES)].to_numpy()
    assert own == pytest.approx(expected.apply(second, scanners))


def test_each_region_name_has_a_fit_of_its_own() -> None:
    lesions, livers = cohort((12, 12), SHIFTED), cohort((12, 12), seed=1, regions=("liver",))
    livers.loc[:, list(FEATURES)] *= 100
    alone = cvsct.harmonize_features(lesions, "scanner").table
    together = cvsct.harmonize_features(pd.concat([lesions, livers], ignore_index=True), "scanner")
    stage = together.table[together.table["stage"] == "combat"]
    nodules = stage[stage["region"] == "nodule-1"][list(FEATURES)].to_numpy()
    assert nodules == pytest.approx(alone[alone["stage"] == "combat"][list(FEATURES)].to_numpy())


def test_shape_is_kept_and_so_are_constant_features_which_are_told() -> None:
    table = cohort((12, 12), SHIFTED)
    table["original_shape_Sphericity"] = np.linspace(0, 1, 24)
    table["original_firstorder_Minimum"] = -1000.0
    result = cvsct.harmonize_features(table, "scanner")
    stage = result.table[result.table["stage"] == "combat"]
    for name in ("original_shape_Sphericity", "original_firstorder_Minimum"):
        assert stage[name].tolist() == table[name].tolist()
    assert len(result.notes) == 1
    assert (
        "1 features constant within a batch: unchanged (original_firstorder_Minimum"
        in result.notes[0]
    )


def test_covariates_come_from_a_table_of_patients() -> None:
    table = cohort((25, 25), SHIFTED)
    patients = table[["patient", "age", "sex"]].sample(frac=1, random_state=1)
    plain = table.drop(columns=["age", "sex"])
    result = cvsct.harmonize_features(
        plain, "scanner", covariates=["age", "sex"], patients=patients
    )
    same = cvsct.harmonize_features(table, "scanner", covariates=["age", "sex"])
    columns = list(FEATURES)
    assert result.table[columns].to_numpy() == pytest.approx(same.table[columns].to_numpy())
    with pytest.raises(EvaluationError, match="no column 'age'"):
        cvsct.harmonize_features(plain, "scanner", covariates=["age"])
    twice = pd.concat([patients, patients.assign(age=1.0)])
    with pytest.raises(EvaluationError, match="column age has two values for one patient"):
        cvsct.harmonize_features(plain, "scanner", covariates=["age"], patients=twice)
    with pytest.raises(EvaluationError, match="covariate age is missing for 1 of 50"):
        cvsct.harmonize_features(plain, "scanner", covariates=["age"], patients=patients.iloc[1:])
    table["contrast"] = table["scanner"] == "scanner A"
    with pytest.raises(EvaluationError, match="covariate contrast is confounded with scanner"):
        cvsct.harmonize_features(table, "scanner", covariates=["contrast"])


def test_small_batches_are_refused_and_other_regions_go_on() -> None:
    table = cohort((12, 9), SHIFTED)
    with pytest.raises(
        EvaluationError, match="scanner 'scanner B' has 9 patients, expected at least 10"
    ):
        cvsct.harmonize_features(table, "scanner")
    assert not cvsct.harmonize_features(table, "scanner", min_patients=9).failed
    with pytest.raises(EvaluationError, match="'scanner B' has one patient, from whom no spread"):
        cvsct.harmonize_features(cohort((12, 1)), "scanner", min_patients=1)
    large = cohort((12, 12), SHIFTED, regions=("liver",))
    result = cvsct.harmonize_features(pd.concat([table, large], ignore_index=True), "scanner")
    assert list(result.failed) == ["nodule, combat"]
    assert set(result.table[result.table["stage"] == "combat"]["region"]) == {"liver"}


def test_failed_regions_keep_their_row_and_take_no_part() -> None:
    table = cohort((12, 12), SHIFTED)
    good = cvsct.harmonize_features(table, "scanner").table
    failed = table.iloc[[0]].assign(error="the mask is empty", patient="X1")
    failed[list(FEATURES)] = np.nan
    result = cvsct.harmonize_features(
        pd.concat([table, failed], ignore_index=True), "scanner"
    ).table
    row = result[(result["patient"] == "X1") & (result["stage"] == "combat")]
    assert row["error"].tolist() == ["the mask is empty"]
    assert row[list(FEATURES)].isna().all(axis=None)
    others = result[(result["stage"] == "combat") & (result["patient"] != "X1")]
    expected = good[good["stage"] == "combat"]
    assert others[FEATURES[3]].tolist() == pytest.approx(expected[FEATURES[3]].tolist())


def test_kept_estimates_harmonize_new_patients_of_a_known_batch(tmp_path: Path) -> None:
    table = cohort((40, 40), SHIFTED)
    is_new = table["patient"].isin(["A000", "B000", "B001"])
    cvsct.harmonize_features(table[~is_new], "scanner", covariates=["age"]).combat.save(
        tmp_path / "kept" / "combat.json"
    )
    kept = FeatureComBat.load(tmp_path / "kept" / "combat.json")
    rows = kept.apply(table[is_new])
    assert rows["stage"].tolist() == ["combat"] * 3
    everybody = cvsct.harmonize_features(table, "scanner", covariates=["age"]).table
    expected = everybody[everybody["patient"].isin(["A000", "B000", "B001"])]
    expected = expected[expected["stage"] == "combat"]
    difference = rows[list(FEATURES)].to_numpy() - expected[list(FEATURES)].to_numpy()
    assert np.abs(difference).max() < 3.0  # of a deviation of 10
    assert "A001" not in (tmp_path / "kept" / "combat.json").read_text()
    with pytest.raises(EvaluationError, match="batch 'scanner C' is not among"):
        kept.apply(table[is_new].assign(scanner="scanner C"))
    (tmp_path / "combat.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"combat.json: no estimates of ComBat"):
        FeatureComBat.load(tmp_path / "combat.json")


def test_one_id_at_two_sites_is_told() -> None:
    table = cohort((12, 12))
    table.loc[table["patient"] == "B003", "patient"] = "A003"
    notes = cvsct.harmonize_features(table, "scanner").notes
    assert "1 patient IDs occur at two sites" in notes[0]


def test_tables_of_another_kind_are_refused() -> None:
    table = cohort((12, 12))
    with pytest.raises(EvaluationError, match="no column 'vendor'"):
        cvsct.harmonize_features(table, "vendor")
    with pytest.raises(EvaluationError, match="no feature columns"):
        cvsct.harmonize_features(table.drop(columns=list(FEATURES)), "scanner")
