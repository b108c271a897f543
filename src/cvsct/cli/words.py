"""How commands say what they have to say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cvsct.errors import one_line

EXIT_SOME_FAILED = 3


@dataclass
class _Run:
    """What this run of the program has been asked for and has said.

    Args:
        verbose: whether paths, which may identify a patient, are told on the terminal.
        inputs: files and folders it was given, in which messages name files.
        said: what was told once and is not told again.
        incomplete: whether a scan may be incomplete.
    """

    verbose: bool = False
    inputs: list[Path] = field(default_factory=list)
    said: set[object] = field(default_factory=set)
    incomplete: bool = False


_run = _Run()


def begin() -> None:
    """Forget an earlier run in this process."""
    global _run  # noqa: PLW0603 - there is one terminal
    _run = _Run()


def this_run() -> _Run:
    """The run of the program that is going on."""
    return _run


def know(*inputs: Path | None) -> None:
    """Have files in messages explained by the paths under these, where paths are asked for."""
    _run.inputs += [path for path in inputs if path is not None and path not in _run.inputs]


def complain(message: str) -> None:
    """An error as one line."""
    print(f"cvsct: error: {_in_full(one_line(message))}", file=sys.stderr)


def note(message: str) -> None:
    """Something to know that is no error."""
    print(_in_full(one_line(message)), file=sys.stderr, flush=True)


def _in_full(message: str) -> str:
    """A message with the paths of files that it names by a hash, where paths are asked for."""
    if not _run.verbose or "file-" not in message:
        return message
    from cvsct.io.header import explained
    from cvsct.io.left_out import Tally
    from cvsct.io.walk import walk

    files = [file for path in _run.inputs if path.exists() for file in walk(path, Tally())]
    return one_line(explained(message, files))


@dataclass(frozen=True)
class Finding:
    """One line of what `cvsct doctor` has found out.

    Args:
        wrong: whether the core cannot work like this.
    """

    about: str
    detail: str
    wrong: bool = False


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each as aligned text, whatever characters a file's header held."""
    shown = [[one_line(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
    return "\n".join(lines)
