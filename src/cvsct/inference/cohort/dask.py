"""Workers of a running Dask cluster, each with one series at a time.

Dask itself would repeat a job whose worker died, and would blame every job that waits there. So
each job is tied to one worker, no job waits at any worker, and lost jobs go back to the journal.
Workers need the same version of cvsct, and INPUT, MODEL and OUT at the same paths.
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
"""Interval at which workers that came or went are noticed; results are noticed at once."""
CONNECT_S = 30.0
"""Time to wait for an answer of the scheduler."""

_ONE_AT_A_TIME = threading.Lock()
"""Lock of a Dask worker that serves two shards: an engine takes one series at a time."""


class DaskWorkers:
    """Pool of the workers of a Dask cluster.

    Args:
        scheduler: address of the scheduler, or path of its scheduler file.
        work: harmonizes one series.
        connect_s: seconds to wait for the scheduler.

    Raises:
        MissingExtraError: if dask.distributed is not installed.
        CvsctError: if no scheduler answers.
    """

    def __init__(
        self, scheduler: str, work: SeriesHarmonizer, connect_s: float = CONNECT_S
    ) -> None:
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
        self._busy: dict[Any, tuple[str, Job]] = {}
        self._started: list[Report[Job]] = []
        self._numbers = itertools.count()
        self.most = 0
        """Largest number of workers at the same time."""

    @property
    def in_flight(self) -> list[Job]:
        """Jobs that are being worked on."""
        return [job for _, job in self._busy.values()]

    def free_slots(self) -> int:
        """Number of jobs that can be submitted now."""
        return len(self._free())

    def submit(self, item: Job, /) -> None:
        """Send a job to a free worker; a death of that worker counts against the job."""
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
        """Cancel all jobs and disconnect from the cluster, which keeps running."""
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
        """Final report of a job, or None while it is being worked on."""
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


def _run(work: SeriesHarmonizer, job: Job) -> Report[Any]:
    """Do a job from beginning to end, on the worker."""
    paths_visible = job.place.parent.is_dir() and job.series.files[0].parent.is_dir()
    if not paths_visible or not work.model.is_dir():
        message = (
            "a Dask worker does not see INPUT, MODEL or OUT; they must be on a disk that all "
            "share, at the same place everywhere"
        )
        return Report(None, "fatal", message=message)
    with _ONE_AT_A_TIME:
        *_, report = attempt(work, job)
    return replace(report, details="")
