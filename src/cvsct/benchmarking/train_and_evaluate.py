"""What `cvsct benchmark` does for one method, seed and direction: train, harmonize, evaluate."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvsct.api.evaluate import evaluate
from cvsct.api.harmonize import harmonize
from cvsct.api.train import train
from cvsct.benchmarking.features import combat_metrics, leader_table
from cvsct.benchmarking.folder import (
    MODELS,
    REPEAT,
    TEST,
    failed_series,
    fit_s,
    is_report,
    model_mb,
    read_manifest,
    remove_unstarted_training,
)
from cvsct.benchmarking.results import COMBAT, DIRECTION_FOLDERS, Benchmark, Result
from cvsct.core.errors import CvsctError, explain, unexpected
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.sides import with_new_keys
from cvsct.evaluation.features.table_file import FeatureFile, read_features
from cvsct.evaluation.table import Table
from cvsct.io.dicom.header import label
from cvsct.methods.registry import find_method
from cvsct.model.bundle import CHECKPOINT_FILE, SUMS_FILE

logger = logging.getLogger(__name__)

TARGET_HARMONIZED_FOLDER = "passed"
"""Folder of the target harmonized; named as in 0.1.0, so that its benchmarks can go on."""

PAPER_PAIR = ("ge-revolution-evo", "siemens-somatom-force")


@dataclass(frozen=True)
class BenchmarkSteps:
    """Folders and options of a benchmark, and its steps for one method, seed and direction.

    Args:
        parts: of the data, from which each method learns.
        budget: `max_steps` of each training, `max_minutes` of each direction.
        allow: what trainings learn from all the same, in the words of `--allow`.
    """

    data: Path
    out: Path
    names: tuple[str, str]
    parts: Mapping[str, str]
    preset: str
    settings: Mapping[str, Any]
    budget: dict[str, Any]
    rois: int
    workers: int
    allow: list[str] = field(default_factory=list)
    progress: Progress = silent
    note: Note = log_note

    @property
    def directions(self) -> tuple[str, str]:
        """How they are called."""
        a, b = ("GE", "Siemens") if self.names == PAPER_PAIR else self.names
        return f"{a} to {b}", f"{b} to {a}"

    def result(self, name: str, seed: int, direction: int) -> Result:
        """Do what is not there yet: a training, the derived series, the report."""
        row = find_method(name)
        model = self._model(name, seed, 0 if row.reversible else direction)
        place = self._place(name, seed, direction)
        source, target = self._sides(direction)
        images, report = place / "images", place / "report"
        target_harmonized = place / TARGET_HARMONIZED_FOLDER
        back = row.reversible and direction == 1
        for scans, made in ((source, images), (target, target_harmonized)):
            self._harmonized(scans, model, made, back)
        if not is_report(report):
            retest = self.data / REPEAT / target
            nodules = self.data / "nodules.csv"
            evaluate(
                images,
                self.data / TEST / target,
                source=self.data / TEST / source,
                retest=retest if retest.is_dir() else None,
                target_harmonized=target_harmonized,
                nodules=nodules if nodules.is_file() else None,
                rois=self.rois,
                workers=self.workers,
                out=report,
                progress=self.progress,
                note=self.note,
            )
        return Result(
            method=name,
            seed=seed,
            direction=direction,
            metrics=with_new_keys(
                json.loads((report / "metrics.json").read_text(encoding="utf-8"))
            ),
            fit_s=fit_s(model),
            slices_per_s=read_manifest(images)["figures"]["slices_per_s"],
            model_mb=model_mb(model),
            kind=row.kind,
            trained_on=f"{self.parts[name]}/",
            both_ways=row.reversible,
        )

    def _harmonized(self, scans: str, model: Path, made: Path, reverse: bool) -> None:
        """Put a test side through a model, all of it; series that failed before are tried again.

        Raises:
            CvsctError: if series of it failed, so that figures would be of the others alone.
        """
        before = failed_series(made)
        if before == 0:
            return
        harmonize(
            self.data / TEST / scans,
            made,
            model=model,
            direction="b2a" if reverse else "a2b",
            guard=["scan=note"],  # its own test data is never refused
            resume=bool(before),
            progress=self.progress,
            note=self.note,
        )
        failed = failed_series(made)
        if failed:
            raise CvsctError(
                f"{failed} series of {TEST}/{scans} could not be harmonized; "
                f"{made.relative_to(self.out) / 'manifest.json'} tells why"
            )

    def _model(self, name: str, seed: int, direction: int) -> Path:
        source, target = self._sides(direction)
        model = self.out / MODELS / (f"{name}-{seed}" + ("-b2a" if direction else ""))
        if (model / SUMS_FILE).exists():
            return model
        remove_unstarted_training(model)
        row = find_method(name)
        uses, scans = row.uses, self.data / self.parts[name]
        train(
            name,
            scans / source,
            scans / target,
            model,
            preset=self.preset if "preset" in uses else "cpu",
            settings=self.settings if uses else {},
            seed=seed if "seed" in uses else 0,
            resume=(model / CHECKPOINT_FILE).exists(),
            allow=self.allow,
            progress=self.progress,
            note=self.note,
            **{key: value for key, value in self._given(row.reversible).items() if key in uses},
        )
        return model

    def _given(self, both_ways: bool) -> dict[str, Any]:
        """What a training may take: one that serves both directions has the minutes of both."""
        minutes = self.budget["max_minutes"]
        return {**self.budget, "max_minutes": minutes and minutes * (1 + both_ways)}

    def _sides(self, direction: int) -> tuple[str, str]:
        a, b = self.names
        return (b, a) if direction else (a, b)

    def combat(self, results: list[Result]) -> list[Result]:
        """ComBat on the input's features, which are the same in every method's report."""
        made = []
        for direction in (0, 1):
            own = [one for one in results if one.direction == direction and paired(one)]
            if not own:
                continue
            try:
                found = combat_metrics(self._features(own[0]))
                made.append(Result(COMBAT, 0, direction, found))
            except Exception as error:
                self.note(f"no ComBat: {failure_reason(error)}")
        return made

    def leads(self, results: list[Result]) -> list[Table]:
        """Each direction's methods against its best, by their first seed, where slices pair."""
        found = []
        for direction, name in enumerate(self.directions):
            own = [r for r in results if r.direction == direction and r.seed == 0 and paired(r)]
            try:
                files = {one.method: self._features(one) for one in own}
                found.append(leader_table(files, name, direction))
            except Exception as error:
                self.note(f"no test of who leads, {name}: {failure_reason(error)}")
        return [table for table in found if table is not None]

    def _features(self, result: Result) -> FeatureFile:
        return read_features(self._place(result.method, result.seed, result.direction)
                             / "report" / "features.csv")  # fmt: skip

    def _place(self, name: str, seed: int, direction: int) -> Path:
        return self.out / "results" / f"{name}-{seed}" / DIRECTION_FOLDERS[direction]

    def benchmark(self, results: list[Result], failed: Sequence[tuple[str, int]] = ()) -> Benchmark:
        """All that tables are made of.

        Args:
            failed: methods and directions that have no result, or not of all seeds.
        """
        steps, minutes = self.budget["max_steps"], self.budget["max_minutes"]
        given = [f"{steps} steps"] if steps else []
        if minutes:
            given.append(
                f"{minutes:g} minutes a direction ({2 * minutes:g} where one training serves both)"
            )
        return Benchmark(
            directions=self.directions,
            results=tuple(results),
            budget=f"Preset {self.preset}, at most {' and '.join(given) or 'its own steps'}.",
            on_paper_scanners=self.names == PAPER_PAIR,
            failed=tuple(failed),
        )


def paired(result: Result) -> bool:
    """Whether slices were compared, and so features measured."""
    return not result.metrics.get("unpaired_because")


def failure_reason(error: BaseException) -> str:
    """Why a job failed, in words that quote no value of a file; the traceback goes to the log."""
    if isinstance(error, CvsctError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"a program within it ended with exit code {error.code}"
    logger.info("failed", exc_info=error)
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or use fewer workers or smaller scans"
    if isinstance(error, OSError):
        return _explained(error)
    return unexpected(error)


def _explained(error: OSError) -> str:
    said = explain(error)
    if not isinstance(error.filename, str):
        return said
    return said.replace(error.filename, label(Path(error.filename)), 1)
