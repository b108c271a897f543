"""A run of a feature extraction over many scans: parallel, resumable, cached."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvsct.core.dask_workers import DaskWorkers
from cvsct.core.errors import CvsctError, StoppedError, UsageError
from cvsct.core.files import JsonLines, config_hash, write_atomic
from cvsct.core.manifest import Manifest
from cvsct.core.progress import Note, Progress
from cvsct.core.resumable import locked_output
from cvsct.core.text import counted
from cvsct.core.workers import Report, work_in, work_through
from cvsct.evaluation.features.extract_group import (
    GroupExtractor,
    GroupItem,
    GroupResult,
    joined_rows,
)
from cvsct.evaluation.features.patient_table import (
    LONG,
    WIDE,
    FeatureTable,
    feature_columns,
)
from cvsct.evaluation.features.volume_regions import BLOCK_TISSUE
from cvsct.io.mask_files import MaskFile
from cvsct.io.scan_record import ScanGroup

TRIES = 2
"""How often a scan is tried whose process dies."""
JOURNAL = "journal.jsonl"
"""File of the rows that are finished, from which a killed run goes on."""
SETTINGS = "settings.yaml"
SERIES_TABLE = "series.csv"
SERIES_COLUMNS = ("path", "series_uid", "status", "reason", "derived_uid", "regions", "seconds")
LOCAL = (f"{WIDE}.*", f"{LONG}.*", SERIES_TABLE, JOURNAL)
"""Files of an output folder that may identify a patient."""


@dataclass(frozen=True)
class FeatureRun:
    """Everything that determines a table of features.

    Args:
        extractor: settings of all scans.
        items: the work, group by group.
        workers: number of processes.
        further: further options that the table depends on, for the manifest.
        scheduler: address of a Dask scheduler whose workers take the place of processes.
    """

    extractor: GroupExtractor
    items: tuple[GroupItem, ...]
    workers: int
    further: Mapping[str, Any] = field(default_factory=dict)
    scheduler: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """Plain values of all options, for the manifest and to go on with the same ones."""
        parameters = self.extractor.parameters
        return {
            "settings_sha256": parameters.sha256,
            "binning": parameters.binning,
            "dimensions": parameters.dimensions,
            **_placement(self.extractor),
            **self.further,
        }

    @property
    def groups(self) -> list[GroupItem]:
        """The first part of each group."""
        return [item for item in self.items if item.part == 0]

    def parts_of(self, group: GroupItem) -> list[str]:
        """Keys of all parts of a group, by its first one."""
        return self._parts[group.key]

    @functools.cached_property
    def _parts(self) -> dict[str, list[str]]:
        parts: dict[str, list[str]] = {}
        first = ""
        for item in self.items:
            first = item.key if item.part == 0 else first
            parts.setdefault(first, []).append(item.key)
        return parts

    def summary(self) -> dict[str, Any]:
        """Numbers of scans and masks, for a dry run."""
        records = [record for item in self.groups for record in item.group.records]
        masks = [item.masks for item in self.groups]
        return {
            "series": len(records),
            "harmonized": sum(record.is_derived for record in records),
            "patients": len({item.cells[0]["patient"] for item in self.groups}),
            "with_masks": sum(bool(files) for files in masks),
            "without_masks": sum(files is not None and not files for files in masks),
            "settings_sha256": self.extractor.parameters.sha256,
        }


def items_of(
    groups: Sequence[ScanGroup],
    labels: Sequence[tuple[Mapping[str, Any], ...]],
    masks: Sequence[tuple[MaskFile, ...]] | None,
    extractor: GroupExtractor,
    workers: int,
) -> list[GroupItem]:
    """The work of a run; where there are fewer scans than processes, their regions are shared out.

    Args:
        masks: mask files of each group; None where none were given.
    """
    parts = max(1, -(-workers // max(1, len(groups)))) if workers > len(groups) else 1
    settings = {"sha256": extractor.parameters.sha256, **_placement(extractor)}
    items = []
    for number, (group, cells) in enumerate(zip(groups, labels, strict=True)):
        files = None if masks is None else masks[number]
        about = {
            **settings,
            "cells": [dict(scan_cells) for scan_cells in cells],
            "scans": [record.stamp for record in group.records],
            "masks": None if files is None else [mask.stamp for mask in files],
        }
        items += [
            GroupItem(
                config_hash({**about, "part": [part, parts]}), group, cells, files, part, parts
            )
            for part in range(parts)
        ]
    return items


@contextlib.contextmanager
def run_extraction(
    run: FeatureRun, out: Path | None, progress: Progress, note: Note, *, is_cache: bool = False
) -> Iterator[tuple[FeatureTable, dict[str, float]]]:
    """Measure all scans, or those that an earlier run into `out` has not finished.

    Args:
        is_cache: whether `out` may hold rows of scans or masks that this run lacks; a folder with
            the user's tables may not, as they would be lost.

    Yields:
        The table, and the seconds of each item of work by its key; the folder is locked in the
        block.

    Raises:
        UsageError: if `out` holds something else, rows of scans or masks that this run lacks, or
            another run writes to it.
        CvsctError: if every scan would fail, as on a full disk.
        StoppedError: on Ctrl-C.
    """
    with contextlib.ExitStack() as stack:
        results: dict[str, GroupResult] = {}
        journal = None
        if out is not None:
            plan = {"command": "features", **run.record}
            stack.enter_context(locked_output(out, plan, "feature extraction", "--workers"))
            results, sources = _read_journal(out / JOURNAL)
            if not is_cache:
                _refuse_lost(run, sources, out)
            if not (out / JOURNAL).exists():
                write_atomic(out / JOURNAL, "", private=True)
            journal = JsonLines(out / JOURNAL)
        _measure(run, results, journal, progress, note)
        for remark in _remarks_on_missing(run, results):
            note(remark)
        rows: list[dict[str, Any]] = []
        for group in run.groups:
            rows += joined_rows([results[key] for key in run.parts_of(group)])
        parameters = run.extractor.parameters
        table = FeatureTable(
            tuple(rows), feature_columns(rows), parameters.to_yaml(), parameters.sha256
        )
        yield table, {key: result.seconds for key, result in results.items()}


def _measure(
    run: FeatureRun,
    results: dict[str, GroupResult],
    journal: JsonLines | None,
    progress: Progress,
    note: Note,
) -> None:
    """Add the results of all items that have none, or only with errors."""
    todo = [item for item in run.items if item.key not in results or _failed(results[item.key])]
    total = sum(len(item.group.records) for item in run.items)
    done = total - sum(len(item.group.records) for item in todo)
    progress("features", done, total)
    told: set[str] = set()
    try:
        if run.scheduler:
            reports = work_in(DaskWorkers(run.scheduler, run.extractor), todo, TRIES)
        else:
            reports = work_through(todo, run.extractor, run.workers, lambda item: item.key, TRIES)
        with contextlib.closing(reports):
            for report in reports:
                if report.kind == "fatal":
                    raise CvsctError(f"{report.message}; the same command then goes on")
                if report.kind == "step":
                    done += report.amount
                    progress("features", done, total)
                    continue
                result = _result(report)
                results[report.item.key] = result
                if journal is not None:
                    _write_journal(journal, report.item, result)
                for remark in result.notes:
                    if remark not in told:
                        told.add(remark)
                        note(remark)
    except KeyboardInterrupt:
        kept = "; those that are finished are kept, the same command goes on" if journal else ""
        raise StoppedError(f"stopped, {done} of {total} series are measured{kept}") from None


def _remarks_on_missing(run: FeatureRun, results: Mapping[str, GroupResult]) -> list[str]:
    """How many scans have no region of something, with the reason of the first of each kind."""
    kinds: dict[str, list[str]] = {}
    for item in run.groups:
        for text in results[item.key].missing:
            words = " ".join(word for word in text.split() if not word.isdigit())
            kinds.setdefault(words, []).append(text)
    total = counted(len(run.groups), "scan")
    return [f"{len(texts)} of {total}: {texts[0]}" for texts in kinds.values()]


def _refuse_lost(run: FeatureRun, sources: set[str], out: Path) -> None:
    """Refuse a run that would leave out rows which its folder holds.

    Args:
        sources: what those rows come from, as in `GroupItem.sources`.

    Raises:
        UsageError: telling how many scans or masks are not among this run's.
    """
    lost = sources.difference(*(item.sources for item in run.items))
    for kind in ("scan", "mask"):
        number = sum(source.startswith(f"{kind} ") for source in lost)
        if number:
            raise UsageError(
                f"{out}: holds rows of {counted(number, kind)} not given now, which would be lost; "
                "name a new folder, give all of them, or delete this folder first"
            )


def _result(report: Report[GroupItem]) -> GroupResult:
    """Result of an item; one that failed as a whole has a row with the reason for each scan."""
    if report.kind == "done":
        result: GroupResult = report.result
        return result
    rows = [
        (number, 0, {**cells, "region": "", "error": report.message})
        for number, cells in enumerate(report.item.cells)
        if report.item.part == 0
    ]
    return GroupResult(rows)


def _failed(result: GroupResult) -> bool:
    return any(row["error"] for _, _, row in result.rows)


def _placement(extractor: GroupExtractor) -> dict[str, Any]:
    return {
        "structures": list(extractor.structures),
        "label_names": dict(extractor.label_names),
        "blocks": extractor.blocks,
        "block_px": extractor.block_px,
        "block_hu": list(BLOCK_TISSUE.limits_hu),
        "seed": extractor.seed,
    }


def _write_journal(journal: JsonLines, item: GroupItem, result: GroupResult) -> None:
    """Append a result; cells are kept in their order, as names and values."""
    rows = [
        [number, region, list(row), [_or_none(value) for value in row.values()]]
        for number, region, row in result.rows
    ]
    journal.write(
        key=item.key, rows=rows, notes=result.notes, seconds=result.seconds,
        missing=result.missing, sources=item.sources,
    )  # fmt: skip


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _read_journal(path: Path) -> tuple[dict[str, GroupResult], set[str]]:
    """Results by key, and what they come from; a last line that a kill has cut is left out."""
    results: dict[str, GroupResult] = {}
    sources: set[str] = set()
    if not path.exists():
        return results, sources
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            rows = [
                (
                    number,
                    region,
                    dict(zip(names, (math.nan if v is None else v for v in values), strict=True)),
                )
                for number, region, names, values in entry["rows"]
            ]
            results[entry["key"]] = GroupResult(
                rows, entry["notes"], entry["seconds"], entry["missing"]
            )
            sources.update(entry["sources"])
        except (ValueError, KeyError, TypeError):
            continue
    return results, sources


def write_outputs(
    run: FeatureRun,
    table: FeatureTable,
    seconds: Mapping[str, float],
    out: Path,
    manifest: Manifest,
) -> None:
    """Write the tables, the parameter file, `series.csv` and the manifest.

    Args:
        seconds: seconds of each item of work by its key.
    """
    table.write(out)
    write_atomic(out / SETTINGS, table.settings)
    write_atomic(out / SERIES_TABLE, _series_csv(run, table, seconds), private=True)
    records = [record for item in run.groups for record in item.group.records]
    manifest.inputs = {"series": [record.own_uid for record in records]}
    manifest.local = LOCAL
    manifest.figures = {
        "n_series": len(records),
        "n_rows": len(table),
        "n_failed": len(table.failed),
        "n_features": len(table.features),
    }
    manifest.write(out)


def _series_csv(run: FeatureRun, table: FeatureTable, seconds: Mapping[str, float]) -> str:
    """Text of `series.csv`: a row per series, `failed` where a region of it has no features.

    The seconds are those of a source and all that was derived from it, at the first of them.
    """
    by_series: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in table.rows:
        key = (row["series_uid"], row["derived_uid"], row["patient"])
        by_series.setdefault(key, []).append(row)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SERIES_COLUMNS)
    for item in run.groups:
        spent = f"{sum(seconds.get(key, 0.0) for key in run.parts_of(item)):.2f}"
        for record, cells in zip(item.group.records, item.cells, strict=True):
            rows = by_series.get((record.series_uid, record.derived_uid, cells["patient"]), [])
            reasons = [row["error"] for row in rows if row["error"]]
            status = "failed" if reasons else "done"
            measured = len(rows) - len(reasons)
            writer.writerow(
                (record.path, record.series_uid, status, reasons[0] if reasons else "",
                 record.derived_uid, measured, spent if record is item.group.first else "")
            )  # fmt: skip
    return text.getvalue()
