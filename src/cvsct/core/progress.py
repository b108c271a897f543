"""What long work tells as it proceeds: how far it is, and what a user should know."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told `(what, done, total)` as long work proceeds; the command line draws it."""

Note = Callable[[str], None]
"""Told what a user should know that is no error; the command line prints it."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that goes nowhere."""


def log_note(message: str) -> None:
    """A note that goes into the log, as a warning."""
    logger.warning(message)
