"""What a worker does with one series of a cohort; everything here travels between processes."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from cvsct.errors import CvsctError, HopelessError, SeriesError, unexpected
from cvsct.inference.guarding import Guard
from cvsct.inference.harmonizer import Outcome, derivation_of, harmonize_one
from cvsct.io.derived import Derivation
from cvsct.io.header import label
from cvsct.io.stack import SeriesFiles
from cvsct.methods import find_method
from cvsct.models.bundle import Bundle
from cvsct.models.mapping import Engine, VolumeMapping
from cvsct.runs import folder_sha256


@dataclass(frozen=True)
class Task:
    """One series, and the folder that this try of it writes.

    Args:
        key: of the series in the journal.
        place: nobody else's; given its final name only by who keeps the journal.
    """

    key: str
    series: SeriesFiles
    place: Path


@dataclass(frozen=True)
class Made:
    """What a worker has to say of a series that it wrote."""

    outcome: Outcome
    sha256: str
    seconds: float
    engine: Engine | None


@dataclass(frozen=True)
class Harmonising:
    """The work: a model by its folder and hash, and how it is used.

    Args:
        options: the loader's further ones, `(("precision", "bf16"),)`.
        threads: for a network; 0 leaves it to the engine.
        nifti: write derived DICOM as NIfTI too.
        guard: what the user set about the model's guards, in the words of `--guard`.
        force: harmonize even what this program derived.
        timestamp: as in `Derivation`.
    """

    model: Path
    model_sha256: str
    reverse: bool = False
    engine: str = "auto"
    options: tuple[tuple[str, str], ...] = ()
    keep_equipment: bool = False
    threads: int = 0
    nifti: bool = False
    guard: tuple[str, ...] = ()
    force: bool = False
    timestamp: str = ""

    def load(self) -> tuple[VolumeMapping, Derivation]:
        """The model, ready to be used.

        Raises:
            CvsctError: if it cannot be used here, or is not the one that was meant.
        """
        bundle = self._bundle()
        row = find_method(bundle.method)
        threads = {"threads": self.threads} if self.threads and row.kind != "classical" else {}
        mapping = row.load("loader")(
            bundle, self.reverse, self.engine, **dict(self.options), **threads
        )
        return mapping, derivation_of(
            bundle, mapping, self.reverse, self.keep_equipment, self.timestamp
        )

    def watching(self) -> Guard:
        """The model's guard, with what the user set.

        Raises:
            CvsctError: if it cannot be read, or the user's words set nothing.
        """
        return Guard.of(self._bundle(), self.reverse, self.guard)

    def _bundle(self) -> Bundle:
        bundle = Bundle.read(self.model)
        if bundle.sha256 != self.model_sha256:
            raise CvsctError(f"{self.model}: another model than when the run began; run it again")
        return bundle

    def __call__(self, task: Task) -> Generator[int, None, Made]:
        """Write a task's folder; says once, when the model is there, that it begins.

        Raises:
            HopelessError: if the model cannot be used.
            CvsctError: if the series must be refused; nothing of it is left.
            OSError: if it cannot be written.
        """
        mapping, derivation, guard = _loaded(self)
        yield 0
        begun = time.perf_counter()
        shutil.rmtree(task.place, ignore_errors=True)
        outcome = _harmonized(task, mapping, derivation, self, guard)
        seconds = time.perf_counter() - begun
        return Made(outcome, folder_sha256(task.place), seconds, mapping.engine)


@functools.lru_cache(maxsize=1)
def _loaded(work: Harmonising) -> tuple[VolumeMapping, Derivation, Guard]:
    """The model of this worker process, loaded once."""
    try:
        return *work.load(), work.watching()
    except CvsctError as error:
        raise HopelessError(str(error)) from error


def _harmonized(
    task: Task, mapping: VolumeMapping, derivation: Derivation, work: Harmonising, guard: Guard
) -> Outcome:
    try:
        return harmonize_one(
            task.series, mapping, task.place, derivation,
            nifti=work.nifti, guard=guard, force=work.force,
        )  # fmt: skip
    except (CvsctError, OSError):
        raise
    except MemoryError:
        reason = "not enough memory; use fewer workers"
    except Exception as error:  # its text may quote an attribute's value, its place does not
        reason = unexpected(error)
    raise SeriesError(f"{label(task.series.files[0])}: {reason}")
