"""Features of a study before and after: of every series, its thicker slices, and harmonized."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvsct.core.errors import EvaluationError
from cvsct.core.files import write_atomic
from cvsct.core.platform import cores
from cvsct.core.progress import Note, Progress
from cvsct.core.resumable import PLAN
from cvsct.evaluation.cohort_table import (
    COMBAT,
    HARMONIZED,
    RESAMPLED,
    SOURCE,
    failed_rows,
    region_name,
)
from cvsct.evaluation.combat.harmonize_features import harmonize_features
from cvsct.evaluation.features.cache import FeatureCache
from cvsct.evaluation.features.extract_group import GroupExtractor
from cvsct.evaluation.features.parameters import Parameters, parameters_for
from cvsct.evaluation.features.patient_table import FeatureTable
from cvsct.evaluation.features.run import SETTINGS, FeatureRun, items_of, run_extraction
from cvsct.io.mask_files import MaskFile
from cvsct.io.scan_record import ScanGroup, ScanRecord, record_of
from cvsct.study.jobs import Where
from cvsct.study.options import StudyOptions
from cvsct.study.patients import read_patients
from cvsct.study.prepare import PreparedSeries, only_series

FEATURES = "features"
"""Folder of the journal of the extraction."""
ESTIMATES = "combat.json"


@dataclass(frozen=True)
class StudyScan:
    """A series of the study with what was made of it.

    Args:
        series: the series, prepared.
        harmonized: folder of the harmonized series; None for the reference.
        derived_uid: Series Instance UID of the harmonized series.
        model_sha256, harmonized_to, guard_verdict: of the harmonized series.
    """

    series: PreparedSeries
    harmonized: Path | None = None
    derived_uid: str = ""
    model_sha256: str = ""
    harmonized_to: str = ""
    guard_verdict: str = ""


def measure_features(
    scans: Sequence[StudyScan],
    reference: str,
    options: StudyOptions,
    folder: Path,
    where: Where,
    note: Note,
    progress: Progress,
) -> FeatureTable:
    """Measure the features of all series.

    A series of the reference, or one that has the reference's slices already, has the rows of a
    further stage as copies, so that every stage has every patient.

    Args:
        folder: of the study; `features` in it has the journal, from which a killed run goes on.

    Raises:
        UsageError: if the parameter file is not valid.
        StoppedError: on Ctrl-C.
    """
    parameters = _parameters(options)
    groups, labels, masks = [], [], []
    for scan in scans:
        for group, cells, files in _groups(scan, parameters.sha256):
            groups.append(group)
            labels.append(cells)
            masks.append(files)
    count = where.workers or cores()
    extractor = GroupExtractor(
        parameters, options.features.structures, options.features.label_names,
        options.features.rois,
        options.features.roi_px, options.seed, FeatureCache(), alone=count == 1,
    )  # fmt: skip
    with_masks = any(scan.series.masks for scan in scans)
    items = items_of(groups, labels, masks if with_masks else None, extractor, count)
    run = FeatureRun(
        extractor, tuple(items), count, {"study": True, "masks": with_masks}, where.scheduler
    )
    out = folder / FEATURES
    if _is_of_other_settings(out, run):
        shutil.rmtree(out)
    with run_extraction(run, out, progress, note, is_cache=True) as (table, _):
        return replace(table, rows=tuple(_completed(table.rows, scans, reference)))


def uneven_regions(table: FeatureTable) -> list[str]:
    """Remarks on regions that only some groups have, as masks that name one thing in two ways."""
    groups: dict[str, set[str]] = {}
    for row in table.rows:
        groups.setdefault(region_name(str(row["region"])), set()).add(str(row["batch"]))
    every = set().union(*groups.values())
    return [
        f"region {name!r} is in {len(own)} of {len(every)} groups alone "
        f"({', '.join(sorted(own))}): "
        "a region by another name elsewhere is not compared with it; [features] label_names names "
        "the numbers of NIfTI masks"
        for name, own in groups.items()
        if len(groups) > 1 and own != every
    ]


def write_tables(table: FeatureTable, folder: Path) -> None:
    """Write the tables of a study and the parameter file that was used."""
    table.write(folder)
    write_atomic(folder / SETTINGS, table.settings)


def _is_of_other_settings(out: Path, run: FeatureRun) -> bool:
    """Whether a folder holds features that were measured by other settings; it is a cache."""
    try:
        before = json.loads((out / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(before != json.loads(json.dumps({"command": "features", **run.record})))


def _parameters(options: StudyOptions) -> Parameters:
    own = options.features
    binning: Any = own.binning or None
    return parameters_for(Path(own.settings) if own.settings else None, binning, own.dimensions)


def _groups(
    scan: StudyScan, settings_sha256: str
) -> list[tuple[ScanGroup, tuple[Mapping[str, Any], ...], tuple[MaskFile, ...]]]:
    """Scans of one series on one grid, with the cells of their rows and their masks."""
    series = scan.series
    source = replace(
        record_of(series.source, series.source.files[0].parent), path=series.row.path,
        patient_id=series.row.patient,
    )  # fmt: skip
    base = _cells(source, series, settings_sha256)
    of_source: list[tuple[ScanRecord, Mapping[str, Any]]] = [(source, {**base, "stage": SOURCE})]
    of_thick: list[tuple[ScanRecord, Mapping[str, Any]]] = []
    if series.is_averaged:
        thick = _record_in(series.folder, series)
        base |= {"thickness_mm": series.to_thickness_mm}
        of_thick = [(thick, {**base, "derived_uid": thick.own_uid, "stage": RESAMPLED})]
    if scan.harmonized is not None:
        made = _record_in(scan.harmonized, series)
        cells = {
            **base, "derived_uid": made.own_uid, "stage": HARMONIZED,
            "guard_verdict": scan.guard_verdict, "harmonized_to": scan.harmonized_to,
            "model_sha256": scan.model_sha256,
        }  # fmt: skip
        (of_thick or of_source).append((made, cells))
    parts = [(of_source, series.masks), (of_thick, series.carried())]
    return [
        (
            ScanGroup(tuple(record for record, _ in part)),
            tuple(cells for _, cells in part),
            tuple(MaskFile(mask, Path(mask.name)) for mask in masks),
        )
        for part, masks in parts
        if part
    ]


def _record_in(folder: Path, series: PreparedSeries) -> ScanRecord:
    """Record of the series in a folder of the study."""
    record = record_of(only_series(folder), folder)
    return replace(record, patient_id=series.row.patient, path=folder.name)


def _cells(source: ScanRecord, series: PreparedSeries, settings_sha256: str) -> dict[str, Any]:
    row = series.row
    return {
        "patient": row.patient, "study_uid": source.study_uid, "series_uid": row.series_uid,
        "derived_uid": "",
        "site": row.site, "stage": "", "scanner": row.acquisition.scanner, "kernel": row.kernel,
        **({"kvp": row.kvp} if row.kvp else {}),
        **({"thickness_mm": row.thickness_mm} if row.thickness_mm else {}), "guard_verdict": "",
        "settings_sha256": settings_sha256, "harmonized_to": "", "model_sha256": "",
        "batch": row.group,
    }  # fmt: skip


def _completed(
    rows: Sequence[Mapping[str, Any]], scans: Sequence[StudyScan], reference: str
) -> list[Mapping[str, Any]]:
    """All rows, with copies for stages that a series did not need."""
    any_thick = any(scan.series.is_averaged for scan in scans)
    by_series: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_series.setdefault(row["series_uid"], []).append(row)
    whole: list[Mapping[str, Any]] = []
    for scan in scans:
        own = by_series.get(scan.series.row.series_uid, [])
        last = RESAMPLED if scan.series.is_averaged else SOURCE
        whole += own
        if any_thick and last == SOURCE:
            whole += _copies(own, SOURCE, RESAMPLED)
        if scan.series.row.group == reference:
            whole += _copies(own, last, HARMONIZED)
    return whole


def _copies(rows: Sequence[Mapping[str, Any]], stage: str, to: str) -> list[Mapping[str, Any]]:
    return [{**row, "stage": to} for row in rows if row["stage"] == stage]


def with_combat(
    table: FeatureTable, folder: Path, options: StudyOptions, note: Note
) -> tuple[FeatureTable, dict[str, str]]:
    """Add ComBat's stages to the features of a study, and write its estimates.

    Returns:
        The table, and the reason of each region name and stage that could not be fitted.
    """
    frame = table.to_pandas()
    patients = read_patients(Path(options.patients)) if options.patients else None
    small = _small_batches(frame, options.combat.min_patients)
    if small:
        note(
            f"ComBat leaves out {', '.join(small)}: fewer than {options.combat.min_patients} "
            "patients with features ([combat] min_patients)"
        )
    try:
        harmonized = harmonize_features(
            frame[~frame["batch"].isin(small)], "batch", covariates=options.combat.covariates,
            patients=patients, min_patients=options.combat.min_patients,
        )  # fmt: skip
    except EvaluationError as error:
        return table, {"ComBat": str(error)}
    for remark in harmonized.notes:
        note(remark)
    harmonized.combat.save(folder / ESTIMATES)
    further = harmonized.table[harmonized.table["stage"].str.endswith(COMBAT)]
    rows = [
        {name: value for name, value in row.items() if value == value}  # noqa: PLR0124 - NaN
        for row in further.to_dict("records")
    ]
    return replace(table, rows=(*table.rows, *rows)), harmonized.failed


def _small_batches(table: Any, min_patients: int) -> list[str]:
    """Groups of which too few patients have features before harmonization."""
    good = table[(table["stage"] == SOURCE) & ~failed_rows(table)]
    counts = good.groupby("batch")["patient"].nunique()
    return [str(name) for name in sorted(set(table["batch"])) if counts.get(name, 0) < min_patients]
