"""Many series, each harmonized once whatever dies on the way.

A journal leases series one at a time to workers: processes on this machine, those of a Dask
cluster, or this process itself. A worker writes a hidden folder of its own. This process alone
gives it its name and records it, so that a series is done when its row says so, and a rerun makes
only what is missing.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from cvsct.core.errors import CvsctError, StoppedError
from cvsct.core.files import canonical_json, folder_sha256
from cvsct.core.manifest import MANIFEST
from cvsct.core.platform import rename, sync_folder
from cvsct.core.progress import Progress, log_note, silent
from cvsct.core.resumable import part_of
from cvsct.core.workers import Report
from cvsct.inference.cohort.job import Job, JobResult
from cvsct.inference.cohort.journal import RENEW_S, Entry, Journal
from cvsct.inference.cohort.series_table import SeriesTable
from cvsct.inference.cohort.shards import Shard
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.methods.volume_mapping import Engine

logger = logging.getLogger(__name__)

JOURNAL = "journal.sqlite"


@runtime_checkable
class Workers(Protocol):
    """What works on jobs: `core.workers.Processes`, `InProcess`, or `dask.DaskWorkers`."""

    @property
    def in_flight(self) -> list[Job]:
        """Jobs being worked on."""
        ...

    def free_slots(self) -> int:
        """How many jobs they would take now."""
        ...

    def submit(self, item: Job, /) -> None:
        """Have a job worked on."""
        ...

    def poll(self, timeout_s: float | None = None) -> list[Report[Job]]:
        """Wait for reports, so long at most."""
        ...

    def close(self) -> None:
        """Let go of all workers."""
        ...


@contextlib.contextmanager
def open_journal(out: Path, shard: Shard, keys: Sequence[str], retry: bool) -> Iterator[Journal]:
    """The shard's journal with these series taken in, in a folder that this run has locked.

    Args:
        retry: have those tried again that failed.
    """
    for name in {MANIFEST, part_of(MANIFEST, shard.name)}:
        (out / name).unlink(missing_ok=True)  # it tells of a run that has ended
    with contextlib.closing(Journal(out / part_of(JOURNAL, shard.name))) as journal:
        journal.begin(keys)
        if retry:
            journal.forgive()
        yield journal


@contextlib.contextmanager
def journal_in_memory(keys: Sequence[str]) -> Iterator[Journal]:
    """A journal for series that appear together or not at all, so that nothing must outlive it."""
    with contextlib.closing(Journal(Path(":memory:"))) as journal:
        journal.begin(keys)
        yield journal


def verify(journal: Journal, out: Path, progress: Progress = silent) -> list[str]:
    """Have every series made again that was done and is not what was recorded; gives their keys."""
    done = [row for row in journal.rows() if row.status == "done"]
    changed = []
    for i, row in enumerate(done):
        progress("checking", i, len(done))
        folder = out / row.key
        if not folder.is_dir() or folder_sha256(folder) != row.entry.sha256:
            journal.reopen(row.key)
            changed.append(row.key)
    if done:
        progress("checking", len(done), len(done))
    return changed


class _SliceProgress:
    """Progress of a cohort in slices; those of a series that failed no longer count."""

    def __init__(
        self, series: Mapping[str, SeriesFiles], keys: Sequence[str], tell: Progress
    ) -> None:
        self._slices = {key: series[key].n_slices for key in keys}
        self._done, self._total = Counter[str](), sum(self._slices.values())
        self._tell, self._told = tell, (-1, -1)
        self._show()

    def add(self, key: str, slices: int) -> None:
        """Slices of a series that are newly done."""
        self._done[key] += slices
        self._show()

    def finish(self, key: str) -> None:
        """A series is done, whether or not its slices were told."""
        self._done[key] = self._slices[key]
        self._show()

    def drop(self, key: str, final: bool) -> None:
        """A series has failed; `final` where it is not tried again."""
        self._done.pop(key, None)
        if final:
            self._total -= self._slices[key]
        self._show()

    def _show(self) -> None:
        now = self._done.total(), self._total
        if self._total and now != self._told:
            self._tell("harmonizing", *now)
        self._told = now


def run_jobs(
    series: Mapping[str, SeriesFiles],
    journal: Journal,
    workers: Workers,
    out: Path,
    progress: Progress = silent,
    note: Callable[[str], None] = log_note,
    table: SeriesTable | None = None,
) -> Engine | None:
    """Harmonize every series that the journal has waiting; gives what ran the network.

    Args:
        series: by their keys in the journal.
        table: told of each series that has come to its end.

    Raises:
        CvsctError: if going on is of no use.
        StoppedError: if the user stopped it.
    """
    staging = out / f".{journal.name}"
    engine: Engine | None = None
    started: set[str] = set()
    renewed = time.monotonic()
    shutil.rmtree(staging, ignore_errors=True)
    waiting = [row.key for row in journal.rows() if row.status in ("waiting", "leased")]
    slices = _SliceProgress(series, waiting, progress)
    try:
        with contextlib.closing(workers):
            while True:
                while workers.free_slots() and (lease := journal.lease()):
                    key, number = lease
                    staging.mkdir(mode=0o700, exist_ok=True)
                    workers.submit(Job(key, series[key], staging / f"{key}-{number}"))
                if not workers.in_flight and not journal.n_open():
                    return engine
                for report in workers.poll(RENEW_S):
                    engine = _record(report, journal, out, started, note, slices) or engine
                    if table and report.kind != "step":
                        table.append(journal.row(report.item.key))
                if time.monotonic() - renewed >= RENEW_S:
                    journal.renew()
                    renewed = time.monotonic()
    except KeyboardInterrupt:
        raise StoppedError(f"stopped{_what_is_kept(journal)}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _record(
    report: Report[Job],
    journal: Journal,
    out: Path,
    started: set[str],
    note: Callable[[str], None],
    slices: _SliceProgress,
) -> Engine | None:
    """Enter a report into the journal; a series that is done gets its place first."""
    key = report.item.key
    if report.kind == "step":
        started.add(key)
        if report.amount:
            slices.add(key, report.amount)
        return None
    if report.kind == "fatal":
        raise CvsctError(f"{report.message}{_what_is_kept(journal)}")
    engine = None
    if report.details:
        logger.info("series %s: %s\n%s", key, report.message, report.details)
    if report.kind == "failed":
        journal.failed(key, report.message)
        slices.drop(key, final=True)
    elif report.kind == "died":
        note(f"series {key}: {report.message}")
        journal.died(key, report.message, guilty=key in started)
        slices.drop(key, final=journal.row(key).status == "quarantined")
    elif journal.holds(key):
        engine = _keep(report, journal, out)
        slices.finish(key)
    started.discard(key)
    return engine


def _keep(report: Report[Job], journal: Journal, out: Path) -> Engine | None:
    """Give a series that a worker has written its place, and record it as done."""
    key, result = report.item.key, report.result
    assert isinstance(result, JobResult)
    place = out / key
    if place.exists():  # of a run that was killed before it could record it
        shutil.rmtree(place)
    rename(report.item.place, place)
    sync_folder(out)
    outcome = result.outcome
    logger.info("series %s: %d slices in %.2f s", key, outcome.n_slices, result.seconds)
    journal.done(
        key,
        Entry(
            sha256=result.sha256,
            derived_uid=outcome.derived_uid,
            n_slices=outcome.n_slices,
            mean_change_hu=outcome.mean_change_hu,
            seconds=result.seconds,
            guard=canonical_json(outcome.guard) if outcome.guard else "",
            notes=canonical_json(outcome.notes) if outcome.notes else "",
        ),
    )
    return result.engine


def _what_is_kept(journal: Journal) -> str:
    if not journal.outlives_the_run:
        return "; nothing is kept"
    done = journal.counts().get("done", 0)
    total = sum(journal.counts().values())
    return f"; {done} of {total} series are kept, the same command goes on from there"
