"""Methods, directions and seeds on one data set, resumable, into tables."""

from __future__ import annotations

import json
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
from cvsct.core.errors import (
    CvsctError,
    TerminatedError,
    TrainingError,
    UsageError,
    need_extra,
)
from cvsct.core.files import refuse_missing, write_atomic, write_json
from cvsct.core.progress import Note, Progress, log_note, silent
from cvsct.core.resumable import locked_output
from cvsct.core.sides import with_old_keys
from cvsct.evaluation.table import Table, as_text
from cvsct.guard.training_set import parse_allowed
from cvsct.methods.registry import find_method
from cvsct.methods.settings import refuse_unknown_preset


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark has measured.

    Args:
        out: the folder with all tables.
        found: results of every method, direction and seed.
        rankings: a table for each direction, and one of what needs no pairs where nothing pairs.
        failed: why a method, seed and direction has no result, by its name.
    """

    out: Path
    found: Benchmark
    rankings: tuple[Table, ...]
    failed: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The ranking of each direction by rows, and what failed, as plain values."""
        return {
            "out": str(self.out),
            "directions": list(self.found.directions),
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
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
    failure: Note = log_note,
) -> BenchmarkResult:
    """Train, harmonize and evaluate each method both ways, into tables beside the paper's.

    Args:
        data: holds train/, test/, perhaps repeat/ and paired/, each with one folder a scanner.
        methods: rows of `list_methods`; `NAME:K` for K seeds of one.
        out: the folder to write; one begun before goes on.
        seeds: trainings of each method that has any randomness.
        preset, settings: of networks.
        max_steps: of each training.
        max_minutes: of each direction: twice as long where one training serves both.
        rois: soft-tissue regions of each test.
        workers: processes; 0 is one a core.
        allow: as of `train`.
        dry_run: tell what would be trained; write nothing.
        progress, note, failure: told of the work's state, of what a user should know, and of what
            failed while the others go on.

    Raises:
        UsageError: for methods or options that do not exist, or an `out` of another plan.
        CvsctError: if every method failed.

    Example:
        >>> result = cvsct.benchmark(data, "input", out, rois=3, workers=1)
        >>> result.failed
        {}
    """
    need_extra("evaluate", "benchmark")
    data, out = Path(data), Path(out)
    refuse_missing(data)
    words = methods.split(",") if isinstance(methods, str) else list(methods)
    setting = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in (settings or {}).items()
    ]
    wanted = _wanted(words, seeds)
    refuse_unknown_preset(preset)
    allowed = sorted(parse_allowed(allow))
    names = scanner_names(data)
    kinds = {name: find_method(name).kind for name in wanted}
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
    }
    unlearnable = _methods_without_pairs(data, names, kinds, parts, note, failure)
    budget = {"max_steps": max_steps, "max_minutes": max_minutes}
    steps = BenchmarkSteps(
        data, out, names, parts, preset, settings or {}, budget, rois, workers, allowed, progress,
        note,
    )  # fmt: skip
    jobs = [
        (name, seed, direction)
        for name, count in wanted.items()
        for seed in range(count)
        for direction in (0, 1)
    ]
    if dry_run:
        for number, (name, seed, direction) in enumerate(jobs, start=1):
            note(f"[{number}/{len(jobs)}] {name}, seed {seed}, {steps.directions[direction]}")
        return BenchmarkResult(out, steps.benchmark([], []), (), {})
    free = "methods and seeds may be added"
    # what was trained elsewhere, on a GPU perhaps, is taken up; paired scans may come later
    with locked_output(out, plan, "benchmark", free, beforehand=[MODELS], later=[PAIRED]):
        results, failed = [], {}
        lost: list[tuple[str, int]] = []
        for number, (name, seed, direction) in enumerate(jobs, start=1):
            note(f"[{number}/{len(jobs)}] {name}, seed {seed}, {steps.directions[direction]}")
            try:
                if name in unlearnable:
                    raise TrainingError(unlearnable[name])
                results.append(steps.result(name, seed, direction))
            except TerminatedError:
                raise
            except (Exception, SystemExit) as error:  # one method's failure is not the others'
                reason = failure_reason(error)
                failed[f"{name}, seed {seed}, {steps.directions[direction]}"] = reason
                lost.append((name, direction))
                failure(reason)
        if not results:
            raise CvsctError(f"every method failed; the first: {next(iter(failed.values()))}")
        found = steps.benchmark([*results, *steps.combat(results)], lost)
        for name, content in _documents(found, steps.leads(results), failed).items():
            write_atomic(out / name, content)
        write_json(out / "results.json", _record(found, plan, failed))
    rankings = (make(found, way) for way in (0, 1) for make in (ranking, unpaired_table))
    return BenchmarkResult(out, found, tuple(each for each in rankings if each), failed)


def _methods_without_pairs(
    data: Path,
    names: tuple[str, str],
    kinds: Mapping[str, str],
    parts: Mapping[str, str],
    note: Note,
    failure: Note,
) -> dict[str, str]:
    """Say what cannot be paired; gives the methods that cannot learn for it, and why.

    Raises:
        CvsctError: if test scans must be refused.
    """
    reason = unpaired_because(data / TEST, names, failure)
    if reason:
        note(
            f"{TEST}/{names[0]} and {TEST}/{names[1]} do not pair: {reason}. Figures of "
            "pairs stay empty; texture, noise, edges and mean HU are tabled"
        )
    found: dict[str, str] = {}
    for part in {parts[name] for name, kind in kinds.items() if kind == "paired"}:
        try:
            reason = unpaired_because(data / part, names, failure)
        except CvsctError as error:
            reason = str(error)
        if reason:
            methods = [name for name, kind in kinds.items() if kind == "paired"]
            note(f"{part}/ holds no pairs for {', '.join(methods)} to learn from: {reason}")
            found |= dict.fromkeys(methods, f"{part}/ holds no pairs to learn from: {reason}")
    return found


def _wanted(methods: Sequence[str], seeds: int) -> dict[str, int]:
    """Trainings of each method, those that take seconds first and once."""
    found: dict[str, int] = {}
    for word in filter(None, (each.strip() for each in methods)):
        name, _, count = word.partition(":")
        if count and not (count.isdigit() and int(count)):
            raise UsageError(f"{word!r}: the number of seeds is at least 1")
        row = find_method(name)
        found[name] = 1 if row.kind == "classical" else int(count or seeds)
    if not found:
        raise UsageError("no methods; give some of `cvsct methods`, by commas")
    return dict(sorted(found.items(), key=lambda one: find_method(one[0]).kind != "classical"))


def _documents(found: Benchmark, leads: list[Table], failed: Mapping[str, str]) -> dict[str, str]:
    made = [*tables(found), *leads]
    return {
        **{f"{table.key}.csv": table.to_csv() for table in made},
        "tables.md": benchmark_markdown(found, made, failed),
        "benchmark.html": benchmark_html(found, made, failed),
    }


def _record(found: Benchmark, plan: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "plan": dict(plan),
        "directions": list(found.directions),
        "results": [with_old_keys(asdict(one)) for one in found.results],
        "failed": dict(failed),
        "research_use_only": True,
    }
