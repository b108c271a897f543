"""Scans on disk rewritten as derived series: one series, or many that go on after a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cvsct.api.model import Model, load_model
from cvsct.core.errors import CvsctError, UsageError
from cvsct.core.files import refuse_existing
from cvsct.core.manifest import Manifest
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.resumable import is_started
from cvsct.inference.cohort.harmonize_cohort import Cohort, harmonize_growing, harmonize_whole
from cvsct.inference.cohort.job import SeriesHarmonizer
from cvsct.inference.cohort.series_table import SERIES_TABLE
from cvsct.inference.cohort.shards import Shard, by_key
from cvsct.inference.streaming import Outcome, refuse_derived
from cvsct.inference.timestamp import fixed_timestamp, parse_timestamp
from cvsct.io.catalog import catalog
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.left_out import LeftOut, lines
from cvsct.io.series import open_series
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.model.bundle import CONFIG_FILE, Direction

NAMES = ("input", "hash")
LOCAL = ("*/*.dcm", "*/*.nii", "*/*.nii.gz", "*/uid_map.json", SERIES_TABLE)
"""Files of an output folder that may identify a patient."""


@dataclass(frozen=True)
class HarmonizeResult:
    """What a run of `harmonize` has written, and what it has not.

    Args:
        out: the output folder; one sub-folder a derived series.
        method: of the model.
        outcomes: of every series, in the order of their UIDs.
        left_out: files that are no part of any series, by reason.
        shard: which part of many series this run did; empty for all.
        sources: the files of each series, by the name of its folder in `out`.
        dry_run: nothing was written; outcomes say what headers tell.
    """

    out: Path
    method: str
    outcomes: tuple[Outcome, ...]
    left_out: tuple[LeftOut, ...] = ()
    shard: str = ""
    sources: Mapping[str, SeriesFiles] = field(default_factory=dict, repr=False)
    dry_run: bool = False

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Series without a derived one; each `error` says why."""
        return tuple(outcome for outcome in self.outcomes if outcome.error)

    @property
    def n_done(self) -> int:
        """Series written."""
        return len(self.outcomes) - len(self.failed)

    @property
    def n_slices(self) -> int:
        """Slices written."""
        return sum(outcome.n_slices for outcome in self.outcomes)

    @property
    def incomplete(self) -> bool:
        """Whether a scan may lack slices, because of what was left out."""
        return any(each.incomplete for each in self.left_out)

    def to_json(self) -> dict[str, Any]:
        """The result as plain values, with source and derived UIDs of every series."""
        return {
            "out": str(self.out),
            "method": self.method,
            **({"shard": self.shard} if self.shard else {}),
            **({"dry_run": True} if self.dry_run else {}),
            "n_done": self.n_done,
            "n_failed": len(self.failed),
            "n_slices": self.n_slices,
            "series": [outcome.to_json() for outcome in self.outcomes],
            "left_out": [each.to_json() for each in self.left_out],
        }


class NoSeriesError(CvsctError):
    """Every one of several series has failed.

    Args:
        result: what a run that succeeds returns; `series.csv` in its folder has the same.
    """

    def __init__(self, result: HarmonizeResult) -> None:
        self.result = result
        reasons = [outcome.error for outcome in result.failed]
        super().__init__(
            f"none of {len(reasons)} series was harmonized ({result.out / SERIES_TABLE} has them "
            f"all): {reasons[0]}"
        )


def harmonize(
    source: Path | str,
    out: Path | str,
    *,
    model: Model | Path | str,
    direction: Direction = "a2b",
    engine: str = "auto",
    precision: str = "fp32",
    guard: Sequence[str] = (),
    keep_equipment: bool = False,
    nifti: bool = False,
    names: str = "input",
    timestamp: str = "",
    force: bool = False,
    workers: int = 1,
    shard: str = "",
    scheduler: str = "",
    resume: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
) -> HarmonizeResult:
    """Rewrite a DICOM series or tree, or NIfTI, as derived series of the other scanner.

    A single series appears in `out` whole or not at all. Of many, those that are done are kept,
    and the same call goes on after any crash.

    Args:
        source: a file, a series folder, or a tree with many series.
        out: the folder to write; it must not lie inside `source`.
        model: a `Model`, a model folder, or a name of `list_models`.
        direction: `a2b`, or `b2a` where the model serves both.
        engine, precision: of networks: `auto`, `openvino`, `torch`; `fp32`, `bf16`.
        guard: as `cvsct harmonize --guard`: `noise_db=12`, `scan=note`, `off`.
        keep_equipment: leave Manufacturer and model as they are.
        nifti: write each DICOM series as .nii.gz too.
        names: NIfTI output is named after its `input`, or by a `hash`.
        timestamp: `now` or a local time in ISO 8601 for the derived images; empty for none.
        force: harmonize even what this program derived.
        workers: processes for many series; 0 is one a core.
        shard: `I/N`, one of N parts of many series.
        scheduler: address of a Dask scheduler whose workers do many series.
        resume: try again what failed in `out`.
        dry_run: check the arguments, the model and every header; write nothing.
        progress, note: told of the work's state, and of what a user should know.

    Raises:
        UsageError: for arguments that do not go together, or an `out` that is in use.
        CvsctError: if the single series must be refused.
        NoSeriesError: if every one of many must be; `out` keeps the reasons.
        StoppedError: on Ctrl-C; of many series those that are done are kept.

    Example:
        >>> result = cvsct.harmonize(scans_of_a, out, model=model)
        >>> result.n_done, result.n_slices, result.failed
        (1, 6, ())
    """
    source, out = Path(source), Path(out)
    part = Shard.parse(shard) if shard else Shard()
    parse_timestamp(timestamp)
    _refuse_arguments(source, model, out, names)
    growing = bool(shard or scheduler or resume or is_started(out))
    if not growing:
        refuse_existing(out)
    used = model if isinstance(model, Model) else load_model(model)
    reverse, row = used.is_reverse(direction), find_method(used.method)
    if precision != "fp32" and row.kind == "classical":
        note(f"--precision means nothing to {row.name}")
        precision = "fp32"
    harmonizer = SeriesHarmonizer(
        used.folder, used.sha256, reverse, RunOptions(engine, precision), keep_equipment,
        nifti=nifti, guard=tuple(guard), force=force,
    )  # fmt: skip
    loaded = harmonizer.load(used.bundle)
    if row.guarded and not used.bundle.guard:
        note("this model holds no guard; nothing tells which scans it is not made for")
    listed = catalog(source)
    for line in (*listed.notes, *lines(listed.left_out)):
        note(line)
    found = [replace(each, name="") if names == "hash" else each for each in listed.series]
    series = by_key(found, source, part)
    name = shard if part.name else ""
    if dry_run:
        planned = tuple(_planned(key, files, force) for key, files in series.items())
        return HarmonizeResult(
            out, used.method, planned, listed.left_out, name, series, dry_run=True
        )
    growing = growing or len(found) != 1
    time = fixed_timestamp(out, timestamp) if growing else parse_timestamp(timestamp)
    cohort = Cohort(
        series,
        source,
        replace(harmonizer, timestamp=time),
        loaded,
        Manifest(
            "harmonize",
            {
                "method": used.method,
                "reverse": reverse,
                "engine": engine,
                **({"precision": precision} if precision != "fp32" else {}),
                **({"guard": list(harmonizer.guard)} if harmonizer.guard else {}),
                **({"force": True} if force else {}),
                **({"names": names} if names != NAMES[0] else {}),
                **used.bundle.settings,
            },
            model_sha256=used.sha256,
            local=LOCAL,
        ),
        progress,
        note,
    )
    if growing:
        summary = harmonize_growing(
            cohort, out, part, workers=workers, scheduler=scheduler, retry=resume
        )
    else:
        if workers != 1:
            note("--workers means nothing to a single series")
        summary = harmonize_whole(cohort, out)
    result = HarmonizeResult(out, used.method, summary.outcomes, listed.left_out, name, series)
    if summary.failed and not summary.n_done and not part.name:
        raise NoSeriesError(result)
    return result


def _planned(key: str, files: SeriesFiles, force: bool) -> Outcome:
    """What headers tell of a series that is not harmonized now."""
    try:
        scan = open_series(files)
        refuse_derived(files, force)
    except CvsctError as error:
        return Outcome(files.series_uid, key, error=str(error))
    return Outcome(files.series_uid, key, n_slices=len(scan), notes=scan.notes)


def _refuse_arguments(source: Path, model: Model | Path | str, out: Path, names: str) -> None:
    """Refuse swapped or unknown arguments, and an OUT whose result the next run would take in."""
    if names not in NAMES:
        raise UsageError(f"--names {names}: choose one of {', '.join(NAMES)}")
    swapped = not isinstance(model, Model) and not (Path(model) / CONFIG_FILE).is_file()
    if (source / CONFIG_FILE).is_file() and swapped:
        raise UsageError(
            f"{source}: a model, expected scans; the scans come first: "
            "cvsct harmonize SCANS --model MODEL"
        )
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out}: lies inside INPUT; name a folder beside it")
