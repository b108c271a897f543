"""`cvsct benchmark`: methods, directions and seeds on one data set, resumable, into tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct.cli.benchmark_folder import (
    DATA_PARTS,
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
from cvsct.cli.benchmark_work import Work
from cvsct.cli.left_out import tell_data
from cvsct.cli.words import EXIT_SOME_FAILED, complain, note
from cvsct.errors import CvsctError, TerminatedError, UsageError, explain

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
) -> None:
    """Train, harmonise and evaluate each method both ways; the paper's tables with ours beside."""
    from cvsct.methods import find_method
    from cvsct.plans import claimed
    from cvsct.runs import refuse_unknown_preset, write_atomic, write_json

    wanted = _wanted(methods, seeds)
    refuse_unknown_preset(preset)
    names = scanners_of(data)
    kinds = {name: find_method(name).kind for name in wanted}
    parts = {name: training_part(data, names, kind) for name, kind in kinds.items()}
    tell_data({f"{part}/{name}": data / part / name for part in DATA_PARTS for name in names})
    plan = {
        "data": fingerprint(data, (TRAIN, TEST, REPEAT)),
        **(fingerprint(data, (PAIRED,)) if "paired" in kinds.values() else {}),
        "preset": preset,
        "set": setting or [],
        "max_steps": max_steps,
        MINUTES: max_minutes,
        "rois": rois,
    }
    free = "methods and seeds may be added"
    # what was trained elsewhere, on a GPU perhaps, is taken up; paired scans may come later
    with claimed(out, plan, "benchmark", free, beforehand=[MODELS], later=[PAIRED]):
        budget = {"max_steps": max_steps, "max_minutes": max_minutes}
        work = Work(data, out, names, parts, preset, setting or [], budget, rois, workers)
        jobs = [
            (name, seed, direction)
            for name, count in wanted.items()
            for seed in range(count)
            for direction in (0, 1)
        ]
        results, failed = [], {}
        for number, (name, seed, direction) in enumerate(jobs, start=1):
            note(f"[{number}/{len(jobs)}] {name}, seed {seed}, {work.directions[direction]}")
            try:
                results.append(work.result(name, seed, direction))
            except TerminatedError:
                raise
            except (CvsctError, OSError) as error:
                reason = explain(error) if isinstance(error, OSError) else str(error)
                failed[f"{name}, seed {seed}, {work.directions[direction]}"] = reason
                complain(reason)
        if not results:
            raise CvsctError(f"every method failed; the first: {next(iter(failed.values()))}")
        found = work.benchmark([*results, *work.combat(results)])
        for name, content in _documents(found, work.leads(results), failed).items():
            write_atomic(out / name, content)
        write_json(out / "results.json", _record(found, plan, failed))
    for table in _ranked(found):
        print(table)
    print(out / "benchmark.html")
    if failed:
        sys.exit(EXIT_SOME_FAILED)


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

    return [ranking(found, direction).to_markdown() for direction in (0, 1)]


def _record(found: Benchmark, plan: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "plan": dict(plan),
        "directions": list(found.directions),
        "results": [asdict(one) for one in found.results],
        "failed": dict(failed),
        "research_use_only": True,
    }
