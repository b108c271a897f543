"""`cvsct benchmark`: methods, directions and seeds on one data set, resumable, into tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cvsct.cli.benchmark_folder import (
    MODELS,
    REPEAT,
    TEST,
    TRAIN,
    fingerprint,
    scanners_of,
)
from cvsct.cli.evaluate import evaluate
from cvsct.cli.harmonize import harmonize
from cvsct.cli.train import train
from cvsct.cli.words import EXIT_SOME_FAILED, complain, note
from cvsct.errors import CvsctError, TerminatedError, UsageError, explain

if TYPE_CHECKING:
    from cvsct.evaluation.feature_file import FeatureFile
    from cvsct.evaluation.league import Benchmark, Result
    from cvsct.evaluation.tables import Table

PAPER_PAIR = ("ge-revolution-evo", "siemens-somatom-force")


def benchmark(
    data: Annotated[Path, typer.Option(help="Holds train/, test/ and perhaps repeat/.")],
    methods: Annotated[
        str, typer.Option(help="Rows of `cvsct methods`, by commas; NAME:K for K seeds of one.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; one begun before goes on.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method that has any.")] = 1,
    preset: Annotated[str, typer.Option(help="paper, stable or cpu.")] = "cpu",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Of each training.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="Of each training.")] = None,
    rois: Annotated[int, typer.Option(min=3, help="Soft-tissue regions of each test.")] = 120,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a core.")] = 0,
) -> None:
    """Train, harmonise and evaluate each method both ways; the paper's tables with ours beside."""
    from cvsct.plans import claimed
    from cvsct.runs import refuse_unknown_preset, write_atomic, write_json

    wanted = _wanted(methods, seeds)
    refuse_unknown_preset(preset)
    names = scanners_of(data)
    budget = {"max_steps": max_steps, "max_minutes": max_minutes}
    plan = {
        "data": fingerprint(data), "preset": preset, "set": setting or [], **budget, "rois": rois,
    }  # fmt: skip
    free = "methods and seeds may be added"
    with claimed(out, plan, "benchmark", free, beforehand=[MODELS]):  # trained on a GPU perhaps
        work = _Work(data, out, names, preset, setting or [], budget, rois, workers)
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


@dataclass(frozen=True)
class _Work:
    """Where everything lies, and what is done for one method, seed and direction."""

    data: Path
    out: Path
    names: tuple[str, str]
    preset: str
    settings: list[str]
    budget: dict[str, Any]
    rois: int
    workers: int

    @property
    def directions(self) -> tuple[str, str]:
        a, b = ("GE", "Siemens") if self.names == PAPER_PAIR else self.names
        return f"{a} to {b}", f"{b} to {a}"

    def result(self, name: str, seed: int, direction: int) -> Result:
        """Do what is not there yet: a training, the derived series, the report."""
        from cvsct.evaluation.league import Result
        from cvsct.methods import find_method

        reversible = find_method(name).reversible
        model = self._model(name, seed, 0 if reversible else direction)
        place = self._place(name, seed, direction)
        source, target = self._sides(direction)
        images, report = place / "images", place / "report"
        passed = place / "passed"
        back = reversible and direction == 1
        for scans, made in ((source, images), (target, passed)):
            if not made.exists():
                harmonize(self.data / TEST / scans, model, made, reverse=back)
        if not report.exists():
            repeat = self.data / REPEAT / target
            nodules = self.data / "nodules.csv"
            evaluate(
                images,
                self.data / TEST / target,
                report,
                source=self.data / TEST / source,
                repeat=repeat if repeat.is_dir() else None,
                passed=passed,
                nodules=nodules if nodules.is_file() else None,
                rois=self.rois,
                workers=self.workers,
            )
        size = sum(file.stat().st_size for file in _files_of_model(model))
        return Result(
            method=name,
            seed=seed,
            direction=direction,
            metrics=json.loads((report / "metrics.json").read_text()),
            fit_s=_manifest(model)["timings_s"]["training"],
            slices_per_s=_manifest(images)["figures"]["slices_per_s"],
            model_mb=size / 1e6,
        )

    def _model(self, name: str, seed: int, direction: int) -> Path:
        from cvsct.methods import find_method
        from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE

        source, target = self._sides(direction)
        model = self.out / MODELS / (f"{name}-{seed}" + ("-b2a" if direction else ""))
        if (model / SUMS_FILE).exists():
            return model
        uses = find_method(name).uses
        train(
            name,
            self.data / TRAIN / source,
            self.data / TRAIN / target,
            model,
            preset=self.preset if "preset" in uses else "cpu",
            setting=self.settings if uses else [],
            seed=seed if "seed" in uses else 0,
            resume=(model / CHECKPOINT_FILE).exists(),
            **{key: value for key, value in self.budget.items() if key in uses},
        )
        return model

    def _sides(self, direction: int) -> tuple[str, str]:
        a, b = self.names
        return (b, a) if direction else (a, b)

    def combat(self, results: list[Result]) -> list[Result]:
        """ComBat on the input's features, which are the same in every method's report."""
        from cvsct.evaluation.league import COMBAT, Result
        from cvsct.evaluation.league_features import combat_metrics

        made = []
        for direction in (0, 1):
            file = next((self._features(r) for r in results if r.direction == direction), None)
            if file is None:
                continue
            try:
                made.append(Result(COMBAT, 0, direction, combat_metrics(file)))
            except CvsctError as error:
                note(f"no ComBat: {error}")
        return made

    def leads(self, results: list[Result]) -> list[Table]:
        """Each direction's methods against its best, by their first seed."""
        from cvsct.evaluation.league_features import lead_table

        found = []
        for direction, name in enumerate(self.directions):
            files = {
                r.method: self._features(r)
                for r in results
                if r.direction == direction and r.seed == 0
            }
            found.append(lead_table(files, name, direction))
        return [table for table in found if table is not None]

    def _features(self, result: Result) -> FeatureFile:
        from cvsct.evaluation.feature_file import read_features

        return read_features(self._place(result.method, result.seed, result.direction)
                             / "report" / "features.csv")  # fmt: skip

    def _place(self, name: str, seed: int, direction: int) -> Path:
        from cvsct.evaluation.league import WAYS

        return self.out / "results" / f"{name}-{seed}" / WAYS[direction]

    def benchmark(self, results: list[Result]) -> Benchmark:
        from cvsct.evaluation.league import Benchmark

        given = [f"{v:g} {name.removeprefix('max_')}" for name, v in self.budget.items() if v]
        return Benchmark(
            directions=self.directions,
            results=tuple(results),
            budget=f"Preset {self.preset}, at most {' and '.join(given) or 'its own steps'}.",
            like_the_paper=self.names == PAPER_PAIR,
        )


def _manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def _files_of_model(model: Path) -> list[Path]:
    """What SHA256SUMS lists: checkpoints and logs are no part of a model."""
    from cvsct.models.bundle import SUMS_FILE

    names = [line.partition("  ")[2] for line in (model / SUMS_FILE).read_text().splitlines()]
    return [model / name for name in names]


def _documents(found: Benchmark, leads: list[Table], failed: Mapping[str, str]) -> dict[str, str]:
    from cvsct.evaluation.league import tables
    from cvsct.evaluation.league_page import league_html, league_markdown

    made = [*tables(found), *leads]
    return {
        **{f"{table.key}.csv": table.to_csv() for table in made},
        "tables.md": league_markdown(found, made, failed),
        "benchmark.html": league_html(found, made, failed),
    }


def _ranked(found: Benchmark) -> list[str]:
    from cvsct.evaluation.league import ranking

    return [ranking(found, direction).to_markdown() for direction in (0, 1)]


def _record(found: Benchmark, plan: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "plan": dict(plan),
        "directions": list(found.directions),
        "results": [asdict(one) for one in found.results],
        "failed": dict(failed),
        "research_use_only": True,
    }
