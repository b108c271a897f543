"""Harmonization of one series or of many by workers, with journal, table and manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cvsct.core.dask_workers import DaskWorkers
from cvsct.core.errors import CvsctError
from cvsct.core.files import new_folder
from cvsct.core.manifest import MANIFEST, Manifest
from cvsct.core.platform import usable_cores
from cvsct.core.progress import Note, Progress
from cvsct.core.resumable import PLAN, locked_output, part_of
from cvsct.core.slice_hashes import LEARNED
from cvsct.core.text import counted
from cvsct.core.workers import InProcess, Pool, Processes
from cvsct.inference.cohort.job import Job, JobResult, LoadedModel, SeriesHarmonizer
from cvsct.inference.cohort.journal import Journal
from cvsct.inference.cohort.run import (
    JOURNAL,
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
"""Number of workers that may die in a row before they have loaded the model."""


@dataclass
class Cohort:
    """Work of one run: the series, the model, and where its results are reported.

    Args:
        series: the series of the run, or of its shard, by their keys in the journal.
        root: the input folder, to which paths in tables are relative.
        harmonizer: harmonizes one series in a worker.
        loaded: the model, ready in this process.
        manifest: written to the output folder at the end.
        progress: called with `(task, done, total)`.
        note: called with remarks for the user.
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
        workers: Pool[Job],
        shard: Shard,
        table: SeriesTable | None = None,
    ) -> CohortSummary:
        """Harmonize the waiting series of a journal, and write the manifest of the run or shard.

        Raises:
            CvsctError: if an error occurs that every series would meet.
        """
        with self.manifest.timed("harmonizing"):
            engine = run_jobs(
                self.series, journal, workers, out.absolute(), self.progress, self.note, table
            )
        summary = summarize(journal, self.series)
        self._write_manifest(out, summary, _count(workers), engine, shard)
        if shard.name and join_manifests(out, shard.count):
            self.note(f"all {shard.count} shards are done: {out / MANIFEST}")
        return summary

    def _write_manifest(
        self,
        out: Path,
        summary: CohortSummary,
        n_workers: int,
        used_engine: Engine | None,
        shard: Shard,
    ) -> None:
        engine = used_engine or self.loaded.mapping.engine
        self.manifest.inputs = {"series": [outcome.series_uid for outcome in summary.outcomes]}
        self.manifest.figures = {
            **summary.figures(n_workers),
            **({"engine": engine.to_json()} if engine else {}),
            "model": self._model_json(),
            **({LEARNED: learned} if (learned := self.loaded.bundle.guard.get(LEARNED)) else {}),
            **({"shard": f"{shard.index}/{shard.count}"} if shard.name else {}),
        }
        self.manifest.write(out, part_of(MANIFEST, shard.name))

    def _model_json(self) -> dict[str, Any]:
        """Name of the model's folder, and by technical attributes what it was trained on."""
        bundle = self.loaded.bundle
        return {
            "name": self.harmonizer.model.name,
            "source": asdict(bundle.source),
            "target": asdict(bundle.target),
        }


def harmonize_whole(cohort: Cohort, out: Path) -> CohortSummary:
    """Harmonize in this process, with an atomic output folder.

    Raises:
        CvsctError: if a series cannot be read, or the guard refuses it; `out` is not made then.
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
    """Harmonize the series that are missing in `out`; finished series are kept after any failure.

    Args:
        cohort: the work of this run.
        out: the output folder, new or started by the same plan.
        shard: the part of the series that this run harmonizes.
        workers: number of processes; 0 for one per core.
        scheduler: address of a Dask scheduler whose workers replace processes; may be empty.
        retry: try failed series again.

    Raises:
        UsageError: if `out` holds something else or another plan, or another run writes to it.
        CvsctError: if an error occurs that every series would meet; finished series are kept.
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
    keep_output = True
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
                        are = counted(len(changed), "series is", "series are")
                        cohort.note(f"{are} not as written, and made again")
                    table.write(journal)
                    summary = cohort.run(out, journal, pool, shard, table)
                    table.write(journal)
                finally:
                    keep_output = bool(shard.name) or journal.n_open() < len(cohort.series)
        finally:
            if not keep_output:
                _remove_if_without_series(out)
    return summary


def _remove_if_without_series(out: Path) -> None:
    """Remove what a run wrote that finished no series, so that nothing is left behind."""
    if any(path.is_dir() for path in out.iterdir()):
        return  # a series was moved here, and the run stopped before it was recorded
    for name in (JOURNAL, PLAN, TIMESTAMP, SERIES_TABLE):
        (out / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _no_empty_folder_left(out: Path, new: bool) -> Iterator[None]:
    """Remove a new folder that is empty at the end, after its lock is removed."""
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # the folder is not empty
                out.rmdir()


def _workers(cohort: Cohort, count: int, scheduler: str) -> Processes[Job] | DaskWorkers:
    """Create the pool of workers; processes share the cores equally."""
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


def _count(workers: Pool[Job]) -> int:
    """Number of workers that worked at the same time."""
    if isinstance(workers, DaskWorkers):
        return max(1, workers.most)
    return workers.workers if isinstance(workers, Processes) else 1
