"""What `cvsct benchmark` does for one method, seed and direction: train, harmonise, evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvsct.cli.benchmark_folder import (
    MODELS,
    REPEAT,
    TEST,
    clear_rest,
    failed_series,
    fit_s,
    is_report,
    manifest_of,
    model_mb,
)
from cvsct.cli.evaluate import evaluate
from cvsct.cli.failures import reason_of
from cvsct.cli.harmonize import harmonize
from cvsct.cli.train import train
from cvsct.cli.words import EXIT_SOME_FAILED, note
from cvsct.errors import CvsctError

if TYPE_CHECKING:
    from cvsct.evaluation.feature_file import FeatureFile
    from cvsct.evaluation.league import Benchmark, Result
    from cvsct.evaluation.tables import Table

PAPER_PAIR = ("ge-revolution-evo", "siemens-somatom-force")


@dataclass(frozen=True)
class Work:
    """Where everything lies, and what is done for one method, seed and direction.

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
    settings: list[str]
    budget: dict[str, Any]
    rois: int
    workers: int
    allow: list[str] = field(default_factory=list)

    @property
    def directions(self) -> tuple[str, str]:
        """How they are called."""
        a, b = ("GE", "Siemens") if self.names == PAPER_PAIR else self.names
        return f"{a} to {b}", f"{b} to {a}"

    def result(self, name: str, seed: int, direction: int) -> Result:
        """Do what is not there yet: a training, the derived series, the report."""
        from cvsct.evaluation.league import Result
        from cvsct.methods import find_method

        row = find_method(name)
        model = self._model(name, seed, 0 if row.reversible else direction)
        place = self._place(name, seed, direction)
        source, target = self._sides(direction)
        images, report = place / "images", place / "report"
        passed = place / "passed"
        back = row.reversible and direction == 1
        for scans, made in ((source, images), (target, passed)):
            self._harmonized(scans, model, made, back)
        if not is_report(report):
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
        return Result(
            method=name,
            seed=seed,
            direction=direction,
            metrics=json.loads((report / "metrics.json").read_text()),
            fit_s=fit_s(model),
            slices_per_s=manifest_of(images)["figures"]["slices_per_s"],
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
        try:
            # its own test data is never refused: what the guard has to say is noted
            harmonize(
                self.data / TEST / scans,
                model,
                made,
                reverse=reverse,
                guard=["scan=note"],
                resume=bool(before),
            )
        except SystemExit as stop:
            if stop.code != EXIT_SOME_FAILED or failed_series(made) is None:
                raise
        failed = failed_series(made)
        if failed:
            raise CvsctError(
                f"{failed} series of {TEST}/{scans} could not be harmonised; "
                f"{made.relative_to(self.out) / 'manifest.json'} tells why"
            )

    def _model(self, name: str, seed: int, direction: int) -> Path:
        from cvsct.methods import find_method
        from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE

        source, target = self._sides(direction)
        model = self.out / MODELS / (f"{name}-{seed}" + ("-b2a" if direction else ""))
        if (model / SUMS_FILE).exists():
            return model
        clear_rest(model)
        row = find_method(name)
        uses, scans = row.uses, self.data / self.parts[name]
        train(
            name,
            scans / source,
            scans / target,
            model,
            preset=self.preset if "preset" in uses else "cpu",
            setting=self.settings if uses else [],
            seed=seed if "seed" in uses else 0,
            resume=(model / CHECKPOINT_FILE).exists(),
            allow=self.allow,
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
        from cvsct.evaluation.league import COMBAT, Result
        from cvsct.evaluation.league_features import combat_metrics

        made = []
        for direction in (0, 1):
            own = [one for one in results if one.direction == direction and paired(one)]
            if not own:
                continue
            try:
                found = combat_metrics(self._features(own[0]))
                made.append(Result(COMBAT, 0, direction, found))
            except Exception as error:
                note(f"no ComBat: {reason_of(error)}")
        return made

    def leads(self, results: list[Result]) -> list[Table]:
        """Each direction's methods against its best, by their first seed, where slices pair."""
        from cvsct.evaluation.league_features import lead_table

        found = []
        for direction, name in enumerate(self.directions):
            own = [r for r in results if r.direction == direction and r.seed == 0 and paired(r)]
            try:
                files = {one.method: self._features(one) for one in own}
                found.append(lead_table(files, name, direction))
            except Exception as error:
                note(f"no test of who leads, {name}: {reason_of(error)}")
        return [table for table in found if table is not None]

    def _features(self, result: Result) -> FeatureFile:
        from cvsct.evaluation.feature_file import read_features

        return read_features(self._place(result.method, result.seed, result.direction)
                             / "report" / "features.csv")  # fmt: skip

    def _place(self, name: str, seed: int, direction: int) -> Path:
        from cvsct.evaluation.league import WAYS

        return self.out / "results" / f"{name}-{seed}" / WAYS[direction]

    def benchmark(self, results: list[Result], failed: Sequence[tuple[str, int]] = ()) -> Benchmark:
        """All that tables are made of.

        Args:
            failed: methods and directions that have no result, or not of all seeds.
        """
        from cvsct.evaluation.league import Benchmark

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
            like_the_paper=self.names == PAPER_PAIR,
            failed=tuple(failed),
        )


def paired(result: Result) -> bool:
    """Whether slices were compared, and so features measured."""
    return not result.metrics.get("unpaired_because")
