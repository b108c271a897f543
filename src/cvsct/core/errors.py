"""The errors a user can meet, in one small hierarchy.

Each message says what is wrong, where, what was expected and what to do about it. The command
line prints the message on one line and exits with the code the class carries.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import traceback
from pathlib import Path
from typing import Any, ClassVar


class CvsctError(Exception):
    """Any failure whose message is written for the user; a traceback would add nothing."""

    exit_code: ClassVar[int] = 1


class UsageError(CvsctError):
    """The command was asked for something it does not take."""

    exit_code: ClassVar[int] = 2


class SeriesError(CvsctError):
    """A file or series that is not a CT volume this program can read without guessing."""


class GeometryError(CvsctError):
    """Volumes, slices or regions that do not fit together in space."""


class ModelError(CvsctError):
    """A model folder that is missing, incomplete, altered, or not made for what is asked."""


class TrainingError(CvsctError):
    """Training that cannot start with these scans, or that has diverged."""


class RefusedScansError(TrainingError):
    """Scans that must not be learned from.

    Args:
        reasons: one for each series or domain; the message has the first.
    """

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class TerminatedError(CvsctError):
    """The process was asked to end and has saved its work: nothing else may be begun."""


class StoppedError(CvsctError):
    """The user stopped the work by Ctrl-C; what is done is kept where the message says so."""

    exit_code: ClassVar[int] = 130


class EvaluationError(CvsctError):
    """Scans that cannot be compared."""


class SimulationError(CvsctError):
    """A simulation that cannot start, was stopped, or has failed for some scan."""


class HopelessError(CvsctError):
    """What any other piece of the same work would meet too: going on is of no use."""


class GuardError(CvsctError):
    """A scan unlike those a model learned from, or a slice that it changed too much."""


class MissingExtraError(CvsctError):
    """A library that only an optional extra of this package installs."""


def import_extra(module: str, needed_for: str, extra: str) -> Any:
    """Import a library that only an optional extra installs, when it is needed.

    Args:
        needed_for: what needs it, as the beginning of a sentence.

    Raises:
        MissingExtraError: if it is not installed, naming the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{needed_for} needs {module.partition('.')[0]} ({error}); "
            f"install it with: pip install 'cvsct[{extra}]'"
        ) from error


EXTRA_MODULES = {
    "simulate": ("numba", "xraydb"),
    "train": ("torch", "onnx", "tensorboard"),
    "evaluate": (
        "radiomics",
        "skimage",
        "pandas",
        "matplotlib",
        "jinja2",
        "highdicom",
        "neuroCombat",
    ),
    "cohort": ("distributed",),
}
"""What the libraries of each optional extra are imported as."""


def need_extra(extra: str, needed_for: str) -> None:
    """Refuse work that an extra is missing for, before any of it is done.

    Args:
        needed_for: what needs it, as the beginning of a sentence.

    Raises:
        MissingExtraError: if one of the extra's libraries is not installed.
    """
    missing = [name for name in EXTRA_MODULES[extra] if not _is_installed(name)]
    if missing:
        which = "which is" if len(missing) == 1 else "which are"
        raise MissingExtraError(
            f"{needed_for} needs {', '.join(missing)}, {which} not installed; "
            f"install with: pip install 'cvsct[{extra}]'"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # an entry of sys.modules that is no module
        return False


def explain(error: OSError) -> str:
    """What the operating system refused, in the manner of this package's own messages."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = "; free some space and run it again" if error.errno == errno.ENOSPC else ""
    return f"{where}{error.strerror or error}{remedy}"


def unexpected(error: BaseException) -> str:
    """An error that nobody foresaw, by its kind and place: its text may quote a patient's value."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name} line {last.lineno}"
    return f"unexpected {type(error).__name__} in {where}; report it"


def one_line(text: str) -> str:
    """Text of a file's making as one line that steers no terminal and turns no reading direction.

    Escape sequences, control characters and invisible ones become `?`.
    """
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
