"""Steps of a benchmark: training, harmonization and evaluation of one method; ComBat; leaders."""

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
    is_report,
    model_mb,
    read_manifest,
    remove_unstarted_training,
    training_s,
)
from cvsct.benchmarking.results import COMBAT, DIRECTION_FOLDERS, Benchmark, Result
from cvsct.core.errors import CvsctError, explain, unexpected
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.sides import with_new_keys
from cvsct.evaluation.features.table_file import FeatureFile, read_features
from cvsct.evaluation.table import Table
from cvsct.io.dicom.header import label
from cvsct.methods.registry import Method, find_method
from cvsct.model.bundle import CHECKPOINT_FILE, SUMS_FILE

logger = logging.getLogger(__name__)

TARGET_HARMONIZED_FOLDER = "passed"
"""Folder of the target harmonized; named as in 0.1.0, so that its benchmarks can go on."""

PAPER_PAIR = ("ge-revolution-evo", "siemens-somatom-force")
"""Folders of the two simulated scanners that stand for the paper's."""


@dataclass(frozen=True)
class BenchmarkSteps:
    """Folders and options of a benchmark, and its steps.

    Args:
        data: folder of the data.
        out: folder of the benchmark.
        names: names of the two scanners.
        parts: folder of the data that each method trains on, by method.
        preset: preset of the networks' settings.
        settings: settings of the networks that differ from the preset.
        budget: `max_steps` of each training and `max_minutes` of each direction.
        rois: number of soft-tissue regions of each evaluation.
        workers: number of processes; 0 for one per core.
        allow: kinds of scans that trainings accept although they are doubtful, as of `train`.
        ibsi: whether features are compared by IBSI's gray levels too.
        progress: called with the state of the work.
        note: called with each remark.
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
    ibsi: bool = False
    progress: Progress = silent
    note: Note = log_note

    @property
    def directions(self) -> tuple[str, str]:
        """Names of the two directions."""
        a, b = ("GE", "Siemens") if self.names == PAPER_PAIR else self.names
        return f"{a} to {b}", f"{b} to {a}"

    def result(self, name: str, seed: int, direction: int) -> Result:
        """Train, harmonize and evaluate a method, as far as that is not done already.

        Args:
            name: name of the method.
            seed: seed of its training.
            direction: number of the direction.

        Raises:
            CvsctError: if the training, the harmonization or the evaluation fails.
        """
        row = find_method(name)
        model = self._train(name, seed, 0 if row.reversible else direction)
        folder = self._result_folder(name, seed, direction)
        source, target = self._sides(direction)
        images, report = folder / "images", folder / "report"
        target_harmonized = folder / TARGET_HARMONIZED_FOLDER
        reverse = row.reversible and direction == 1
        self._harmonize(source, model, images, reverse)
        self._harmonize(target, model, target_harmonized, reverse)
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
                ibsi=self.ibsi,
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
            fit_s=training_s(model),
            slices_per_s=read_manifest(images)["figures"]["slices_per_s"],
            model_mb=model_mb(model),
            kind=row.kind,
            trained_on=f"{self.parts[name]}/",
            both_ways=row.reversible,
        )

    def _harmonize(self, scanner: str, model: Path, images: Path, reverse: bool) -> None:
        """Harmonize the test scans of a scanner; series that failed before are tried again.

        Raises:
            CvsctError: if series failed, because the figures would be those of the others alone.
        """
        failed_before = failed_series(images)
        if failed_before == 0:
            return
        harmonize(
            self.data / TEST / scanner,
            images,
            model=model,
            direction="b2a" if reverse else "a2b",
            guard=["scan=note"],  # a benchmark's own test data is never refused
            resume=bool(failed_before),
            progress=self.progress,
            note=self.note,
        )
        failed = failed_series(images)
        if failed:
            raise CvsctError(
                f"{failed} series of {TEST}/{scanner} could not be harmonized; "
                f"{images.relative_to(self.out) / 'manifest.json'} has the reasons"
            )

    def is_trained(self, name: str, seed: int, direction: int) -> bool:
        """Whether the model of a method, seed and direction is there."""
        trained = 0 if find_method(name).reversible else direction
        return (self._model_folder(name, seed, trained) / SUMS_FILE).exists()

    def settings_of(self, row: Method) -> Mapping[str, Any]:
        """Settings of this benchmark that a method is given; they are of networks alone."""
        return self.settings if row.uses else {}

    def _model_folder(self, name: str, seed: int, direction: int) -> Path:
        return self.out / MODELS / (f"{name}-{seed}" + ("-b2a" if direction else ""))

    def _train(self, name: str, seed: int, direction: int) -> Path:
        """Folder of a trained model; a training is started or resumed if it is not complete."""
        source, target = self._sides(direction)
        model = self._model_folder(name, seed, direction)
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
            settings=self.settings_of(row),
            seed=seed if "seed" in uses else 0,
            resume=(model / CHECKPOINT_FILE).exists(),
            allow=self.allow,
            progress=self.progress,
            note=self.note,
            **{key: value for key, value in self._budget(row.reversible).items() if key in uses},
        )
        return model

    def _budget(self, both_ways: bool) -> dict[str, Any]:
        """Budget of a training; one that serves both directions has the minutes of both."""
        minutes = self.budget["max_minutes"]
        return {**self.budget, "max_minutes": minutes and minutes * (1 + both_ways)}

    def _sides(self, direction: int) -> tuple[str, str]:
        """Names of the source and target scanner of a direction."""
        a, b = self.names
        return (b, a) if direction else (a, b)

    def combat(self, results: list[Result]) -> list[Result]:
        """Results of ComBat on the input's features, for each direction whose slices pair.

        Any report of a direction serves, because the input's features are the same in all.
        """
        combat_results = []
        for direction in (0, 1):
            of_pairs = [r for r in results if r.direction == direction and is_paired(r)]
            if not of_pairs:
                continue
            try:
                metrics = combat_metrics(self._features(of_pairs[0]))
                combat_results.append(Result(COMBAT, 0, direction, metrics))
            except Exception as error:
                self.note(f"no ComBat: {failure_reason(error)}")
        return combat_results

    def leader_tables(self, results: list[Result]) -> list[Table]:
        """Tests of the methods against the best one, for each direction whose slices pair.

        The first seed of each method is tested.
        """
        tables = []
        for direction, name in enumerate(self.directions):
            of_pairs = [
                r for r in results if r.direction == direction and r.seed == 0 and is_paired(r)
            ]
            try:
                files = {result.method: self._features(result) for result in of_pairs}
                tables.append(leader_table(files, name, direction))
            except Exception as error:
                self.note(f"no test of the leading method, {name}: {failure_reason(error)}")
        return [table for table in tables if table is not None]

    def _features(self, result: Result) -> FeatureFile:
        folder = self._result_folder(result.method, result.seed, result.direction)
        return read_features(folder / "report" / "features.csv")

    def _result_folder(self, name: str, seed: int, direction: int) -> Path:
        return self.out / "results" / f"{name}-{seed}" / DIRECTION_FOLDERS[direction]

    def benchmark(self, results: list[Result], failed: Sequence[tuple[str, int]] = ()) -> Benchmark:
        """Results with what the tables need besides.

        Args:
            results: all results.
            failed: methods and directions that lack the result of a seed.
        """
        steps, minutes = self.budget["max_steps"], self.budget["max_minutes"]
        limits = [f"{steps} steps"] if steps else []
        if minutes:
            limits.append(
                f"{minutes:g} minutes a direction ({2 * minutes:g} where one training serves both)"
            )
        return Benchmark(
            directions=self.directions,
            results=tuple(results),
            budget=f"Preset {self.preset}, at most {' and '.join(limits) or 'its own steps'}.",
            on_paper_scanners=self.names == PAPER_PAIR,
            failed=tuple(failed),
        )


def is_paired(result: Result) -> bool:
    """Whether the evaluation compared slices, and so measured features."""
    return not result.metrics.get("unpaired_because")


def failure_reason(error: BaseException) -> str:
    """Reason of a failure for the user, without values from files; the log gets the traceback."""
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
    """Explanation of a failed file operation, without identifiers in the name of the file."""
    text = explain(error)
    if not isinstance(error.filename, str):
        return text
    return text.replace(error.filename, label(Path(error.filename)), 1)
