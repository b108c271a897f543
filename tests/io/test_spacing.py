"""Uneven slices: what is missing, or which spacing follows which, and what helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from cvsct.core.errors import GeometryError
from tests.support.dicom_files import only, write_series


def _at(positions_mm: list[float], folder: Path) -> Path:
    def change(ds: Dataset, i: int) -> None:
        ds.ImagePositionPatient = [-100, -120, positions_mm[i]]

    return write_series(folder, len(positions_mm), change=change)


def _positions(*steps_mm: float) -> list[float]:
    return [float(at) for at in np.cumsum([100.0, *steps_mm])]


@pytest.mark.parametrize(
    ("steps_mm", "told"),
    [
        ([2.5] * 6 + [7.5] * 5, "changes from 2.5 to 7.5 mm after slice 7 of 12"),
        ([5.0] * 2 + [1.25] * 8, "changes from 5 to 1.25 mm after slice 3 of 11"),
        ([3.0] * 4 + [4.0] * 3 + [5.0] * 4, "changes from 3 to 4 mm after slice 5 of 12"),
        ([5.0, 5.0, 10.0, 10.0], "changes from 5 to 10 mm after slice 3 of 5"),
    ],
)
def test_a_scan_of_two_spacings_is_told_as_one(
    tmp_path: Path, steps_mm: list[float], told: str
) -> None:
    with pytest.raises(GeometryError, match="slice distance") as refused:
        only(_at(_positions(*steps_mm), tmp_path))
    assert told in str(refused.value)
    assert "re-export" not in str(refused.value)


def test_each_part_of_a_scan_of_two_spacings_can_be_read_alone(tmp_path: Path) -> None:
    positions = _positions(2.5, 2.5, 2.5, 7.5, 7.5)
    _at(positions, tmp_path)
    upper = tmp_path / "upper"
    upper.mkdir()
    for file in sorted(tmp_path.glob("*.dcm"))[:2]:  # names run against the positions
        file.rename(upper / file.name)
    (tmp_path / "upper").rename(tmp_path.parent / "upper")
    assert only(tmp_path.parent / "upper").geometry.spacing_mm == pytest.approx(7.5)
    assert only(tmp_path).geometry.spacing_mm == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("steps_mm", "told"),
    [
        ([5, 5, 10, 5, 5], "gap of 10.0 mm after instance 3 of 6"),
        ([5, 5, 5, 20, 5], "expected 5.0 mm: 3 slices appear to be missing in all"),
        ([5, 10, 5, 5, 15, 5], "3 slices appear to be missing in all"),
        ([5, 5, 5, 10], "1 slice appears to be missing"),
        ([5, 5, 7.3, 5], "gap of 7.3 mm after instance 3 of 5"),
    ],
)
def test_missing_slices_are_counted(tmp_path: Path, steps_mm: list[float], told: str) -> None:
    with pytest.raises(GeometryError, match="gap of") as refused:
        only(_at(_positions(*steps_mm), tmp_path))
    assert told in str(refused.value)


def test_a_distance_that_no_slice_could_fill_counts_none_as_missing(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"from 5\.0 to 7\.3") as refused:
        only(_at(_positions(5, 5, 7.3, 5), tmp_path))
    assert "missing" not in str(refused.value)
