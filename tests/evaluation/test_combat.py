"""ComBat on features with a known scanner effect, against Johnson's equations written out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cvsct.core.errors import EvaluationError
from cvsct.evaluation.agreement.combat import crossfit_combat, fit_combat
from cvsct.evaluation.agreement.concordance import across_regions
from cvsct.evaluation.features.radiomics import CLASSES, MissingValue, RegionFeatures

FEATURES = 8 * len(CLASSES)


def table(values: np.ndarray) -> RegionFeatures:
    per_class = values.shape[1] // len(CLASSES)
    names = tuple(f"{name}_F{i}" for name in CLASSES for i in range(per_class))
    missing = tuple(MissingValue(int(r), names[c], "why") for r, c in np.argwhere(np.isnan(values)))
    return RegionFeatures(names, values, missing)


def scanners(
    regions: int, seed: int = 0, noise: float = 0.05
) -> tuple[RegionFeatures, RegionFeatures]:
    """The same regions on two scanners: the source shifts and scales each feature its own way."""
    effect = np.random.default_rng(100)
    mean, sd = effect.normal(0, 50, FEATURES), effect.uniform(0.01, 20, FEATURES)
    shift, scale = effect.normal(1.5, 0.5, FEATURES), effect.uniform(1.2, 2.0, FEATURES)
    rng = np.random.default_rng(seed)
    body = rng.normal(size=(regions, FEATURES))
    target = body + noise * rng.normal(size=body.shape)
    source = shift + scale * (body + noise * rng.normal(size=body.shape))
    return table(mean + sd * source), table(mean + sd * target)


def johnson(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Source brought to the target by Johnson et al. 2007, sections 3.1 to 3.3."""
    sides = [source, target]
    n = [len(side) for side in sides]
    grand = sum(len(side) * side.mean(axis=0) for side in sides) / sum(n)
    pooled = sum(len(side) * side.var(axis=0) for side in sides) / sum(n)
    effects = []
    for side in sides:
        z = (side - grand) / np.sqrt(pooled)
        gamma, delta = z.mean(axis=0), z.var(axis=0, ddof=1)
        gamma_bar, tau = gamma.mean(), gamma.var(ddof=1)
        m, v = delta.mean(), delta.var(ddof=1)
        a, b = m**2 / v + 2, m**3 / v + m
        g, d = gamma, delta
        for _ in range(500):
            g = (len(z) * tau * gamma + d * gamma_bar) / (len(z) * tau + d)
            d = (b + 0.5 * ((z - g) ** 2).sum(axis=0)) / (len(z) / 2 + a - 1)
        effects.append((g, np.sqrt(d)))
    z = ((source - grand) / np.sqrt(pooled) - effects[0][0]) / effects[0][1]
    return (z * effects[1][1] + effects[1][0]) * np.sqrt(pooled) + grand


def test_a_shift_and_a_scale_of_each_feature_are_removed_on_regions_never_seen() -> None:
    model = fit_combat(*scanners(80, seed=1))
    source, target = scanners(40, seed=2)
    before, after = (
        across_regions(features, target, 20).mean.ccc for features in (source, model.apply(source))
    )
    assert before is not None
    assert after is not None
    assert before < 0.6
    assert after > 0.9
    gap = (model.apply(source).values - target.values).mean(axis=0) / target.values.std(axis=0)
    raw = (source.values - target.values).mean(axis=0) / target.values.std(axis=0)
    assert np.abs(gap).mean() < 0.25 * np.abs(raw).mean()
    ratio = model.apply(source).values.std(axis=0) / target.values.std(axis=0)
    assert 0.85 < np.median(ratio) < 1.15


def test_against_the_equations() -> None:
    source, target = scanners(30)
    expected = johnson(source.values, target.values)
    harmonized = fit_combat(source, target).apply(source).values
    assert (harmonized - expected) / target.values.std(axis=0) == pytest.approx(0.0, abs=1e-3)


def test_regions_need_neither_pair_nor_be_as_many() -> None:
    source, target = scanners(30)
    shuffled = table(target.values[np.random.default_rng(3).permutation(30)])
    assert fit_combat(source, shuffled).slope == pytest.approx(fit_combat(source, target).slope)
    model = fit_combat(source, table(target.values[:20]))
    assert model.regions == (30, 20)
    record = model.to_json()
    assert record["fitted_on_regions"] == [30, 20]
    assert record["batch"] == "scanner"
    json.dumps(record, allow_nan=False)


def test_cross_fitting_never_learns_from_the_region_it_harmonizes() -> None:
    source, target = scanners(25)
    plain = crossfit_combat(source, target, folds=5, seed=1)
    spoilt = target.values.copy()
    spoilt[7] += 1e3
    again = crossfit_combat(source, table(spoilt), folds=5, seed=1)
    same = np.isclose(plain.values, again.values).all(axis=1)
    assert same[7]
    assert 4 <= same.sum() <= 6  # its own fold
    assert across_regions(plain, target, 20).mean.ccc > 0.9  # type: ignore[operator]
    assert np.array_equal(plain.values, crossfit_combat(source, target, folds=5, seed=1).values)
    assert not np.array_equal(plain.values, crossfit_combat(source, target, folds=5, seed=2).values)


def test_groups_stay_in_one_fold() -> None:
    source, target = scanners(24)
    groups = np.repeat(np.arange(6), 4)
    plain = crossfit_combat(source, target, folds=3, groups=groups)
    spoilt = target.values.copy()
    spoilt[9] += 1e3  # group 2
    again = crossfit_combat(source, table(spoilt), folds=3, groups=groups)
    same = np.isclose(plain.values, again.values).all(axis=1).reshape(6, 4)
    assert same[2].all()
    assert (same.all(axis=1) == same.any(axis=1)).all()
    assert same.all(axis=1).sum() == 2


def test_undefined_and_constant_features_are_missing_with_their_reason() -> None:
    source, target = scanners(20)
    source.values[4, 2] = np.nan
    target.values[:, 5] = 3.0
    holed = table(source.values)
    learn, apply = table(holed.values[5:]), table(holed.values[:5])
    harmonized = fit_combat(learn, table(target.values[5:])).apply(apply)
    reasons = {(value.region, value.feature): value.reason for value in harmonized.missing}
    assert reasons[4, source.names[2]] == "why"
    assert "not fitted" in reasons[0, source.names[5]]
    assert len(reasons) == 1 + 5
    crossed = crossfit_combat(holed, target, folds=4)
    reasons = {(value.region, value.feature): value.reason for value in crossed.missing}
    assert reasons[4, source.names[2]] == "why"
    assert np.isnan(crossed.values[:, 5]).all()
    assert np.isnan(crossed.values[:, 2]).sum() == 1  # one hole costs no other region the feature
    assert np.isfinite(crossed.values[:, 0]).all()
    result = across_regions(crossed, target, 20)
    assert result.mean.ccc is not None
    assert np.isfinite(result.mean.ccc)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    fit_combat(*scanners(12))
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_fitted_is_refused() -> None:
    source, target = scanners(12)
    with pytest.raises(EvaluationError, match="12 regions of the source and 3 of the target"):
        fit_combat(source, table(target.values[:3]))
    flat = table(np.ones((12, FEATURES)))
    with pytest.raises(EvaluationError, match="can use 0 features"):
        fit_combat(flat, target)
    with pytest.raises(EvaluationError, match="different features"):
        fit_combat(source, table(target.values[:, :12]))
    with pytest.raises(EvaluationError, match="was fitted on 48 features, not on these 12"):
        fit_combat(source, target).apply(table(target.values[:, :12]))
    with pytest.raises(EvaluationError, match="same features in the same regions"):
        crossfit_combat(source, table(target.values[:9]))
