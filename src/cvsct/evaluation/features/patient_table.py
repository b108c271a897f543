"""Features of every patient: a row for each patient, study, series, region and stage.

`features_wide.csv` has a column for each feature; an undefined or failed value is an empty cell.
`features_long.csv` has a row for each value. Both hold patients' identifiers or pseudonyms, so
only the user can read them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvsct.core.errors import has_extra
from cvsct.core.files import atomic_file, made_folder, write_atomic
from cvsct.evaluation.extras import load_extra
from cvsct.evaluation.table import as_text

WIDE, LONG = "features_wide", "features_long"
"""Names of the tables, without suffix."""

KEY_COLUMNS = ("patient", "study_uid", "series_uid", "derived_uid", "site", "stage", "region")
"""Columns that tell a row from every other."""

ABOUT_COLUMNS = (
    "scanner", "kernel", "kvp", "thickness_mm", "spacing_mm", "pixel_mm", "voxels", "volume_mm3",
    "guard_verdict", "settings_sha256", "harmonized_to", "model_sha256", "batch", "error",
)  # fmt: skip
"""Further columns before the features. Scanner, kernel and kVp are the acquiring scanner's."""

NUMBER_COLUMNS = ("kvp", "thickness_mm", "spacing_mm", "pixel_mm", "voxels", "volume_mm3")
COLUMNS = (*KEY_COLUMNS, *ABOUT_COLUMNS)
LONG_COLUMNS = (*KEY_COLUMNS, "batch", "feature", "value")

Row = Mapping[str, Any]
"""Cells of a row by column; a column of `NUMBER_COLUMNS` or a feature may be absent."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of patients' regions, as `extract_features` measures them.

    Args:
        rows: a row per patient, study, series, region and stage; `error` has the reason of one
            that could not be measured.
        features: names of the feature columns, `filter_class_Feature`, and the densitometry of
            lungs.
        settings: the parameter file that was used, as text.
        settings_sha256: its SHA-256, as in the rows.
    """

    rows: tuple[Row, ...]
    features: tuple[str, ...]
    settings: str = ""
    settings_sha256: str = ""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns of the wide table, in order."""
        return (*COLUMNS, *self.features)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows that could not be measured."""
        return tuple(row for row in self.rows if row["error"])

    def to_pandas(self) -> Any:
        """The wide table as a pandas `DataFrame`; numbers are float64, undefined ones NaN."""
        pandas = load_extra("pandas")
        numbers = {*NUMBER_COLUMNS, *self.features}
        return pandas.DataFrame(
            {
                name: pandas.Series(
                    [row.get(name, math.nan if name in numbers else "") for row in self.rows],
                    dtype="float64" if name in numbers else "object",
                )
                for name in self.columns
            }
        )

    def write(self, folder: Path | str) -> list[Path]:
        """Write both tables as CSV, and as Parquet where pyarrow is installed (extra `parquet`).

        Args:
            folder: the folder to write to; it is made where there is none.

        Returns:
            The files that were written; only the user can read them.

        Raises:
            UsageError: if a file stands in the folder's way.
        """
        folder = made_folder(folder)
        tables = {WIDE: (self.columns, self._wide()), LONG: (LONG_COLUMNS, self._long())}
        written = []
        for name, (columns, rows) in tables.items():
            path = folder / f"{name}.csv"
            write_atomic(path, _csv(columns, rows), private=True)
            written.append(path)
        if has_extra("parquet"):
            written += self._write_parquet(folder)
        return written

    def _wide(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [_cell(row.get(name)) for name in self.columns]

    def _long(self) -> Iterator[list[str]]:
        for row in self.rows:
            about = [_cell(row.get(name)) for name in LONG_COLUMNS[:-2]]
            for name in self.features:
                if name in row:
                    yield [*about, name, _cell(row[name])]

    def _write_parquet(self, folder: Path) -> list[Path]:
        pandas = load_extra("pandas")
        wide = self.to_pandas()
        values = wide.melt(list(LONG_COLUMNS[:-2]), list(self.features), "feature", "value").dropna(
            subset="value"
        )
        written = []
        for name, table in ((WIDE, wide), (LONG, values)):
            path = folder / f"{name}.parquet"
            with atomic_file(path, private=True) as stream:
                pandas.DataFrame(table).to_parquet(stream, index=False)
            written.append(path)
        return written


def feature_columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """Names of the features of all rows, in the order in which they first appear."""
    known = set(COLUMNS)
    return tuple(dict.fromkeys(name for row in rows for name in row if name not in known))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return "" if value is None else as_text(str(value))


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
