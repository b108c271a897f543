"""`cvsct harmonize`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cvsct.cli.guards import tell_guards, tell_missing, tell_notes
from cvsct.cli.left_out import tell_left_out
from cvsct.cli.words import EXIT_SOME_FAILED, complain, know, note
from cvsct.errors import CvsctError, UsageError

if TYPE_CHECKING:
    from cvsct.inference.ending import Ending
    from cvsct.inference.guarding import Guard
    from cvsct.inference.task import Harmonising
    from cvsct.io.stack import SeriesFiles
    from cvsct.methods import Method
    from cvsct.models.bundle import Bundle
    from cvsct.models.mapping import VolumeMapping
    from cvsct.runs import Manifest

NAMES = ("input", "hash")
LOCAL = ("*/*.dcm", "*/*.nii", "*/*.nii.gz", "*/uid_map.json")
"""Files of OUT that may identify a patient."""


def harmonize(
    scans: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A DICOM series or tree, or NIfTI.")
    ],
    model: Annotated[Path, typer.Option(help="A model folder, or a name of `cvsct models`.")],
    out: Annotated[Path, typer.Option(help="The folder to write, one sub-folder a series.")],
    reverse: Annotated[bool, typer.Option("--reverse", help="From B to A.")] = False,
    engine: Annotated[str, typer.Option(help="auto, openvino or torch.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16: faster, some HU off, labelled as such.")
    ] = "fp32",
    keep_equipment: Annotated[
        bool, typer.Option("--keep-equipment", help="Leave Manufacturer and model as they are.")
    ] = False,
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Write each DICOM series as .nii.gz too.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes for many series; 0 is one a core.")
    ] = 1,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="One of N parts of many series, as of a job array.")
    ] = "",
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler whose workers do many series.")
    ] = "",
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another limit than the model card's, or NAME=off; scan=note; slices=refuse; off.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in OUT, and try again what failed there.")
    ] = False,
    timestamp: Annotated[
        str,
        typer.Option(
            metavar="now|ISO",
            help="Date and time for the derived images, local; without it they have none.",
        ),
    ] = "",
    names: Annotated[
        str, typer.Option(help="NIfTI output is named after its input, or by a hash: input, hash.")
    ] = "input",
    force: Annotated[
        bool, typer.Option("--force", help="Harmonize even what cvsct derived already.")
    ] = False,
) -> None:
    """Rewrite scans as derived series that read like the other scanner's.

    A scan unlike those the model learned from is refused; slices that were changed too much are
    written, flagged and told in manifest.json. Of many series, those that are done are kept: the
    same command goes on after any crash.
    """
    from cvsct.cli.harmonize_cohort import harmonize_cohort
    from cvsct.inference.shard import Shard, by_key
    from cvsct.inference.task import Harmonising
    from cvsct.inference.timestamp import fixed_timestamp, parse_timestamp
    from cvsct.io.catalog import catalog
    from cvsct.methods import find_method
    from cvsct.models.bundle import Bundle
    from cvsct.models.bundled import model_folder
    from cvsct.plans import begun
    from cvsct.runs import Manifest, refuse_existing

    part = Shard.parse(shard) if shard else Shard()
    parse_timestamp(timestamp)
    _refuse_arguments(scans, model, out, names)
    many = bool(shard or scheduler or resume or begun(out))
    if not many:
        refuse_existing(out)
    place = model_folder(model).absolute()
    bundle = Bundle.read(place)
    row = find_method(bundle.method)
    if reverse and not row.reversible:
        raise UsageError(f"{bundle.method} maps only from A to B; train it with the scans swapped")
    options = _options(precision, row)
    given = tuple(options.items())
    work = Harmonising(
        place, bundle.sha256, reverse, engine, given, keep_equipment, nifti=nifti,
        guard=tuple(guard or ()), force=force,
    )  # fmt: skip
    mapping, _ = work.load()
    watching = work.watching()
    tell_missing(bundle, row)
    know(scans)
    listed = catalog(scans)
    for remark in listed.notes:
        note(f"note: {remark}")
    incomplete = tell_left_out(listed.left_out)
    series = list(listed.series)
    if names == "hash":
        series = [replace(each, name="") for each in series]
    manifest = Manifest(
        "harmonize",
        {
            "method": bundle.method,
            "reverse": reverse,
            "engine": engine,
            **options,
            **({"guard": list(work.guard)} if work.guard else {}),
            **({"force": True} if force else {}),
            **({"names": names} if names != NAMES[0] else {}),
            **bundle.settings,
        },
        model_sha256=bundle.sha256,
        local=LOCAL,
    )
    if not many and len(series) == 1:
        if workers != 1:
            note("note: --workers means nothing to a single series")
        if mapping.engine:
            note(f"engine: {mapping.engine}")
        work = replace(work, timestamp=parse_timestamp(timestamp))
        _one(series[0], bundle, mapping, watching, out, work, manifest)
        _end(incomplete)
        return
    work = replace(work, timestamp=fixed_timestamp(out, timestamp))
    tasks = by_key(series, scans, part)
    del series  # with absolute paths it would be there twice
    done = harmonize_cohort(
        tasks, work, mapping.engine, out, manifest, part,
        workers=workers, scheduler=scheduler, again=resume,
    )  # fmt: skip
    _tell_cohort(done, bundle.method, out, shard if part.name else "", tasks)
    _end(incomplete)


def _options(precision: str, row: Method) -> dict[str, str]:
    """What the model's loader is to be told beside the engine."""
    if precision == "fp32":
        return {}
    if row.kind == "classical":
        note(f"note: --precision means nothing to {row.name}")
        return {}
    return {"precision": precision}


def _end(incomplete: bool) -> None:
    """Exit code 3 where all went well but for slices that a scan may lack."""
    if incomplete:
        sys.exit(EXIT_SOME_FAILED)


def _tell_cohort(
    done: Ending, method: str, out: Path, shard: str, tasks: Mapping[str, SeriesFiles]
) -> None:
    """What became of many series; ends the program with exit code 3 where some failed."""
    failed = done.failed
    if failed and not done.n_done and not shard:
        more = f" (and {len(failed) - 1} more series failed)" if len(failed) > 1 else ""
        raise CvsctError(f"{failed[0].error}{more}")
    where = f"{out}, shard {shard}" if shard else str(out)
    print(f"{where}: {done.n_done} series, {done.n_slices} slices, by {method}")
    tell_notes(done.outcomes)
    tell_guards(done.outcomes)
    if failed:
        for outcome in failed:
            complain(outcome.error, tasks[outcome.folder].files)
        note("note: the same command with --resume tries again what failed")
        sys.exit(EXIT_SOME_FAILED)


def _refuse_arguments(scans: Path, model: Path, out: Path, names: str) -> None:
    """Refuse swapped or unknown arguments, and an OUT whose result the next run would take in."""
    from cvsct.models.bundle import CONFIG_FILE

    if names not in NAMES:
        raise UsageError(f"--names {names}: choose one of {', '.join(NAMES)}")
    if (scans / CONFIG_FILE).is_file() and not (model / CONFIG_FILE).is_file():
        raise UsageError(
            f"{scans}: a model, expected scans; the scans come first: "
            "cvsct harmonize SCANS --model MODEL"
        )
    if scans.is_dir() and out.resolve().is_relative_to(scans.resolve()):
        raise UsageError(f"{out}: lies inside INPUT; name a folder beside it")


def _one(
    series: SeriesFiles,
    bundle: Bundle,
    mapping: VolumeMapping,
    guard: Guard,
    out: Path,
    work: Harmonising,
    manifest: Manifest,
) -> None:
    """A single series, in this process: OUT appears whole or not at all."""
    from cvsct.inference.harmonizer import harmonize_series
    from cvsct.runs import new_folder
    from cvsct.terminal import progress

    with new_folder(out) as folder:
        with manifest.timed("harmonising"):
            (outcome,) = harmonize_series(
                [series], bundle, mapping, folder, work.reverse, work.keep_equipment, progress(),
                work.nifti, guard, work.force, work.timestamp,
            )  # fmt: skip
        if outcome.error:
            raise CvsctError(outcome.error)
        manifest.inputs = {"series": [outcome.series_uid]}
        manifest.figures = {
            "series": [outcome.to_json()],
            "n_slices": outcome.n_slices,
            "slices_per_s": round(outcome.n_slices / manifest.timings_s["harmonising"], 2),
            **({"engine": mapping.engine.to_json()} if mapping.engine else {}),
        }
        manifest.write(folder)
    print(f"{out}: 1 series, {outcome.n_slices} slices, by {bundle.method}")
    tell_notes([outcome])
    tell_guards([outcome])
