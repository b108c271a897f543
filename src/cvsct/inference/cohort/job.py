"""What a worker does with one series of a cohort; everything here travels between processes."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from cvsct.core.errors import CvsctError, HopelessError, SeriesError, unexpected
from cvsct.core.files import folder_sha256
from cvsct.guard.apply import Guard
from cvsct.inference.streaming import Outcome, derivation_of, harmonize_series
from cvsct.io.dicom.header import label
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import Derivation
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.methods.volume_mapping import Engine, VolumeMapping
from cvsct.model.bundle import Bundle, Direction


@dataclass(frozen=True)
class Job:
    """One series, and the folder that this try of it writes.

    Args:
        key: of the series in the journal.
        place: nobody else's; given its final name only by who keeps the journal.
    """

    key: str
    series: SeriesFiles
    place: Path


@dataclass(frozen=True)
class JobResult:
    """What a worker reports of a series that it has written.

    Args:
        sha256: of the folder that was written (`core.files.folder_sha256`).
        seconds: it took.
        engine: what ran the network, where there is one.
    """

    outcome: Outcome
    sha256: str
    seconds: float
    engine: Engine | None


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for one direction: its mapping, and its guard with what the user set."""

    bundle: Bundle
    mapping: VolumeMapping
    guard: Guard


@dataclass(frozen=True)
class SeriesHarmonizer:
    """Harmonizes one series after the other: a model by its folder and hash, and its options.

    Args:
        options: engine, precision and threads of a network.
        nifti: write derived DICOM as NIfTI too.
        guard: what the user set about the model's guards, in the words of `--guard`.
        force: harmonize even what this program derived.
        timestamp: as in `Derivation`.
    """

    model: Path
    model_sha256: str
    reverse: bool = False
    options: RunOptions = field(default_factory=RunOptions)
    keep_equipment: bool = False
    nifti: bool = False
    guard: tuple[str, ...] = ()
    force: bool = False
    timestamp: str = ""

    def bundle(self) -> Bundle:
        """The model, read from its folder.

        Raises:
            CvsctError: if it cannot be read, or is not the one that was meant.
        """
        bundle = Bundle.read(self.model)
        if bundle.sha256 != self.model_sha256:
            raise CvsctError(f"{self.model}: another model than when the run began; run it again")
        return bundle

    def load(self, bundle: Bundle) -> LoadedModel:
        """The model made ready, with what the user set about its guard.

        Raises:
            CvsctError: if the model cannot be used here, or the user's words set nothing.
        """
        direction: Direction = "b2a" if self.reverse else "a2b"
        mapping = find_method(bundle.method).load(bundle, direction, self.options)
        return LoadedModel(bundle, mapping, Guard.of(bundle, self.reverse, self.guard))

    def derivation(self, loaded: LoadedModel) -> Derivation:
        """What derived images say of how they were made."""
        return derivation_of(
            loaded.bundle, loaded.mapping, self.reverse, self.keep_equipment, self.timestamp
        )

    def __call__(self, job: Job) -> Generator[int, None, JobResult]:
        """Write a job's folder with the model of this process; tells how many slices are new.

        The first number is 0, once the model is there.

        Raises:
            HopelessError: if the model cannot be used.
            CvsctError: if the series must be refused; nothing of it is left.
            OSError: if it cannot be written.
        """
        return (yield from self.run(job, _loaded(self)))

    def run(self, job: Job, loaded: LoadedModel) -> Generator[int, None, JobResult]:
        """The same with a model that is loaded already."""
        yield 0
        started = time.perf_counter()
        shutil.rmtree(job.place, ignore_errors=True)
        try:
            outcome = yield from harmonize_series(
                job.series, loaded.mapping, job.place, self.derivation(loaded),
                nifti=self.nifti, guard=loaded.guard, force=self.force,
            )  # fmt: skip
        except (CvsctError, OSError):
            raise
        except MemoryError:
            raise SeriesError(
                f"{label(job.series.files[0])}: not enough memory; use fewer workers"
            ) from None
        except Exception as error:  # its text may quote an attribute's value, its place does not
            raise SeriesError(f"{label(job.series.files[0])}: {unexpected(error)}") from None
        seconds = time.perf_counter() - started
        return JobResult(outcome, folder_sha256(job.place), seconds, loaded.mapping.engine)


@functools.lru_cache(maxsize=1)
def _loaded(harmonizer: SeriesHarmonizer) -> LoadedModel:
    """The model of this worker process, loaded once."""
    try:
        return harmonizer.load(harmonizer.bundle())
    except CvsctError as error:
        raise HopelessError(str(error)) from error
