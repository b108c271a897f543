"""Worker processes that take pieces of work one by one; the death of one costs its piece alone.

A process pool of the standard library gives up all that is waiting when one of its processes dies
and cannot tell which piece killed it. Here each worker has a pipe of its own: its end tells that
the worker is gone, and the parent knows what it had in hand. Workers run on one thread, leave
Ctrl-C to the parent, and end themselves when the parent is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

from cvsct.errors import CvsctError, explain

Piece = TypeVar("Piece")
Work = Callable[[Piece], Iterator[int]]
"""Works on a piece, saying now and then how much of it is newly done. Must be picklable."""

MAX_DEATHS = 3
"""Processes that may die one after the other before going on is of no use."""

_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "NUMEXPR")


@dataclass(frozen=True)
class Report(Generic[Piece]):
    """What became of a piece, or of a part of it.

    Args:
        kind: `step` while it goes on; `done`, `failed` or `fatal` (going on is of no use) once.
        amount: how much is newly done.
        message: what went wrong, written for the user; `details` for a log.
    """

    piece: Piece
    kind: Literal["step", "done", "failed", "fatal"]
    amount: int = 0
    message: str = ""
    details: str = ""


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def work_through(
    pieces: Sequence[Piece],
    work: Work[Piece],
    workers: int,
    family: Callable[[Piece], Hashable],
) -> Generator[Report[Piece], None, None]:
    """Work on all pieces, several at a time, and report as they proceed.

    Args:
        workers: processes; with one, all happens in this process, in the order given.
        family: what a worker must prepare for a piece. It goes on with pieces of the family it
            has, then with one that nobody has; otherwise in the order given.
    """
    if workers <= 1:
        for piece in pieces:
            for report in _attempt(work, piece):
                yield replace(report, piece=piece)
        return
    yield from _in_processes(pieces, work, min(workers, len(pieces)), family)


def _attempt(work: Work[Any], piece: Any) -> Iterator[Report[Any]]:
    """Reports on one piece, without the piece: it need not travel back."""
    try:
        for amount in work(piece):
            yield Report(None, "step", amount)
    except CvsctError as error:
        yield Report(None, "failed", message=str(error), details=traceback.format_exc())
    except OSError as error:  # a full or broken disk: every other piece would meet it too
        yield Report(None, "fatal", message=explain(error), details=traceback.format_exc())
    except Exception as error:  # a fault of one piece, whatever it is, must not cost the others
        message = f"{type(error).__name__}: {error}"
        yield Report(None, "failed", message=message, details=traceback.format_exc())
    else:
        yield Report(None, "done")


def _in_processes(
    pieces: Sequence[Piece], work: Work[Piece], workers: int, family: Callable[[Piece], Hashable]
) -> Iterator[Report[Piece]]:
    waiting = list(pieces)
    in_hand: dict[_Worker, Piece] = {}
    deaths = 0

    def start() -> _Worker:
        with _one_thread_each():
            return _Worker(work)

    def give(worker: _Worker, last: Piece | None = None) -> None:
        families = [family(piece) for piece in waiting]
        others = {family(piece) for piece in in_hand.values()}
        chosen = next((i for i, its in enumerate(families) if last and its == family(last)), None)
        if chosen is None:
            chosen = next((i for i, its in enumerate(families) if its not in others), 0)
        in_hand[worker] = waiting.pop(chosen)
        worker.give(in_hand[worker])

    try:
        for worker in [start() for _ in range(workers)]:
            give(worker)
        while in_hand:
            for worker in _with_news(in_hand):
                report = worker.report()
                deaths = 0 if worker.alive else deaths + 1
                if deaths == MAX_DEATHS:
                    report = replace(report, kind="fatal")
                yield replace(report, piece=in_hand[worker])
                if report.kind == "step":
                    continue
                last = in_hand.pop(worker)
                if waiting and worker.alive:
                    give(worker, last)
                    continue
                worker.end()
                if waiting:
                    give(start())
    finally:
        for worker in in_hand:
            worker.end()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, work: Work[Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locked locks
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        # Ctrl-C is blocked before the start and the process inherits that. The tracker that comes
        # with the first process would unblock it again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the pipe ends with the process
        self.alive = True

    def give(self, piece: Any) -> None:
        """Hand over a piece; that the process is gone already is seen at the next report."""
        with contextlib.suppress(OSError):
            self.pipe.send(piece)

    def report(self) -> Report[Any]:
        """The next report, made up where the process has died."""
        try:
            report: Report[Any] = self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            message = f"its process {how}, perhaps for lack of memory; use fewer workers"
            return Report(None, "failed", message=message)
        return report

    def end(self) -> None:
        """End the process, in the middle of a piece if need be."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _with_news(workers: Iterable[_Worker]) -> list[_Worker]:
    by_pipe = {worker.pipe: worker for worker in workers}
    return [by_pipe[pipe] for pipe in wait(list(by_pipe)) if isinstance(pipe, Connection)]


def _serve(pipe: Connection, work: Work[Any]) -> None:
    """What a worker process does until its pipe ends."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # of the pipe: `_attempt` reports all others
        while True:
            for report in _attempt(work, pipe.recv()):
                pipe.send(report)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """What processes started in this block inherit: no threads of their own in any library."""
    names = [f"{library}_NUM_THREADS" for library in _THREADS]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
