"""Comparison of groups on simulated cohorts whose scanners, patients, both or neither differ."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cvsct
from cvsct.core.errors import EvaluationError
from cvsct.evaluation.groups.result import GroupEvaluation
from cvsct.evaluation.groups.verdict import verdict
from tests.support.feature_tables import FEATURES, Effects, cohort, with_stage, without_scanner

QUICK = {"permutations": 99, "identification_permutations": 19}
POPULATION = {"population": 2.0, "disease": (0.15, 0.85)}


def evaluated(effects: Effects, seed: int = 0, **options: object) -> GroupEvaluation:
    """A cohort before and after a harmonization that undoes the scanner and nothing else."""
    table = cohort((40, 40), effects, seed)
    table = with_stage(table, "harmonized", without_scanner(table, effects))
    return cvsct.evaluate_groups(table, "scanner", **(QUICK | options))  # type: ignore[arg-type]


def kind(evaluation: GroupEvaluation) -> str:
    return evaluation.verdicts["nodule"].kind


def found(evaluation: GroupEvaluation, stage: int) -> int:
    return sum(c.found for c in evaluation.regions[0].stages[stage].contrasts)


def test_a_scanner_effect_that_is_removed() -> None:
    evaluation = evaluated(Effects(scanner=1.5))
    assert kind(evaluation) == "at chance"
    assert "cannot tell" in evaluation.verdicts["nodule"].text
    assert found(evaluation, 0) == len(FEATURES)
    assert found(evaluation, 1) == 0
    before, after = (stage.identification for stage in evaluation.regions[0].stages)
    assert before is not None
    assert after is not None
    assert before.accuracy > after.accuracy
    assert before.above_chance


def test_another_population_is_not_called_a_scanner_effect_removed() -> None:
    evaluation = evaluated(Effects(**POPULATION))
    assert kind(evaluation) == "as before"
    assert found(evaluation, 1) == found(evaluation, 0) > 0
    assert kind(evaluated(Effects(**POPULATION), covariates=["disease"])) == "none before"


def test_groups_that_a_classifier_names_are_not_said_to_be_alike() -> None:
    """The share is a mean over features: a difference of few of them can be lost in it."""
    evaluation = evaluated(Effects(scanner=1.5))
    region = evaluation.regions[0]
    first, last = region.stages[0], region.stages[-1]
    assert first.share is not None
    lost = replace(first.share, omega=0.0, p_value=0.6)
    stages = (replace(first, share=lost), replace(last, share=lost))
    result = verdict(replace(region, stages=stages), evaluation.settings)
    assert result.kind == "not judged"
    assert "yet a classifier names the scanner of unseen patients" in result.text
    still_named = replace(last, identification=first.identification)
    result = verdict(replace(region, stages=(first, still_named)), evaluation.settings)
    assert result.kind == "smaller"


def test_combat_that_removes_another_population_is_not_praised() -> None:
    table = cohort((40, 40), Effects(**POPULATION))
    combat = cvsct.harmonize_features(table, "scanner").table
    evaluation = cvsct.evaluate_groups(combat, "scanner", **QUICK)
    text = evaluation.verdicts["nodule"].text
    assert kind(evaluation) == "at chance"
    assert "cannot tell" in text
    assert "fitted to the patients it is judged on" in text
    beyond_disease = cvsct.evaluate_groups(combat, "scanner", covariates=["disease"], **QUICK)
    assert kind(beyond_disease) == "larger"  # ComBat made a difference where there was none
    aware = cvsct.harmonize_features(table, "scanner", covariates=["disease"]).table
    beyond_disease = cvsct.evaluate_groups(aware, "scanner", covariates=["disease"], **QUICK)
    assert kind(beyond_disease) == "none before"


def test_both_what_the_patients_differ_by_stays() -> None:
    evaluation = evaluated(Effects(scanner=1.5, **POPULATION))
    assert kind(evaluation) == "smaller"
    assert "Groups still differ" in evaluation.verdicts["nodule"].text
    adjusted = evaluated(Effects(scanner=2.5, **POPULATION), covariates=["disease"])
    assert kind(adjusted) == "at chance"


def test_no_verdict_ever_says_that_a_scanner_effect_was_removed() -> None:
    for effects in (Effects(), Effects(scanner=1.0), Effects(**POPULATION)):
        text = evaluated(effects).verdicts["nodule"].text
        assert "removed" not in text.replace("none can be removed", "")


def false_findings(seeds: int) -> tuple[float, float]:
    """Share of identical cohorts with any finding by features, and by the share of variance."""
    by_feature, by_share = [], []
    for seed in range(seeds):
        table = cohort((20, 20, 20), seed=1000 + seed, correlation=0.0)
        evaluation = cvsct.evaluate_groups(
            table, "scanner", permutations=39, identification_permutations=19
        )
        by_feature.append(found(evaluation, 0) > 0)
        by_share.append(evaluation.regions[0].stages[0].share.above_chance)
    return float(np.mean(by_feature)), float(np.mean(by_share))


def test_identical_populations_have_few_false_findings() -> None:
    by_feature, by_share = false_findings(12)
    assert by_feature <= 0.25  # 5 % expected; more than 3 of 12 by chance: 0.2 %
    assert by_share <= 0.25


@pytest.mark.slow
def test_identical_populations_have_five_percent_of_false_findings() -> None:
    by_feature, by_share = false_findings(300)
    assert 0.005 < by_feature < 0.08  # exact tests of few patients are below their level
    assert 0.025 < by_share < 0.085


def test_the_page_and_its_files(tmp_path: Path) -> None:
    effects = Effects(scanner=1.5)
    table = cohort({"A": 20, "B": 18, "<b>C</b>": 6}, effects)
    table = with_stage(table, "harmonized", without_scanner(table, effects))
    is_target = (table["scanner"] == "A") & (table["stage"] == "harmonized")
    physics = table[["patient", "stage", "scanner"]].assign(noise_hu=30.0, laa950_percent=4.0)
    evaluation = cvsct.evaluate_groups(table[~is_target], "scanner", physics=physics, **QUICK)
    evaluation.write(tmp_path / "new")
    page = (tmp_path / "new" / "groups.html").read_text(encoding="utf-8")
    assert "Differences between groups include differences between their patients" in page
    assert "too few" in page
    assert "&lt;b&gt;C" in page
    assert "<b>C" not in page
    assert "noise_hu, A" in page
    assert page.count("data:image/svg+xml;base64") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert not [name for name in set(table["patient"]) if name in page.split("<img")[0]]
    record = json.loads((tmp_path / "new" / "groups.json").read_text(encoding="utf-8"))
    assert record["regions"][0]["too_few"] == ["<b>C</b>"]
    assert [s["stage"] for s in record["regions"][0]["stages"]] == ["source", "harmonized"]
    assert record["regions"][0]["stages"][1]["change"]["high"] < 0
    with (tmp_path / "new" / "group_features.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * len(FEATURES)
    assert {row["contrast"] for row in rows} == {"B / A"}
    few = [p for p in record["physics"] if p["group"] == "<b>C</b>"]
    assert {p["quartiles"] for p in few} == {None}


def test_patients_that_a_stage_lacks_are_left_out_of_all_and_told() -> None:
    table = with_stage(cohort((15, 15)), "harmonized")
    lost = (table["patient"].isin(["B001", "B002"])) & (table["stage"] == "harmonized")
    evaluation = cvsct.evaluate_groups(table[~lost], "scanner", **QUICK)
    assert len(evaluation.regions[0].group) == 28
    assert any("2 of 30 patients have no features in some stage" in n for n in evaluation.notes)
    failed = table.assign(error=np.where(lost, "the mask is empty", ""))
    again = cvsct.evaluate_groups(failed, "scanner", **QUICK)
    assert again.metrics()["regions"] == evaluation.metrics()["regions"]


def test_small_groups_have_no_figures() -> None:
    evaluation = cvsct.evaluate_groups(cohort((20, 9)), "scanner", **QUICK)
    assert evaluation.regions[0].stages == ()
    assert "1 of 2 groups have 10 patients" in evaluation.verdicts["nodule"].text
    assert evaluation.metrics()["regions"][0]["too_few"] == ["scanner B"]
    lower = cvsct.evaluate_groups(cohort((20, 9)), "scanner", min_patients=9, **QUICK)
    assert len(lower.regions[0].stages) == 1


def test_what_cannot_be_compared_is_refused() -> None:
    table = cohort((12, 12))
    with pytest.raises(EvaluationError, match="no column 'vendor'"):
        cvsct.evaluate_groups(table, "vendor")
    with pytest.raises(EvaluationError, match="did you mean 'scanner A'"):
        cvsct.evaluate_groups(table, "scanner", reference="Scaner A")
    with pytest.raises(EvaluationError, match="no rows of the stage source"):
        cvsct.evaluate_groups(table.assign(stage="harmonized"), "scanner")
    with pytest.raises(EvaluationError, match="covariate site is confounded with scanner"):
        cvsct.evaluate_groups(table, "scanner", covariates=["site"], **QUICK)


def test_rows_need_no_index_of_their_own() -> None:
    table = with_stage(cohort((12, 12)), "harmonized")
    shuffled = table.set_index(np.zeros(len(table), dtype=int))
    first, second = (
        cvsct.evaluate_groups(t, "scanner", **QUICK).metrics() for t in (table, shuffled)
    )
    assert first == second
