"""`cvsct inspect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cvsct.cli.left_out import tell_paths
from cvsct.cli.words import EXIT_SOME_FAILED, complain, know, note
from cvsct.core.text import columns

if TYPE_CHECKING:
    from cvsct.io.survey import Surveyed

HEAD = ("series", "scanner", "kernel", "kVp", "slices", "pixels", "pixel mm", "spacing mm",
        "thickness mm", "readable")  # fmt: skip


def inspect(
    scans: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A DICOM series or tree, or NIfTI.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
) -> None:
    """List the CT series of a file, folder or tree, and why any of them cannot be read."""
    from cvsct.cli.progress_display import progress
    from cvsct.io.catalog import catalog
    from cvsct.io.left_out import lines
    from cvsct.io.survey import survey

    know(scans)
    listed = catalog(scans)
    found = list(survey(listed.series, progress()))
    if as_json:
        print(json.dumps([one.to_json() for one in found]))
    else:
        print(columns([HEAD, *(_row(number, one) for number, one in enumerate(found, 1))]))
    for line in (*lines(listed.left_out), *(f"note: {each}" for each in listed.notes)):
        note(line)
    tell_paths(listed.left_out)
    for number, one in enumerate(found, 1):
        for each in one.notes:
            note(f"note: series {number}: {each}")
    refused = [(number, one) for number, one in enumerate(found, 1) if one.refused]
    for number, one in refused:
        complain(f"series {number}: {one.refused}", listed.series[number - 1].files)
    if refused or listed.incomplete:
        sys.exit(1 if len(refused) == len(found) else EXIT_SOME_FAILED)


def _row(number: int, one: Surveyed) -> tuple[str, ...]:
    made = one.acquisition
    slices, *size = one.shape or ("",)
    return (
        str(number),
        made.scanner,
        made.kernel,
        f"{made.kvp:g}" if made.kvp else "",
        str(slices),
        " x ".join(map(str, size)),
        _mm(sorted(set(one.pixel_mm or ()))),
        _mm([one.spacing_mm] if one.spacing_mm else []),
        _mm([one.thickness_mm] if one.thickness_mm else []),
        "no" if one.refused else "yes",
    )


def _mm(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
