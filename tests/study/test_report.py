"""Report of a study: its page, its tables, and what it tells of planted effects."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cvsct
from cvsct.core.errors import UsageError
from cvsct.evaluation.cohort_table import PatientRows
from cvsct.evaluation.groups.pooled_outcome import pooled_outcome
from cvsct.study.agreement import distances
from cvsct.study.report import StudyReport
from tests.support.feature_tables import FEATURES, Effects, cohort
from tests.support.studies import COUNT, GE, PHILIPS, Done, Places, Planned, copy_study

REFERENCE = "siemens-somatom-force-br40-120kv-3mm"


def test_the_page_has_its_sections_and_shows_no_patient(
    reported: StudyReport, places: Places
) -> None:
    page = reported.path.read_text(encoding="utf-8")
    for words in ("Report of a study", "Cohort", "Images", "Region: lesion", "Noise and sharpness",
                  "Lung density", "Distance to the reference", "Methods.", REFERENCE):  # fmt: skip
        assert words in page, words
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<svg.*?</svg>|base64,[^\"']*", "", page))
    for name in places.ids:
        assert name not in page


def test_nothing_that_may_be_shared_names_a_patient(
    reported: StudyReport, planned: Planned, places: Places
) -> None:
    folder = reported.path.parent
    shared = [
        planned.folder / "plan.html", folder / "report.html", folder / "report.json",
        folder / "manifest.json", folder / "combat.json", *(folder / "report").iterdir(),
        *(folder / "profiles").glob("*.profile"),
    ]  # fmt: skip
    assert len(shared) > 12
    for path in shared:
        content = path.read_bytes()
        for name in (*places.ids, "Planted", "gtv"):
            assert name.encode() not in content, (path.name, name)


def figures(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from figures(inner)


def test_every_figure_is_a_number(reported: StudyReport) -> None:
    def refuse(word: str) -> float:
        raise AssertionError(word)

    text = (reported.path.parent / "report.json").read_text(encoding="utf-8")
    told = json.loads(text, parse_constant=refuse)
    assert len(list(figures(told))) > 50
    assert told == json.loads(json.dumps(reported.to_json()))


def test_tables_are_written_as_csv(reported: StudyReport) -> None:
    folder = reported.path.parent / "report"
    names = {path.name for path in folder.iterdir()}
    assert {
        "study_groups.csv", "study_left_out.csv", "study_images.csv", "study_lungs.csv",
        "distance_lesion.csv", "paired_lesion.csv", "group_features.csv",
    } <= names  # fmt: skip
    for path in folder.iterdir():
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
        assert len({len(row) for row in rows}) == 1, path.name


def test_the_difference_of_the_scanners_falls(reported: StudyReport) -> None:
    for images in reported.images:
        before, after = (images.to_reference[stage] for stage in ("before", "after"))
        if images.group == REFERENCE:
            assert (before.noise, before.sharpness) == pytest.approx((1, 1))
            continue
        assert abs(math.log(after.noise)) < 0.4 * abs(math.log(before.noise))
        assert abs(math.log(after.noise)) < 0.12
    (region,) = reported.regions
    apart: dict[str, dict[str, float]] = {}
    for each in region.distances:
        apart.setdefault(each.stage, {})[each.group] = each.median
    assert len(apart["source"]) == 2
    for group, distance in apart["source"].items():
        assert apart["harmonized"][group] < distance
    shares = {
        stage.stage: stage.share.omega
        for stage in reported.groups.regions[0].stages
        if stage.share is not None
    }
    assert shares["harmonized"] < 0.5 * shares["source"]


def test_lungs_of_every_series_are_measured(reported: StudyReport) -> None:
    for images in reported.images:
        for stage in ("before", "after"):
            assert 1 <= len(images.laa950_percent[stage]) <= COUNT
            assert np.isfinite(images.perc15_hu[stage]).all()


def test_the_guard_of_each_model_knows_its_scans(reported: StudyReport) -> None:
    kinds = {line.guard for line in reported.series if line.row.group != REFERENCE}
    assert kinds == {"in_domain"}


def test_an_outcome_of_too_few_patients_says_so(reported: StudyReport) -> None:
    """Fourteen patients: the figures are there, or the reason why they are not."""
    (region,) = reported.regions
    assert (region.outcome is None) == bool(region.why_no_outcome)


def test_a_report_before_the_run_says_what_to_do(planned: Planned) -> None:
    with pytest.raises(UsageError, match=r"not run yet.*`cvsct study run`"):
        cvsct.report_study(planned.folder)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [("relpase", r"relpase.*did you mean 'relapse'\?"), ("age", "age")],
)
def test_an_outcome_that_is_none_is_refused(done: Done, outcome: str, message: str) -> None:
    before = sorted(done.folder.rglob("*"))
    with pytest.raises(UsageError, match=message):
        cvsct.report_study(done.folder, outcome=outcome, permutations=19, workers=1)
    assert sorted(done.folder.rglob("*")) == before


def test_a_dry_run_writes_no_report_but_measurements(reported: StudyReport, tmp_path: Path) -> None:
    study = copy_study(reported.path.parent, tmp_path / "study")
    for path in (study / "report.html", study / "report.json"):
        path.unlink()
    shutil.rmtree(study / "report")
    before = {path for path in study.rglob("*") if "profiles" not in path.parts}
    made = cvsct.report_study(study, permutations=19, workers=1, dry_run=True)
    assert {path for path in study.rglob("*") if "profiles" not in path.parts} == before
    assert made.path == study / "report.html"


def area(table: pd.DataFrame, stage: str) -> float:
    found = pooled_outcome(table, "disease", region="nodule", seed=1)
    return {each.stage: each.auc for each in found.stages}[stage]


def test_pooled_features_find_a_planted_outcome_and_combat_keeps_it() -> None:
    table = cohort((30, 30), Effects(population=1.5), seed=2)
    assert area(table, "source") > 0.75
    assert area(table, "combat") > 0.75


@pytest.mark.parametrize("seed", [3, 4])
def test_pooled_features_find_nothing_in_noise(seed: int) -> None:
    table = cohort((30, 30), Effects(scanner=2.0), seed=seed)
    rng = np.random.default_rng(seed)
    table["disease"] = rng.permutation(np.arange(len(table)) % 2)
    for stage in ("source", "combat"):
        assert abs(area(table, stage) - 0.5) < 0.17


def test_an_outcome_that_follows_the_scanner_is_no_signal_after_combat() -> None:
    """The scanner tells the outcome where it is more common at one; ComBat takes that away."""
    table = cohort((40, 40), Effects(scanner=3.0, disease=(0.2, 0.8)), seed=5)
    assert area(table, "source") > 0.65
    assert area(table, "combat") < area(table, "source") - 0.1


def test_combat_never_sees_the_patients_that_a_fold_is_tested_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cvsct.evaluation.groups import pooled_outcome as module

    table = cohort((20, 20), Effects(scanner=1.0, population=1.0), seed=6)
    seen: list[tuple[frozenset[str], int]] = []
    whole = module.combat_without

    def recorded(rows: Any, inside: set[str], *others: Any) -> Any:
        seen.append((frozenset(inside), len(rows.patient)))
        return whole(rows, inside, *others)

    monkeypatch.setattr(module, "combat_without", recorded)
    pooled_outcome(table, "disease", region="nodule", seed=1)
    every = frozenset(table["patient"])
    assert seen
    assert all(fold < every for fold, _ in seen)
    assert frozenset.union(*(fold for fold, _ in seen)) == every


def test_other_values_of_a_tested_patient_change_no_classifier_of_others() -> None:
    """With one patient's features out of all bounds, the area moves by that patient alone."""
    table = cohort((30, 30), Effects(population=1.5), seed=7)
    odd = table.copy()
    odd.loc[0, list(FEATURES)] = 1e4
    assert abs(area(odd, "combat") - area(table, "combat")) < 0.1


def test_the_interval_of_a_distance_is_that_of_other_patients() -> None:
    """Simulated truth: distances of other patients of the same two groups."""
    rng = np.random.default_rng(5)
    shift = rng.normal(0, 1, 30)
    found = []
    for _ in range(60):
        values = rng.normal(size=(16, 30)) + np.repeat([[0.0], [1.0]], 8, axis=0) * shift
        rows = PatientRows(
            tuple(f"f{i}" for i in range(30)), values, tuple(f"p{i}" for i in range(16)),
            ("a",) * 8 + ("b",) * 8, (1,) * 16,
        )  # fmt: skip
        (distance,) = distances({"source": rows}, "b", ["a", "b"])
        found.append((distance.low, distance.median, distance.high))
    low, median, high = np.transpose(found)
    truth = float(np.mean(median))
    assert np.all((low <= median) & (median <= high))
    assert 0.85 < np.mean((low <= truth) & (truth <= high)) <= 1
    assert np.mean(high - low) < 2.2 * 2 * 1.96 * np.std(median)  # a median's jackknife is wide


def test_the_verdict_says_what_it_stands_on(reported: StudyReport) -> None:
    (region,) = reported.regions
    told = reported.compared(region.region)
    assert (
        told == f"3 of 3 groups, {len({line.row.patient for line in reported.series})} of "
        f"{len({line.row.patient for line in reported.series})} patients."
    )
    assert told in reported.summary()


def test_groups_that_are_too_small_are_counted_in_the_verdict(reported: StudyReport) -> None:
    small = replace(reported.groups.regions[0], groups=reported.groups.regions[0].groups[:1])
    groups = replace(reported.groups, regions=(small,))
    told = replace(reported, groups=groups).compared(small.region)
    assert told.startswith("1 of 3 groups, ")
    assert "the others have fewer than 5 patients with this region in every stage" in told


def test_travelers_give_paired_figures() -> None:
    """Two patients on two scanners; harmonization that undoes the scanner makes them agree."""
    from cvsct.evaluation.cohort_table import patient_rows
    from cvsct.study.agreement import paired_agreement
    from tests.support.feature_tables import with_stage, without_scanner

    effects = Effects(scanner=3.0)
    table = cohort((12, 12), effects, seed=8)
    undone = without_scanner(table, effects)
    table = with_stage(table, "harmonized", undone)
    travel = {"B000": "A000", "B001": "A001", "B002": "A002"}
    for stage in ("source", "harmonized"):
        own = table["stage"] == stage
        for there, here in travel.items():
            values = undone.to_numpy()[int(here[1:])]
            moved = values + (30.0 if stage == "source" else 0.0)
            table.loc[own & (table["patient"] == there), list(undone.columns)] = moved
    table["patient"] = table["patient"].replace(travel)
    rows = {
        stage: patient_rows(table[table["stage"] == stage], list(FEATURES), "batch")
        for stage in ("source", "harmonized")
    }
    before, after = paired_agreement(rows, "scanner A")[:2]
    assert (before.stage, before.bodies) == ("source", 3)
    assert after.stage == "harmonized"
    assert before.difference > 1
    assert after.difference == pytest.approx(0)
    assert after.concordance == pytest.approx(1)
    assert before.concordance is not None and before.concordance < 0.5


def test_groups_of_the_study_keep_their_protocols(reported: StudyReport) -> None:
    text = (reported.path.parent / "report" / "study_groups.csv").read_text(encoding="utf-8")
    for scanner in (GE, PHILIPS):
        assert scanner.model in text
    assert Path(reported.path).name == "report.html"
