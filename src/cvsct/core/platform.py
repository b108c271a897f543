"""Differences between Linux, macOS and Windows, with a fallback where a system lacks a feature.

Everything that only some systems have is used here and nowhere else. Imports nothing outside the
standard library: the process that decodes compressed frames uses it too.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import signal
import stat
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
"""Seconds for which a virus scanner or indexer may hold a file that is to be renamed on Windows."""


def cores() -> int:
    """Number of cores in the affinity mask of this process, or of the machine where it has none."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cores(quota: Path = CPU_QUOTA) -> int:
    """Number of cores to use: the least of affinity, container quota and OMP_NUM_THREADS."""
    limits = [cores()]
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdigit():
        limits.append(int(requested))
    try:
        share, period = quota.read_text(encoding="utf-8").split()
        limits.append(-(-int(share) // int(period)))
    except (OSError, ValueError):
        pass  # no such file, or no limit ("max")
    return max(1, min(limits))


def is_superuser() -> bool:
    """Whether this process runs as root; never on Windows, which has no such user."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def cache_folder() -> Path:
    """The folder `cvsct` in the user's cache folder, which may not exist yet.

    It lies in XDG_CACHE_HOME on every system where that is set; else in `~/.cache`, on macOS in
    `~/Library/Caches`, on Windows in LOCALAPPDATA. A relative path in a variable does not count, as
    the XDG base directory specification demands.

    Raises:
        OSError: if the user has no home folder and no variable names a folder.
    """
    variables = ("XDG_CACHE_HOME", *(("LOCALAPPDATA",) if sys.platform == "win32" else ()))
    for variable in variables:
        named = Path(os.environ.get(variable, ""))
        if named.is_absolute():
            return named / "cvsct"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise OSError(f"no cache folder ({error}); set XDG_CACHE_HOME to a folder") from error
    per_system = {"darwin": "Library/Caches", "win32": "AppData/Local"}
    return home / per_system.get(sys.platform, ".cache") / "cvsct"


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
    """Forbid core dumps, which would store the memory of a crash; Windows writes none by itself."""
    with contextlib.suppress(ImportError):
        import resource  # noqa: PLC0415  (POSIX only)

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def new_file(path: Path) -> int:
    """Create a file that only the user can read, without following a link; returns its descriptor.

    On Windows the file has the permissions of its folder.

    Raises:
        FileExistsError: if something has that name.
    """
    return os.open(path, _NEW_FILE, 0o600)


def open_no_link(path: Path) -> int:
    """Open a file for reading, refusing links and not waiting for pipes; returns its descriptor.

    On Windows, where opening cannot refuse a link, the link is looked for first; somebody who can
    write to the folder may exchange the file in between.

    Raises:
        OSError: if it cannot be opened, or is a link.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(f"{path} is a link")
    return os.open(path, _REGULAR_FILE)


def read_regular_file(path: Path, limit_bytes: int) -> bytes:
    """Content of a file of others: no link, which can lead anywhere, no pipe, and of bounded size.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be read, with the reason as `strerror`; of a file that is too large
            `errno` is EFBIG, and `strerror` its size.
    """
    try:
        descriptor = open_no_link(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "a link, expected a file" if path.is_symlink() else error.strerror
        raise OSError(error.errno or errno.EIO, reason or "unreadable") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file")
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_size > limit_bytes:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes")
        return stream.read(status.st_size)  # the limit would be allocated


def permit_as_usual(descriptor: int) -> None:
    """Give an open file the usual permissions of a new file; Windows takes those of the folder."""
    if hasattr(os, "fchmod") and os.name == "posix":
        os.fchmod(descriptor, 0o666 & ~umask())


@functools.cache
def umask() -> int:
    """The umask of this process, read once: reading it means to change it for a moment."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, so that a rename in it survives a power cut.

    On Windows, where a folder cannot be opened, the journal of the file system must suffice.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(file: Path, target: Path) -> None:
    """Make a file known under a second name: a link, or a copy where the system does not link.

    Windows lets only some users make symbolic links, and hard links do not cross disks.
    """
    try:
        target.symlink_to(file.absolute())
    except OSError:
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)


def rename(source: Path, target: Path) -> None:
    """Rename a file over another, or a folder to a free name, in one step.

    Windows refuses while another program has the file open; it is then tried again for 2 s.

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
    """Rename a file in one step unless the new name is taken; returns whether it was renamed.

    On a disk without hard links (FAT, some network disks) the file is copied: a process that reads
    it at that moment may find it empty.
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
    """Whether a process with this ID is running, of any user."""
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
    """Arguments of `subprocess.Popen` for a child that Ctrl-C in the terminal does not reach."""
    if sys.platform == "win32":
        import subprocess  # noqa: PLC0415

        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


@contextlib.contextmanager
def ctrl_c_kept_from_children() -> Iterator[None]:
    """Start processes of `multiprocessing` in this block so that they leave Ctrl-C to their parent.

    They inherit the blocked signal. Where signals cannot be blocked (Windows) each must call
    `ignore_ctrl_c`; Ctrl-C ends a process that is still starting.
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
    """Ignore Ctrl-C in a worker process where `ctrl_c_kept_from_children` cannot block it."""
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def call_in_forked_children(function: Callable[[], None]) -> None:
    """Call a function in every fork of this process, after the fork; Windows has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
