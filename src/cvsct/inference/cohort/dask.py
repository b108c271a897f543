"""The workers of a running Dask cluster: one series at a time on each.

Dask itself would run a job again whose worker died, and would blame every job that waits there.
So each job is tied to one worker, nothing waits at any, and what is lost goes back to the journal.
Workers need the same cvsct, and INPUT, MODEL and OUT at the same places.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvsct.core.errors import CvsctError, import_extra
from cvsct.core.workers import Report, attempt
from cvsct.inference.cohort.job import Job, SeriesHarmonizer

POLL_S = 1.0
"""How soon a worker that came or went is noticed; results are noticed at once."""
CONNECT_S = 30.0

_ONE_AT_A_TIME = threading.Lock()
"""Of a Dask worker that two shards give tasks to: an engine takes one series at a time."""


class DaskWorkers:
    """Workers by the address of a scheduler, or by the file that it wrote its address to.

    Raises:
        MissingExtraError: if dask.distributed is not installed.
        CvsctError: if no scheduler answers.
    """

    def __init__(
        self, scheduler: str, work: SeriesHarmonizer, connect_s: float = CONNECT_S
    ) -> None:
        self._distributed = import_extra("distributed", "--scheduler", "cohort")
        where = {"scheduler_file" if Path(scheduler).is_file() else "address": scheduler}
        try:
            self._client = self._distributed.Client(
                **where, timeout=connect_s, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise CvsctError(
                f"--scheduler {scheduler}: no Dask scheduler answers ({type(error).__name__}); "
                "give the address that `dask scheduler` prints, such as tcp://host:8786"
            ) from error
        self._work = work
        self._busy: dict[Any, tuple[str, Job]] = {}
        self._started: list[Report[Job]] = []
        self._numbers = itertools.count()
        self.most = 0
        """Workers that have been there at the same time."""

    @property
    def in_flight(self) -> list[Job]:
        """What is being worked on."""
        return [job for _, job in self._busy.values()]

    def free_slots(self) -> int:
        """How many tasks it would take now."""
        return len(self._free())

    def submit(self, item: Job, /) -> None:
        """Send a job to a worker that has none; any death of that worker counts against it."""
        address, threads = next(iter(self._free().items()))
        future = self._client.submit(
            _run,
            replace(self._work, options=replace(self._work.options, threads=threads)),
            item,
            workers=[address],
            allow_other_workers=False,
            pure=False,
            key=f"cvsct-{item.place.name}-{id(self)}-{next(self._numbers)}",
        )
        self._busy[future] = address, item
        self._started.append(Report(item, "step"))

    def poll(self, timeout_s: float | None = None) -> list[Report[Job]]:
        """Wait for reports, so long at most."""
        if self._started:
            found, self._started = self._started, []
            return found
        wait_s = POLL_S if timeout_s is None else min(POLL_S, timeout_s)
        if self._busy:
            with contextlib.suppress(TimeoutError), self._client.as_current():
                self._distributed.wait(
                    list(self._busy), timeout=wait_s, return_when="FIRST_COMPLETED"
                )
        else:
            time.sleep(wait_s)  # for a worker to come
        there = self._threads()
        found = []
        for future, (address, job) in list(self._busy.items()):
            report = self._end_of(future, address in there)
            if report is not None:
                del self._busy[future]
                future.cancel()
                found.append(replace(report, item=job))
        return found

    def close(self) -> None:
        """Take back what is being worked on, and leave the cluster as it is."""
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self._client.cancel(list(self._busy), force=True)
            self._client.close(timeout=5)
        self._busy = {}

    def _threads(self) -> dict[str, int]:
        try:
            found: dict[str, int] = self._client.nthreads()
        except (OSError, TimeoutError) as error:
            raise CvsctError(
                "the Dask scheduler is gone; what is done is kept, the same command goes on"
            ) from error
        self.most = max(self.most, len(found))
        return found

    def _free(self) -> dict[str, int]:
        taken = {address for address, _ in self._busy.values()}
        return {name: count for name, count in self._threads().items() if name not in taken}

    def _end_of(self, future: Any, there: bool) -> Report[Any] | None:
        """What has become of a job, if anything has."""
        gone = Report(None, "died", message="its Dask worker is gone, perhaps for lack of memory")
        if future.status == "finished":
            try:
                report: Report[Any] = future.result(timeout=CONNECT_S)
            except TimeoutError:
                return gone
            return report
        if future.status in ("error", "cancelled", "lost"):
            error = future.exception() if future.status == "error" else None
            if error is None or isinstance(error, self._distributed.KilledWorker):
                return gone
            message = (
                f"the Dask workers cannot run this ({type(error).__name__}); "
                "install the same cvsct on every one of them"
            )
            return Report(None, "fatal", message=message)
        return None if there else gone


def _run(work: SeriesHarmonizer, job: Job) -> Report[Any]:
    """On the worker: a job from its beginning to its end."""
    seen = job.place.parent.is_dir() and job.series.files[0].parent.is_dir()
    if not seen or not work.model.is_dir():
        message = (
            "a Dask worker does not see INPUT, MODEL or OUT; they must be on a disk that all "
            "share, at the same place everywhere"
        )
        return Report(None, "fatal", message=message)
    with _ONE_AT_A_TIME:
        *_, report = attempt(work, job)
    return replace(report, details="")
