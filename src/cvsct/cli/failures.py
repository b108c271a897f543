"""Why one of several things a command does has failed, whatever it was, in one line."""

from __future__ import annotations

import logging
from pathlib import Path

from cvsct.errors import CvsctError, unexpected

logger = logging.getLogger(__name__)


def reason_of(error: BaseException) -> str:
    """The reason in words that quote no value of a file; the traceback goes to the log."""
    if isinstance(error, CvsctError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"a command within it ended with exit code {error.code}"
    logger.info("failed", exc_info=error)
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or use fewer workers or smaller scans"
    if isinstance(error, OSError):
        return _explained(error)
    return unexpected(error)


def _explained(error: OSError) -> str:
    from cvsct.errors import explain
    from cvsct.io.header import label

    said = explain(error)
    if not isinstance(error.filename, str):
        return said
    return said.replace(error.filename, label(Path(error.filename)), 1)
