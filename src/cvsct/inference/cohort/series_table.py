"""The table `series.csv` of a cohort: one row per series, written as series are finished."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cvsct.core.files import write_atomic
from cvsct.core.resumable import part_of
from cvsct.inference.cohort.journal import Journal, Row
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.series import input_path

SERIES_TABLE = "series.csv"
COLUMNS = ("path", "series_uid", "status", "reason", "folder", "derived_uid", "slices",
           "seconds")  # fmt: skip
ENDED = ("done", "failed", "quarantined")
"""Status of a series that is not worked on any more."""


class SeriesTable:
    """The table of a run or of its shard. It holds input paths, so only the user can read it.

    Args:
        out: the output folder.
        series: the series by their keys in the journal.
        root: the input folder, to which paths are relative.
        part: name of the shard; empty for the whole.
    """

    def __init__(
        self, out: Path, series: Mapping[str, SeriesFiles], root: Path, part: str = ""
    ) -> None:
        self.path = out / part_of(SERIES_TABLE, part)
        self._series, self._root = series, root.absolute()

    def write(self, journal: Journal) -> None:
        """Write the whole table of the finished and failed series, in the order of the series."""
        ended = {row.key: row for row in journal.rows() if row.status in ENDED}
        rows = [self._cells(ended[key]) for key in self._series if key in ended]
        write_atomic(self.path, _csv([COLUMNS, *rows]), private=True)

    def append(self, row: Row) -> None:
        """Append a row for a series that is finished or has failed."""
        if row.status in ENDED:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(_csv([self._cells(row)]))
                stream.flush()
                os.fsync(stream.fileno())

    def _cells(self, row: Row) -> tuple[str, ...]:
        series, done = self._series[row.key], row.status == "done"
        return (
            input_path(series, self._root),
            series.series_uid,
            row.status,
            "" if done else row.error,
            row.key if done else "",
            row.entry.derived_uid if done else "",
            str(row.entry.n_slices) if done else "",
            f"{row.entry.seconds:.2f}" if done else "",
        )


def join_tables(out: Path, parts: Iterable[str]) -> None:
    """Join the tables of all shards to one `series.csv`; the tables of the shards stay."""
    rows: list[list[str]] = []
    for part in parts:
        text = (out / part_of(SERIES_TABLE, part)).read_text(encoding="utf-8")
        rows += list(csv.reader(io.StringIO(text)))[1:]
    rows.sort(key=lambda cells: cells[COLUMNS.index("series_uid")])
    write_atomic(out / SERIES_TABLE, _csv([COLUMNS, *rows]), private=True)


def _csv(rows: Iterable[Iterable[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
