"""Harmonization of scans on disk: one series, or many that can be resumed after a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cvsct.api.model import Model, load_model
from cvsct.core.errors import CvsctError, UsageError
from cvsct.core.files import refuse_existing, refuse_unwritable
from cvsct.core.kinds import PATH, refuse_no_path, refuse_other_kind, texts
from cvsct.core.manifest import Manifest
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.resumable import is_started
from cvsct.core.settings import refuse_outside
from cvsct.inference.cohort.harmonize_cohort import Cohort, harmonize_growing, harmonize_whole
from cvsct.inference.cohort.job import SeriesHarmonizer
from cvsct.inference.cohort.series_table import SERIES_TABLE
from cvsct.inference.cohort.shards import Shard, by_key
from cvsct.inference.streaming import Outcome, refuse_derived
from cvsct.inference.timestamp import fixed_timestamp, parse_timestamp
from cvsct.inference.uncertainty import TABLE_FILE, UNCERTAINTY, Asked
from cvsct.io.catalog import catalog
from cvsct.io.dicom.stack import SeriesFiles
from cvsct.io.left_out import LeftOut, lines
from cvsct.io.series import open_series
from cvsct.methods.base import RunOptions
from cvsct.methods.registry import find_method
from cvsct.model.bundle import CONFIG_FILE, Direction

NAMES = ("input", "hash")
"""How NIfTI output can be named: after its input file, or by a hash."""
LOCAL = ("*/*.dcm", "*/*.nii", "*/*.nii.gz", "*/uid_map.json", f"*/{TABLE_FILE}", SERIES_TABLE)
"""Files of an output folder that may identify a patient."""


@dataclass(frozen=True)
class HarmonizeResult:
    """Result of a run of `harmonize`: every series with its derived series or its error.

    Args:
        out: the output folder; each derived series has a sub-folder of its own.
        method: name of the model's method.
        outcomes: one `Outcome` per series, in the order of their UIDs: `series_uid`,
            `derived_uid`, `folder`, `n_slices`, `mean_change_hu` (HU), `guard`, `notes`, `error`.
        left_out: files that belong to no CT series, by reason.
        shard: the part of the series that this run harmonized, as `I/N`; empty for all.
        sources: the files of each series, by the name of its folder in `out`.
        dry_run: whether this was a dry run: nothing was written, and outcomes come from headers.
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
        """Outcomes of the series that were not harmonized; `error` has the reason of each."""
        return tuple(outcome for outcome in self.outcomes if outcome.error)

    @property
    def n_done(self) -> int:
        """Number of series that were harmonized."""
        return len(self.outcomes) - len(self.failed)

    @property
    def n_slices(self) -> int:
        """Number of slices that were harmonized."""
        return sum(outcome.n_slices for outcome in self.outcomes)

    @property
    def incomplete(self) -> bool:
        """Whether a scan may lack slices because of files that were left out."""
        return any(files.incomplete for files in self.left_out)

    def to_json(self) -> dict[str, Any]:
        """The result as plain values for JSON, with source and derived UIDs of every series."""
        return {
            "out": str(self.out),
            "method": self.method,
            **({"shard": self.shard} if self.shard else {}),
            **({"dry_run": True} if self.dry_run else {}),
            "n_done": self.n_done,
            "n_failed": len(self.failed),
            "n_slices": self.n_slices,
            "series": [outcome.to_json() for outcome in self.outcomes],
            "left_out": [files.to_json() for files in self.left_out],
        }


class AllSeriesFailedError(CvsctError):
    """None of several series could be harmonized.

    Args:
        result: the result of the run; `failed` has the reason of each series, and so has
            `series.csv` in the output folder.
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
    uncertainty: Asked = "none",
    workers: int = 1,
    shard: str = "",
    scheduler: str = "",
    resume: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
) -> HarmonizeResult:
    """Harmonize the scans under a path and write them as derived series.

    DICOM becomes derived DICOM (CT Image Storage, DICOM PS3.3 A.3), NIfTI becomes NIfTI. The
    output of a single series is atomic: `out` appears complete, or not at all. Of several series
    those that are finished are kept, and the same call continues after a crash.

    Args:
        source: a DICOM or NIfTI file, a series folder, or a tree that holds many series.
        out: the folder to write; it must not lie inside `source`.
        model: a `Model`, a model folder, or a name of `list_models`.
        direction: `a2b` from the model's source to its target, or `b2a` where the model maps
            both ways.
        engine: what runs a network: `auto`, `openvino` or `torch`.
        precision: precision of a network: `fp32` or `bf16`.
        guard: settings of the guard, as for `cvsct harmonize --guard`: `noise_db=12` changes a
            limit, `scan=note` accepts an unusual scan with a note, `off` checks nothing.
        keep_equipment: keep the scanner's Manufacturer and model in derived DICOM.
        nifti: also write each derived DICOM series as `.nii.gz`, in HU.
        names: name NIfTI output after its `input`, or by a `hash`.
        timestamp: time of making for the derived images: `now`, or a local time in ISO 8601;
            empty for none.
        force: also harmonize series that this program has derived.
        uncertainty: `table` writes beside each derived series how uncertain it is by slice and
            tissue (`uncertainty.csv`), `map` also for each voxel, in HU (`uncertainty.nii.gz`).
            It takes five to ten times as long, and is known of `spectrum` models trained on scans.
        workers: number of processes for several series; 0 for one per core.
        shard: `I/N` harmonizes part I of N of the series; empty for all.
        scheduler: address of a Dask scheduler whose workers harmonize the series.
        resume: continue in `out`, and try failed series again.
        dry_run: check the arguments, the model and every header; write nothing.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.

    Returns:
        A `HarmonizeResult` with the outcome of every series.

    Raises:
        UsageError: if arguments do not go together, a path does not exist, `out` is not empty and
            was not started by the same call, or `out` cannot be written.
        ModelError: if there is no such model, or it is damaged.
        CvsctError: if a single series cannot be read, or the guard refuses it.
        AllSeriesFailedError: if none of several series could be harmonized; `series.csv` in `out`
            has the reasons.
        StoppedError: on Ctrl-C; of several series those that are finished are kept.

    Example:
        >>> result = cvsct.harmonize(scans_of_a, out, model=model)
        >>> result.n_done, result.n_slices, result.failed
        (1, 6, ())
    """
    refuse_no_path("a volume in memory goes to Model.harmonize", source=source)
    refuse_no_path(out=out)
    refuse_other_kind((Model, *PATH), "a Model, a path or a name of list_models", model=model)
    source, out = Path(source), Path(out)
    requested = Shard.parse(shard) if shard else Shard()
    parse_timestamp(timestamp)
    refuse_outside(0, workers=workers)
    _refuse_arguments(source, model, out, names)
    if uncertainty not in UNCERTAINTY:
        raise UsageError(f"--uncertainty {uncertainty}: choose one of {', '.join(UNCERTAINTY)}")
    growing = bool(shard or scheduler or resume or is_started(out))
    if not growing:
        refuse_existing(out)
    refuse_unwritable(out, grows=growing or out.is_dir())  # many series fill a folder
    loaded_model = model if isinstance(model, Model) else load_model(model)
    reverse, method = loaded_model.is_reverse(direction), find_method(loaded_model.method)
    if precision != "fp32" and method.kind == "classical":
        note(f"--precision means nothing to {method.name}")
        precision = "fp32"
    harmonizer = SeriesHarmonizer(
        loaded_model.folder, loaded_model.sha256, reverse, RunOptions(engine, precision),
        keep_equipment, nifti=nifti, guard=texts(guard), force=force, uncertainty=uncertainty,
    )  # fmt: skip
    ready_model = harmonizer.load(loaded_model.bundle)
    if method.guarded and not loaded_model.bundle.guard:
        note("this model holds no guard; nothing tells which scans it is not made for")
    contents = catalog(source)
    for line in (*contents.notes, *lines(contents.left_out)):
        note(line)
    named = contents.series
    if names == "hash":
        named = tuple(replace(series, name="") for series in named)
    series_by_key = by_key(named, source, requested)
    shard_name = shard if requested.name else ""
    if dry_run:
        expected = tuple(
            _expected_outcome(key, series, force) for key, series in series_by_key.items()
        )
        return HarmonizeResult(
            out, method.name, expected, contents.left_out, shard_name, series_by_key, dry_run=True
        )
    growing = growing or len(named) != 1
    time = fixed_timestamp(out, timestamp) if growing else parse_timestamp(timestamp)
    cohort = Cohort(
        series_by_key,
        source,
        replace(harmonizer, timestamp=time),
        ready_model,
        Manifest(
            "harmonize",
            {
                "method": method.name,
                "reverse": reverse,
                "engine": engine,
                **({"precision": precision} if precision != "fp32" else {}),
                **({"guard": list(harmonizer.guard)} if harmonizer.guard else {}),
                **({"force": True} if force else {}),
                **({"names": names} if names != NAMES[0] else {}),
                **({"uncertainty": uncertainty} if uncertainty != "none" else {}),
                **loaded_model.bundle.settings,
            },
            model_sha256=loaded_model.sha256,
            local=LOCAL,
        ),
        progress,
        note,
    )
    if growing:
        summary = harmonize_growing(
            cohort, out, requested, workers=workers, scheduler=scheduler, retry=resume
        )
    else:
        if workers != 1:
            note("--workers means nothing to a single series")
        summary = harmonize_whole(cohort, out)
    result = HarmonizeResult(
        out, method.name, summary.outcomes, contents.left_out, shard_name, series_by_key
    )
    if summary.failed and not summary.n_done and not requested.name:
        raise AllSeriesFailedError(result)
    return result


def _expected_outcome(key: str, series: SeriesFiles, force: bool) -> Outcome:
    """Outcome of a series as far as its headers tell; nothing is harmonized."""
    try:
        scan = open_series(series)
        refuse_derived(series, force)
    except CvsctError as error:
        return Outcome(series.series_uid, key, error=str(error))
    return Outcome(series.series_uid, key, n_slices=len(scan), notes=scan.notes)


def _refuse_arguments(source: Path, model: Model | Path | str, out: Path, names: str) -> None:
    """Refuse unknown or swapped arguments, and an output folder inside the input folder.

    Raises:
        UsageError: naming the argument and the remedy.
    """
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
