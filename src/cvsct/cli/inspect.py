"""`cvsct inspect`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cvsct.cli.console import (
    EXIT_FAILED,
    EXIT_SOME_FAILED,
    add_inputs,
    is_verbose,
    report_error,
    report_line,
    report_result,
)
from cvsct.cli.left_out import report_paths
from cvsct.core.text import columns

if TYPE_CHECKING:
    from cvsct.io.catalog import Catalog
    from cvsct.io.survey import CensusRow, SurveyedSeries

CENSUS_HEAD = ("scanner", "kernel", "kVp", "thickness mm", "patients", "series", "refused",
               "slices", "dates")  # fmt: skip
SERIES_HEAD = ("series", "scanner", "kernel", "kVp", "slices", "pixels", "pixel mm", "spacing mm",
               "thickness mm", "readable")  # fmt: skip
MAX_LISTED = 40
"""More series than these are listed only with --verbose."""


def inspect(
    scans: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A DICOM series or tree, or NIfTI.")
    ],
    table: Annotated[
        Path | None,
        typer.Option("--csv", help="Write a row a series, and a row a file that was left out."),
    ] = None,
) -> None:
    """Count CT series by scanner, kernel, kVp and thickness, list them, and say what is unreadable.

    With --json all that is known of each series, with its path.
    """
    from cvsct.cli.progress import progress
    from cvsct.core.files import refuse_unwritable
    from cvsct.io.catalog import catalog
    from cvsct.io.left_out import lines
    from cvsct.io.series import input_path
    from cvsct.io.survey import census, survey

    add_inputs(scans)
    if table is not None:
        refuse_unwritable(table)
    listed = catalog(scans)
    found = list(survey(listed.series, progress()))
    root = scans.absolute() if scans.is_dir() else scans.absolute().parent
    paths = [input_path(series, root) for series in listed.series]
    rows = [{"path": path, **series.to_json()} for path, series in zip(paths, found, strict=True)]
    if table is not None:
        _write_csv(table, rows, listed, root)
    text = columns([CENSUS_HEAD, *map(_census_cells, census(found))])
    if len(found) <= MAX_LISTED or is_verbose():
        cells = [_cells(number, series) for number, series in enumerate(found, 1)]
        text += "\n\n" + columns([SERIES_HEAD, *cells])
    report_result(text, rows)
    for line in (*lines(listed.left_out), *(f"note: {remark}" for remark in listed.notes)):
        report_line(line)
    report_paths(listed.left_out)
    for number, series in enumerate(found, 1):
        for remark in series.notes:
            report_line(f"note: series {number}: {remark}")
    refused = [(number, series) for number, series in enumerate(found, 1) if series.refused]
    for number, series in refused:
        report_error(f"series {number}: {series.refused}", listed.series[number - 1].files)
    if refused or listed.incomplete:
        sys.exit(EXIT_FAILED if len(refused) == len(found) else EXIT_SOME_FAILED)


def _census_cells(row: CensusRow) -> tuple[str, ...]:
    return (
        row.scanner,
        row.kernel,
        f"{row.kvp:g}" if row.kvp else "",
        f"{row.thickness_mm:g}" if row.thickness_mm else "",
        *(str(count) for count in (row.n_patients, row.n_series, row.n_refused, row.n_slices)),
        " to ".join(dict.fromkeys(filter(None, (row.first_date[:7], row.last_date[:7])))),
    )


def _cells(number: int, series: SurveyedSeries) -> tuple[str, ...]:
    acquisition = series.acquisition
    slices, *size = series.shape or ("",)
    return (
        str(number),
        acquisition.scanner,
        acquisition.kernel,
        f"{acquisition.kvp:g}" if acquisition.kvp else "",
        str(slices),
        " x ".join(map(str, size)),
        _mm(sorted(set(series.pixel_mm or ()))),
        _mm([series.spacing_mm] if series.spacing_mm else []),
        _mm([series.thickness_mm] if series.thickness_mm else []),
        "no" if series.refused else "yes",
    )


def _mm(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)


def _write_csv(path: Path, rows: Sequence[dict[str, object]], listed: Catalog, root: Path) -> None:
    """Series and files that were left out; for the user alone, since paths may name patients."""
    from cvsct.core.files import write_atomic

    head = ["path", "status", "reason", *(key for key in rows[0] if key not in _OWN_COLUMNS)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, head, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        plain = {
            key: "; ".join(map(str, value)) if isinstance(value, list) else value
            for key, value in row.items()
        }
        status = "readable" if row["readable"] else "refused"
        writer.writerow({**plain, "status": status, "reason": row["refused"]})
    for group in listed.left_out:
        for file in group.files:
            place = file.absolute()
            name = place.relative_to(root) if place.is_relative_to(root) else place
            writer.writerow({"path": name, "status": "left out", "reason": group.why.one})
    write_atomic(path, stream.getvalue(), private=True)


_OWN_COLUMNS = ("path", "readable", "refused")
