"""Harmonized scans measured against the target scanner's, before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvsct.core.errors import UsageError, need_extra
from cvsct.core.files import new_folder, refuse_existing, refuse_missing
from cvsct.core.manifest import MANIFEST, Manifest
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.sides import Side, with_old_keys
from cvsct.core.volume import CTVolume
from cvsct.evaluation.evaluate import Evaluation
from cvsct.evaluation.evaluate import evaluate as measure
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.guards import guards_of
from cvsct.evaluation.image.nodule_truth import read_nodules
from cvsct.evaluation.report.write import write_report
from cvsct.evaluation.settings import EvaluationSettings
from cvsct.io.catalog import catalog
from cvsct.io.left_out import lines
from cvsct.io.masks import read_target_masks
from cvsct.io.provenance import check_roles, origin_of
from cvsct.io.read import read_series

Scans = Path | str | CTVolume | Sequence[CTVolume]
"""Scans on disk, or in memory."""

REGIONS = ("squares", "slices")


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
    cache: bool = True,
    out: Path | str | None = None,
    progress: Progress = silent,
    note: Note = log_note,
) -> Evaluation:
    """Measure how alike two scanners' images are: image quality, features, texture, physics.

    Args:
        harmonized: what `harmonize` wrote, or volumes in memory.
        target: scans of scanner B to compare with.
        source: the scans before they were harmonized.
        retest: the target scanned once more: what no method surpasses.
        target_harmonized: the target put through the model, to be left alone.
        masks: files in which to measure instead of squares: NIfTI, DICOM SEG, RTSTRUCT, drawn on
            the target.
        structures: which of the masks, by name or pattern.
        nodules: the nodules.csv of a simulation.
        regions: where features are measured: `squares` of soft tissue, or whole `slices`.
        rois: how many squares.
        pairing: `checked`, `forced` or `off`: whether slices are compared one by one.
        seed: where squares lie.
        workers: processes; 0 is one a core.
        cache: keep features in the user's cache folder and use them again.
        out: a folder to write metrics.json, features.csv, report.html and manifest.json to.
        progress, note: told of the work's state, and of what a user should know.

    Raises:
        UsageError: for arguments that do not go together, or an `out` that is in use.
        EvaluationError: if the scans cannot be compared.
        CvsctError: if a series must be refused.

    Example:
        >>> found = cvsct.evaluate(
        ...     cvsct.read_series(scans_of_a), cvsct.read_series(scans_of_b), rois=3, workers=1
        ... )
        >>> found.paired
        False
    """
    need_extra("evaluate", "evaluate")
    if out is not None:
        refuse_existing(Path(out))
    given = {
        "harmonized": harmonized, "target": target, "source": source, "retest": retest,
        "target_harmonized": target_harmonized,
    }  # fmt: skip
    on_disk = (Path(scans) for scans in given.values() if isinstance(scans, Path | str))
    refuse_missing(*on_disk, *map(Path, masks), Path(nodules) if nodules else None)
    if regions not in REGIONS:
        raise UsageError(f"no regions {regions!r}; choose one of {', '.join(REGIONS)}, or --masks")
    if structures and not masks:
        raise UsageError("--structures chooses among masks; give --masks too")
    settings = EvaluationSettings.model_validate(
        {
            "regions": "masks" if masks else regions, "rois": rois, "seed": seed,
            "workers": workers, "pairing": pairing,
        }
    )  # fmt: skip
    manifest = Manifest("evaluate", settings.model_dump(mode="json"), local=["features.csv"])
    remarks: list[str] = []
    with manifest.timed("reading"):
        scans = {}
        origins = {}
        for name, each in given.items():
            if each is None:
                continue
            if not isinstance(each, Path | str):
                scans[name] = [each] if isinstance(each, CTVolume) else list(each)
                continue
            listed = catalog(Path(each))
            for line in (*lines(listed.left_out, f"{name} scans"), *listed.notes):
                note(line)
            scans[name] = list(map(read_series, listed.series))
            origins[name] = list(map(origin_of, listed.series, scans[name]))
        if {"harmonized", "target"} <= origins.keys():
            remarks += check_roles(origins)
        drawn = read_target_masks(
            [Path(mask) for mask in masks], scans["target"], list(structures), remarks.append
        )
        truths = read_nodules(Path(nodules)) if nodules else ()
    for remark in remarks:
        note(remark)
    with manifest.timed("measuring"):
        found = measure(
            scans["harmonized"],
            scans["target"],
            scans.get("source"),
            settings,
            progress,
            retest=scans.get("retest"),
            masks=drawn,
            nodules=truths,
            target_harmonized=scans.get("target_harmonized", ()),
            cache=FeatureCache() if cache else None,
            note=note,
            remarks=remarks,
        )
    told = _manifest(Path(harmonized)) if isinstance(harmonized, Path | str) else {}
    found = replace(found, guards=guards_of(told, scans["harmonized"]))
    if out is not None:
        with new_folder(Path(out)) as folder:
            with manifest.timed("writing"):
                write_report(found, folder)
            manifest.inputs = with_old_keys(
                {role: [v.series_uid for v in each] for role, each in scans.items()}
            )
            manifest.figures = {"metrics": "metrics.json"}
            manifest.write(folder)
    return found


def check_evaluation(
    sides: Mapping[Side, Path | None], files: Sequence[Path], out: Path
) -> dict[str, int]:
    """What `evaluate` would be given, by headers alone: slices of each side that is there.

    Args:
        files: masks and nodules, which must exist.

    Raises:
        UsageError: if something does not exist, or `out` does.
        CvsctError: if a side has no CT series.
    """
    need_extra("evaluate", "evaluate")
    refuse_existing(out)
    refuse_missing(*sides.values(), *files)
    return {
        side.name: sum(series.n_slices for series in catalog(path).series)
        for side, path in sides.items()
        if path is not None
    }


def _manifest(folder: Path) -> Mapping[str, Any]:
    """What `harmonize` wrote of itself; empty where it is not there or not its own."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("command") == "harmonize" else {}
