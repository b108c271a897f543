"""Harmonization of many series, each exactly once even if processes die.

A journal leases series one at a time to workers: processes on this machine, workers of a Dask
cluster, or this process itself. A worker writes a hidden folder. Only this process renames it and
records the series as done, so that a later run makes only the series that are missing.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cvsct.core.errors import CvsctError, StoppedError
from cvsct.core.files import canonical_json, folder_sha256
from cvsct.core.manifest import MANIFEST
from cvsct.core.platform import rename, sync_folder
from cvsct.core.progress import Progress, log_note, silent
from cvsct.core.resumable import part_of
from cvsct.core.workers import Pool, Report
from cvsct.inference.cohort.job import Job, JobResult
from cvsct.inference.cohort.journal import FINDINGS, RENEW_S, Entry, Journal
from cvsct.inference.cohort.series_table import SeriesTable
from cvsct.inference.cohort.shards import Shard
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.methods.volume_mapping import Engine

logger = logging.getLogger(__name__)

JOURNAL = "journal.sqlite"


@contextlib.contextmanager
def open_journal(out: Path, shard: Shard, keys: Sequence[str], retry: bool) -> Iterator[Journal]:
    """Open the journal of a shard and register its series; the folder is locked by this run.

    Args:
        out: the output folder.
        shard: the part of the series that this run harmonizes.
        keys: keys of the series.
        retry: try failed series again.
    """
    for name in {MANIFEST, part_of(MANIFEST, shard.name)}:
        (out / name).unlink(missing_ok=True)  # describes an earlier run
    with contextlib.closing(Journal(out / part_of(JOURNAL, shard.name))) as journal:
        journal.begin(keys)
        if retry:
            journal.forgive()
        yield journal


@contextlib.contextmanager
def journal_in_memory(keys: Sequence[str]) -> Iterator[Journal]:
    """Open a journal in memory, for series whose output is atomic as a whole."""
    with contextlib.closing(Journal(Path(":memory:"))) as journal:
        journal.begin(keys)
        yield journal


def verify(journal: Journal, out: Path, progress: Progress = silent) -> list[str]:
    """Reopen finished series whose folders differ from the journal; returns their keys."""
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
    """Progress of a cohort in slices; slices of failed series do not count."""

    def __init__(
        self, series: Mapping[str, SeriesFiles], keys: Sequence[str], progress: Progress
    ) -> None:
        self._slices = {key: series[key].n_slices for key in keys}
        self._done, self._total = Counter[str](), sum(self._slices.values())
        self._progress, self._reported = progress, (-1, -1)
        self._show()

    def add(self, key: str, slices: int) -> None:
        """Count slices of a series that are newly done."""
        self._done[key] += slices
        self._show()

    def finish(self, key: str) -> None:
        """Count all slices of a series that is done, reported or not."""
        self._done[key] = self._slices[key]
        self._show()

    def drop(self, key: str, final: bool) -> None:
        """Uncount a series that has failed; `final` if it is not tried again."""
        self._done.pop(key, None)
        if final:
            self._total -= self._slices[key]
        self._show()

    def _show(self) -> None:
        now = self._done.total(), self._total
        if self._total and now != self._reported:
            self._progress("harmonizing", *now)
        self._reported = now


def run_jobs(
    series: Mapping[str, SeriesFiles],
    journal: Journal,
    workers: Pool[Job],
    out: Path,
    progress: Progress = silent,
    note: Callable[[str], None] = log_note,
    table: SeriesTable | None = None,
) -> Engine | None:
    """Harmonize every waiting series of a journal.

    Args:
        series: the series by their keys in the journal.
        journal: leases series and records outcomes.
        workers: the pool that does the work.
        out: the output folder.
        progress: called with `(task, done, total)`, in slices.
        note: called with remarks for the user.
        table: gets a row for each series that is done or has failed.

    Returns:
        The engine that ran the network; None for a method without a network.

    Raises:
        CvsctError: if an error occurs that every series would meet.
        StoppedError: if the user stopped the run.
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
        raise StoppedError(f"stopped{_kept_series(journal)}") from None
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
    """Record a report in the journal; a finished series is first moved to its final folder."""
    key = report.item.key
    if report.kind == "step":
        started.add(key)
        if report.amount:
            slices.add(key, report.amount)
        return None
    if report.kind == "fatal":
        raise CvsctError(f"{report.message}{_kept_series(journal)}")
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
        engine = _move_and_record(report, journal, out)
        slices.finish(key)
    started.discard(key)
    return engine


def _move_and_record(report: Report[Job], journal: Journal, out: Path) -> Engine | None:
    """Move a finished series to its final folder, and record it as done."""
    key, result = report.item.key, report.result
    assert isinstance(result, JobResult)
    final_folder = out / key
    if final_folder.exists():  # from a run that was killed before it could record the series
        shutil.rmtree(final_folder)
    rename(report.item.place, final_folder)
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
            **{
                name: canonical_json(found) if (found := getattr(outcome, name)) else ""
                for name in FINDINGS
            },
        ),
    )
    return result.engine


def _kept_series(journal: Journal) -> str:
    """How many series are kept when a run ends early, as the end of a message."""
    if not journal.outlives_the_run:
        return "; nothing is kept"
    done = journal.counts().get("done", 0)
    total = sum(journal.counts().values())
    return f"; {done} of {total} series are kept, the same command goes on from there"
