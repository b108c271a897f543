"""Callbacks of long work: its progress, and remarks for the user."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with `(task, done, total)` as long work proceeds; the command line draws it."""

Note = Callable[[str], None]
"""Called with a remark for the user that is no error; the command line prints it."""


def silent(what: str, done: int, total: int) -> None:
    """Ignore progress."""


def no_note(message: str) -> None:
    """Drop a remark."""


def log_note(message: str) -> None:
    """Write a remark to the log, as a warning."""
    logger.warning(message)
