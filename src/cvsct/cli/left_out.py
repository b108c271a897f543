"""What the command line says of files that are no part of any series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cvsct.cli.words import is_verbose, note, this_run

if TYPE_CHECKING:
    from cvsct.io.left_out import LeftOut


def tell_left_out(left_out: Sequence[LeftOut], of: str = "") -> bool:
    """One line for what was left out, one for what a scan may lack; paths too with --verbose.

    Args:
        of: which scans are meant, where a command has several.

    Returns:
        Whether a scan may be incomplete.
    """
    harmless = [each for each in left_out if not each.incomplete]
    lost = [each for each in left_out if each.incomplete]
    if lost:
        this_run().incomplete = True
    if tuple(left_out) in this_run().told:  # as where trainings of a benchmark find the same scans
        return bool(lost)
    this_run().told.add(tuple(left_out))
    where = f" of the {of}" if of else ""
    if harmless:
        note(f"left out{where}: {_listed(harmless)}")
    if lost:
        note(f"warning: a scan may be incomplete, left out{where}: {_listed(lost)}")
    if is_verbose():
        for each in left_out:
            for file in each.files:
                note(f"left out: {file} ({each.why.one})")
    return bool(lost)


def _listed(left_out: Iterable[LeftOut]) -> str:
    return "; ".join(map(str, left_out))
