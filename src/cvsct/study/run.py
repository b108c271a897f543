"""Run of a study: series prepared, models trained, images harmonized, masks carried, features.

Each step keeps what is done under a hash of what it follows from. So a run that was killed goes on,
and after an edit of the plan, or with patients who came later, it makes only what is new.
"""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cvsct.api.harmonize import AllSeriesFailedError, harmonize
from cvsct.core.errors import CvsctError, UsageError, need_extra
from cvsct.core.files import refuse_unwritable, write_atomic, write_json
from cvsct.core.locks import LockedError, file_lock
from cvsct.core.manifest import MANIFEST, Manifest
from cvsct.core.progress import Note, Progress, log_note, no_note, silent
from cvsct.core.resumable import PLAN, part_of
from cvsct.core.settings import refuse_outside
from cvsct.core.text import counted
from cvsct.inference.cohort.shards import Shard
from cvsct.inference.streaming import Outcome, folder_name
from cvsct.profile.file import SUFFIX, profile_bytes
from cvsct.study.disk import refuse_full_disk
from cvsct.study.jobs import Where, work_on_all
from cvsct.study.measure import PROFILES, MeasuredProfiles, measure_all, measure_item
from cvsct.study.models import MODELS, ModelPlan, remove_begun, train_models, why_untrained
from cvsct.study.parts import prepare_all, prepare_part
from cvsct.study.plan import PlanRow, StudyPlan, folder_of, read_plan
from cvsct.study.prepare import (
    IMAGES,
    MASKS,
    CarriedMasks,
    PreparedSeries,
    carry_masks,
    link_prepared,
    only_series,
    planned_series,
    read_json,
)
from cvsct.study.tables import (
    FEATURES,
    StudyScan,
    measure_features,
    uneven_regions,
    with_combat,
    write_tables,
)

HARMONIZED = "harmonized"
"""Folder of the harmonized series in the study's, a folder a group."""
TRAINING = "training"
"""Folder of links to the scans that models learn from, where it is not all of a group."""
STATUS = "series.csv"
WAITING = "waiting for another part"
LOCK = ".study.lock"
MODELS_LOCK = ".models.lock"
"""Lock for which other parts wait, so that one of them trains the models."""
STATUS_COLUMNS = ("patient", "group", "path", "series_uid", "status", "reason", "derived_uid",
                  "guard", "masks", "prepared", "harmonized")  # fmt: skip


@dataclass(frozen=True)
class SeriesStatus:
    """What came of a series.

    Args:
        row: its line in the plan.
        status: `reference`, `harmonized` or `failed`.
        reason: why it failed.
        derived_uid: Series Instance UID of the harmonized series.
        guard: verdict of the model's guard on its scan.
        masks: number of masks carried over.
        prepared, harmonized: folders of its images in the study's.
    """

    row: PlanRow
    status: str
    reason: str = ""
    derived_uid: str = ""
    guard: str = ""
    masks: int = 0
    prepared: str = ""
    harmonized: str = ""


@dataclass(frozen=True)
class StudyResult:
    """Result of a run of a study.

    Args:
        folder: the study's folder.
        series: what came of each series.
        failed_models: reason of each group whose model could not be trained.
        failed_combat: reason of each region name that ComBat could not be fitted for.
        n_rows: number of rows of the table of features.
        complete: whether the tables were written; a shard writes none until all are done.
        new_models: of a dry run, the groups whose model would be trained.
    """

    folder: Path
    series: tuple[SeriesStatus, ...]
    failed_models: Mapping[str, str] = field(default_factory=dict)
    failed_combat: Mapping[str, str] = field(default_factory=dict)
    n_rows: int = 0
    complete: bool = True
    new_models: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[SeriesStatus, ...]:
        """Series that were not harmonized."""
        return tuple(each for each in self.series if each.status == "failed")

    @property
    def counts(self) -> Counter[str]:
        """Number of series of each status."""
        return Counter(each.status for each in self.series)

    def wanted(self) -> str:
        """A line on what a dry run found to be done."""
        counts, models = self.counts, counted(len(self.new_models), "model")
        return (
            f"{counts['harmonized']} series would be harmonized or kept as they are, "
            f"{counts['reference']} of the reference; {models} would be "
            f"trained{': ' if self.new_models else ''}{', '.join(self.new_models)}"
        )

    def summary(self) -> str:
        """A line on what was done."""
        counts = self.counts
        tables = f", {counted(self.n_rows, 'row')} of features" if self.complete else ""
        return (
            f"{counts['harmonized']} series harmonized, {counts['reference']} of the reference, "
            f"{counts['failed']} failed{tables}"
        )

    def to_json(self) -> dict[str, Any]:
        """The result in figures, without patients."""
        return {
            "study": str(self.folder),
            "n_harmonized": self.counts["harmonized"],
            "n_reference": self.counts["reference"],
            "n_failed": self.counts["failed"],
            "n_rows": self.n_rows,
            "complete": self.complete,
            "failed_models": dict(self.failed_models),
            "failed_combat": dict(self.failed_combat),
        }


def run_study(
    study: StudyPlan | Path | str,
    *,
    workers: int = 0,
    shard: str = "",
    scheduler: str = "",
    dry_run: bool = False,
    progress: Progress = silent,
    note: Note = log_note,
) -> StudyResult:
    """Run a study as its plan says: harmonized series, masks, and features of every stage.

    The folder gets `prepared` (scans at the reference's slice thickness), `models`, `harmonized`,
    `masks`, `features_wide.csv` and `features_long.csv` with the stages `source`, `resampled`,
    `harmonized`, `combat` and so on, and `series.csv`. The same call goes on after a kill, and
    after an edit of `plan.csv` or `plan.toml` makes only what has changed. A model stays as it is
    when patients are added.

    Args:
        study: the folder that `plan_study` wrote, or its plan.
        workers: number of processes; 0 for one per core.
        shard: `I/N` prepares and harmonizes part I of N of the series, and prepares those of parts
            that are not at work; the first part to come trains the models. When all parts are done,
            a run without shard writes the tables.
        scheduler: address of a Dask scheduler whose workers do the work on series.
        dry_run: check the plan, the files and the disk; do nothing.
        progress: called with `(task, done, total)` as the work proceeds.
        note: called with each remark that the user should read.

    Returns:
        The `StudyResult`: `series`, `failed`, `n_rows`.

    Raises:
        UsageError: if the plan makes no sense (the line is named), or another run is at work.
        CvsctError: if the disk is too small, or every series would fail.
        StoppedError: on Ctrl-C; the same call goes on.

    Example:
        >>> cvsct.run_study(study, workers=1).summary()
        '1 series harmonized, 1 of the reference, 0 failed, 30 rows of features'
    """
    need_extra("evaluate", "study")
    folder = folder_of(study)
    part = Shard.parse(shard) if shard else Shard()
    refuse_outside(0, workers=workers)
    plan = read_plan(folder)
    refuse_unwritable(folder, grows=True)
    where = Where(workers, scheduler)
    series, lost = planned_series(plan)
    if not series:
        raise CvsctError(f"none of the plan's series is there any more: {lost[0][1]}")
    refuse_full_disk(plan, series, note)
    if dry_run:
        wanted = tuple(
            SeriesStatus(row, "reference" if row.group == plan.reference else "harmonized")
            for row in (each.row for each in series)
        )
        groups = dict.fromkeys(each.row.group for each in series)
        new = tuple(name for name in groups if name != plan.reference
                    and why_untrained(folder / MODELS / name, plan.options))  # fmt: skip
        return StudyResult(folder, wanted, complete=False, new_models=new)
    manifest = Manifest("study run", plan.options.model_dump(mode="json"))
    with _locked(folder, part):
        run = _Run(plan, series, where, part, progress, note)
        if not part.name:
            run.prune()
        failed = {each.series_uid: reason for each, reason in lost}
        with manifest.timed("preparing"):
            failed |= run.prepare()
        with manifest.timed("profiles"):
            run.profiles(failed)
        with manifest.timed("models"):
            failed_models = run.train(failed)
        with manifest.timed("harmonizing"):
            run.remove_stale(failed, failed_models)
            scans = run.harmonize(failed, failed_models)
        statuses = [run.status(row, scans, failed, failed_models) for row in plan.used]
        if part.name:
            statuses = [each for each in statuses if each.reason != WAITING]
            write_atomic(folder / part_of(STATUS, part.name), _csv(statuses), private=True)
            return StudyResult(folder, tuple(statuses), failed_models, complete=False)
        with manifest.timed("features"):
            table = measure_features(
                list(scans.values()), plan.reference, plan.options, folder, where, note, progress
            )
        for remark in uneven_regions(table):
            note(remark)
        with manifest.timed("combat"):
            table, failed_combat = with_combat(table, folder, plan.options, note)
        write_tables(table, folder)
        write_atomic(folder / STATUS, _csv(statuses), private=True)  # after what it stands for
        result = StudyResult(
            folder, tuple(statuses), failed_models, failed_combat, len(table), True
        )
        manifest.figures = {
            name: value for name, value in result.to_json().items() if name != "study"
        }
        manifest.inputs = {"series": [row.series_uid for row in plan.used]}
        manifest.local = ["plan.csv", "plan.toml", "series*.csv", "features_*", f"{FEATURES}/*",
                          f"{PROFILES}/series/*", f"{PROFILES}/lungs/*", f"{IMAGES}/*",
                          f"{TRAINING}/*", f"{HARMONIZED}/*", f"{MASKS}/*"]  # fmt: skip
        manifest.write(folder)
    return result


@dataclass
class _Run:
    """Steps of one run.

    Args:
        plan: what is to be done.
        series: its series whose files are there.
        where: where work on series is done.
        part: the part of the series of this run.
        mask_failures: why masks were not carried over, by the names of their series.
        failed_elsewhere: why series of other parts could not be prepared, by their UIDs.
    """

    plan: StudyPlan
    series: Sequence[PreparedSeries]
    where: Where
    part: Shard
    progress: Progress
    note: Note
    mask_failures: dict[str, str] = field(default_factory=dict)
    failed_elsewhere: dict[str, str] = field(default_factory=dict)

    @property
    def mine(self) -> list[PreparedSeries]:
        """Series of this part."""
        return [each for each in self.series if self.part.holds(each.key)]

    def prune(self) -> None:
        """Remove what earlier runs made of series that are not in their groups any more.

        A series whose files are not there at the moment keeps what was made of it.
        """
        folder, reference = self.plan.folder, self.plan.reference
        keys = {(row.group, folder_name(row.series_uid)) for row in self.plan.used}
        harmonized = {(group, key) for group, key in keys if group != reference}
        for top, kept in ((IMAGES, keys), (f"{MASKS}/{IMAGES}", keys),
                          (f"{MASKS}/{HARMONIZED}", harmonized)):  # fmt: skip
            _remove_others(folder / top, kept)
        groups = {group for group, _ in harmonized}
        _remove_groups(folder / HARMONIZED, groups)
        _remove_groups(folder / MODELS, groups)
        remove_begun(folder / MODELS, groups)
        _remove_groups(folder / TRAINING, {group for group, _ in keys})
        for path in (folder / PROFILES).glob(f"*{SUFFIX}"):
            if path.name.removesuffix(SUFFIX) not in groups | {reference}:
                path.unlink()

    def prepare(self) -> dict[str, str]:
        """Prepare the series of this part, and those of others that are not at work.

        Returns:
            Reason of each series of this part that could not be prepared, by its UID.
        """
        folder, work = self.plan.folder, (self.where, self.progress, self.note)
        if not self.part.name:
            return prepare_all(folder, self.series, *work)
        failed, self.failed_elsewhere = prepare_part(folder, self.series, self.part, *work)
        return failed

    def ready(self, group: str, failed: Mapping[str, str]) -> list[PreparedSeries]:
        """Series of a group that are prepared, by any part."""
        return [
            each
            for each in self.series
            if each.row.group == group and each.row.series_uid not in failed and each.is_done
        ]

    def profiles(self, failed: Mapping[str, str]) -> None:
        """Measure series that the plan has not, and write the profile of each group."""
        items = {
            each.row.series_uid: measure_item(
                each.source, each.row.acquisition, each.row.thickness_mm, each.to_thickness_mm,
                self.plan.folder,
            )
            for each in self.mine
            if each.row.series_uid not in failed
        }  # fmt: skip
        reasons = measure_all(list(items.values()), self.where, self.progress)
        for key, reason in reasons.items():
            self.note(f"series {key} is not in the profile of its group: {reason}")
        if self.part.name:
            return
        measured = MeasuredProfiles(
            {item.key: item.path for item in items.values() if item.key not in reasons}
        )
        for group in self.plan.groups:
            members = [items.get(row.series_uid) for row in self.plan.members(group.name)]
            keys = [item.key for item in members if item is not None and item.key in measured]
            if keys:
                profile = replace(measured.total(keys), few_patients=True)
                path = self.plan.folder / PROFILES / f"{group.name}{SUFFIX}"
                write_atomic(path, profile_bytes(profile, path)[0], private=True)  # of few patients

    def train(self, failed: Mapping[str, str]) -> dict[str, str]:
        """Train the models that are missing; returns the reasons of those that cannot be."""
        with file_lock(self.plan.folder / MODELS_LOCK, wait=True):  # parts link the same scans
            return self._train({**self.failed_elsewhere, **failed})

    def _train(self, failed: Mapping[str, str]) -> dict[str, str]:
        reference = self.plan.reference
        target = self.ready(reference, failed)
        shown = self._learned_from(target)
        shown_folder = self._training_folder(reference, shown)
        lost = self._lost_uids()
        plans = []
        for group in self.plan.groups:
            source = self.ready(group.name, failed)
            if group.name == reference or not source:
                continue
            learned = self._learned_from(source)
            plans.append(
                ModelPlan(
                    group.name,
                    self._training_folder(group.name, learned),
                    shown_folder,
                    frozenset(each.uid for each in learned),
                    frozenset(each.uid for each in shown),
                    self.plan.folder / MODELS / group.name,
                    lost | {each.uid for each in (*source, *target)},
                    any(
                        row.series_uid in failed
                        for row in self.plan.used
                        if row.group in (group.name, reference)
                    ),
                )
            )
        if not target:
            return {plan.group: "no series of the reference could be prepared" for plan in plans}
        return train_models(plans, self.plan.options, self.note, self.progress)

    def _learned_from(self, series: Sequence[PreparedSeries]) -> list[PreparedSeries]:
        """Series that models learn from: those of patients of one group, where they are enough."""
        alone = [each for each in series if len(self._groups_of[each.row.patient]) == 1]
        enough = self.plan.options.grouping.min_patients
        if self.plan.options.hold_out and len({each.row.patient for each in alone}) >= enough:
            return alone
        return list(series)

    @cached_property
    def _groups_of(self) -> dict[str, set[str]]:
        """Groups of each patient."""
        groups: dict[str, set[str]] = {}
        for row in self.plan.used:
            groups.setdefault(row.patient, set()).add(row.group)
        return groups

    def _training_folder(self, group: str, series: Sequence[PreparedSeries]) -> Path:
        """Folder of a group's scans that models learn from."""
        whole = self.plan.folder / IMAGES / group
        wanted = {each.key for each in series}
        if wanted == {place.name for place in whole.glob("[!.]*")}:
            return whole
        folder = self.plan.folder / TRAINING / group
        for place in folder.glob("*"):
            if place.name not in wanted:
                shutil.rmtree(place)
        for each in series:
            link_prepared(each, folder / each.key)
        return folder

    def _lost_uids(self) -> frozenset[str]:
        """Prepared series of the plan whose files are not there at the moment."""
        there = {each.row.series_uid for each in self.series}
        uids: set[str] = set()
        for row in self.plan.used:
            if row.series_uid not in there:
                uids.add(row.series_uid)
                with contextlib.suppress(CvsctError):  # averaged slices have a UID of their own
                    key = folder_name(row.series_uid)
                    uids.add(only_series(self.plan.folder / IMAGES / row.group / key).series_uid)
        return frozenset(uids)

    def harmonize(
        self, failed: dict[str, str], failed_models: Mapping[str, str]
    ) -> dict[str, StudyScan]:
        """Harmonize the series of this part group by group, and carry their masks over.

        Returns:
            The scans of the study by their UIDs; `failed` gets the reasons of the others.
        """
        scans: dict[str, StudyScan] = {}
        carried: list[CarriedMasks] = []
        for group in self.plan.groups:
            own = self.ready(group.name, failed)
            if group.name == self.plan.reference:
                scans |= {each.row.series_uid: StudyScan(each) for each in own}
                continue
            if group.name in failed_models or not own:
                for each in own:
                    failed[each.row.series_uid] = f"no model: {failed_models[group.name]}"
                continue
            outcomes = self._harmonize(group.name)
            model_sha256 = self._model_sha256(group.name)
            for each in own:
                name = folder_name(each.uid)
                outcome = outcomes.get(name)
                if outcome is None or outcome.error:
                    if self.part.holds(name):
                        failed[each.row.series_uid] = outcome.error if outcome else "not harmonized"
                    continue
                scan = self._scan(each, outcome, model_sha256)
                scans[each.row.series_uid] = scan
                if each.masks:
                    carried.append(self._masks_of(scan))
        self._carry(carried)
        return scans

    def _harmonize(self, group: str) -> dict[str, Outcome]:
        """Outcome of each series of a group, by the name of its folder."""
        out = self.plan.folder / HARMONIZED / group
        model = self.plan.folder / MODELS / group
        parts = [self.part] if self.part.name else _parts_of(out)
        outcomes: dict[str, Outcome] = {}
        for part in parts:
            try:
                result = harmonize(
                    self.plan.folder / IMAGES / group, out, model=model, resume=True,
                    workers=self.where.workers, scheduler=self.where.scheduler,
                    shard=f"{part.index}/{part.count}" if part.name else "",
                    progress=self.progress, note=no_note,
                )  # fmt: skip
            except AllSeriesFailedError as error:
                result = error.result
            outcomes |= {outcome.folder: outcome for outcome in result.outcomes}
        return outcomes

    def remove_stale(self, failed: Mapping[str, str], failed_models: Mapping[str, str]) -> None:
        """Remove harmonized series of other models, of other files, and of no series any more."""
        with file_lock(self.plan.folder / MODELS_LOCK, wait=True):
            for group in self.plan.groups:
                if group.name not in (self.plan.reference, *failed_models):
                    self._remove_stale(group.name, self.ready(group.name, failed))

    def _remove_stale(self, group: str, series: Sequence[PreparedSeries]) -> None:
        """Keep in the folder of a group what follows from its model and its series as they are."""
        out, record = (self.plan.folder / HARMONIZED / name for name in (group, f"{group}.json"))
        model = self._model_sha256(group)
        if not model:
            return
        before = read_json(record)
        contents = {folder_name(each.uid): each.content for each in series}
        lost = {folder_name(uid) for uid in self._lost_uids()}
        if out.exists() and before.get("model_sha256") != model:
            shutil.rmtree(out)
        told = before.get("series", {})
        for folder in out.glob("[!.]*") if out.is_dir() else ():
            kept = folder.name in lost or told.get(folder.name) == contents.get(folder.name, "")
            if folder.is_dir() and not kept:
                shutil.rmtree(folder)
        kept_lost = {name: content for name, content in told.items() if name in lost}
        record.parent.mkdir(exist_ok=True)
        write_json(record, {"model_sha256": model, "series": {**kept_lost, **contents}})

    def _model_sha256(self, group: str) -> str:
        """Hash of a group's model; empty where it is not finished."""
        return str(read_json(self.plan.folder / MODELS / group / MANIFEST).get("model_sha256", ""))

    def _scan(self, series: PreparedSeries, outcome: Outcome, model_sha256: str) -> StudyScan:
        scan = outcome.guard.get("scan", {}) if outcome.guard else {}
        return StudyScan(
            series,
            self.plan.folder / HARMONIZED / series.row.group / outcome.folder,
            outcome.derived_uid,
            model_sha256,
            self.plan.reference,
            str(scan.get("kind", "")),
        )

    def _masks_of(self, scan: StudyScan) -> CarriedMasks:
        assert scan.harmonized is not None
        folder = self.plan.folder / MASKS / HARMONIZED / scan.series.row.group
        return CarriedMasks(scan.series, scan.harmonized, folder / scan.series.key)

    def _carry(self, carried: Sequence[CarriedMasks]) -> None:
        waiting = [each for each in carried if not each.is_done]
        done = work_on_all(
            "masks", waiting, carry_masks, self.where, self.progress, len(carried) - len(waiting)
        )
        for remarks in done.results.values():
            for remark in remarks:
                self.note(remark)
        for key, reason in done.failed.items():
            self.note(f"masks of series {key} are not carried over: {reason}")
            self.mask_failures[key] = f"masks are not carried over: {reason}"

    def status(
        self,
        row: PlanRow,
        scans: Mapping[str, StudyScan],
        failed: Mapping[str, str],
        failed_models: Mapping[str, str],
    ) -> SeriesStatus:
        """What came of a series."""
        scan = scans.get(row.series_uid)
        if scan is None:
            reason = failed.get(row.series_uid) or failed_models.get(row.group) or WAITING
            return SeriesStatus(row, "failed", reason)
        prepared = scan.series.folder.relative_to(self.plan.folder).as_posix()
        if scan.harmonized is None:
            return SeriesStatus(row, "reference", masks=len(scan.series.masks), prepared=prepared)
        folder = self._masks_of(scan).folder
        masks = sum(1 for path in folder.glob("[!.]*") if path.is_file())
        return SeriesStatus(
            row, "harmonized", self.mask_failures.get(scan.series.key, ""), scan.derived_uid,
            scan.guard_verdict, masks, prepared,
            scan.harmonized.relative_to(self.plan.folder).as_posix(),
        )  # fmt: skip


@contextlib.contextmanager
def _locked(folder: Path, part: Shard) -> Iterator[None]:
    """A lock on the study, or on a part of it; parts run beside each other, the whole alone.

    Raises:
        UsageError: if another run holds it.
    """
    whole = folder / LOCK
    with contextlib.ExitStack() as stack:
        try:
            own = folder / f"{LOCK}-{part.name}" if part.name else whole
            stack.enter_context(file_lock(own))
            for other in (whole,) if part.name else folder.glob(f"{LOCK}-*"):
                if other.exists():
                    with file_lock(other):
                        pass
        except LockedError:
            raise UsageError(f"{folder}: another run of this study is at work") from None
        yield


def _remove_others(top: Path, kept: set[tuple[str, str]]) -> None:
    """Remove folders of series that are not in these groups any more."""
    for folder in top.glob("*/*"):
        if folder.is_dir() and (folder.parent.name, folder.name) not in kept:
            shutil.rmtree(folder)
    for group in top.glob("*"):
        if group.is_dir() and not any(group.iterdir()):
            group.rmdir()


def _remove_groups(top: Path, kept: Collection[str]) -> None:
    """Remove folders of groups that are not there any more, with the records beside them."""
    for path in top.glob("[!.]*"):
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)
        elif path.suffix == ".json" and path.name.removesuffix(".json") not in kept:
            path.unlink()


def _parts_of(out: Path) -> list[Shard]:
    """The parts in which a folder was begun; the whole where it was begun as one."""
    counts = {int(path.stem.rsplit("of", 1)[1]) for path in out.glob(part_of(PLAN, "*of*"))}
    return [Shard(i + 1, count) for count in counts for i in range(count)] or [Shard()]


def _csv(statuses: Sequence[SeriesStatus]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(STATUS_COLUMNS)
    for each in statuses:
        writer.writerow(
            (each.row.patient, each.row.group, each.row.path, each.row.series_uid, each.status,
             each.reason, each.derived_uid, each.guard, each.masks, each.prepared, each.harmonized)
        )  # fmt: skip
    return text.getvalue()
