"""How commands say what they have to say."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cvsct.core.errors import one_line

EXIT_SOME_FAILED = 3
_LOGGER = logging.getLogger("cvsct.cli")


def set_verbose(verbose: bool) -> None:
    """Tell more, or no more, than is told by default."""
    _LOGGER.setLevel(logging.INFO if verbose else logging.WARNING)


def is_verbose() -> bool:
    """Whether the user asked for more than is told by default, paths among it."""
    return _LOGGER.level == logging.INFO


def complain(message: str, files: Iterable[Path] = ()) -> None:
    """An error as one line.

    Args:
        files: that it may be about; with --verbose their paths are told where the message has a
            hash instead.
    """
    if files and is_verbose():
        from cvsct.io.dicom.header import explained

        message = explained(message, files)
    print(f"cvsct: error: {one_line(message)}", file=sys.stderr)


_KINDS = ("left out", "warning:", "engine:", "[")


def tell(message: str) -> None:
    """A note of the API as one line, with its kind before it."""
    note(message if message.startswith(_KINDS) else f"note: {message}")


def tell_table(table: str) -> None:
    """Lines of a table to know before work begins."""
    print(table, file=sys.stderr, flush=True)


def note(message: str) -> None:
    """Something to know that is no error."""
    print(one_line(message), file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Finding:
    """One line of what `cvsct doctor` has found out.

    Args:
        wrong: whether the core cannot work like this.
    """

    about: str
    detail: str
    wrong: bool = False
