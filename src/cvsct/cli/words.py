"""What commands say beside their result, on stderr."""

from __future__ import annotations

import sys

EXIT_SOME_FAILED = 3


def complain(message: str) -> None:
    """An error as one line."""
    print(f"cvsct: error: {' '.join(message.split())}", file=sys.stderr)


def note(message: str) -> None:
    """Something to know that is no error."""
    print(message, file=sys.stderr, flush=True)
