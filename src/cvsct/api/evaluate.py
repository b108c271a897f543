"""Evaluation of harmonized scans against scans of the target scanner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvsct.api.model import HarmonizedVolume
from cvsct.core.errors import UsageError, need_extra
from cvsct.core.files import new_folder, refuse_missing, refuse_no_place
from cvsct.core.kinds import (
    PATH,
    PATH_WORDS,
    refuse_given_no_path,
    refuse_other_kinds_in,
    texts,
)
from cvsct.core.manifest import MANIFEST, Manifest
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.settings import of_arguments
from cvsct.core.sides import Side, with_old_keys
from cvsct.core.volume import CTVolume
from cvsct.evaluation.command import command_of
from cvsct.evaluation.evaluate import evaluate as measure
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.guards import GuardRecord, guards_of, record_in_memory
from cvsct.evaluation.identity import identity_of, report_salt
from cvsct.evaluation.image.nodule_truth import read_nodules
from cvsct.evaluation.independence import independence_of
from cvsct.evaluation.report.pdf import find_browser, write_pdf
from cvsct.evaluation.report.write import write_report
from cvsct.evaluation.result import Evaluation
from cvsct.evaluation.scorecard.tolerances import Tolerances
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.evaluation.told_uncertainty import uncertainty_of
from cvsct.io.catalog import catalog
from cvsct.io.left_out import lines
from cvsct.io.masks import read_target_masks
from cvsct.io.provenance import (
    Origin,
    check_roles,
    doubtful_roles,
    origin_of,
    origin_of_volume,
    wrong_direction,
)
from cvsct.io.read import read_series

Volume = CTVolume | HarmonizedVolume
"""A volume in memory, or a result of `Model.harmonize`."""
Scans = Path | str | Volume | Sequence[Volume]
"""Scans of one side of an evaluation: a path, one volume in memory, or several."""

SIDE_WORDS = "a path of scans, a CTVolume or HarmonizedVolume, or a list of volumes"

REGIONS = ("squares", "slices")
"""Where features can be measured without masks: squares of soft tissue, or whole slices."""


def evaluate(
    harmonized: Scans,
    target: Scans,
    *,
    source: Scans | None = None,
    retest: Scans | None = None,
    target_harmonized: Scans | None = None,
    masks: Sequence[Path | str] = (),
    structures: Sequence[str] = (),
    nodules: Path | str | None = None,
    regions: str = "squares",
    rois: int = 24,
    pairing: str = "checked",
    seed: int = 0,
    workers: int = 0,
    ibsi: bool = False,
    cache: bool = True,
    tolerances: Path | str | Tolerances | None = None,
    pdf: bool = False,
    out: Path | str | None = None,
    progress: Progress = silent,
    note: Note = log_note,
) -> Evaluation:
    """Measure how closely harmonized scans agree with scans of the target scanner.

    Image quality, radiomic features, texture spectra and physics are compared, for the harmonized
    scans and, where it is given, for their source. Where slices show the same place of the same
    body they are compared one by one (paired); otherwise distributions are compared (unpaired).
    `docs/reference/evaluation.md` defines every figure.

    Args:
        harmonized: the output folder of `harmonize`, or volumes in memory: results of
            `Model.harmonize`, which bring the findings of the guard, or any `CTVolume`.
        target: scans of scanner B to compare with, as a path or volumes in memory; so are the
            further sides.
        source: the scans before they were harmonized.
        retest: the target scanned a second time. No method can agree better with the target.
        target_harmonized: the target put through the model, which should leave it unchanged.
        masks: files with regions (NIfTI, DICOM SEG, RTSTRUCT); features are measured there instead
            of in squares. They are drawn on the target, with `pairing="off"` on any of the scans.
        structures: names or patterns of the structures to use from `masks`; empty for all.
        nodules: the `nodules.csv` of a simulation, with the true nodules.
        regions: where features are measured without masks: `squares` of soft tissue, or whole
            `slices`.
        rois: number of squares.
        pairing: `checked` compares slices one by one where they show the same body, `forced`
            wherever their positions agree, `off` never.
        seed: seed of the random positions of the squares.
        workers: number of processes; 0 for one per core.
        ibsi: compare features by IBSI's gray levels too, which doubles the time of features.
        cache: keep features in the user's cache folder and reuse them.
        tolerances: tolerances of the scorecard, or a TOML file with some of them; None for the
            defaults.
        pdf: also print the report to `report.pdf`, which needs Chromium, Chrome or Edge.
        out: folder to write `metrics.json`, `features.csv`, `report.html` and `manifest.json` to;
            None writes nothing. Of scans that do not pair `features_wide.csv` and
            `features_long.csv` hold the features, and `groups.html` compares the scanners; see
            docs/reference/groups.md.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read. Among them are doubtful roles:
            harmonized series of other programs; series harmonized to the scanner that they come
            from; a target of that scanner; one series in two roles; a source, target or retest that
            `harmonize` wrote; a retest of another scanner or kernel than the target's.

    Returns:
        The `Evaluation`: `scorecard`, `paired`, `summary()`, `notes`, and all figures.

    Raises:
        UsageError: if arguments do not go together or are of another kind, a path does not exist,
            or `out` is not empty or cannot be written.
        MissingExtraError: if the extra `evaluate` is not installed.
        BrowserError: if `pdf` finds no browser, before any work; or if the browser fails, after all
            other files are written.
        EvaluationError: if the scans cannot be compared: a source, target or retest that
            `harmonize` wrote beside harmonized series that it did not write (exchanged arguments);
            a source from which a harmonized series was not derived; a source or retest without all
            compared slices; a retest of another body; several partners of one tube voltage and
            thickness; one frame of reference on different grids.
        CvsctError: if a series or a mask cannot be read.

    Example:
        >>> evaluation = cvsct.evaluate(
        ...     cvsct.read_series(scans_of_a), cvsct.read_series(scans_of_b), rois=3, workers=1
        ... )
        >>> evaluation.paired
        False
    """
    given = _of_right_kind(
        harmonized=harmonized, target=target, source=source, retest=retest,
        target_harmonized=target_harmonized,
    )  # fmt: skip
    refuse_given_no_path(nodules=nodules, out=out)
    masks, structures = _paths(masks, "masks"), texts(structures)
    need_extra("evaluate", "evaluate")
    if out is not None:
        refuse_no_place(Path(out))
    elif pdf:
        raise UsageError("a PDF needs a folder; give `out` too")
    browser = find_browser() if pdf else None  # before any work
    on_disk = (Path(scans) for scans in given.values() if isinstance(scans, Path | str))
    refuse_missing(*on_disk, *map(Path, masks), Path(nodules) if nodules else None)
    if regions not in REGIONS:
        raise UsageError(f"no regions {regions!r}; choose one of {', '.join(REGIONS)}, or --masks")
    if structures and not masks:
        raise UsageError("--structures chooses among masks; give --masks too")
    settings = of_arguments(
        EvaluationSettings, regions="masks" if masks else regions, rois=rois, seed=seed,
        workers=workers, pairing=pairing, ibsi=ibsi, tolerances=Tolerances.given(tolerances),
    )  # fmt: skip
    manifest = Manifest("evaluate", settings.model_dump(mode="json"), local=["features.csv"])
    remarks: list[str] = []
    turned = doubts = ""
    with manifest.timed("reading"):
        scans, origins = _read(given, note)
        if {"harmonized", "target"} <= origins.keys():
            turned, doubts = wrong_direction(origins), doubtful_roles(origins)
            remarks += [*check_roles(origins), *filter(None, [turned, doubts])]
        mask_paths = [Path(mask) for mask in masks]
        regions_by_series = (
            {}  # of any scan, not of the target's alone
            if pairing == "off"
            else read_target_masks(mask_paths, scans["target"], list(structures), remarks.append)
        )
        true_nodules = read_nodules(Path(nodules)) if nodules else ()
    for remark in remarks:
        note(remark)
    with manifest.timed("measuring"):
        evaluation = measure(
            scans["harmonized"],
            scans["target"],
            scans.get("source"),
            settings,
            progress,
            retest=scans.get("retest"),
            masks=regions_by_series,
            nodules=true_nodules,
            target_harmonized=scans.get("target_harmonized", ()),
            cache=FeatureCache() if cache else None,
            note=note,
            remarks=remarks,
        )
    folder_or_volumes = given["harmonized"]
    harmonize_manifest = _manifest(folder_or_volumes) if isinstance(folder_or_volumes, Path) else {}
    evaluation = replace(
        evaluation,
        guards=_guards_in_memory(given["harmonized"])
        or guards_of(harmonize_manifest, scans["harmonized"]),
        uncertainty=uncertainty_of(harmonize_manifest),
        independence=independence_of(harmonize_manifest, scans),
        identity=identity_of(
            scans, evaluation.scanners, harmonize_manifest,
            command_of(given, settings, [*map(Path, masks)], structures, nodules, tolerances, pdf),
            manifest.started, report_salt(kept=cache),
        ),
        wrong_direction=turned,
        doubtful_roles=doubts,
    )  # fmt: skip
    if evaluation.independence and evaluation.independence.warning:
        note(evaluation.independence.warning)
    if out is not None:
        with new_folder(Path(out)) as folder:
            with manifest.timed("writing"):
                write_report(evaluation, folder)
            if not evaluation.paired:
                # Its imports take as long as an evaluation's own.
                from cvsct.api.unpaired_features import write_unpaired_features  # noqa: PLC0415

                manifest.local = ["features_wide.*", "features_long.*"]
                with manifest.timed("features"):
                    write_unpaired_features(
                        {side: side_scans for side, side_scans in given.items() if side_scans},
                        mask_paths, folder, structures=structures, seed=seed, workers=workers,
                        cache=cache, progress=progress, note=note,
                    )  # fmt: skip
            manifest.inputs = with_old_keys(
                {side: list(map(_own_uid, volumes)) for side, volumes in scans.items()}
            )
            manifest.figures = {"metrics": "metrics.json"}
            manifest.write(folder)
        if browser:
            write_pdf(Path(out) / "report.html", Path(out) / "report.pdf", browser)
    return evaluation


def check_evaluation(
    sides: Mapping[Side, Path | None],
    files: Sequence[Path],
    out: Path,
    pdf: bool = False,
    tolerances: Path | None = None,
) -> dict[str, int]:
    """Check the arguments of an evaluation from headers alone, without evaluating anything.

    Args:
        sides: path of each side; None for a side that is not given.
        files: masks and nodules, which must exist.
        out: output folder, which must not hold anything.
        pdf: whether a browser must be there that can print.
        tolerances: file with tolerances, which must make sense; None for the defaults.

    Returns:
        Number of slices of each side that is given, by the name of the side.

    Raises:
        UsageError: if a path does not exist, `out` is not empty or cannot be written, or
            tolerances make no sense.
        MissingExtraError: if the extra `evaluate` is not installed.
        BrowserError: if there is no such browser.
        CvsctError: if a side has no CT series.
    """
    need_extra("evaluate", "evaluate")
    refuse_no_place(out)
    if pdf:
        find_browser()
    refuse_missing(*sides.values(), *files)
    Tolerances.given(tolerances)
    return {
        side.name: sum(series.n_slices for series in catalog(path).series)
        for side, path in sides.items()
        if path is not None
    }


def _read(
    given: Mapping[str, Scans | None], note: Note
) -> tuple[dict[str, list[CTVolume]], dict[str, list[Origin]]]:
    """Volumes of each side that is given, and the origins of those that were read from disk."""
    scans: dict[str, list[CTVolume]] = {}
    origins: dict[str, list[Origin]] = {}
    for side, side_scans in given.items():
        if side_scans is None:
            continue
        if not isinstance(side_scans, Path | str):
            volumes = [side_scans] if isinstance(side_scans, Volume) else list(side_scans)
            scans[side] = [
                each.volume if isinstance(each, HarmonizedVolume) else each for each in volumes
            ]
            continue
        contents = catalog(Path(side_scans))
        for line in (*lines(contents.left_out, f"{side} scans"), *contents.notes):
            note(line)
        scans[side] = list(map(read_series, contents.series))
        origins[side] = list(map(origin_of, contents.series, scans[side]))
    if all(volume.harmonization for volume in scans["harmonized"]):
        for side in scans.keys() - origins.keys():
            known = list(map(origin_of_volume, scans[side]))
            if None not in known:
                origins[side] = [origin for origin in known if origin]
    return scans, origins


def _of_right_kind(**sides: Any) -> dict[str, Any]:
    """Scans of each side as a path or a list of volumes; None of a side that is not given.

    Raises:
        UsageError: if they are neither, or a side is missing.
    """
    given: dict[str, Any] = {}
    for side, scans in sides.items():
        if isinstance(scans, PATH) or (scans is None and side not in ("harmonized", "target")):
            given[side] = scans if scans is None else Path(scans)
            continue
        given[side] = refuse_other_kinds_in((CTVolume, HarmonizedVolume), SIDE_WORDS, scans, side)
        if not given[side]:
            raise UsageError(f"{side}: an empty list, expected {SIDE_WORDS}")
    return given


def _paths(paths: Any, name: str) -> list[Path]:
    """Paths of an argument that takes one or several.

    Raises:
        UsageError: if one is none.
    """
    return [Path(path) for path in refuse_other_kinds_in(PATH, PATH_WORDS, paths, name)]


def _own_uid(volume: CTVolume) -> str:
    return volume.harmonization.derived_uid if volume.harmonization else volume.series_uid


def _guards_in_memory(harmonized: Any) -> tuple[GuardRecord, ...]:
    """Guard records of results of `Model.harmonize`; none where something else was given."""
    if not isinstance(harmonized, list) or not all(
        isinstance(each, HarmonizedVolume) and each.input_check for each in harmonized
    ):
        return ()
    return tuple(
        record_in_memory(number, each.input_check.to_json(), each.slice_checks, each.volume)
        for number, each in enumerate(harmonized, 1)
    )


def _manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest that `harmonize` wrote to a folder; empty where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    written_by_harmonize = isinstance(manifest, dict) and manifest.get("command") == "harmonize"
    return manifest if written_by_harmonize else {}
