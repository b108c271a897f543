"""Workers of a running Dask cluster, each with one item of work at a time.

Dask itself would repeat an item whose worker died, and would blame every item that waits there. So
each item is tied to one worker, no item waits at any worker, and lost items are reported as such.
Workers need the same version of cvsct, and all files at the same paths.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from cvsct.core.errors import CvsctError, import_extra
from cvsct.core.workers import Report, attempt

POLL_S = 1.0
"""Interval at which workers that came or went are noticed; results are noticed at once."""
CONNECT_S = 30.0
"""Time to wait for an answer of the scheduler."""

_ONE_AT_A_TIME = threading.Lock()
"""Lock of a Dask worker that serves two runs: an engine takes one series at a time."""

Item_contra = TypeVar("Item_contra", contravariant=True)


@runtime_checkable
class RemoteWork(Protocol[Item_contra]):
    """Work that another machine can do; it and its items must be picklable."""

    def __call__(self, item: Item_contra, /) -> Iterator[int]:
        """Work on an item, as `core.workers.Work`."""
        ...

    def with_threads(self, threads: int) -> Self:
        """The same work with so many threads."""
        ...

    def name_of(self, item: Item_contra, /) -> str:
        """Name of an item, for the cluster's own pages; it names no patient."""
        ...

    def sees(self, item: Item_contra, /) -> bool:
        """Whether this machine sees all files of an item."""
        ...


class DaskWorkers:
    """Pool of the workers of a Dask cluster.

    Args:
        scheduler: address of the scheduler, or path of its scheduler file.
        work: what to do with each item.
        connect_s: seconds to wait for the scheduler.

    Raises:
        MissingExtraError: if dask.distributed is not installed.
        CvsctError: if no scheduler answers.
    """

    def __init__(self, scheduler: str, work: RemoteWork[Any], connect_s: float = CONNECT_S) -> None:
        self._distributed = import_extra("distributed", "--scheduler", "cohort")
        connection = {"scheduler_file" if Path(scheduler).is_file() else "address": scheduler}
        try:
            self._client = self._distributed.Client(
                **connection, timeout=connect_s, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise CvsctError(
                f"--scheduler {scheduler}: no Dask scheduler answers ({type(error).__name__}); "
                "give the address that `dask scheduler` prints, such as tcp://host:8786"
            ) from error
        self._work = work
        self._busy: dict[Any, tuple[str, Any]] = {}
        self._started: list[Report[Any]] = []
        self._numbers = itertools.count()
        self.most = 0
        """Largest number of workers at the same time."""

    @property
    def in_flight(self) -> list[Any]:
        """Items that are being worked on."""
        return [job for _, job in self._busy.values()]

    def free_slots(self) -> int:
        """Number of items that can be submitted now."""
        return len(self._free())

    def submit(self, item: Any, /) -> None:
        """Send an item to a free worker; a death of that worker counts against the item."""
        address, threads = next(iter(self._free().items()))
        future = self._client.submit(
            _run,
            self._work.with_threads(threads),
            item,
            workers=[address],
            allow_other_workers=False,
            pure=False,
            key=f"cvsct-{self._work.name_of(item)}-{id(self)}-{next(self._numbers)}",
        )
        self._busy[future] = address, item
        self._started.append(Report(item, "step"))

    def poll(self, timeout_s: float | None = None) -> list[Report[Any]]:
        """Wait for reports, at most for `timeout_s`."""
        if self._started:
            reports, self._started = self._started, []
            return reports
        wait_s = POLL_S if timeout_s is None else min(POLL_S, timeout_s)
        if self._busy:
            with contextlib.suppress(TimeoutError), self._client.as_current():
                self._distributed.wait(
                    list(self._busy), timeout=wait_s, return_when="FIRST_COMPLETED"
                )
        else:
            time.sleep(wait_s)  # for a worker to come
        addresses = self._threads()
        reports = []
        for future, (address, job) in list(self._busy.items()):
            report = self._final_report(future, address in addresses)
            if report is not None:
                del self._busy[future]
                future.cancel()
                reports.append(replace(report, item=job))
        return reports

    def close(self) -> None:
        """Cancel all items and disconnect from the cluster, which keeps running."""
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self._client.cancel(list(self._busy), force=True)
            self._client.close(timeout=5)
        self._busy = {}

    def _threads(self) -> dict[str, int]:
        try:
            threads_by_address: dict[str, int] = self._client.nthreads()
        except (OSError, TimeoutError) as error:
            raise CvsctError(
                "the Dask scheduler is gone; what is done is kept, the same command goes on"
            ) from error
        self.most = max(self.most, len(threads_by_address))
        return threads_by_address

    def _free(self) -> dict[str, int]:
        taken = {address for address, _ in self._busy.values()}
        return {name: count for name, count in self._threads().items() if name not in taken}

    def _final_report(self, future: Any, worker_alive: bool) -> Report[Any] | None:
        """Final report of an item, or None while it is being worked on."""
        died = Report(None, "died", message="its Dask worker is gone, perhaps for lack of memory")
        if future.status == "finished":
            try:
                report: Report[Any] = future.result(timeout=CONNECT_S)
            except TimeoutError:
                return died
            return report
        if future.status in ("error", "cancelled", "lost"):
            error = future.exception() if future.status == "error" else None
            if error is None or isinstance(error, self._distributed.KilledWorker):
                return died
            message = (
                f"the Dask workers cannot run this ({type(error).__name__}); "
                "install the same cvsct on every one of them"
            )
            return Report(None, "fatal", message=message)
        return None if worker_alive else died


def _run(work: RemoteWork[Any], item: Any) -> Report[Any]:
    """Do an item from beginning to end, on the worker."""
    if not work.sees(item):
        message = (
            "a Dask worker does not see all files; they must be on a disk that all share, at the "
            "same place everywhere"
        )
        return Report(None, "fatal", message=message)
    with _ONE_AT_A_TIME:
        *_, report = attempt(work, item)
    return replace(report, details="")
