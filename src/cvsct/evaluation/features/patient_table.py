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

from cvsct.core.errors import UsageError, has_extra
from cvsct.core.files import atomic_file, write_atomic
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

        Returns:
            The files that were written; only the user can read them.
        """
        folder = Path(folder)
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


def read_table(path: Path) -> FeatureTable:
    """Read a `features_wide.csv`; values are those that were measured, bit for bit.

    Raises:
        UsageError: if the file is not what `FeatureTable.write` writes.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            head, *lines = csv.reader(stream)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a table of features ({error})") from None
    if tuple(head[: len(COLUMNS)]) != COLUMNS:
        raise UsageError(
            f"{path}: not the columns of this version's features_wide.csv, expected "
            f"{', '.join(COLUMNS)} and the features; extract the features again"
        )
    features = tuple(head[len(COLUMNS) :])
    numbers = {*NUMBER_COLUMNS, *features}
    rows: list[Row] = []
    for line in lines:
        cells = dict(zip(head, line, strict=True))
        row: dict[str, Any] = {name: cell for name, cell in cells.items() if name not in numbers}
        row |= {name: float(cells[name]) for name in numbers if cells[name]}
        rows.append(row)
    return FeatureTable(
        tuple(rows), features, settings_sha256=rows[0]["settings_sha256"] if rows else ""
    )


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
