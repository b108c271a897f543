"""Errors of this package, in one small hierarchy.

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
    """Base class of all errors whose message is written for the user.

    The message says what is wrong, where, what was expected, and the remedy. Catch this class to
    handle any failure that the input, the arguments or the machine cause.
    """

    exit_code: ClassVar[int] = 1
    """Exit code of the command that fails with this error."""


class UsageError(CvsctError):
    """Arguments that do not exist, do not go together, or name paths that do not exist."""

    exit_code: ClassVar[int] = 2


class SeriesError(CvsctError):
    """A file or series that cannot be read as one CT volume in HU without guessing."""


class GeometryError(CvsctError):
    """Volumes, slices or regions whose positions, directions or sizes do not fit together."""


class ModelError(CvsctError):
    """A model that is missing, incomplete or altered, or that does not fit the images."""


class ProfileError(CvsctError):
    """A profile that is missing, damaged, of another version, or that no scans sum up to."""


class TrainingError(CvsctError):
    """Training that cannot start with these scans, or that has diverged."""


class RefusedScansError(TrainingError):
    """Scans that must not be used for training.

    Args:
        reasons: one reason per series or side that is refused; the message has the first.
    """

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class TerminatedError(CvsctError):
    """The process received a signal to end and has saved its work; it must not start other work."""


class StoppedError(CvsctError):
    """The user stopped the work by Ctrl-C; the message says what is kept."""

    exit_code: ClassVar[int] = 130


class EvaluationError(CvsctError):
    """Scans that cannot be compared."""


class BrowserError(CvsctError):
    """No browser that can print the report as PDF, or one that failed to."""


class SimulationError(CvsctError):
    """A simulation that cannot start, was stopped, or failed for some scan."""


class HopelessError(CvsctError):
    """A failure that every other item of the same work would meet too, so that all work stops."""


class GuardError(CvsctError):
    """A scan unlike those a model was trained on, or a slice that the model changed too much."""


class MissingExtraError(CvsctError):
    """A library is not installed that an optional extra of this package brings."""


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
    "train": ("torch", "onnx", "tensorboard", "h5py"),
    "evaluate": (
        "radiomics",
        "skimage",
        "pandas",
        "matplotlib",
        "jinja2",
        "highdicom",
    ),
    "parquet": ("pyarrow",),
    "cohort": ("distributed",),
}
"""Import names of the libraries of each optional extra."""


def need_extra(extra: str, needed_for: str) -> None:
    """Refuse work whose optional extra is not installed, before the work starts.

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


def has_extra(extra: str) -> bool:
    """Whether all libraries of an optional extra are installed."""
    return all(map(_is_installed, EXTRA_MODULES[extra]))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # an entry of sys.modules that is no module
        return False


def explain(error: OSError) -> str:
    """Message for an error of the operating system: file, reason, and the remedy of a full disk."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = "; free some space and run it again" if error.errno == errno.ENOSPC else ""
    return f"{where}{error.strerror or error}{remedy}"


def unexpected(error: BaseException) -> str:
    """Message for an unforeseen error by type and line; its text may quote a patient's value."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name} line {last.lineno}"
    return f"unexpected {type(error).__name__} in {where}; report it"


def one_line(text: str) -> str:
    """Text from a file as one line of printable characters, safe to show on a terminal.

    Escape sequences, control characters and invisible characters, such as those that turn the
    reading direction, become `?`.
    """
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
