"""What commands print: results on stdout; notes, errors and progress on stderr and in a log file.

Every command prints through here, so that `--quiet`, `--json`, `--verbose` and `--log-file` hold
for all of them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cvsct.core.errors import CvsctError, StoppedError, UsageError, one_line
from cvsct.core.sides import OLD_NAMES_GO_IN

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = (
    error.exit_code for error in (CvsctError, UsageError, StoppedError)
)
EXIT_SOME_FAILED = 3

_PACKAGE = logging.getLogger("cvsct")
_LOGGER = logging.getLogger("cvsct.cli")
_Value = TypeVar("_Value")


@dataclass
class _Settings:
    """What this run of the program was told, and what it has said so far.

    Args:
        inputs: files and folders it was given, to explain file names in messages by.
        printed: lines that are not printed again.
        incomplete: whether a scan may be incomplete, so that the program does not end with 0.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    dry_run: bool = False
    log_files: list[Path] = field(default_factory=list)
    inputs: list[Path] = field(default_factory=list)
    printed: set[str] = field(default_factory=set)
    incomplete: bool = False


_settings = _Settings()


def start() -> None:
    """Forget an earlier run in this process."""
    global _settings  # noqa: PLW0603 - there is one terminal
    _settings = _Settings()
    for handler in list(_PACKAGE.handlers):
        if getattr(handler, "of_the_command_line", False):
            _PACKAGE.removeHandler(handler)
            handler.close()
    _PACKAGE.setLevel(logging.NOTSET)
    silence = logging.NullHandler()  # else Python itself prints what nobody handles
    silence.of_the_command_line = True  # type: ignore[attr-defined]
    _PACKAGE.addHandler(silence)


def configure(
    *,
    quiet: bool = False,
    verbose: bool = False,
    as_json: bool = False,
    dry_run: bool = False,
    log_file: Path | None = None,
) -> None:
    """Take options that every command has; what is on stays on.

    Raises:
        UsageError: if `--quiet` and `--verbose` are both given.
        OSError: if the log file cannot be opened.
    """
    _settings.quiet |= quiet
    _settings.as_json |= as_json
    _settings.dry_run |= dry_run
    if _settings.quiet and (verbose or _settings.verbose):
        raise UsageError("--quiet and --verbose exclude each other; give one of them")
    if verbose and not _settings.verbose:
        _settings.verbose = True
        handler = logging.StreamHandler(sys.stderr)
        handler.addFilter(lambda record: record.name != _LOGGER.name)  # printed already
        _add_handler(handler, "%(asctime)s %(message)s", "%H:%M:%S")
    if log_file is not None and log_file not in _settings.log_files:
        _settings.log_files.append(log_file)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(log_file, encoding="utf-8")
        _add_handler(to_file, "%(asctime)s %(levelname)-7s %(name)s: %(message)s", None)
        _LOGGER.info("cvsct %s", " ".join(map(_quoted, sys.argv[1:])))


def _add_handler(handler: logging.Handler, line: str, time: str | None) -> None:
    handler.setFormatter(logging.Formatter(line, time))
    handler.of_the_command_line = True  # type: ignore[attr-defined]
    _PACKAGE.addHandler(handler)
    _PACKAGE.setLevel(logging.INFO)


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word or not word else word


def is_quiet() -> bool:
    """Whether only results and errors are printed."""
    return _settings.quiet


def is_json() -> bool:
    """Whether the result is printed as JSON, for a program to read."""
    return _settings.as_json


def is_verbose() -> bool:
    """Whether the user asked for more than is printed by default, paths among it."""
    return _settings.verbose


def is_dry_run() -> bool:
    """Whether the command tells what it would do, and writes nothing."""
    return _settings.dry_run


def may_be_incomplete() -> bool:
    """Whether a scan of this run may be incomplete."""
    return _settings.incomplete


def add_inputs(*inputs: Path | None) -> None:
    """Take files and folders that the run was given, whose files messages may be about."""
    known = _settings.inputs
    known += [path for path in inputs if path is not None and path not in known]


def report_result(text: str, data: Any) -> None:
    """The result of a command, on stdout.

    Args:
        text: what a person reads; not printed with `--quiet`.
        data: the same as plain values, printed instead with `--json`.
    """
    if _settings.as_json:
        print(json.dumps(data, indent=1, allow_nan=False))
    elif text and not _settings.quiet:
        print(text, flush=True)
    if text:
        _LOGGER.info("%s", one_line(text))


def renamed(option: str, value: _Value | None, old: str, old_value: _Value | None) -> _Value | None:
    """The value of an option, which may have been given by its old name; that is told.

    Raises:
        UsageError: if it was given by both names.
    """
    if old_value is None:
        return value
    if value is not None:
        raise UsageError(f"{old} is the old name of {option}; give {option} alone")
    report_note(f"{old} is now {option}; removed in {OLD_NAMES_GO_IN}")
    return old_value


_ONCE = ("left out", "warning: a scan may be incomplete")
_KINDS = ("left out", "warning:", "engine:", "[")


def report_note(message: str) -> None:
    """A note of the API as one line, with its kind before it; what was left out, only once."""
    if message.startswith(_ONCE):
        _settings.incomplete |= message.startswith(_ONCE[1])
        what = message.partition(": ")[2]  # the same scans may be found by several commands
        if what in _settings.printed:
            return
        _settings.printed.add(what)
    report_line(message if message.startswith(_KINDS) else f"note: {message}")


def report_line(message: str) -> None:
    """One line to know that is no error."""
    line = one_line(message)
    _LOGGER.log(logging.WARNING if line.startswith("warning") else logging.INFO, "%s", line)
    if not _settings.quiet:
        print(line, file=sys.stderr, flush=True)


def report_table(table: str) -> None:
    """Lines of a table to know before work begins."""
    _LOGGER.info("%s", table)
    if not _settings.quiet:
        print(table, file=sys.stderr, flush=True)


def report_error(message: str, files: Iterable[Path] = ()) -> None:
    """An error as one line.

    Args:
        files: that it may be about, beside those of the run's inputs; with --verbose their paths
            are printed where the message has a hash instead.
    """
    if _settings.verbose and "file-" in message:
        from cvsct.io.dicom.header import explained

        message = explained(message, [*files, *_files_given()])
    line = one_line(message)
    _LOGGER.error("%s", line)
    print(f"cvsct: error: {line}", file=sys.stderr, flush=True)


def report_failures(failures: Sequence[tuple[str, Iterable[Path]]]) -> None:
    """Many failures, those of one reason together: its first one, and how many more there are.

    Args:
        failures: message and files of each; a message names its file before the first colon.
    """
    counts = Counter(_reason(message) for message, _ in failures)
    printed: set[str] = set()
    for message, files in failures:
        reason = _reason(message)
        if reason in printed:
            _LOGGER.error("%s", one_line(message))
            continue
        printed.add(reason)
        more = counts[reason] - 1
        report_error(message + (f" (and {more} more like it)" if more else ""), files)


def _reason(message: str) -> str:
    """A message without the file that it is about, and without figures."""
    _, colon, reason = message.partition(": ")
    words = (reason if colon else message).split()
    return " ".join(word for word in words if not any(map(str.isdigit, word)))


def _files_given() -> list[Path]:
    from cvsct.io.left_out import Tally
    from cvsct.io.walk import walk

    return [file for path in _settings.inputs if path.exists() for file in walk(path, Tally())]


@dataclass(frozen=True)
class Finding:
    """One line of what `cvsct doctor` has found out.

    Args:
        wrong: whether the core cannot work like this.
    """

    about: str
    detail: str
    wrong: bool = False
