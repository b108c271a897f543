"""`cvsct benchmark`: methods, directions and seeds on one data set, resumable, into tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct.cli.benchmark_folder import (
    MINUTES,
    MODELS,
    PAIRED,
    REPEAT,
    TEST,
    TRAIN,
    fingerprint,
    scanners_of,
    training_part,
)
from cvsct.cli.benchmark_pairs import unpaired_because
from cvsct.cli.benchmark_work import Work
from cvsct.cli.failures import reason_of
from cvsct.cli.words import EXIT_SOME_FAILED, complain, note
from cvsct.errors import CvsctError, TerminatedError, TrainingError, UsageError

if TYPE_CHECKING:
    from cvsct.evaluation.league import Benchmark
    from cvsct.evaluation.tables import Table


def benchmark(
    data: Annotated[Path, typer.Option(help="Holds train/, test/, perhaps repeat/ and paired/.")],
    methods: Annotated[
        str, typer.Option(help="Rows of `cvsct methods`, by commas; NAME:K for K seeds of one.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; one begun before goes on.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method that has any.")] = 1,
    preset: Annotated[str, typer.Option(help="paper, stable or cpu.")] = "cpu",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of each training: one step of a model of both ways is one each."),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="A direction: twice as long where one training serves both."),
    ] = None,
    rois: Annotated[int, typer.Option(min=3, help="Soft-tissue regions of each test.")] = 120,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help="Of `cvsct train`: phantom, derived, mixed-scanners."),
    ] = None,
) -> None:
    """Train, harmonise and evaluate each method both ways; the paper's tables with ours beside."""
    from cvsct.inference.training_set import parse_allowed
    from cvsct.methods import find_method
    from cvsct.plans import claimed
    from cvsct.runs import refuse_unknown_preset, write_atomic, write_json

    wanted = _wanted(methods, seeds)
    refuse_unknown_preset(preset)
    allowed = sorted(parse_allowed(allow or []))
    names = scanners_of(data)
    kinds = {name: find_method(name).kind for name in wanted}
    parts = {name: training_part(data, names, kind) for name, kind in kinds.items()}
    plan = {
        "data": fingerprint(data, (TRAIN, TEST, REPEAT)),
        **(fingerprint(data, (PAIRED,)) if "paired" in kinds.values() else {}),
        "preset": preset,
        "set": setting or [],
        "max_steps": max_steps,
        MINUTES: max_minutes,
        "rois": rois,
        **({"allow": allowed} if allowed else {}),
    }
    unlearnable = _cannot_pair(data, names, kinds, parts)
    free = "methods and seeds may be added"
    # what was trained elsewhere, on a GPU perhaps, is taken up; paired scans may come later
    with claimed(out, plan, "benchmark", free, beforehand=[MODELS], later=[PAIRED]):
        budget = {"max_steps": max_steps, "max_minutes": max_minutes}
        work = Work(data, out, names, parts, preset, setting or [], budget, rois, workers, allowed)
        jobs = [
            (name, seed, direction)
            for name, count in wanted.items()
            for seed in range(count)
            for direction in (0, 1)
        ]
        results, failed = [], {}
        lost: list[tuple[str, int]] = []
        for number, (name, seed, direction) in enumerate(jobs, start=1):
            note(f"[{number}/{len(jobs)}] {name}, seed {seed}, {work.directions[direction]}")
            try:
                if name in unlearnable:
                    raise TrainingError(unlearnable[name])
                results.append(work.result(name, seed, direction))
            except TerminatedError:
                raise
            except (Exception, SystemExit) as error:  # one method's failure is not the others'
                reason = reason_of(error)
                failed[f"{name}, seed {seed}, {work.directions[direction]}"] = reason
                lost.append((name, direction))
                complain(reason)
        if not results:
            raise CvsctError(f"every method failed; the first: {next(iter(failed.values()))}")
        found = work.benchmark([*results, *work.combat(results)], lost)
        for name, content in _documents(found, work.leads(results), failed).items():
            write_atomic(out / name, content)
        write_json(out / "results.json", _record(found, plan, failed))
    for table in _ranked(found):
        print(table)
    print(out / "benchmark.html")
    if failed:
        sys.exit(EXIT_SOME_FAILED)


def _cannot_pair(
    data: Path, names: tuple[str, str], kinds: Mapping[str, str], parts: Mapping[str, str]
) -> dict[str, str]:
    """Say what cannot be paired; gives the methods that cannot learn for it, and why.

    Raises:
        CvsctError: if test scans must be refused.
    """
    reason = unpaired_because(data / TEST, names)
    if reason:
        note(
            f"note: {TEST}/{names[0]} and {TEST}/{names[1]} do not pair: {reason}. Figures of "
            "pairs stay empty; texture, noise, edges and mean HU are tabled"
        )
    found: dict[str, str] = {}
    for part in {parts[name] for name, kind in kinds.items() if kind == "paired"}:
        try:
            reason = unpaired_because(data / part, names)
        except CvsctError as error:
            reason = str(error)
        if reason:
            methods = [name for name, kind in kinds.items() if kind == "paired"]
            note(f"note: {part}/ holds no pairs for {', '.join(methods)} to learn from: {reason}")
            found |= dict.fromkeys(methods, f"{part}/ holds no pairs to learn from: {reason}")
    return found


def _wanted(methods: str, seeds: int) -> dict[str, int]:
    """Trainings of each method, those that take seconds first and once."""
    from cvsct.methods import find_method

    found: dict[str, int] = {}
    for word in filter(None, (each.strip() for each in methods.split(","))):
        name, _, count = word.partition(":")
        if count and not (count.isdigit() and int(count)):
            raise UsageError(f"{word!r}: the number of seeds is at least 1")
        row = find_method(name)
        found[name] = 1 if row.kind == "classical" else int(count or seeds)
    if not found:
        raise UsageError("no methods; give some of `cvsct methods`, by commas")
    return dict(sorted(found.items(), key=lambda one: find_method(one[0]).kind != "classical"))


def _documents(found: Benchmark, leads: list[Table], failed: Mapping[str, str]) -> dict[str, str]:
    from cvsct.evaluation.league_page import league_html, league_markdown
    from cvsct.evaluation.league_tables import tables

    made = [*tables(found), *leads]
    return {
        **{f"{table.key}.csv": table.to_csv() for table in made},
        "tables.md": league_markdown(found, made, failed),
        "benchmark.html": league_html(found, made, failed),
    }


def _ranked(found: Benchmark) -> list[str]:
    from cvsct.evaluation.league_tables import ranking
    from cvsct.evaluation.league_unpaired import unpaired_table

    made = [make(found, way) for way in (0, 1) for make in (ranking, unpaired_table)]
    return [table.to_markdown() for table in made if table is not None]


def _record(found: Benchmark, plan: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "plan": dict(plan),
        "directions": list(found.directions),
        "results": [asdict(one) for one in found.results],
        "failed": dict(failed),
        "research_use_only": True,
    }
