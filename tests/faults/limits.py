"""One attempt under limits of time and memory, in a process whose death is seen."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError
from cvsct.io.dicom import codec_process as decode

SECONDS = 10.0
BYTES = 2 * 2**30
_HANGS_S = 120
"""The system ends the process then; whatever it was doing hangs."""


@dataclass(frozen=True)
class Attempt:
    """How an attempt went.

    Args:
        refused: the message of the refusal; empty where there was none.
        fault: what must not be: another exception, a warning, too much time or memory.
        cpu_s: processor time, the decoder's included; what else the machine does is not in it.
        told: everything printed and logged meanwhile.
        peak_bytes: of this process and its decoder, above what it had before.
    """

    result: Any = None
    refused: str = ""
    fault: str = ""
    told: str = ""
    cpu_s: float = 0.0
    peak_bytes: int = 0


@functools.cache
def confine(more_bytes: int = BYTES) -> None:
    """Let this process take so much more address space; going beyond is a `MemoryError`."""
    taken = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf(
        "SC_PAGESIZE"
    )
    resource.setrlimit(resource.RLIMIT_AS, (taken + more_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def attempt(work: Callable[[], Any]) -> Attempt:
    """Do something that may be refused; nothing else may happen to it."""
    told, result, refused, fault = io.StringIO(), None, "", ""
    _forget_peak()
    before = _peak("self")
    first, decoded_s, begun = (
        decode._decoder._child,
        _cpu_s(decode._decoder._child),
        time.process_time(),
    )
    with heard(told), _timed():
        try:
            result = work()
        except CvsctError as error:
            refused = f"{type(error).__name__}: {error}"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} in {Path(where.filename).name} line {where.lineno}"
    child = decode._decoder._child
    cpu_s = time.process_time() - begun + _cpu_s(child) - (decoded_s if child is first else 0)
    peak = max(_peak("self") - before, _peak(str(child._process.pid)) if child else 0)
    if cpu_s > SECONDS:
        fault = fault or f"took {cpu_s:.1f} s"
    if peak > BYTES:
        fault = fault or f"took {peak >> 20} MiB"
    return Attempt(result, refused, fault, told.getvalue(), cpu_s, peak)


@contextlib.contextmanager
def heard(told: io.StringIO) -> Iterator[None]:
    """Whatever is printed and logged is kept; a warning is an error."""
    handler = logging.StreamHandler(told)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with (
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error")
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    signal.alarm(_HANGS_S)
    try:
        yield
    finally:
        signal.alarm(0)


def _cpu_s(child: decode._Child | None) -> float:
    """Processor time that a decoder has used; 0 where there is none."""
    if child is None:
        return 0.0
    with contextlib.suppress(OSError):
        about = (
            Path(f"/proc/{child._process.pid}/stat")
            .read_text(encoding="utf-8")
            .rpartition(")")[2]
            .split()
        )
        return (int(about[11]) + int(about[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _peak(process: str) -> int:
    """Largest resident memory in bytes; 0 where it cannot be told."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0
