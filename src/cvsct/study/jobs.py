"""Work on every series of a study: in this process, in several, or on a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

from cvsct.core.dask_workers import DaskWorkers
from cvsct.core.errors import CvsctError, StoppedError
from cvsct.core.platform import cores
from cvsct.core.progress import Progress
from cvsct.core.workers import InProcess, Pool, Processes, work_in

TRIES = 2
"""How often a series is tried whose process dies; a model would lack it for good."""


@runtime_checkable
class SeriesItem(Protocol):
    """Work on one series."""

    @property
    def key(self) -> str:
        """Name of the series; a hash."""
        ...

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files that it reads, and the folder that it writes to."""
        ...


Item = TypeVar("Item", bound=SeriesItem)


@dataclass(frozen=True)
class SeriesWork(Generic[Item]):
    """A function of a series as work that another machine can do."""

    function: Callable[[Item], Generator[int, None, Any]]

    def __call__(self, item: Item, /) -> Generator[int, None, Any]:
        """Work on one series."""
        return self.function(item)

    def with_threads(self, threads: int) -> Self:
        """The same work; it has no threads of its own."""
        return self

    @staticmethod
    def name_of(item: Item, /) -> str:
        """Name of an item."""
        return item.key

    @staticmethod
    def sees(item: Item, /) -> bool:
        """Whether this machine sees all paths of an item."""
        return all(path.exists() for path in item.paths)


@dataclass(frozen=True)
class Where:
    """Where the work of a study is done.

    Args:
        workers: number of processes; 0 for one per core.
        scheduler: address of a Dask scheduler, whose workers take the place of processes.
    """

    workers: int = 0
    scheduler: str = ""

    def pool(self, work: SeriesWork[Item], items: int) -> Pool[Item]:
        """Workers for some work."""
        if self.scheduler:
            return DaskWorkers(self.scheduler, work)
        count = min(self.workers or cores(), items)
        return InProcess(work) if count <= 1 else Processes(work, count)


@dataclass(frozen=True)
class Outcomes:
    """What came of the work on each series, by its key.

    Args:
        results: of those that are done.
        failed: reasons of the others.
    """

    results: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def work_on_all(
    task: str,
    items: Sequence[Item],
    function: Callable[[Item], Generator[int, None, Any]],
    where: Where,
    progress: Progress,
    before: int = 0,
) -> Outcomes:
    """Work on every series; one that fails does not stop the others.

    Args:
        task: name for `progress`.
        items: the series.
        function: what to do with each; it must be picklable, and leave nothing half-written.
        where: where it is done.
        progress: called with `(task, done, total)`.
        before: number of series that are done already.

    Raises:
        CvsctError: if every series would fail, as on a full disk.
        StoppedError: on Ctrl-C; what is done is kept.
    """
    done, total = before, before + len(items)
    progress(task, done, total)
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    if not items:
        return Outcomes(results, failed)
    try:
        reports = work_in(where.pool(SeriesWork(function), len(items)), items, TRIES)
        with contextlib.closing(reports):
            for report in reports:
                if report.kind == "step":
                    continue
                if report.kind == "fatal":
                    raise CvsctError(f"{report.message}; the same command then goes on")
                if report.kind == "done":
                    results[report.item.key] = report.result
                else:
                    failed[report.item.key] = report.message
                done += 1
                progress(task, done, total)
    except KeyboardInterrupt:
        raise StoppedError(
            f"stopped, {done} of {total} series are done ({task}); the same command goes on"
        ) from None
    return Outcomes(results, failed)
