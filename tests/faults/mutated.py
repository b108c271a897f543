"""Damaged files, ten thousand of them: refused or read, never anything else.

Every file is read in a process whose death would be seen, with 2 GiB more than it had and 10 s;
what can be read is derived and read again. `python -m tests.faults.mutated`.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvsct.core.errors import CvsctError
from cvsct.core.volume import CTVolume
from cvsct.core.workers import Processes
from cvsct.io.dicom.pixels import MAX_STORED_HU
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.read import find_series, read_facts
from cvsct.io.series import derived_writer, open_series
from tests.faults.finding import Finding, script
from tests.faults.limits import Attempt, attempt, confine
from tests.faults.mutations import mutated
from tests.faults.seeds import Seed, is_told, seeds, write_synthetic
from tests.support.dicom_files import DERIVATION

GOAL = "damaged files: the reader lives, 10 s and 2 GB at most, only refusals, no value told"
WORKERS = 2


@dataclass(frozen=True)
class Read:
    """What became of a file."""

    name: str
    kind: str
    how: str
    fault: str
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Reading:
    """Damages a file by its number and reads it; picklable.

    Args:
        synthetic: folder of the seeds that were made for it.
        place: an empty folder.
    """

    synthetic: Path
    place: Path
    seed: int

    def __call__(self, number: int) -> Iterator[int]:
        """The file of that number."""
        yield 0
        _get_ready(self.synthetic)
        chosen, rng = seeds(self.synthetic), np.random.default_rng([self.seed, number])
        seed = chosen[number % len(chosen)]
        content, how = mutated(seed.name, seed.content, rng)
        folder = self.place / str(number)
        folder.mkdir()
        path = folder / f"a{seed.suffix}"
        path.write_bytes(content)
        try:
            done = attempt(lambda: _read(folder if number % 4 == 0 else path, folder / "out"))
        finally:
            shutil.rmtree(folder)
        return self._told(seed, how, done)

    def _told(self, seed: Seed, how: str, done: Attempt) -> Read:
        fault = done.fault
        told = is_told(seed, done.refused + done.told)
        if told and not fault:
            fault = f"tells {told}"
        if done.refused and not fault and ("; " not in done.refused or "\n" in done.refused):
            fault = f"a refusal without a remedy: {done.refused}"
        kind = "refused" if done.refused else "read"
        return Read(seed.name, kind, how, fault, done.cpu_s, done.peak_bytes)


@functools.cache
def _get_ready(synthetic: Path) -> None:
    """Whatever is loaded once: libraries, seeds, the decoder."""
    for seed in seeds(synthetic):
        with contextlib.suppress(CvsctError):
            for series in find_series(seed.path):
                open_series(series).read()
    confine()


def _read(path: Path, out: Path) -> str:
    """Read, derive and read again; what one series is refused for does not hide the next."""
    refusal: CvsctError | None = None
    for number, series in enumerate(find_series(path)):
        try:
            volume = _plausible(series)
            with contextlib.suppress(CvsctError):
                read_facts(series)
            writer = derived_writer(open_series(series), out / str(number), DERIVATION, series)
            writer.write(volume, volume.hu)
            for file in writer.finish().files:
                (again,) = find_series(file)
                open_series(again).read()
        except CvsctError as error:
            refusal = error
            with contextlib.suppress(CvsctError):
                read_facts(series)
    if refusal:
        raise refusal
    return "read"


def _plausible(series: SeriesFiles) -> CTVolume:
    stack = open_series(series)
    volume = stack.read()
    where = volume.geometry
    assert volume.hu.shape == stack.shape == (len(where.positions_mm), *volume.hu.shape[1:])
    assert volume.hu.size, "nothing was read"
    assert np.isfinite(volume.hu).all(), "values that are not finite"
    assert np.abs(volume.hu).max() <= MAX_STORED_HU, "values of no CT"
    assert np.isfinite(where.positions_mm).all(), "positions that are not finite"
    assert min(where.pixel_mm) > 0, "pixels without a size"
    return volume


def mutated_files(folder: Path, count: int, seed: int, workers: int = WORKERS) -> Finding:
    """Read so many damaged files, each seed as often as the others."""
    synthetic, place = folder / "seeds", folder / "place"
    write_synthetic(synthetic)
    place.mkdir()
    reads, failures = [], []
    reading = Reading(synthetic, place, seed)
    with contextlib.closing(Processes(reading, workers, max_deaths=count + 1)) as pool:
        numbers = iter(range(count))
        waiting = True
        while waiting or pool.in_flight:
            while pool.free_slots() and waiting:
                number = next(numbers, None)
                waiting = number is not None
                if number is not None:
                    pool.submit(number)
            for report in pool.poll() if pool.in_flight else ():
                if report.kind == "done":
                    reads.append(report.result)
                    if report.result.fault:
                        failures.append(f"{report.item} {_about(report.result)}")
                elif report.kind != "step":
                    failures.append(f"{report.item}: {report.kind}: {report.message}")
    kinds = Counter(read.kind for read in reads)
    figures = {
        **kinds,
        "seeds": len(seeds(synthetic)),
        "slowest_cpu_s": round(max((read.cpu_s for read in reads), default=0), 2),
        "largest_mib": max((read.peak_bytes for read in reads), default=0) >> 20,
        "reader_deaths": sum(": died: " in failure for failure in failures),
    }
    return Finding(GOAL, count, tuple(failures), figures)


def _about(read: Read) -> str:
    return f"{read.name} ({read.how}): {read.fault}"


if __name__ == "__main__":
    script(mutated_files, 10_000)
