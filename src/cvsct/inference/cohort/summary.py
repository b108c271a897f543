"""Summary of a cohort run: every series with its derived one, or the reason there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cvsct.core.files import write_json
from cvsct.core.manifest import MANIFEST
from cvsct.core.resumable import part_of
from cvsct.core.slice_hashes import LEARNED
from cvsct.inference.cohort.journal import FINDINGS, MAX_DEATHS, Entry, Journal
from cvsct.inference.cohort.series_table import join_tables
from cvsct.inference.cohort.shards import Shard
from cvsct.inference.streaming import Outcome, reportable_names
from cvsct.io.dicom.stack import SeriesFiles


@dataclass(frozen=True)
class CohortSummary:
    """Outcome of every series of a cohort run, or of a shard of it.

    Args:
        outcomes: one outcome per series, in the order of their UIDs.
        quarantined: keys of series that were given up because too many workers died with them.
        busy_s: seconds that workers spent on the series that are done.
    """

    outcomes: tuple[Outcome, ...]
    quarantined: frozenset[str]
    busy_s: float

    @property
    def failed(self) -> list[Outcome]:
        """Outcomes of the series that were not harmonized."""
        return [outcome for outcome in self.outcomes if outcome.error]

    @property
    def n_done(self) -> int:
        """Number of series that were harmonized."""
        return len(self.outcomes) - len(self.failed)

    @property
    def n_slices(self) -> int:
        """Number of slices that were harmonized."""
        return sum(outcome.n_slices for outcome in self.outcomes)

    def figures(self, workers: int) -> dict[str, Any]:
        """Figures for the manifest; the speed is that of all workers, without their start."""
        rows = []
        for outcome in self.outcomes:
            quarantined = {"quarantined": True} if outcome.folder in self.quarantined else {}
            rows.append({**outcome.to_json(), **quarantined})
        speed = workers * self.n_slices / self.busy_s if self.busy_s else 0.0
        return {
            "series": rows,
            "n_slices": self.n_slices,
            "n_done": self.n_done,
            "n_failed": len(self.failed) - len(self.quarantined),
            "n_quarantined": len(self.quarantined),
            "slices_per_s": round(speed, 2),
            "workers": workers,
        }


def summarize(journal: Journal, series: Mapping[str, SeriesFiles]) -> CohortSummary:
    """Summarize the outcomes of all series from a journal."""
    outcomes, busy_s = {}, 0.0
    quarantined = set()
    for row in journal.rows():
        files = series[row.key]
        outcome = Outcome(files.series_uid, row.key, names=reportable_names(files))
        error = row.error
        if row.status == "quarantined":
            quarantined.add(row.key)
            error = f"series {row.key}: quarantined after {MAX_DEATHS} tries: {error}"
        entry = row.entry
        busy_s += entry.seconds if row.status == "done" else 0
        outcomes[row.key] = replace(
            outcome,
            error=error if row.status != "done" else "",
            derived_uid=entry.derived_uid,
            n_slices=entry.n_slices if row.status == "done" else 0,
            mean_change_hu=entry.mean_change_hu,
            **(_findings(entry) if row.status == "done" else {}),
        )
    return CohortSummary(tuple(outcomes[key] for key in series), frozenset(quarantined), busy_s)


def _findings(entry: Entry) -> dict[str, Any]:
    """Values of an outcome that the journal holds as JSON."""
    found = {name: json.loads(text) for name in FINDINGS if (text := getattr(entry, name))}
    return {name: tuple(value) if name == "notes" else value for name, value in found.items()}


def join_manifests(out: Path, shards: int) -> bool:
    """Write `manifest.json` of all shards if each has its own; returns whether it was written."""
    paths = [out / part_of(MANIFEST, Shard(i + 1, shards).name) for i in range(shards)]
    try:
        parts = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    except FileNotFoundError:
        return False
    figures = [part["figures"] for part in parts]
    rows = sorted(
        (row for part_figures in figures for row in part_figures["series"]),
        key=lambda row: str(row["source_series_uid"]),
    )
    manifest = parts[-1] | {
        "created": min(part["created"] for part in parts),
        "inputs": {"series": [row["source_series_uid"] for row in rows]},
        "figures": {
            "series": rows,
            **{
                name: sum(part_figures[name] for part_figures in figures)
                for name in ("n_slices", "n_done", "n_failed", "n_quarantined")
            },
            "shards": shards,
            **{name: figures[0][name] for name in ("model", LEARNED) if name in figures[0]},
            "engines": [
                part_figures["engine"] for part_figures in figures if "engine" in part_figures
            ],
        },
        "timings_s": {
            name: round(sum(part["timings_s"].get(name, 0.0) for part in parts), 3)
            for name in parts[-1]["timings_s"]
        },
    }
    join_tables(out, [Shard(i + 1, shards).name for i in range(shards)])
    write_json(out / MANIFEST, manifest)
    return True
