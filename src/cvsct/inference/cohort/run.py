"""Many series, each harmonised once whatever dies on the way.

A journal leases series one at a time to a crew: processes on this machine, or the workers of a
Dask cluster. A worker writes a hidden folder of its own. This process alone gives it its name and
records it, so that a series is done when its row says so, and a rerun makes only what is missing.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from cvsct.core.errors import CvsctError
from cvsct.core.files import canonical_json, folder_sha256
from cvsct.core.manifest import MANIFEST
from cvsct.core.platform import rename, sync_folder
from cvsct.core.progress import Progress, log_note, silent
from cvsct.core.resumable import part_of
from cvsct.core.workers import Report
from cvsct.inference.cohort.job import Made, Task
from cvsct.inference.cohort.journal import RENEW_S, Entry, Journal
from cvsct.inference.cohort.shards import Shard
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.methods.volume_mapping import Engine

JOURNAL = "journal.sqlite"


@runtime_checkable
class Crew(Protocol):
    """Workers that take a task each: `core.workers.Processes`, `dask_crew.DaskCrew`."""

    @property
    def in_hand(self) -> list[Task]:
        """What is being worked on."""
        ...

    def idle(self) -> int:
        """How many tasks it would take now."""
        ...

    def give(self, piece: Task, /) -> None:
        """Have a task worked on."""
        ...

    def news(self, timeout_s: float | None = None) -> list[Report[Task]]:
        """Wait for reports, so long at most."""
        ...

    def close(self) -> None:
        """Let go of all workers."""
        ...


@contextlib.contextmanager
def opened(out: Path, shard: Shard, keys: Sequence[str], again: bool) -> Iterator[Journal]:
    """The shard's journal with these series taken in, in a folder that is `core.resumable.claimed`.

    Args:
        again: have those tried again that failed.
    """
    for name in {MANIFEST, part_of(MANIFEST, shard.name)}:
        (out / name).unlink(missing_ok=True)  # it tells of a run that has ended
    with contextlib.closing(Journal(out / part_of(JOURNAL, shard.name))) as journal:
        journal.begin(keys)
        if again:
            journal.forgive()
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


def work_off(
    tasks: Mapping[str, SeriesFiles],
    journal: Journal,
    crew: Crew,
    out: Path,
    progress: Progress = silent,
    note: Callable[[str], None] = log_note,
) -> Engine | None:
    """Harmonise every series that the journal has waiting; gives what ran the network.

    Raises:
        CvsctError: if going on is of no use, or the user stopped it; what is done is kept.
    """
    staging = out / f".{journal.path.stem}"
    engine: Engine | None = None
    begun: set[str] = set()
    renewed = time.monotonic()
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with contextlib.closing(crew):
            while True:
                while crew.idle() and (lease := journal.lease()):
                    key, number = lease
                    staging.mkdir(mode=0o700, exist_ok=True)
                    crew.give(Task(key, tasks[key], staging / f"{key}-{number}"))
                if not crew.in_hand and not _open(journal):
                    return engine
                for report in crew.news(RENEW_S):
                    engine = _record(report, journal, out, begun, note) or engine
                    if report.kind != "step":
                        progress("series", *_done_of(journal))
                if time.monotonic() - renewed >= RENEW_S:
                    journal.renew()
                    renewed = time.monotonic()
    except KeyboardInterrupt:
        raise CvsctError(f"stopped; {_kept(journal)}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _record(
    report: Report[Task],
    journal: Journal,
    out: Path,
    begun: set[str],
    note: Callable[[str], None],
) -> Engine | None:
    """Enter a report into the journal; a series that is done gets its place first."""
    key = report.piece.key
    if report.kind == "step":
        begun.add(key)
        return None
    if report.kind == "fatal":
        raise CvsctError(f"{report.message}; {_kept(journal)}")
    if report.kind == "failed":
        journal.failed(key, report.message)
    elif report.kind == "died":
        note(f"series {key}: {report.message}")
        journal.died(key, report.message, guilty=key in begun)
    elif journal.holds(key):
        made: Made = report.result
        place = out / key
        if place.exists():  # of a run that was killed before it could record it
            shutil.rmtree(place)
        rename(report.piece.place, place)
        sync_folder(out)
        outcome = made.outcome
        journal.done(
            key,
            Entry(
                sha256=made.sha256,
                derived_uid=outcome.derived_uid,
                n_slices=outcome.n_slices,
                mean_change_hu=outcome.mean_change_hu,
                seconds=made.seconds,
                guard=canonical_json(outcome.guard) if outcome.guard else "",
                notes=canonical_json(outcome.notes) if outcome.notes else "",
            ),
        )
        begun.discard(key)
        return made.engine
    begun.discard(key)
    return None


def _open(journal: Journal) -> int:
    counts = journal.counts()
    return counts.get("waiting", 0) + counts.get("leased", 0)


def _done_of(journal: Journal) -> tuple[int, int]:
    total = sum(journal.counts().values())
    return total - _open(journal), total


def _kept(journal: Journal) -> str:
    done = journal.counts().get("done", 0)
    total = sum(journal.counts().values())
    return f"{done} of {total} series are kept, the same command goes on from there"
