"""Signal kept: a classifier of one scanner on another, with truth known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import cvsct
from cvsct.core.errors import EvaluationError
from tests.support.feature_tables import FEATURES, Effects, cohort, with_stage, without_scanner

EFFECTS = Effects(scanner=7.0, population=1.2)


def nodules(seed: int, effects: Effects = EFFECTS, n: int = 60) -> pd.DataFrame:
    table = cohort((n, n), effects, seed, correlation=0.2)
    return with_stage(table, "harmonized", without_scanner(table, effects))


def second_scans(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    retest = table[(table["stage"] == "source") & (table["scanner"] == "scanner A")].copy()
    noise = np.random.default_rng(seed).normal(0, 1.0, (len(retest), len(FEATURES)))
    retest[list(FEATURES)] += noise
    return retest


def kept(table: pd.DataFrame, **options: object) -> dict[str, float]:
    result = cvsct.signal_kept(table, "disease", train="scanner A", test="scanner B", **options)  # type: ignore[arg-type]
    return {stage.stage: stage.auc for stage in result.stages}


def test_a_shift_hides_the_kinds_and_harmonization_shows_them_again() -> None:
    table = nodules(1)
    result = cvsct.signal_kept(
        table, "disease", train="scanner A", test="scanner B", retest=second_scans(table, 1)
    )
    area = {stage.stage: stage for stage in result.stages}
    assert list(area) == ["source", "harmonized", "combat", "harmonized+combat", "retest"]
    assert area["source"].auc < 0.75
    for stage in ("harmonized", "combat", "harmonized+combat"):
        assert area[stage].auc > 0.85
        assert area[stage].change[1] > 0
        assert area[stage].auc == pytest.approx(area["retest"].auc, abs=0.12)
    assert area["retest"].low <= area["retest"].auc <= area["retest"].high
    assert sum(map(sum, result.patients.values())) == 120


def test_a_method_that_removes_the_kinds_loses_the_signal() -> None:
    table = nodules(2)
    flat = table["stage"] == "harmonized"
    noise = np.random.default_rng(0).normal(100, 10, (int(flat.sum()), len(FEATURES)))
    table.loc[flat, list(FEATURES)] = noise
    assert kept(table)["harmonized"] == pytest.approx(0.5, abs=0.15)


def test_without_a_signal_no_stage_finds_one() -> None:
    """More features than patients and an outcome at random: any leak would show."""
    areas: dict[str, list[float]] = {}
    names = [f"original_glcm_F{i}" for i in range(120)]
    for seed in range(5):
        table = cohort((45, 45), Effects(scanner=2.0), seed, names, correlation=0.0)
        for stage, area in kept(table, seed=seed).items():
            areas.setdefault(stage, []).append(area)
    for stage in ("source", "combat"):
        assert np.mean(areas[stage]) == pytest.approx(0.5, abs=0.1)


def test_combat_of_the_table_which_saw_every_patient_is_not_used() -> None:
    table = nodules(3)
    spoilt = with_stage(table, "combat")
    rows = spoilt["stage"] == "combat"
    spoilt.loc[rows, FEATURES[0]] = 1000.0 * spoilt.loc[rows, "disease"]
    assert kept(spoilt) == kept(table)


def test_what_cannot_be_tested_is_refused() -> None:
    table = nodules(4, n=24)
    with pytest.raises(EvaluationError, match="the outcome disease is a covariate"):
        kept(table, covariates=["disease"])
    with pytest.raises(EvaluationError, match=r"'scanner C' has 0 patients without and 0 with"):
        cvsct.signal_kept(table, "disease", train="scanner A", test="scanner C")
    with pytest.raises(EvaluationError, match=r"the outcome age has .* values"):
        cvsct.signal_kept(table, "age", train="scanner A", test="scanner B")
    with pytest.raises(EvaluationError, match=r"region 'liver' is not one name .*\(nodule\)"):
        kept(table, region="liver")
