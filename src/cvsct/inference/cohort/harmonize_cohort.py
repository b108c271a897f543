"""Many series of `cvsct harmonize`: OUT grows, and its manifest comes last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cvsct.core.manifest import MANIFEST, Manifest
from cvsct.core.platform import usable_cores
from cvsct.core.progress import Note, Progress
from cvsct.core.resumable import PLAN, claimed, part_of
from cvsct.core.workers import Processes
from cvsct.inference.cohort.dask import DaskCrew
from cvsct.inference.cohort.job import Harmonising, Task
from cvsct.inference.cohort.run import JOURNAL, opened, verify, work_off
from cvsct.inference.cohort.shards import Shard
from cvsct.inference.cohort.summary import Ending, ending, join_manifests
from cvsct.inference.timestamp import TIMESTAMP
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.methods.volume_mapping import Engine

MAX_DEATHS = 10
"""Workers that end one after the other without having loaded the model."""


def harmonize_cohort(
    tasks: dict[str, SeriesFiles],
    work: Harmonising,
    engine: Engine | None,
    out: Path,
    manifest: Manifest,
    shard: Shard,
    *,
    workers: int,
    scheduler: str,
    again: bool,
    progress: Progress,
    note: Note,
) -> Ending:
    """Harmonise what is not done yet, and write the manifest of the shard, or of all.

    Args:
        tasks: the shard's series by their keys in the journal.
        engine: what runs the model's network in a process that has all cores.
        workers: processes, 0 for one a core.
        scheduler: of a Dask cluster that works instead of processes; may be empty.
        again: have those tried again that failed.
        note: told what a user should know as the work proceeds.

    Raises:
        UsageError: if `out` holds something else, another plan, or another run is at work in it.
        CvsctError: if going on is of no use; what is done is kept.
    """
    plan = {
        "config": manifest.config,
        "model_sha256": manifest.model_sha256,
        "keep_equipment": work.keep_equipment,
        "nifti": work.nifti,
        "shards": shard.count,
        **({"timestamp": work.timestamp} if work.timestamp else {}),
    }
    worth = True
    new = not out.exists() or {each.name for each in out.iterdir()} == {TIMESTAMP}
    with (
        contextlib.closing(_crew(work, engine, workers, scheduler, note)) as crew,
        _no_empty_folder_left(out, new),
        claimed(out, plan, "cohort", beforehand=[TIMESTAMP], part=shard.name),
    ):
        try:
            with opened(out, shard, list(tasks), again) as journal:
                try:
                    with manifest.timed("checking"):
                        changed = verify(journal, out, progress)
                    if changed:
                        note(f"{len(changed)} series are not as written and are made again")
                    with manifest.timed("harmonising"):
                        ran = work_off(tasks, journal, crew, out.absolute(), progress, note)
                    found = ending(journal, tasks)
                finally:
                    worth = bool(shard.name or journal.counts().get("done"))
            if worth:
                count = crew.most if isinstance(crew, DaskCrew) else crew.workers
                _write_manifest(manifest, found, max(1, count), ran or engine, out, shard, note)
        finally:
            if not worth:  # a run that made nothing leaves nothing
                _remove(out)
    return found


def _write_manifest(
    manifest: Manifest,
    found: Ending,
    workers: int,
    engine: Engine | None,
    out: Path,
    shard: Shard,
    note: Note,
) -> None:
    manifest.inputs = {"series": [outcome.series_uid for outcome in found.outcomes]}
    manifest.figures = found.figures(workers)
    if engine:
        manifest.figures["engine"] = engine.to_json()
    if shard.name:
        manifest.figures["shard"] = f"{shard.index}/{shard.count}"
    manifest.write(out, part_of(MANIFEST, shard.name))
    if shard.name and join_manifests(out, shard.count):
        note(f"all {shard.count} shards are done: {out / MANIFEST}")


def _remove(out: Path) -> None:
    for name in (JOURNAL, PLAN, TIMESTAMP):
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


def _crew(
    work: Harmonising, engine: Engine | None, workers: int, scheduler: str, note: Note
) -> Processes[Task] | DaskCrew:
    """Who does the work. Processes part the cores among them."""
    if scheduler:
        return DaskCrew(scheduler, work)
    cores = usable_cores()
    count = workers or cores
    threads = max(1, cores // count)
    if engine:
        share = replace(
            engine, threads=min(engine.threads, threads), streams=min(engine.streams, threads)
        )
        note(f"engine: {share}" + (f", in each of {count} workers" if count > 1 else ""))
    return Processes(work, count, threads, MAX_DEATHS)
