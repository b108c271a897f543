"""Cohorts with workers that die where a test wants it.

Classes at module level, so that worker processes find them by name.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from cvsct.core.files import write_atomic
from cvsct.inference.cohort.job import Job, JobResult, SeriesHarmonizer
from cvsct.io.dicom import write as derived
from cvsct.model.bundle import Bundle
from tests.support.dicom_files import stored_values, write_series


@dataclass(frozen=True)
class Faulty(SeriesHarmonizer):
    """Kills its process after some files of a series, once, or for a poison every time.

    Args:
        deaths: files written before it dies, by key.
        poison: keys of the series that it never survives.
        full: keys of the series at whose second file the disk is full.
        seen: folder that remembers who has died, and every try.
    """

    deaths: tuple[tuple[str, int], ...] = ()
    poison: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    seen: Path = field(default=Path())

    def __call__(self, job: Job) -> Generator[int, None, JobResult]:
        (self.seen / job.place.name).touch()
        after = dict(self.deaths).get(job.key)
        mark = self.seen / f"died-{job.key}"
        if job.key in self.poison:
            after = 1
        elif after is not None and mark.exists():
            after = None
        else:
            mark.touch()
        derived.write_atomic = write_atomic if after is None else _until(after, _die)
        if job.key in self.full:
            derived.write_atomic = _until(1, _fill)
        return (yield from super().__call__(job))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _until(after: int, end: Callable[[], None]) -> Callable[..., None]:
    written = [0]

    def write(path: Path, content: bytes | str, *, private: bool) -> None:
        if written[0] == after:
            end()
        written[0] += 1
        write_atomic(path, content, private=private)

    return write


def write_tree(folder: Path, count: int, slices: int = 3) -> Path:
    """So many small series of the same pixels, in a folder each."""
    stored = stored_values(slices)
    for i in range(count):
        write_series(folder / f"Mueller-Anna-{i}", stored=stored, series=f"1.2.77.{i}")
    return folder


def work(model: Path, **more: object) -> Faulty:
    """The work with a model, and with the faults named."""
    return Faulty(model.absolute(), Bundle.read(model).sha256, **more)  # type: ignore[arg-type]


def content(out: Path) -> dict[str, bytes]:
    """Every file of every series, by folder and name."""
    paths = (path for path in out.rglob("*") if path.parent != out and path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}
