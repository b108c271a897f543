"""Benchmark of methods on one data set: both directions, several seeds, resumable, as tables."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvsct.benchmarking.folder import (
    MINUTES_KEY,
    MODELS,
    PAIRED,
    REPEAT,
    TEST,
    TRAIN,
    count_files,
    scanner_names,
    training_part,
    unpaired_because,
)
from cvsct.benchmarking.page import benchmark_html, benchmark_markdown
from cvsct.benchmarking.results import Benchmark
from cvsct.benchmarking.tables import ranking, tables
from cvsct.benchmarking.train_and_evaluate import BenchmarkSteps, failure_reason
from cvsct.benchmarking.unpaired import unpaired_table
from cvsct.core.download import Confirm, DownloadOptions
from cvsct.core.errors import (
    CvsctError,
    TerminatedError,
    TrainingError,
    UsageError,
    need_extra,
)
from cvsct.core.files import refuse_missing, refuse_unwritable, write_atomic, write_json
from cvsct.core.kinds import refuse_no_path
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.resumable import locked_output
from cvsct.core.settings import refuse_outside
from cvsct.core.sides import with_old_keys
from cvsct.evaluation.table import Table, as_text
from cvsct.guard.training_set import parse_allowed
from cvsct.methods.registry import find_method
from cvsct.methods.settings import refuse_unknown_preset


@dataclass(frozen=True)
class BenchmarkResult:
    """Result of `cvsct.benchmark`.

    Args:
        out: folder with all tables.
        benchmark: results of every method, direction and seed.
        rankings: the ranking of each direction, and a table of the figures that need no pairs where
            nothing pairs.
        failed: reason of each failure, by method, seed and direction.
    """

    out: Path
    benchmark: Benchmark
    rankings: tuple[Table, ...]
    failed: Mapping[str, str]

    @property
    def found(self) -> Benchmark:
        """Name of `benchmark` before it was renamed; removed in 0.3.0."""
        warnings.warn("`found` is called `benchmark` now", DeprecationWarning, stacklevel=2)
        return self.benchmark

    def to_json(self) -> dict[str, Any]:
        """Plain values: the rankings by rows, and the reasons of failures."""
        return {
            "out": str(self.out),
            "directions": list(self.benchmark.directions),
            "tables": {
                table.title: [
                    dict(zip(table.head, map(as_text, row), strict=True)) for row in table.rows
                ]
                for table in self.rankings
            },
            "failed": dict(self.failed),
        }


def benchmark(
    data: Path | str,
    methods: str | Sequence[str],
    out: Path | str,
    *,
    seeds: int = 1,
    preset: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    rois: int = 120,
    workers: int = 0,
    allow: Sequence[str] = (),
    ibsi: bool = False,
    dry_run: bool = False,
    confirm: Confirm | None = None,
    progress: Progress = silent,
    note: Note = log_note,
    failure: Note = log_note,
) -> BenchmarkResult:
    """Train, harmonize and evaluate methods in both directions, as tables beside the paper's.

    Models that were trained elsewhere are used where they lie in `out` as `models/METHOD-SEED`, and
    as `models/METHOD-SEED-b2a` for the second direction of a method that maps one way.

    Args:
        data: folder with `train/` and `test/`, and optionally `repeat/` and `paired/`, each with a
            folder for each scanner.
        methods: names of methods (`list_methods`), separated by commas or as a sequence; `NAME:K`
            for K seeds of one.
        out: folder to write; an interrupted benchmark in it is resumed.
        seeds: number of trainings of each method whose training is random.
        preset: preset of the networks' settings.
        settings: settings of the networks that differ from the preset.
        max_steps: largest number of steps of each training.
        max_minutes: largest duration of each direction's training; doubled where one training
            serves both directions.
        rois: number of soft-tissue regions of each evaluation.
        workers: number of processes; 0 for one per core.
        allow: kinds of scans that trainings accept although they are doubtful, as of `train`.
        ibsi: compare features by IBSI's gray levels too, a column of the rankings.
        dry_run: report what would be trained; write nothing.
        confirm: called with a question, before any work, where a method that is still to be trained
            needs VGG weights and there are none, as of `train`.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.
        failure: called with the reason of each failure; the other methods go on.

    Returns:
        The tables, all results and the reasons of failures; `out` holds `benchmark.html`, the
        tables as CSV and Markdown, `results.json`, and the models, images and reports.

    Raises:
        UsageError: if methods or options do not exist, or `out` holds a benchmark of other options.
        MissingExtraError: if the extra `evaluate` is not installed.
        TrainingError: if a method needs VGG weights that are missing.
        CvsctError: if every method failed.

    Example:
        >>> result = cvsct.benchmark(data, "input", out, rois=3, workers=1)
        >>> result.failed
        {}
    """
    need_extra("evaluate", "benchmark")
    refuse_no_path("a benchmark reads its scans from disk", data=data)
    refuse_no_path(out=out)
    data, out = Path(data), Path(out)
    refuse_missing(data)
    refuse_unwritable(out, grows=True)
    names_of_methods = methods.split(",") if isinstance(methods, str) else list(methods)
    setting = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in (settings or {}).items()
    ]
    trainings = _trainings(names_of_methods, seeds)
    refuse_unknown_preset(preset)
    refuse_outside(1, seeds=seeds, max_steps=max_steps, rois=rois)
    refuse_outside(0, max_minutes=max_minutes, workers=workers)
    allowed = sorted(parse_allowed(allow))
    names = scanner_names(data)
    kinds = {name: find_method(name).kind for name in trainings}
    parts = {name: training_part(data, names, kind) for name, kind in kinds.items()}
    plan = {
        "data": count_files(data, (TRAIN, TEST, REPEAT)),
        **(count_files(data, (PAIRED,)) if "paired" in kinds.values() else {}),
        "preset": preset,
        "set": setting,
        "max_steps": max_steps,
        MINUTES_KEY: max_minutes,
        "rois": rois,
        **({"allow": allowed} if allowed else {}),
        **({"ibsi": True} if ibsi else {}),
    }
    without_pairs = _methods_without_pairs(data, names, kinds, parts, note, failure)
    budget = {"max_steps": max_steps, "max_minutes": max_minutes}
    steps = BenchmarkSteps(
        data, out, names, parts, preset, settings or {}, budget, rois, workers, allowed, ibsi,
        progress, note,
    )  # fmt: skip
    jobs = [
        (name, seed, direction)
        for name, count in trainings.items()
        for seed in range(count)
        for direction in (0, 1)
    ]
    _obtain_files(
        [job for job in jobs if job[0] not in without_pairs],
        steps,
        DownloadOptions(confirm, dry_run, progress, note),
    )
    if dry_run:
        for number, (name, seed, direction) in enumerate(jobs, start=1):
            note(f"[{number}/{len(jobs)}] {name}, seed {seed}, {steps.directions[direction]}")
        return BenchmarkResult(out, steps.benchmark([], []), (), {})
    changeable = "methods and seeds may be added"
    # models that were trained elsewhere, such as on a GPU, are used; paired scans may come later
    with locked_output(out, plan, "benchmark", changeable, beforehand=[MODELS], later=[PAIRED]):
        results, failed = [], {}
        failed_directions: list[tuple[str, int]] = []
        for number, (name, seed, direction) in enumerate(jobs, start=1):
            note(f"[{number}/{len(jobs)}] {name}, seed {seed}, {steps.directions[direction]}")
            try:
                if name in without_pairs:
                    raise TrainingError(without_pairs[name])
                results.append(steps.result(name, seed, direction))
            except TerminatedError:
                raise
            except (Exception, SystemExit) as error:  # one method's failure is not the others'
                reason = failure_reason(error)
                failed[f"{name}, seed {seed}, {steps.directions[direction]}"] = reason
                failed_directions.append((name, direction))
                failure(reason)
        if not results:
            raise CvsctError(f"every method failed; the first: {next(iter(failed.values()))}")
        all_results = steps.benchmark([*results, *steps.combat(results)], failed_directions)
        documents = _documents(all_results, steps.leader_tables(results), failed)
        for name, content in documents.items():
            write_atomic(out / name, content)
        write_json(out / "results.json", _record(all_results, plan, failed))
    rankings = [
        table
        for direction in (0, 1)
        for table in (ranking(all_results, direction), unpaired_table(all_results, direction))
        if table
    ]
    return BenchmarkResult(out, all_results, tuple(rankings), failed)


def _obtain_files(
    jobs: Sequence[tuple[str, int, int]], steps: BenchmarkSteps, options: DownloadOptions
) -> None:
    """Obtain files of others for all trainings that are still to be done, before the first one.

    Args:
        jobs: method, seed and direction of each result.

    Raises:
        TrainingError: if a file is missing and may not or cannot be downloaded.
    """
    for name in dict.fromkeys(name for name, *rest in jobs if not steps.is_trained(name, *rest)):
        row = find_method(name)
        try:
            config = row.configure(steps.preset, {**row.settings, **steps.settings_of(row)})
        except CvsctError:
            continue  # told in its turn, as the failure of this method alone
        row.obtain_files(config, options)


def _methods_without_pairs(
    data: Path,
    names: tuple[str, str],
    kinds: Mapping[str, str],
    parts: Mapping[str, str],
    note: Note,
    failure: Note,
) -> dict[str, str]:
    """Remark on scans that do not pair, and find the methods that cannot be trained for that.

    Args:
        data: folder of the data.
        names: names of the two scanners.
        kinds: kind of each method.
        parts: folder of the data that each method trains on.
        note: called with each remark.
        failure: called with the reason of every refused series but the first.

    Returns:
        The reason, by method.

    Raises:
        CvsctError: if test scans must be refused.
    """
    reason = unpaired_because(data / TEST, names, failure)
    if reason:
        note(
            f"{TEST}/{names[0]} and {TEST}/{names[1]} do not pair: {reason}. Figures of "
            "pairs stay empty; tables show texture, noise, edges and mean HU"
        )
    reasons: dict[str, str] = {}
    for part in {parts[name] for name, kind in kinds.items() if kind == "paired"}:
        try:
            reason = unpaired_because(data / part, names, failure)
        except CvsctError as error:
            reason = str(error)
        if reason:
            methods = [name for name, kind in kinds.items() if kind == "paired"]
            note(f"{part}/ holds no pairs for {', '.join(methods)} to learn from: {reason}")
            reasons |= dict.fromkeys(methods, f"{part}/ holds no pairs to learn from: {reason}")
    return reasons


def _trainings(methods: Sequence[str], seeds: int) -> dict[str, int]:
    """Number of trainings of each method; classical ones come first and are trained once.

    Args:
        methods: names of methods, or `NAME:K` for K trainings.
        seeds: number of trainings of the others.

    Raises:
        UsageError: if there are no methods, or a number of trainings is not positive.
    """
    trainings: dict[str, int] = {}
    for method in filter(None, (text.strip() for text in methods)):
        name, _, count = method.partition(":")
        if count and not (count.isdigit() and int(count)):
            raise UsageError(
                f"{method!r}: {count!r} is no number of seeds, expected 1 or more; "
                f"write it as {name}:3"
            )
        row = find_method(name)
        trainings[name] = 1 if row.kind == "classical" else int(count or seeds)
    if not trainings:
        raise UsageError("no methods; give some of `cvsct methods`, separated by commas")
    classical_first = sorted(trainings, key=lambda name: find_method(name).kind != "classical")
    return {name: trainings[name] for name in classical_first}


def _documents(
    benchmark: Benchmark, leader_tables: list[Table], failed: Mapping[str, str]
) -> dict[str, str]:
    """Text of the tables and pages, by the name of the file."""
    all_tables = [*tables(benchmark), *leader_tables]
    return {
        **{f"{table.key}.csv": table.to_csv() for table in all_tables},
        "tables.md": benchmark_markdown(benchmark, all_tables, failed),
        "benchmark.html": benchmark_html(benchmark, all_tables, failed),
    }


def _record(
    benchmark: Benchmark, plan: Mapping[str, Any], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Contents of `results.json`."""
    return {
        "plan": dict(plan),
        "directions": list(benchmark.directions),
        "results": [with_old_keys(asdict(result)) for result in benchmark.results],
        "failed": dict(failed),
        "research_use_only": True,
    }
