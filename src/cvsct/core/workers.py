"""Worker processes that take items of work one by one; when one dies, only its item fails.

A process pool of the standard library gives up all waiting items when one of its processes dies,
and does not know which item killed it. Here each worker has a pipe of its own: the end of the pipe
shows that the worker has died, and the parent knows its item. Workers leave Ctrl-C to the parent,
and end themselves when the parent is killed. They import this package and not the script that
called it, which needs no `if __name__ == "__main__":` therefore.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, runtime_checkable

from cvsct.core import platform
from cvsct.core.errors import CvsctError, HopelessError, explain

WorkItem = TypeVar("WorkItem")
Work = Callable[[WorkItem], Iterator[int]]
"""Function that works on an item: a generator of the amounts newly done, which returns the result.
It must be picklable."""

MAX_DEATHS = 3
"""Number of items whose processes may die in a row before all work stops."""

SCRIPT_REMEDY = (
    "a script whose own classes or functions are worked with must make its calls below `if __name__"
    ' == "__main__":`, or import them from a module'
)

_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "NUMEXPR")


@dataclass(frozen=True)
class Report(Generic[WorkItem]):
    """Progress or outcome of an item of work.

    Args:
        item: the item.
        kind: `step` while work proceeds; at the end once `done`, `failed`, `died` (the process
            ended while it had the item) or `fatal` (all other items would fail too).
        amount: amount that is newly done.
        message: reason of a failure, written for the user.
        details: traceback of a failure, for a log.
        result: result of an item that is done.
    """

    item: WorkItem
    kind: Literal["step", "done", "failed", "died", "fatal"]
    amount: int = 0
    message: str = ""
    details: str = ""
    result: Any = None


@contextlib.contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for the work of a block; the block ends when all of it is done.

    Where an error or Ctrl-C ends the block, work that waits is not begun, and that which has begun
    is not waited for.

    Args:
        count: number of threads.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def is_first_rank() -> bool:
    """Whether this process writes and reports: any process but the further ranks of torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"


@runtime_checkable
class Pool(Protocol[WorkItem]):
    """Workers that take items: `Processes`, `InProcess`, or `core.dask_workers.DaskWorkers`."""

    @property
    def in_flight(self) -> list[WorkItem]:
        """Items that are being worked on."""
        ...

    def free_slots(self) -> int:
        """Number of items that can be submitted now."""
        ...

    def submit(self, item: WorkItem, /) -> None:
        """Start work on an item."""
        ...

    def poll(self, timeout_s: float | None = None) -> list[Report[WorkItem]]:
        """Wait for reports, at most for `timeout_s`."""
        ...

    def close(self) -> None:
        """End or release all workers."""
        ...


def work_in(
    pool: Pool[WorkItem], items: Sequence[WorkItem], tries: int = 1
) -> Generator[Report[WorkItem], None, None]:
    """Work on all items in their order in a pool, which is closed at the end.

    Args:
        tries: how often an item is tried whose process dies; the last time after all others.
    """
    waiting, deaths = deque(items), Deaths[WorkItem](tries)
    with contextlib.closing(pool):
        while waiting or pool.in_flight:
            while waiting and pool.free_slots():
                pool.submit(waiting.popleft())
            for report in pool.poll():
                if deaths.is_tried_again(report):
                    waiting.append(report.item)
                else:
                    yield report


class Deaths(Generic[WorkItem]):
    """How often the process of an item has died.

    Args:
        tries: how often an item is tried.
    """

    def __init__(self, tries: int) -> None:
        self._tries = tries
        self._count: Counter[int] = Counter()

    def is_tried_again(self, report: Report[WorkItem]) -> bool:
        """Whether a report is of a death after which the item is tried again."""
        if report.kind != "died":
            return False
        self._count[id(report.item)] += 1
        return self._count[id(report.item)] < self._tries


def work_through(
    items: Sequence[WorkItem],
    work: Work[WorkItem],
    workers: int,
    family: Callable[[WorkItem], Hashable],
    tries: int = 1,
) -> Generator[Report[WorkItem], None, None]:
    """Work on all items, several at a time, and report as they proceed.

    Args:
        items: the items, in order.
        work: what to do with each.
        workers: number of processes; with one, all work happens in this process.
        family: key of what a worker must prepare for an item. A worker takes items of the family
            that it has, then of a family that no worker has, otherwise in the order given.
        tries: as for `work_in`.
    """
    pool = InProcess(work) if workers <= 1 else Processes(work, min(workers, len(items)))
    waiting, deaths = list(items), Deaths[WorkItem](tries)
    with contextlib.closing(pool):
        while waiting or pool.in_flight:
            while waiting and pool.free_slots():
                last, others = pool.last, {family(item) for item in pool.in_flight}
                families = [family(item) for item in waiting]
                fits = [i for i, its in enumerate(families) if last and its == family(last)]
                free = [i for i, its in enumerate(families) if its not in others]
                pool.submit(waiting.pop([*fits, *free, 0][0]))
            for report in pool.poll():
                if deaths.is_tried_again(report):
                    waiting.append(report.item)
                else:
                    yield report


def attempt(work: Work[Any], item: Any) -> Iterator[Report[Any]]:
    """Work on one item and yield reports without the item, which need not travel back."""
    try:
        steps = work(item)
        while True:
            try:
                amount = next(steps)
            except StopIteration as end:
                result = end.value
                break
            yield Report(None, "step", amount)
    except HopelessError as error:
        yield Report(None, "fatal", message=str(error), details=traceback.format_exc())
    except CvsctError as error:
        yield Report(None, "failed", message=str(error), details=traceback.format_exc())
    except OSError as error:  # a full or broken disk: every other item would meet it too
        yield Report(None, "fatal", message=explain(error), details=traceback.format_exc())
    except Exception as error:  # a fault of one item, whatever it is, must not cost the others
        message = f"{type(error).__name__}: {error}"
        yield Report(None, "failed", message=message, details=traceback.format_exc())
    else:
        yield Report(None, "done", result=result)


class Processes(Generic[WorkItem]):
    """A pool of worker processes, each with at most one item; close it at the end.

    Args:
        work: what to do with each item.
        workers: number of processes; one that has died is replaced when there is an item for it.
        threads: number of threads that the libraries of each worker may use.
        max_deaths: number of different items at which processes may die in a row, without a
            report between, before all work stops; one item that kills each of its processes does
            not stop the others.
    """

    def __init__(
        self, work: Work[WorkItem], workers: int, threads: int = 1, max_deaths: int = MAX_DEATHS
    ) -> None:
        self._work, self.workers, self._threads = work, workers, threads
        self._max_deaths, self._deadly = max_deaths, set[int]()
        self._idle: list[tuple[_Worker, WorkItem | None]] = []
        self._busy: dict[_Worker, WorkItem] = {}

    @property
    def in_flight(self) -> list[WorkItem]:
        """Items that are being worked on."""
        return list(self._busy.values())

    @property
    def last(self) -> WorkItem | None:
        """Previous item of the worker that gets the next item; None for a new worker."""
        return self._idle[0][1] if self._idle else None

    def free_slots(self) -> int:
        """Number of items that can be submitted now."""
        return self.workers - len(self._busy)

    def submit(self, item: WorkItem) -> None:
        """Start work on an item."""
        if self._idle:
            worker, _ = self._idle.pop(0)
        else:
            with _threads_each(self._threads):
                worker = _Worker(self._work, item)
        self._busy[worker] = item
        worker.submit(item)

    def poll(self, timeout_s: float | None = None) -> list[Report[WorkItem]]:
        """Wait for reports, at most for `timeout_s`."""
        by_pipe = {worker.pipe: worker for worker in self._busy}
        reports = []
        for pipe in wait(list(by_pipe), timeout_s):
            worker = by_pipe[cast(Connection, pipe)]
            report: Report[Any] = worker.report()
            item = self._busy[worker]
            if worker.alive:
                self._deadly.clear()
            else:
                self._deadly.add(id(item))
            if len(self._deadly) >= self._max_deaths:
                report = replace(report, kind="fatal")
            reports.append(replace(report, item=item))
            if report.kind == "step":
                continue
            del self._busy[worker]
            if worker.alive:
                self._idle.append((worker, item))
            else:
                worker.end()
        return reports

    def close(self) -> None:
        """End all processes, even in the middle of an item."""
        for worker in (*self._busy, *(idle_worker for idle_worker, _ in self._idle)):
            worker.end()
        self._busy, self._idle = {}, []


class InProcess(Generic[WorkItem]):
    """The calling process as the only worker, with the interface of `Processes`."""

    workers = 1

    def __init__(self, work: Work[WorkItem]) -> None:
        self._work = work
        self._busy: tuple[WorkItem, Iterator[Report[WorkItem]]] | None = None
        self.last: WorkItem | None = None
        """Previous item."""

    @property
    def in_flight(self) -> list[WorkItem]:
        """Items that are being worked on."""
        return [self._busy[0]] if self._busy else []

    def free_slots(self) -> int:
        """Number of items that can be submitted now."""
        return 0 if self._busy else 1

    def submit(self, item: WorkItem) -> None:
        """Start work on an item; the next calls of `poll` do it."""
        self._busy = item, attempt(self._work, item)

    def poll(self, timeout_s: float | None = None) -> list[Report[WorkItem]]:
        """Work until there is something to report, however long that takes."""
        if self._busy is None:
            return []
        item, reports = self._busy
        report = replace(next(reports), item=item)
        if report.kind != "step":
            self._busy, self.last = None, item
        return [report]

    def close(self) -> None:
        """Abandon the current item."""
        if self._busy is not None:
            _, reports = self._busy
            self._busy = None
            cast("Generator[Report[WorkItem], None, None]", reports).close()


@contextlib.contextmanager
def script_kept_from_children(*needed: Any) -> Iterator[None]:
    """Keep processes that are started in this block from importing the script that runs.

    A spawned process imports it again, which without `if __name__ == "__main__":` would run it
    again, and which cannot be done where it came from standard input.

    Args:
        needed: what the processes are given; the script is imported where it defines part of it.
    """
    if b"__main__" in bytes(ForkingPickler.dumps(needed)):
        yield
        return
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class _Worker:
    """One process and the pipe to it.

    Args:
        work: what to do with each item.
        item: the first of them.
    """

    def __init__(self, work: Work[Any], item: Any) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locked locks
        self.pipe, worker_pipe = context.Pipe()
        self.process = context.Process(target=_serve, args=(worker_pipe, work), daemon=True)
        with platform.ctrl_c_kept_from_children(), script_kept_from_children(work, item):
            self.process.start()
        worker_pipe.close()  # so that the pipe ends with the process
        self.alive, self.has_reported = True, False

    def submit(self, item: Any) -> None:
        """Send an item to the process; if it has died, the next report says so."""
        with contextlib.suppress(OSError):
            self.pipe.send(item)

    def report(self) -> Report[Any]:
        """Receive the next report; of a process that has died, a report of its death."""
        try:
            report: Report[Any] = self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            self.process.join()
            return Report(None, "died", message=self._cause_of_death())
        self.has_reported = True
        return report

    def _cause_of_death(self) -> str:
        """What the exit code tells, and the remedy."""
        code = self.process.exitcode or 0
        if code == 1 and not self.has_reported:  # Python's own code: it failed before any work
            return "its process could not start; " + SCRIPT_REMEDY
        cause = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"its process {cause}, perhaps for lack of memory; use fewer workers"

    def end(self) -> None:
        """End the process, even in the middle of an item."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, work: Work[Any]) -> None:
    """Main function of a worker process: take items from the pipe until it ends."""
    platform.ignore_ctrl_c()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # of the pipe: `attempt` reports all others
        while True:
            for report in attempt(work, pipe.recv()):
                pipe.send(report)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextlib.contextmanager
def _threads_each(count: int) -> Iterator[None]:
    """Limit the threads of the libraries in processes that are started in this block."""
    names = [f"{library}_NUM_THREADS" for library in _THREADS]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
