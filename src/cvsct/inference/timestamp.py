"""Time of making of derived images: one time per output folder, fixed by its first run."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

from cvsct.core.errors import UsageError
from cvsct.core.files import write_json
from cvsct.core.platform import rename_unless_taken
from cvsct.core.resumable import is_started

TIMESTAMP = "timestamp.json"
_DIGITS = "%Y%m%d%H%M%S"


def parse_timestamp(given: str) -> str:
    """Convert `now`, or a local time in ISO 8601, to 14 digits (YYYYMMDDhhmmss).

    Args:
        given: the time; empty text is returned unchanged.

    Raises:
        UsageError: if `given` is neither.

    Example:
        >>> parse_timestamp("2026-11-28T09:30")
        '20261128093000'
    """
    if not given:
        return ""
    if given == "now":
        return datetime.now().strftime(_DIGITS)
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        time = None
    if time is None or time.tzinfo is not None or not 1900 <= time.year <= 9999:
        raise UsageError(
            f"--timestamp {given}: expected now, or a local time without offset such as "
            "2026-11-28T09:30:00"
        )
    return time.strftime(_DIGITS)


def fixed_timestamp(out: Path, given: str) -> str:
    """Time of making for all images of an output folder that several runs fill.

    With `now` the first run fixes the time in `timestamp.json`; of several runs that start at once,
    such as the shards of a job array, one fixes it for all.

    Args:
        out: the output folder.
        given: as for `parse_timestamp`.

    Raises:
        UsageError: if `given` is not a time.
    """
    wanted = parse_timestamp(given)
    path = out / TIMESTAMP
    if not wanted or given != "now":
        return wanted
    if not path.exists() and not is_started(out):
        out.mkdir(parents=True, exist_ok=True)
        own = out / f".{TIMESTAMP}.{os.getpid()}"
        write_json(own, {"timestamp": wanted})
        rename_unless_taken(own, path)  # or another run was first
    if not path.exists():
        return wanted
    fixed: str = json.loads(path.read_text(encoding="utf-8"))["timestamp"]
    return fixed
