"""How commands say what they have to say."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cvsct.core.errors import UsageError, one_line
from cvsct.core.sides import OLD_NAMES_GO_IN

EXIT_SOME_FAILED = 3
_Value = TypeVar("_Value")
_LOGGER = logging.getLogger("cvsct.cli")


@dataclass
class _Run:
    """What this run of the program has said so far.

    Args:
        inputs: files and folders it was given, to explain file names in messages by.
        told: lines that are not told again.
        incomplete: whether a scan may be incomplete, so that the program does not end with 0.
    """

    inputs: list[Path] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    incomplete: bool = False


_run = _Run()


def begin() -> None:
    """Forget an earlier run in this process."""
    global _run  # noqa: PLW0603 - there is one terminal
    _run = _Run()


def may_be_incomplete() -> bool:
    """Whether a scan of this run may be incomplete."""
    return _run.incomplete


def know(*inputs: Path | None) -> None:
    """Take files and folders that the run was given, whose files messages may be about."""
    _run.inputs += [path for path in inputs if path is not None and path not in _run.inputs]


def _files_given() -> list[Path]:
    from cvsct.io.left_out import Tally
    from cvsct.io.walk import walk

    return [file for path in _run.inputs if path.exists() for file in walk(path, Tally())]


def set_verbose(verbose: bool) -> None:
    """Tell more, or no more, than is told by default."""
    _LOGGER.setLevel(logging.INFO if verbose else logging.WARNING)


def is_verbose() -> bool:
    """Whether the user asked for more than is told by default, paths among it."""
    return _LOGGER.level == logging.INFO


def complain(message: str, files: Iterable[Path] = ()) -> None:
    """An error as one line.

    Args:
        files: that it may be about, beside those of the run's inputs; with --verbose their paths
            are told where the message has a hash instead.
    """
    if is_verbose() and "file-" in message:
        from cvsct.io.dicom.header import explained

        message = explained(message, [*files, *_files_given()])
    print(f"cvsct: error: {one_line(message)}", file=sys.stderr)


_ONCE = ("left out", "warning: a scan may be incomplete")
_KINDS = ("left out", "warning:", "engine:", "[")


def tell(message: str) -> None:
    """A note of the API as one line, with its kind before it; what was left out, only once."""
    if message.startswith(_ONCE):
        _run.incomplete |= message.startswith(_ONCE[1])
        what = message.partition(": ")[2]  # the same scans may be found by several commands
        if what in _run.told:
            return
        _run.told.add(what)
    note(message if message.startswith(_KINDS) else f"note: {message}")


def renamed(option: str, value: _Value | None, old: str, old_value: _Value | None) -> _Value | None:
    """The value of an option, which may have been given by its old name; that is told.

    Raises:
        UsageError: if it was given by both names.
    """
    if old_value is None:
        return value
    if value is not None:
        raise UsageError(f"{old} is the old name of {option}; give {option} alone")
    tell(f"{old} is now {option}; removed in {OLD_NAMES_GO_IN}")
    return old_value


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
