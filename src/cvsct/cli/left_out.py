"""What the command line says of files that are no part of any series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvsct.cli.console import is_verbose, report_line

if TYPE_CHECKING:
    from cvsct.io.left_out import LeftOut


def report_paths(left_out: Sequence[LeftOut]) -> None:
    """With --verbose, a line for each file that was left out."""
    if is_verbose():
        for each in left_out:
            for file in each.files:
                report_line(f"left out: {file} ({each.why.one})")
