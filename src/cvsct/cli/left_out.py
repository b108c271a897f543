"""What the command line says of files that were found among scans and are not read."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvsct.cli.words import know, note, this_run
from cvsct.errors import CvsctError

if TYPE_CHECKING:
    from cvsct.io.catalog import Catalog
    from cvsct.io.left_out import LeftOut


def find_and_tell(path: Path, where: str = "") -> Catalog:
    """The series under a path; what was left out is told.

    Args:
        where: what the path is to the command, where it takes several.

    Raises:
        SeriesError: if there is no CT series.
    """
    from cvsct.io.catalog import catalog

    know(path)
    found = catalog(path)
    tell_found(found, where)
    return found


def tell_found(found: Catalog, where: str = "") -> None:
    """What was left out, and what else is to be known of what was found."""
    tell_left_out(found.left_out, where)
    for each in found.notes:
        _once(f"note: {_place(where)}{each}")


def tell_data(folders: Mapping[str, Path]) -> None:
    """What is left out of folders that are read many times, by what each is called.

    One that is not there, or holds no scans, is told by what needs it.
    """
    for where, path in folders.items():
        if path.is_dir():
            with contextlib.suppress(CvsctError):
                find_and_tell(path, where)


def tell_left_out(left_out: Sequence[LeftOut], where: str = "") -> None:
    """One line on what was left out, one on what a scan may lack; paths where they are asked for.

    A run tells the same once. Where a scan may be incomplete, it ends with exit code 3.
    """
    from cvsct.io.left_out import in_words

    told = [each for each in left_out if not each.why.silent]
    harmless = [each for each in told if not each.incomplete]
    if harmless:
        _once(f"note: {_place(where)}left out: {in_words(harmless)}", harmless)
    lost = [each for each in told if each.incomplete]
    if lost:
        this_run().incomplete = True
        shown = "; ".join(f"{len(each.files)} {each.reason} ({_named(each)})" for each in lost)
        _once(f"warning: {_place(where)}a scan may be incomplete: {shown}", lost)


def _once(line: str, files: Sequence[LeftOut] = ()) -> None:
    run, key = this_run(), tuple(files) or line
    if key in run.said:  # as where many trainings of a benchmark find the same scans
        return
    run.said.add(key)
    note(line)
    if run.verbose:
        for each in files:
            for path in each.files:
                print(f"  {each.why.one}: {path}", file=sys.stderr, flush=True)


def _place(where: str) -> str:
    return f"{where}: " if where else ""


def _named(each: LeftOut) -> str:
    """The first files, and what to do."""
    from cvsct.io.header import label
    from cvsct.io.left_out import MAX_NAMED

    names = ", ".join(label(path) for path in each.files[:MAX_NAMED])
    more = len(each.files) - MAX_NAMED
    return f"{names}{f' and {more} more' if more > 0 else ''}; {each.remedy}"
