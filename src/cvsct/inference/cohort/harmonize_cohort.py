"""Series harmonized by workers, with what was done written down: one series, or many."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cvsct.core.errors import CvsctError
from cvsct.core.files import new_folder
from cvsct.core.manifest import MANIFEST, Manifest
from cvsct.core.platform import usable_cores
from cvsct.core.progress import Note, Progress
from cvsct.core.resumable import PLAN, locked_output, part_of
from cvsct.core.workers import InProcess, Processes
from cvsct.inference.cohort.dask import DaskWorkers
from cvsct.inference.cohort.job import Job, JobResult, LoadedModel, SeriesHarmonizer
from cvsct.inference.cohort.journal import Journal
from cvsct.inference.cohort.run import (
    JOURNAL,
    Workers,
    journal_in_memory,
    open_journal,
    run_jobs,
    verify,
)
from cvsct.inference.cohort.series_table import SERIES_TABLE, SeriesTable
from cvsct.inference.cohort.shards import Shard
from cvsct.inference.cohort.summary import CohortSummary, join_manifests, summarize
from cvsct.inference.timestamp import TIMESTAMP
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.methods.volume_mapping import Engine

MAX_DEATHS = 10
"""Workers that end one after the other without having loaded the model."""


@dataclass
class Cohort:
    """The work of one run: which series, by what model, and what is told and written of it.

    Args:
        series: by their keys in the journal; of a shard, those that it does.
        root: INPUT, which paths in tables are relative to.
        manifest: written to the output folder at the end.
    """

    series: Mapping[str, SeriesFiles]
    root: Path
    harmonizer: SeriesHarmonizer
    loaded: LoadedModel
    manifest: Manifest
    progress: Progress
    note: Note

    def run(
        self,
        out: Path,
        journal: Journal,
        workers: Workers,
        shard: Shard,
        table: SeriesTable | None = None,
    ) -> CohortSummary:
        """Harmonize what the journal has waiting, and write the manifest of all, or of the shard.

        Raises:
            CvsctError: if going on is of no use.
        """
        with self.manifest.timed("harmonising"):
            ran = run_jobs(
                self.series, journal, workers, out.absolute(), self.progress, self.note, table
            )
        summary = summarize(journal, self.series)
        self._write_manifest(out, summary, _count(workers), ran, shard)
        if shard.name and join_manifests(out, shard.count):
            self.note(f"all {shard.count} shards are done: {out / MANIFEST}")
        return summary

    def _write_manifest(
        self, out: Path, summary: CohortSummary, n_workers: int, ran: Engine | None, shard: Shard
    ) -> None:
        engine = ran or self.loaded.mapping.engine
        self.manifest.inputs = {"series": [each.series_uid for each in summary.outcomes]}
        self.manifest.figures = {
            **summary.figures(n_workers),
            **({"engine": engine.to_json()} if engine else {}),
            **({"shard": f"{shard.index}/{shard.count}"} if shard.name else {}),
        }
        self.manifest.write(out, part_of(MANIFEST, shard.name))


def harmonize_whole(cohort: Cohort, out: Path) -> CohortSummary:
    """Harmonize in this process; `out` appears with all of the series, or not at all.

    Raises:
        CvsctError: if a series must be refused.
    """
    engine = cohort.loaded.mapping.engine
    if engine:
        cohort.note(f"engine: {engine}")

    def work(job: Job) -> Generator[int, None, JobResult]:
        return cohort.harmonizer.run(job, cohort.loaded)

    with new_folder(out) as folder, journal_in_memory(list(cohort.series)) as journal:
        summary = cohort.run(folder, journal, InProcess(work), Shard())
        if summary.failed:
            raise CvsctError(summary.failed[0].error)
    return summary


def harmonize_growing(
    cohort: Cohort,
    out: Path,
    shard: Shard,
    *,
    workers: int,
    scheduler: str,
    retry: bool,
) -> CohortSummary:
    """Harmonize what is not done yet in `out`, which keeps what is done whatever happens.

    Args:
        workers: processes, 0 for one a core.
        scheduler: of a Dask cluster that works instead of processes; may be empty.
        retry: have those tried again that failed.

    Raises:
        UsageError: if `out` holds something else, another plan, or another run is at work in it.
        CvsctError: if going on is of no use; what is done is kept.
    """
    harmonizer, manifest = cohort.harmonizer, cohort.manifest
    plan = {
        "config": manifest.config,
        "model_sha256": manifest.model_sha256,
        "keep_equipment": harmonizer.keep_equipment,
        "nifti": harmonizer.nifti,
        "shards": shard.count,
        **({"timestamp": harmonizer.timestamp} if harmonizer.timestamp else {}),
    }
    keep = True
    new = not out.exists() or {path.name for path in out.iterdir()} == {TIMESTAMP}
    with (
        contextlib.closing(_workers(cohort, workers, scheduler)) as pool,
        _no_empty_folder_left(out, new),
        locked_output(out, plan, "cohort", beforehand=[TIMESTAMP], part=shard.name),
    ):
        try:
            with open_journal(out, shard, list(cohort.series), retry) as journal:
                table = SeriesTable(out, cohort.series, cohort.root, shard.name)
                try:
                    with manifest.timed("checking"):
                        changed = verify(journal, out, cohort.progress)
                    if changed:
                        cohort.note(f"{len(changed)} series are not as written and are made again")
                    table.write(journal)
                    summary = cohort.run(out, journal, pool, shard, table)
                    table.write(journal)
                finally:
                    keep = bool(shard.name) or journal.n_open() < len(cohort.series)
        finally:
            if not keep:  # a run that has come to the end of no series leaves nothing
                _remove(out)
    return summary


def _remove(out: Path) -> None:
    for name in (JOURNAL, PLAN, TIMESTAMP, SERIES_TABLE):
        (out / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _no_empty_folder_left(out: Path, new: bool) -> Iterator[None]:
    """Remove a folder that is new and empty at the end; its lock must be gone by then."""
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # it holds something
                out.rmdir()


def _workers(cohort: Cohort, count: int, scheduler: str) -> Processes[Job] | DaskWorkers:
    """What does the work. Processes part the cores among them."""
    if scheduler:
        return DaskWorkers(scheduler, cohort.harmonizer)
    cores = usable_cores()
    count = count or cores
    threads = max(1, cores // count)
    engine = cohort.loaded.mapping.engine
    if engine:
        share = replace(
            engine, threads=min(engine.threads, threads), streams=min(engine.streams, threads)
        )
        cohort.note(f"engine: {share}" + (f", in each of {count} workers" if count > 1 else ""))
    return Processes(cohort.harmonizer, count, threads, MAX_DEATHS)


def _count(workers: Workers) -> int:
    """How many have worked at the same time."""
    if isinstance(workers, DaskWorkers):
        return max(1, workers.most)
    return workers.workers if isinstance(workers, Processes) else 1
