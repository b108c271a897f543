"""Locks between processes that end with the process that holds them, on every system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cvsct.core.errors import CvsctError


class LockedError(CvsctError):
    """Another process holds the lock."""


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock by a file of its own, which is there while somebody holds it or was killed.

    The system frees the lock when its process ends, however it ends; a file that a killed process
    left locks nothing. On a network disk it holds between machines only where the disk's server
    and all machines have locks switched on.

    Args:
        wait: for another process to let go of it.

    Raises:
        LockedError: if another process holds it.
        OSError: if the file cannot be made, or its disk knows no locks.
    """
    # The fallback would be a file whose presence is the lock: a killed run's would stay.
    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"{path}: another process holds this lock") from None
    try:
        yield
    finally:
        if os.name == "posix":  # whoever has opened it meanwhile sees that it is gone
            path.unlink(missing_ok=True)
        lock.release()
        if os.name != "posix":
            with contextlib.suppress(OSError):  # another has it by now
                path.unlink(missing_ok=True)
