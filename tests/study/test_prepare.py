"""Preparation and measurement of single series: NIfTI whose thickness only the table tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvsct.io.masks import read_label_masks
from cvsct.io.read import find_series
from cvsct.profile.profile import measure_profile
from cvsct.study.measure import measure_item, measure_series, noise_level, read_measured
from cvsct.study.options import StudyOptions
from cvsct.study.plan import PlanRow, StudyPlan
from cvsct.study.prepare import PreparedSeries, planned_series, prepare_series
from tests.support.studies import (
    GE,
    lesion,
    volume_in,
    write_nifti_mask,
    write_nifti_scan,
)


@pytest.fixture(params=["scan 1.nii.gz", "Müller.nii"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A NIfTI scan of slices every 1.5 mm with a mask, under names that a shell would dislike."""
    path = write_nifti_scan(tmp_path / "scans" / request.param, GE, 1, tmp_path / "work")
    write_nifti_mask(tmp_path / "masks" / "m.nii.gz", GE, 1, tmp_path / "work")
    return path


def prepared(scan: Path, thickness_mm: float, to_mm: float) -> PreparedSeries:
    """The scan as a plan of a study has it."""
    root = scan.parent.parent
    (series,) = find_series(scan)
    row = PlanRow(
        "yes", "", "group", "P1", thickness_mm=thickness_mm, spacing_mm=1.5, slices=12,
        masks=(str(root / "masks" / "m.nii.gz"),), path=scan.name, series_uid=series.series_uid,
    )  # fmt: skip
    options = StudyOptions(
        scans=str(scan.parent), reference="group", thickness_mm=to_mm, spacing_mm=to_mm
    )
    ((found,), lost) = planned_series(StudyPlan(root / "study", options, (row,), ()))
    assert not lost
    return found


def test_thin_nifti_is_averaged_with_its_mask(scan: Path) -> None:
    series = prepared(scan, 1.5, 3.0)
    list(prepare_series(series))
    assert series.is_done
    thin, thick = volume_in(scan), volume_in(series.folder)
    expected = thin.hu.reshape(6, 2, *thin.hu.shape[1:]).mean(axis=1)
    assert np.abs(thick.hu - expected).max() <= 0.51
    (mask,) = series.carried()
    (carried,) = read_label_masks(mask, thick).masks.values()
    assert abs(carried.sum() * 2 / lesion(1.5).sum() - 1) < 0.35
    assert carried[2].any() and not carried[0].any()


@pytest.mark.parametrize(("own_mm", "to_mm"), [(3.0, 3.0), (2.9, 3.0), (1.5, 0.0), (0.0, 3.0)])
def test_slices_that_have_the_thickness_or_tell_none_are_linked(
    scan: Path, own_mm: float, to_mm: float
) -> None:
    """Slices of 3 mm every 1.5 mm overlap: they are thick already."""
    series = prepared(scan, own_mm, to_mm)
    assert not series.is_averaged
    list(prepare_series(series))
    np.testing.assert_array_equal(volume_in(series.folder).hu, volume_in(scan).hu)
    assert [path.name for path in series.carried()] == ["m.nii.gz"]


def test_a_series_that_is_prepared_is_known_until_its_file_changes(scan: Path) -> None:
    series = prepared(scan, 1.5, 3.0)
    list(prepare_series(series))
    assert prepared(scan, 1.5, 3.0).is_done
    assert not prepared(scan, 1.4, 3.0).is_done
    content = scan.read_bytes()
    scan.unlink()
    scan.write_bytes(content)
    assert not prepared(scan, 1.5, 3.0).is_done


def test_measuring_at_a_thickness_is_measuring_the_prepared_series(
    scan: Path, tmp_path: Path
) -> None:
    series = prepared(scan, 1.5, 3.0)
    list(prepare_series(series))
    item = measure_item(series.source, series.row.acquisition, 1.5, 3.0, tmp_path / "study")
    item.path.parent.mkdir(parents=True)
    list(measure_series(item))
    measured = read_measured(item.path)
    thick = replace(volume_in(series.folder), acquisition=series.row.acquisition)
    direct = measure_profile([thick])
    assert noise_level(measured) == pytest.approx(noise_level(direct), abs=0.02)
    native = measure_item(series.source, series.row.acquisition, 1.5, 0.0, tmp_path / "study")
    assert native.path != item.path
    list(measure_series(native))
    assert noise_level(read_measured(native.path)) > noise_level(measured) + 0.2
