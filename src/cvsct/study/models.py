"""Models of a study: one a group, to the reference.

A model is kept while all series that it learned from are still in its group and in the reference,
so that patients who are added later are harmonized by the model that is there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvsct.api.train import train
from cvsct.core.errors import CvsctError, StoppedError
from cvsct.core.files import write_json
from cvsct.core.manifest import MANIFEST
from cvsct.core.progress import Note, Progress, no_note
from cvsct.model.bundle import CHECKPOINT_FILE, SUMS_FILE
from cvsct.study.options import StudyOptions
from cvsct.study.prepare import read_json

MODELS = "models"


@dataclass(frozen=True)
class ModelPlan:
    """Model of a group.

    Args:
        group: name of the group.
        source, target: folders of the scans that it learns from, and of the reference's.
        source_uids, target_uids: their series.
        folder: of the model.
        further_uids: further series of the study, from which a model may have learned before.
        incomplete: whether series of the two groups are missing at the moment; a model stays then,
            whatever it learned from.
    """

    group: str
    source: Path
    target: Path
    source_uids: frozenset[str]
    target_uids: frozenset[str]
    folder: Path
    further_uids: frozenset[str] = frozenset()
    incomplete: bool = False

    def state(self, options: StudyOptions) -> str:
        """Why the model must be trained; empty where it can stay."""
        if reason := why_untrained(self.folder, options):
            return reason
        learned = _learned(self.folder)
        known = self.source_uids | self.target_uids | self.further_uids
        if learned and not self.incomplete and not learned.source | learned.target <= known:
            return "series that it learned from are not in the study any more"
        return ""

    def added(self) -> int:
        """Number of series of the group that the model has not learned from."""
        learned = _learned(self.folder)
        return len(self.source_uids - learned.source) if learned else len(self.source_uids)


@dataclass(frozen=True)
class _Learned:
    """What a model was trained on, and how."""

    source: frozenset[str]
    target: frozenset[str]
    config: Mapping[str, Any]


def training_config(options: StudyOptions) -> dict[str, Any]:
    """What a model depends on beside its scans."""
    return {
        "method": options.method, "preset": options.preset, "settings": dict(options.settings),
        "seed": options.seed, "max_minutes": options.max_minutes, "allow": list(options.allow),
    }  # fmt: skip


def why_untrained(folder: Path, options: StudyOptions) -> str:
    """Why no model with these options lies in a folder; empty where one does."""
    if not (folder / SUMS_FILE).exists():
        return "new"
    learned = _learned(folder)
    if learned is None:
        return "its record cannot be read"
    return "" if learned.config == training_config(options) else "method or settings have changed"


def _learned(folder: Path) -> _Learned | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        config = json.loads(_record(folder).read_text(encoding="utf-8"))
        return _Learned(
            frozenset(manifest["inputs"]["source"]), frozenset(manifest["inputs"]["target"]), config
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def train_models(
    plans: Sequence[ModelPlan], options: StudyOptions, note: Note, progress: Progress
) -> dict[str, str]:
    """Train the models that are missing or out of date.

    Returns:
        Reason of each group whose model could not be trained.

    Raises:
        StoppedError: on Ctrl-C; models that are whole are kept.
    """
    failed: dict[str, str] = {}
    for number, plan in enumerate(plans):
        progress("models", number, len(plans))
        state = plan.state(options)
        if not state:
            if added := plan.added():
                note(
                    f"{plan.group}: {added} series came later than its model, which stays "
                    "as it is; delete the model's folder to train it on all"
                )
            continue
        if state != "new":
            note(f"{plan.group}: its model is trained again: {state}")
        try:
            _train(plan, options, progress)
        except StoppedError:
            raise
        except CvsctError as error:
            failed[plan.group] = str(error)
    progress("models", len(plans), len(plans))
    return failed


def _train(plan: ModelPlan, options: StudyOptions, progress: Progress) -> None:
    """Train a model; an earlier one stays in its place until the new one is whole."""
    place, config = _place_of_new(plan.folder), training_config(options)
    goes_on = _is_begun(place) and read_json(_record(place)) == config
    if place.exists() and not goes_on:  # of a kill: a model without checkpoint, or a whole one
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(_record(place), config)

    def progress_of_group(task: str, done: int, total: int) -> None:
        progress(f"{plan.group}: {task}", done, total)

    train(
        options.method, plan.source, plan.target, place, preset=options.preset,
        settings=options.settings, seed=options.seed, max_minutes=options.max_minutes or None,
        resume=goes_on, allow=options.allow,
        progress=progress_of_group, note=no_note, census=no_note,
    )  # fmt: skip
    if plan.folder.exists():
        shutil.rmtree(plan.folder)
    _record(place).replace(_record(plan.folder))
    place.replace(plan.folder)


def remove_begun(models: Path, groups: Collection[str]) -> None:
    """Remove trainings that were stopped, of groups that are not there any more."""
    kept = {_place_of_new(models / group).name for group in groups}
    for place in models.glob(".*.new"):
        if place.name not in kept:
            shutil.rmtree(place)
            _record(place).unlink(missing_ok=True)


def _place_of_new(folder: Path) -> Path:
    """Hidden folder beside a model's, in which the next one is trained."""
    return folder.with_name(f".{folder.name}.new")


def _is_begun(folder: Path) -> bool:
    """Whether a training was stopped after its first checkpoint, before its end."""
    return (folder / CHECKPOINT_FILE).exists() and not (folder / SUMS_FILE).exists()


def _record(folder: Path) -> Path:
    """File beside a model's folder: how the study trained it."""
    return folder.with_name(f"{folder.name}.json")
