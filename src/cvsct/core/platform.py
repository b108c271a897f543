"""What Linux, macOS and Windows do differently, each with what happens where a system lacks it.

Everything that only some systems have is asked for here and nowhere else. Imports nothing outside
the standard library: the process that decodes compressed frames uses it too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_REGULAR_FILE = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # without it the opening of a pipe would wait for ever
)
_PATIENCE_S = 2.0
"""How long a virus scanner or indexer may hold a file that is to be renamed on Windows."""


def cores() -> int:
    """Processor cores this process may use; all of the machine where no affinity can be asked."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cores(quota: Path = CPU_QUOTA) -> int:
    """Cores this process may use: by affinity, by a container's quota, by OMP_NUM_THREADS."""
    limits = [cores()]
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit():
        limits.append(int(asked))
    try:
        share, period = quota.read_text(encoding="utf-8").split()
        limits.append(-(-int(share) // int(period)))
    except (OSError, ValueError):
        pass  # no such file, or no limit ("max")
    return max(1, min(limits))


def can_limit_memory() -> bool:
    """Whether `limit_memory` has an effect: Windows has no such call, macOS refuses it."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)
    except ImportError:
        return False
    return sys.platform != "darwin" and hasattr(resource, "RLIMIT_AS")


def limit_memory(limit_bytes: int) -> None:
    """Limit this process' address space where the system can; elsewhere nothing changes."""
    if can_limit_memory():
        import resource  # noqa: PLC0415  (POSIX only)

        with contextlib.suppress(ValueError, OSError):  # a lower limit was set before
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def forbid_core_dumps() -> None:
    """Have a crash of this process leave no copy of its memory; Windows leaves none by itself."""
    with contextlib.suppress(ImportError):
        import resource  # noqa: PLC0415  (POSIX only)

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def new_file(path: Path) -> int:
    """Descriptor of a new file for writing that the user alone can read; follows no link.

    On Windows the permissions are the folder's.

    Raises:
        FileExistsError: if something has that name.
    """
    return os.open(path, _NEW_FILE, 0o600)


def open_no_link(path: Path) -> int:
    """Descriptor of a file for reading; a link is refused and a pipe does not block.

    Where opening cannot refuse a link (Windows) it is looked for first, so that somebody who can
    write there may still exchange the file in between.

    Raises:
        OSError: if it cannot be opened, or is a link.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(f"{path} is a link")
    return os.open(path, _REGULAR_FILE)


def permit_as_usual(descriptor: int) -> None:
    """Give an open file the permissions of any new file; on Windows it has its folder's."""
    if hasattr(os, "fchmod") and os.name == "posix":
        os.fchmod(descriptor, 0o666 & ~umask())


@functools.cache
def umask() -> int:
    """Of this process when it first wrote a file; the system tells it only to who changes it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it outlives a power cut.

    Where a folder cannot be opened (Windows) the file system's own journal must do.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename a file over another, or a folder to a name that is free, in one step.

    Windows refuses it while another program has the file open: it is tried again for 2 s.

    Raises:
        OSError: if it cannot be renamed.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            source.replace(target)
        except PermissionError:
            if os.name == "posix" or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def rename_unless_taken(source: Path, target: Path) -> bool:
    """Give a file a name that nothing has yet, in one step; tells whether it got the name.

    On a disk without hard links (FAT, some network disks) it is copied to a new file: a process
    that reads it in that instant may find it empty.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        try:
            descriptor = new_file(target)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(source.read_bytes())
            permit_as_usual(stream.fileno())
    finally:
        source.unlink()
    return True


def process_is_alive(pid: int) -> bool:
    """Whether a process of that number runs, whoever's it is."""
    if sys.platform == "win32":  # os.kill would end it
        return _runs_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _SYNCHRONIZE, _ACCESS_DENIED, _STILL_WAITING = 0x00100000, 5, 0x102

    def _runs_on_windows(pid: int) -> bool:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = wintypes.HANDLE
        kernel.WaitForSingleObject.argtypes = (wintypes.HANDLE, wintypes.DWORD)
        kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
        handle = kernel.OpenProcess(_SYNCHRONIZE, False, pid)
        if not handle:
            return ctypes.get_last_error() == _ACCESS_DENIED
        try:
            return bool(kernel.WaitForSingleObject(handle, 0) == _STILL_WAITING)
        finally:
            kernel.CloseHandle(handle)


def out_of_ctrl_c() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` for a child that a terminal's Ctrl-C does not reach."""
    if sys.platform == "win32":
        import subprocess  # noqa: PLC0415

        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


@contextlib.contextmanager
def ctrl_c_kept_from_children() -> Iterator[None]:
    """Processes of `multiprocessing` started in this block leave Ctrl-C to their parent.

    They inherit that it is blocked. Where signals cannot be blocked (Windows) each must call
    `ignore_ctrl_c`; one that is still starting then ends by it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker  # noqa: PLC0415

    # The tracker that comes with the first process would unblock it again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_ctrl_c() -> None:
    """In a process started under `ctrl_c_kept_from_children`: ignore it where it is not blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def call_in_forked_children(function: Callable[[], None]) -> None:
    """Have every fork of this process call something; without forks (Windows) nothing has to."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
