"""Locks between processes, which the operating system frees when their process ends."""

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
    """Hold a lock on a lock file for the duration of the `with` block.

    The operating system frees the lock when the process ends, however it ends; the file that a
    killed process leaves behind locks nothing. On a network disk the lock holds between machines
    only where the server and all machines support locks.

    Args:
        path: the lock file, which exists only while the lock is held.
        wait: wait until another process frees the lock.

    Raises:
        LockedError: if another process holds the lock.
        OSError: if the file cannot be created, or its disk does not support locks.
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
        if os.name == "posix":  # a process that opened it meanwhile sees that it is gone
            path.unlink(missing_ok=True)
        lock.release()
        if os.name != "posix":
            with contextlib.suppress(OSError):  # another has it by now
                path.unlink(missing_ok=True)
