"""ComBat against R's sva, and what it keeps and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.combat.estimates import ComBatEstimates, estimate_combat
from tests.evaluation.combat.sva import (
    REFERENCE,
    VARIANTS,
    Patients,
    has_sva,
    simulated,
    sva_combat,
)


def harmonized(
    patients: Patients, mean_only: bool, reference: str | None, covariates: tuple[str, ...]
) -> np.ndarray:
    values = patients.covariates(covariates)
    batch = patients.table["batch"].tolist()
    fitted = estimate_combat(
        patients.values, patients.features, batch, values, reference=reference, mean_only=mean_only
    )
    kept = ComBatEstimates.from_json(json.loads(json.dumps(fitted.to_json())))
    columns = [patients.features.index(name) for name in kept.features]
    result = patients.values.copy()
    result[:, columns] = kept.apply(patients.values[:, columns], batch, values)
    return result


def same(ours: np.ndarray, theirs: np.ndarray, spread: np.ndarray) -> None:
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    assert float(np.nanmax(np.abs(ours - theirs) / spread)) < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_frozen_output_of_sva(variant: str) -> None:
    record = json.loads(REFERENCE.read_text())
    patients = Patients(pd.DataFrame(**record["table"]))
    same(
        harmonized(patients, *VARIANTS[variant]), np.array(record[variant]), patients.values.std(0)
    )


@pytest.mark.skipif(not has_sva(), reason="needs Rscript and r-bioc-sva")
def test_sva_itself_on_other_patients_with_undefined_values_and_a_constant(tmp_path: Path) -> None:
    patients = simulated((12, 30, 15, 11), 40, seed=7)
    patients.table.iloc[[3, 25], [5, 9]] = np.nan
    patients.table["original_glcm_F7"] = 4.0
    spread = np.nanstd(patients.values, axis=0) + 1e-12
    for variant, theirs in sva_combat(patients, tmp_path).items():
        same(harmonized(patients, *VARIANTS[variant]), theirs, spread)


def fitted_on(patients: Patients, **options: object) -> ComBatEstimates:
    values = {name: patients.table[name].tolist() for name in options.pop("covariates", ())}  # type: ignore[attr-defined]
    return estimate_combat(
        patients.values, patients.features, patients.table["batch"].tolist(), values, **options
    )  # type: ignore[arg-type]


def test_a_planted_shift_and_scale_are_removed_and_a_covariate_is_kept() -> None:
    """Two batches of one population but for age: what age does to a feature must stay."""
    rng = np.random.default_rng(3)
    n, features = 200, 30
    batch = np.repeat(["A", "B"], n)
    age = np.concatenate([rng.normal(60, 8, n), rng.normal(70, 8, n)])
    is_b = (batch == "B")[:, None]
    own = rng.normal(size=(2 * n, features))
    scanned = 0.1 * (age - 60)[:, None] + np.where(is_b, 3.0 + 2.0 * own, own)
    names = [f"original_glcm_F{i}" for i in range(features)]

    def gap(values: np.ndarray) -> float:
        return float((values[n:].mean(axis=0) - values[:n].mean(axis=0)).mean())

    adjusted = estimate_combat(scanned, names, list(batch), {"age": list(age)})
    plain = estimate_combat(scanned, names, list(batch))
    scale = (adjusted.scale[1] / adjusted.scale[0]).mean()
    assert scale == pytest.approx(2.0, rel=0.05)
    with_age = adjusted.apply(scanned, list(batch), {"age": list(age)})
    without = plain.apply(scanned, list(batch))
    slope = np.polyfit(age[:n], with_age[:n].mean(axis=1), 1)[0]
    assert gap(with_age) == pytest.approx(10 * slope, rel=0.15)  # ten years apart
    assert abs(gap(without)) < 0.1 * gap(
        with_age
    )  # blind to age, it removes the patients' difference


def test_new_patients_of_a_known_batch_move_as_the_fitted_ones_did() -> None:
    patients = simulated()
    fitted = fitted_on(patients)
    batch = patients.table["batch"].tolist()
    everybody = fitted.apply(patients.values, batch)
    assert fitted.apply(patients.values[20:22], batch[20:22]) == pytest.approx(everybody[20:22])
    with pytest.raises(EvaluationError, match=r"batch 'Z' is not among .*\(A, B, C\)"):
        fitted.apply(patients.values[:1], ["Z"])


def test_new_patients_with_covariates_the_fit_did_not_see_are_refused() -> None:
    fitted = fitted_on(simulated(), covariates=("age", "sex"))
    value = np.zeros((1, 6))
    for covariates, reason in (
        ({"age": [50]}, "covariate sex is not given"),
        ({"age": [50], "sex": ["X"]}, "covariate sex has the value 'X'"),
        ({"age": ["old"], "sex": ["F"]}, "covariate age has the value 'old', expected a number"),
        ({"age": [float("nan")], "sex": ["F"]}, "covariate age is missing for 1 of 1"),
    ):
        with pytest.raises(EvaluationError, match=reason):
            fitted.apply(value, ["A"], covariates)


def test_what_cannot_be_fitted_is_refused_by_name() -> None:
    patients = simulated()
    table, batch = patients.table, patients.table["batch"]
    table["contrast"] = np.where(batch == "A", "yes", "no")
    table["same"] = "x"
    table["double"] = 2 * table["age"]
    for options, reason in (
        ({"covariates": ("age", "contrast")}, "covariate contrast is confounded with scanner"),
        ({"covariates": ("age", "double")}, "covariate double is confounded with scanner and age"),
        ({"covariates": ("same",)}, "covariate same has the value x alone"),
        ({"reference": "Q"}, "the reference 'Q' is not among the batches"),
    ):
        features = Patients(table[["batch", "age", "sex", *simulated().features]])
        values = {name: table[name].tolist() for name in options.pop("covariates", ())}
        with pytest.raises(EvaluationError, match=reason):
            estimate_combat(
                features.values, features.features, batch.tolist(), values,
                batch_name="scanner", **options,
            )  # fmt: skip
    with pytest.raises(EvaluationError, match="batch 'C' has one patient"):
        fitted_on(simulated((10, 10, 1)))
    assert fitted_on(simulated((10, 10, 1)), mean_only=True).rows == (10, 10, 1)
    with pytest.raises(EvaluationError, match="'A' alone, expected at least two"):
        fitted_on(simulated((10,)))
    with pytest.raises(EvaluationError, match="no estimates of ComBat"):
        ComBatEstimates.from_json({"features": ["x"]})
