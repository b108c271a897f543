"""The command line: parse, call, print. Everything heavy is imported by the command that needs it.

Exit codes: 0 success, 1 the run failed, 2 bad arguments, 3 some series failed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct import __version__
from cvsct.errors import CvsctError, UsageError, explain

if TYPE_CHECKING:
    from cvsct.methods import Method
    from cvsct.models.bundle import Bundle
    from cvsct.volume import CTVolume

EXIT_SOME_FAILED = 3

app = typer.Typer(
    help="Make CT scans of one scanner read like scans of another. For research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error written for the user becomes one line and an exit code."""
    try:
        app(args=arguments, prog_name="cvsct")
    except CvsctError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(explain(error), CvsctError.exit_code)


def _fail(message: str, code: int) -> None:
    _complain(message)
    sys.exit(code)


def _complain(message: str) -> None:
    print(f"cvsct: error: {' '.join(message.split())}", file=sys.stderr)


def _note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        print(f"cvsct {__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(message)s"
    )


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A row of `cvsct methods`.")],
    source: Annotated[Path, typer.Option(help="Scans of scanner A: DICOM files in any tree.")],
    target: Annotated[Path, typer.Option(help="Scans of scanner B. Other patients are fine.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    preset: Annotated[str, typer.Option(help="paper, stable or cpu.")] = "cpu",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop by wall time.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT's checkpoint.")] = False,
) -> None:
    """Learn to make scans of A read like scans of B, from unpaired scans."""
    from cvsct.io.dicom import read_all
    from cvsct.methods import find_method
    from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE
    from cvsct.runs import (
        Manifest,
        TrainingRequest,
        new_folder,
        refuse_existing,
        refuse_unknown_preset,
    )
    from cvsct.terminal import progress

    row = find_method(method)
    settings = {**row.settings, **_settings(setting or [])}
    refuse_unknown_preset(preset)
    if not resume:
        if (out / CHECKPOINT_FILE).exists() and not (out / SUMS_FILE).exists():
            raise UsageError(f"{out}: holds an unfinished training; go on with --resume")
        refuse_existing(out)
    elif (out / SUMS_FILE).exists() and max_steps is None and max_minutes is None:
        raise UsageError(f"{out}: this training is finished; give a higher --max-steps to go on")
    _refuse_same_path(source, target)
    manifest = Manifest(
        f"train {method}", {"method": method, "preset": preset, "seed": seed, **settings}
    )
    with manifest.timed("reading"):
        scans_a, scans_b = read_all(source), read_all(target)
    _refuse_same_series(scans_a, scans_b)
    asked = {
        "preset": preset != "cpu",
        "max_steps": max_steps is not None,
        "max_minutes": max_minutes is not None,
        "seed": seed != 0,
        "resume": resume,
    }
    _note_unused(row, [name for name, given in asked.items() if given])
    request = TrainingRequest(
        method=method,
        out=out,
        settings=settings,
        preset=preset,
        max_steps=max_steps,
        max_minutes=max_minutes,
        seed=seed,
        resume=resume and "resume" in row.uses,
        progress=progress(),
    )
    with manifest.timed("training"):
        bundle: Bundle = row.load("trainer")(scans_a, scans_b, request)
    manifest.inputs = {
        "source": [scan.series_uid for scan in scans_a],
        "target": [scan.series_uid for scan in scans_b],
    }
    checkpoints = "resume" in row.uses  # such a training already has its folder
    with contextlib.nullcontext(out) if checkpoints else new_folder(out) as folder:
        bundle = bundle.write(folder)
        manifest.figures, manifest.model_sha256 = bundle.training, bundle.sha256
        manifest.write(folder)
    print(f"{out}: {method} from {bundle.source} to {bundle.target}, sha256 {bundle.sha256[:12]}")


@app.command()
def harmonize(
    scans: Annotated[Path, typer.Argument(metavar="INPUT", help="A DICOM file, series or tree.")],
    model: Annotated[Path, typer.Option(help="A model folder.")],
    out: Annotated[Path, typer.Option(help="The folder to write, one sub-folder a series.")],
    reverse: Annotated[bool, typer.Option("--reverse", help="From B to A.")] = False,
    engine: Annotated[str, typer.Option(help="auto, openvino or torch.")] = "auto",
    keep_equipment: Annotated[
        bool, typer.Option("--keep-equipment", help="Leave Manufacturer and model as they are.")
    ] = False,
) -> None:
    """Rewrite scans as derived DICOM series that read like the other scanner's."""
    from cvsct.inference.harmonizer import harmonize_series
    from cvsct.io.dicom import find_series
    from cvsct.methods import find_method
    from cvsct.models.bundle import Bundle
    from cvsct.runs import Manifest, new_folder, refuse_existing
    from cvsct.terminal import progress

    refuse_existing(out)
    bundle = Bundle.read(model)
    row = find_method(bundle.method)
    if reverse and not row.reversible:
        raise UsageError(f"{bundle.method} maps only from A to B; train it with the scans swapped")
    mapping = row.load("loader")(bundle, reverse, engine)
    series = find_series(scans)
    manifest = Manifest(
        "harmonize",
        {"method": bundle.method, "reverse": reverse, "engine": engine, **bundle.settings},
        model_sha256=bundle.sha256,
    )
    with new_folder(out) as folder:
        with manifest.timed("harmonising"):
            outcomes = harmonize_series(
                series, bundle, mapping, folder, reverse, keep_equipment, progress()
            )
        failed = [outcome for outcome in outcomes if outcome.error]
        if len(failed) == len(outcomes):
            more = f" (and {len(failed) - 1} more series failed)" if len(failed) > 1 else ""
            raise CvsctError(f"{failed[0].error}{more}")
        manifest.inputs = {"series": [outcome.series_uid for outcome in outcomes]}
        slices = sum(outcome.n_slices for outcome in outcomes)
        manifest.figures = {
            "series": [outcome.to_json() for outcome in outcomes],
            "n_slices": slices,
            "slices_per_s": round(slices / manifest.timings_s["harmonising"], 2),
        }
        manifest.write(folder)
    print(f"{out}: {len(outcomes) - len(failed)} series, {slices} slices, by {bundle.method}")
    if failed:
        for outcome in failed:
            _complain(outcome.error)
        sys.exit(EXIT_SOME_FAILED)


@app.command()
def evaluate(
    harmonized: Annotated[Path, typer.Option(help="What `cvsct harmonize` wrote.")],
    target: Annotated[Path, typer.Option(help="Scans of scanner B to compare with.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    source: Annotated[Path | None, typer.Option(help="The scans before harmonisation.")] = None,
    rois: Annotated[int, typer.Option(min=3, help="Soft-tissue regions to take features of.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Where those regions lie.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
) -> None:
    """Measure how alike the scanners' images are, before and after: metrics.json, report.html."""
    from cvsct.evaluation.report import EvaluationSettings, evaluate, write_report
    from cvsct.io.dicom import read_all
    from cvsct.runs import Manifest, new_folder, refuse_existing
    from cvsct.terminal import progress

    refuse_existing(out)
    settings = EvaluationSettings(rois=rois, seed=seed, workers=workers)
    manifest = Manifest("evaluate", settings.model_dump(mode="json"))
    with manifest.timed("reading"):
        scans = {"harmonized": read_all(harmonized), "target": read_all(target)}
        if source is not None:
            scans["source"] = read_all(source)
    with manifest.timed("measuring"):
        found = evaluate(
            scans["harmonized"], scans["target"], scans.get("source"), settings, progress()
        )
    with new_folder(out) as folder:
        write_report(found, folder)
        manifest.inputs = {role: [v.series_uid for v in each] for role, each in scans.items()}
        manifest.figures = {"metrics": "metrics.json"}
        manifest.write(folder)
    print(found.summary())
    print(f"{out / 'report.html'}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="The folder to write; one begun before goes on.")],
    scale: Annotated[str, typer.Option(help="tiny, demo or paper.")] = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Other bodies, other noise.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
    mas: Annotated[float, typer.Option(min=1, max=1000, help="Tube load of a rotation.")] = 100,
    match_dose: Annotated[
        bool, typer.Option(help="Equal CTDIvol on both scanners instead of equal mAs.")
    ] = False,
    shift_px: Annotated[
        float, typer.Option(min=-10, max=10, help="Misregistration of the test pair, in pixels.")
    ] = 0,
    parenchyma: Annotated[
        bool, typer.Option("--parenchyma", help="Lung tissue in the phantom, not air alone.")
    ] = False,
    fov_mm: Annotated[float, typer.Option(min=100, max=350, help="Field of view.")] = 350,
) -> None:
    """Scan virtual bodies on two virtual scanners: a benchmark of CT as DICOM."""
    from cvsct.io.simulated import write_simulated
    from cvsct.runs import refuse_existing
    from cvsct.scanner.benchmark import Options, plan
    from cvsct.scanner.campaign import PLAN, run_campaign
    from cvsct.scanner.imaging import load_simulator
    from cvsct.terminal import progress

    if not (out / PLAN).exists():
        refuse_existing(out)
    options = Options(float(mas), match_dose, float(shift_px), parenchyma, float(fov_mm))
    scans = plan(scale, seed, options)
    load_simulator()
    outcome = run_campaign(
        scans,
        {"scale": scale, "seed": seed, **asdict(options)},
        out,
        write_simulated,
        workers,
        progress(),
        announce=_note,
    )
    print(
        f"{out}: {outcome.n_images} images in {outcome.n_series} series of {outcome.n_bodies} "
        f"bodies, {outcome.images_per_s:g} images/s"
    )
    if outcome.failed:
        for scan, why in outcome.failed.items():
            _complain(f"{scan}: {why}")
        sys.exit(EXIT_SOME_FAILED)


@app.command()
def methods(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the harmonisation methods."""
    from cvsct.methods import METHODS

    if as_json:
        keys = ("name", "kind", "reversible", "recommended", "summary")
        print(json.dumps([{key: getattr(row, key) for key in keys} for row in METHODS.values()]))
        return
    for row in METHODS.values():
        mark = "  (recommended)" if row.recommended else ""
        print(f"{row.name:<10} {row.kind:<10} {row.summary}{mark}")


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; values that read as JSON are taken as such, others as text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes key=value, not {pair!r}")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings


def _refuse_same_path(source: Path, target: Path) -> None:
    if source.exists() and target.exists() and source.samefile(target):
        raise UsageError(f"source and target are both {source}; give scans of two scanners")


def _refuse_same_series(source: Sequence[CTVolume], target: Sequence[CTVolume]) -> None:
    both = {scan.series_uid for scan in source} & {scan.series_uid for scan in target}
    if both:
        raise UsageError(
            f"{len(both)} series lie in both source and target; give scans of two scanners"
        )


def _note_unused(row: Method, asked: Sequence[str]) -> None:
    for name in asked:
        if name not in row.uses:
            print(f"note: --{name.replace('_', '-')} means nothing to {row.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
