"""The table of features as files: pandas, R and Parquet read what was measured."""

from __future__ import annotations

import csv
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cvsct.core.errors import UsageError
from cvsct.evaluation.features.patient_table import (
    COLUMNS,
    NUMBER_COLUMNS,
    FeatureTable,
    feature_columns,
)

MEAN, ENTROPY = "original_firstorder_Mean", "original_glcm_JointEntropy"


@pytest.fixture
def table() -> FeatureTable:
    def row(patient: str, stage: str, **cells: object) -> dict[str, object]:
        about = dict.fromkeys(set(COLUMNS) - set(NUMBER_COLUMNS), "") | {
            "patient": patient,
            "stage": stage,
            "kvp": 120.0,
        }
        return {**about, "batch": "Maker X, kernel K1", "region": "lesion", **cells}

    rows = (
        row("P1", "source", voxels=447.0, **{MEAN: 1 / 3, ENTROPY: 2.5}),
        row("P1", "harmonized", voxels=447.0, **{MEAN: -1.5e-300, ENTROPY: float("nan")}),
        row("=P2", "source", error="the mask is empty, or 'not' \"there\""),
    )
    return FeatureTable(rows, feature_columns(rows))


def test_the_wide_table_reads_back_bit_for_bit(table: FeatureTable, tmp_path: Path) -> None:
    table.write(tmp_path)
    path = tmp_path / "features_wide.csv"
    frame = pd.read_csv(path)
    assert list(frame.columns) == [*COLUMNS, MEAN, ENTROPY]
    assert frame[MEAN][0] == pytest.approx(1 / 3, rel=1e-15)
    assert np.isnan(frame[ENTROPY][1])
    assert frame["error"][2] == table.rows[2]["error"]
    assert frame["patient"][2] == "'=P2"  # a spreadsheet must not run it
    with path.open(encoding="utf-8", newline="") as stream:
        first = next(csv.DictReader(stream))
    assert float(first[MEAN]) == 1 / 3  # to the last bit


def test_the_folder_of_a_table_is_made(table: FeatureTable, tmp_path: Path) -> None:
    assert all(path.exists() for path in table.write(tmp_path / "new" / "folder"))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="file: a file stands in its way; name a folder"):
        table.write(tmp_path / "file")


def _long_of(folder: Path) -> Path:
    return folder / "features_long.csv"


def test_the_long_table_has_a_row_per_value(table: FeatureTable, tmp_path: Path) -> None:
    table.write(tmp_path)
    frame = pd.read_csv(_long_of(tmp_path))
    assert len(frame) == 4  # the failed row has no values
    values = frame.set_index(["stage", "feature"])["value"]
    assert values["source", ENTROPY] == 2.5


def test_tables_are_for_the_user_alone(table: FeatureTable, tmp_path: Path) -> None:
    for path in table.write(tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pandas_gets_numbers(table: FeatureTable) -> None:
    frame = table.to_pandas()
    assert list(frame.columns) == list(table.columns)
    assert frame[MEAN].dtype == np.float64
    assert np.isnan(frame["voxels"][2])
    assert len(table.failed) == 1


def test_parquet_holds_the_same(table: FeatureTable, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    table.write(tmp_path)
    frame = pd.read_parquet(tmp_path / "features_wide.parquet")
    pd.testing.assert_frame_equal(frame, table.to_pandas(), check_dtype=False)
    assert len(pd.read_parquet(tmp_path / "features_long.parquet")) == 3  # no undefined values


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_r_reads_the_table_without_a_join(table: FeatureTable, tmp_path: Path) -> None:
    table.write(tmp_path)
    script = (
        f"t <- read.csv('{tmp_path / 'features_wide.csv'}');"
        f"s <- subset(t, stage == 'source' & error == '');"
        f"cat(nrow(t), ncol(t), is.numeric(t${ENTROPY}), s${MEAN} * 3 == 1, sum(is.na(t${MEAN})))"
    )
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", str(len(COLUMNS) + 2), "TRUE", "TRUE", "1"]
