"""`cvsct evaluate`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct.cli.left_out import tell_left_out
from cvsct.cli.words import know, note
from cvsct.errors import UsageError

if TYPE_CHECKING:
    from cvsct.evaluation.feature_cache import FeatureCache

REGIONS = ("squares", "slices")


def evaluate(
    harmonized: Annotated[Path, typer.Option(help="What `cvsct harmonize` wrote.")],
    target: Annotated[Path, typer.Option(help="Scans of scanner B to compare with.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    source: Annotated[Path | None, typer.Option(help="The scans before harmonisation.")] = None,
    repeat: Annotated[
        Path | None, typer.Option(help="The target scanned once more: what no method surpasses.")
    ] = None,
    passed: Annotated[
        Path | None, typer.Option(help="The target put through the model, to be left alone.")
    ] = None,
    regions: Annotated[
        str, typer.Option(help="Where features are measured: squares, or whole slices.")
    ] = "squares",
    masks: Annotated[
        list[Path] | None,
        typer.Option(help="Measure in these instead: NIfTI, DICOM SEG, RTSTRUCT; on the target."),
    ] = None,
    structures: Annotated[
        list[str] | None,
        typer.Option(help="Of the masks only these, by name or pattern (GTV*); again for more."),
    ] = None,
    rois: Annotated[int, typer.Option(min=3, help="Soft-tissue squares to take.")] = 24,
    nodules: Annotated[
        Path | None, typer.Option(help="The nodules.csv of a simulation; its truth is compared.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Where those squares lie.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
    pair: Annotated[
        bool, typer.Option("--pair", help="Compare slices by position, whatever is shown.")
    ] = False,
    unpaired: Annotated[
        bool, typer.Option("--unpaired", help="Compare no slices, only texture spectra.")
    ] = False,
    cache: Annotated[
        bool, typer.Option(help="Keep features in the user's cache folder and use them again.")
    ] = True,
) -> None:
    """Measure how alike the scanners' images are, before and after: metrics.json, report.html."""
    from cvsct.evaluation.guarded import guards_of
    from cvsct.evaluation.nodule_truth import read_nodules
    from cvsct.evaluation.report import EvaluationSettings, evaluate, write_report
    from cvsct.io.catalog import catalog
    from cvsct.io.dicom import read_series
    from cvsct.io.masks import read_target_masks
    from cvsct.io.provenance import check_roles, origin_of
    from cvsct.runs import Manifest, new_folder, refuse_existing
    from cvsct.terminal import progress

    refuse_existing(out)
    if regions not in REGIONS:
        raise UsageError(f"no regions {regions!r}; choose one of {', '.join(REGIONS)}, or --masks")
    if structures and not masks:
        raise UsageError("--structures chooses among masks; give --masks too")
    if pair and unpaired:
        raise UsageError("--pair and --unpaired exclude each other; give one of them")
    settings = EvaluationSettings.model_validate(
        {
            "regions": "masks" if masks else regions, "rois": rois, "seed": seed,
            "workers": workers,
            "pairing": "forced" if pair else "off" if unpaired else "checked",
        }
    )  # fmt: skip
    remarks: list[str] = []
    manifest = Manifest("evaluate", settings.model_dump(mode="json"), local=["features.csv"])
    folders = {
        "harmonized": harmonized, "target": target, "source": source, "repeat": repeat,
        "passed": passed,
    }  # fmt: skip
    with manifest.timed("reading"):
        know(*folders.values())
        found_in = {name: catalog(path) for name, path in folders.items() if path is not None}
        for name, listed in found_in.items():
            tell_left_out(listed.left_out, f"{name} scans")
        files = {name: listed.series for name, listed in found_in.items()}
        scans = {name: list(map(read_series, series)) for name, series in files.items()}
        origins = {name: list(map(origin_of, files[name], scans[name])) for name in scans}
        remarks += check_roles(origins)
        drawn = read_target_masks(masks or [], scans["target"], structures or [], remarks.append)
        truths = read_nodules(nodules) if nodules else ()
    for remark in remarks:
        note(f"note: {remark}")
    with manifest.timed("measuring"):
        found = evaluate(
            scans["harmonized"],
            scans["target"],
            scans.get("source"),
            settings,
            progress(),
            repeat=scans.get("repeat"),
            masks=drawn,
            nodules=truths,
            passed=scans.get("passed", ()),
            cache=_cache() if cache else None,
            note=lambda message: note(f"note: {message}"),
            remarks=remarks,
        )
    found = replace(found, guards=guards_of(_manifest(harmonized), scans["harmonized"]))
    with new_folder(out) as folder:
        with manifest.timed("writing"):
            write_report(found, folder)
        manifest.inputs = {role: [v.series_uid for v in each] for role, each in scans.items()}
        manifest.figures = {"metrics": "metrics.json"}
        manifest.write(folder)
    print(found.summary())
    print(f"{out / 'report.html'}")


def _manifest(folder: Path) -> dict[str, Any]:
    """What `cvsct harmonize` wrote of itself; empty where it is not there or not its own."""
    from cvsct.runs import MANIFEST

    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("command") == "harmonize" else {}


def _cache() -> FeatureCache:
    from cvsct.evaluation.feature_cache import FeatureCache

    return FeatureCache()
