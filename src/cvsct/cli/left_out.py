"""What the command line says of files that are no part of any series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvsct.cli.words import is_verbose, note

if TYPE_CHECKING:
    from cvsct.io.left_out import LeftOut


def tell_paths(left_out: Sequence[LeftOut]) -> None:
    """With --verbose, a line for each file that was left out."""
    if is_verbose():
        for each in left_out:
            for file in each.files:
                note(f"left out: {file} ({each.why.one})")
