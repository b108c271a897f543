"""Work on one series of a cohort; all classes here are sent between processes."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from cvsct.core.errors import CvsctError, HopelessError, SeriesError, unexpected
from cvsct.core.files import folder_sha256
from cvsct.guard.apply import Guard
from cvsct.inference.streaming import Outcome, derivation_of, harmonize_series
from cvsct.inference.uncertainty import Asked, refuse_no_repeated
from cvsct.io.dicom.header import label
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.dicom.write import Derivation
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.methods.volume_mapping import Engine, RepeatedMapping, VolumeMapping
from cvsct.model.bundle import Bundle, Direction


@dataclass(frozen=True)
class Job:
    """One attempt to harmonize one series.

    Args:
        key: key of the series in the journal.
        series: the files of the series.
        place: temporary folder of this attempt, which the process with the journal renames.
    """

    key: str
    series: SeriesFiles
    place: Path


@dataclass(frozen=True)
class JobResult:
    """Result of a job: a series that was harmonized and written.

    Args:
        outcome: outcome of the series.
        sha256: hash of the folder that was written (`core.files.folder_sha256`).
        seconds: wall time of the job.
        engine: the engine that ran the network; None for a method without a network.
    """

    outcome: Outcome
    sha256: str
    seconds: float
    engine: Engine | None


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for one direction: its mapping, and its guard with the user's settings.

    Args:
        repeated: its repeated fits, where its uncertainty is wanted.
    """

    bundle: Bundle
    mapping: VolumeMapping
    guard: Guard
    repeated: tuple[RepeatedMapping, ...] = ()


@dataclass(frozen=True)
class SeriesHarmonizer:
    """Function object that harmonizes one series after the other, in any process.

    Args:
        model: the model folder.
        model_sha256: hash that the model must have.
        reverse: whether to map from B to A.
        options: engine, precision and threads of a network.
        keep_equipment: whether derived images keep Manufacturer and model of the scanner.
        nifti: also write derived DICOM as NIfTI.
        guard: settings of the guard, as values of `--guard`.
        force: also harmonize series that this program has derived.
        timestamp: time of making of derived images, as in `Derivation`.
        uncertainty: what to write of it beside the images (`inference.uncertainty`).
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
    uncertainty: Asked = "none"

    def bundle(self) -> Bundle:
        """Read the model from its folder.

        Raises:
            CvsctError: if it cannot be read, or its hash is not `model_sha256`.
        """
        bundle = Bundle.read(self.model)
        if bundle.sha256 != self.model_sha256:
            raise CvsctError(f"{self.model}: another model than when the run began; run it again")
        return bundle

    def load(self, bundle: Bundle) -> LoadedModel:
        """Make a model ready for one direction, with the user's settings of its guard.

        Raises:
            CvsctError: if the model cannot run on this machine, or a guard setting is unknown.
        """
        direction: Direction = "b2a" if self.reverse else "a2b"
        method = find_method(bundle.method)
        mapping = method.load(bundle, direction, self.options)
        repeated = method.load_repeated(bundle, direction) if self.uncertainty != "none" else ()
        if self.uncertainty != "none":
            refuse_no_repeated(repeated)
        return LoadedModel(bundle, mapping, Guard.of(bundle, self.reverse, self.guard), repeated)

    def derivation(self, loaded: LoadedModel) -> Derivation:
        """Derivation that images of the loaded model record."""
        return derivation_of(
            loaded.bundle, loaded.mapping, self.reverse, self.keep_equipment, self.timestamp
        )

    def with_threads(self, threads: int) -> Self:
        """The same work with so many threads of a network's engine."""
        return replace(self, options=replace(self.options, threads=threads))

    @staticmethod
    def name_of(job: Job) -> str:
        """Name of a job: that of the folder of its series."""
        return job.place.name

    def sees(self, job: Job) -> bool:
        """Whether this machine sees the series, the model and the output folder."""
        files_visible = job.place.parent.is_dir() and job.series.files[0].parent.is_dir()
        return files_visible and self.model.is_dir()

    def __call__(self, job: Job, /) -> Generator[int, None, JobResult]:
        """Do a job with the model of this process, which is loaded once.

        Yields:
            The number of slices that are newly done; first 0, once the model is loaded.

        Raises:
            HopelessError: if the model cannot be used.
            CvsctError: if the series cannot be harmonized; its folder is removed.
            OSError: if the folder cannot be written.
        """
        return (yield from self.run(job, _load_once(self)))

    def run(self, job: Job, loaded: LoadedModel) -> Generator[int, None, JobResult]:
        """Do a job with a model that is already loaded; as `__call__` otherwise."""
        yield 0
        started = time.perf_counter()
        shutil.rmtree(job.place, ignore_errors=True)
        try:
            outcome = yield from harmonize_series(
                job.series, loaded.mapping, job.place, self.derivation(loaded),
                nifti=self.nifti, guard=loaded.guard, force=self.force,
                uncertainty=self.uncertainty, repeated=loaded.repeated,
            )  # fmt: skip
        except (CvsctError, OSError):
            raise
        except MemoryError:
            raise SeriesError(
                f"{label(job.series.files[0])}: not enough memory; use fewer workers"
            ) from None
        except Exception as error:  # its text may quote an attribute value
            raise SeriesError(f"{label(job.series.files[0])}: {unexpected(error)}") from None
        seconds = time.perf_counter() - started
        return JobResult(outcome, folder_sha256(job.place), seconds, loaded.mapping.engine)


@functools.lru_cache(maxsize=1)
def _load_once(harmonizer: SeriesHarmonizer) -> LoadedModel:
    """Load the model of this worker process; later calls return the same model."""
    try:
        return harmonizer.load(harmonizer.bundle())
    except CvsctError as error:
        raise HopelessError(str(error)) from error
