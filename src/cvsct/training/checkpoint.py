"""Checkpoint of a training: one file, written atomically, holds all that a restart needs.

Networks, optimizers, statistics, the random stream, the count of steps and the best model so far.
A training that is killed at any moment goes on from its last checkpoint and, on the CPU, ends as
if nothing had happened.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvsct.core.errors import TrainingError, explain
from cvsct.core.files import config_hash, write_atomic
from cvsct.core.settings import differing_settings
from cvsct.model.bundle import CHECKPOINT_FILE
from cvsct.training.logging import forget_later
from cvsct.training.protocols import Step

BEST_FILE = "best.pt"
KEPT_FOLDER = "kept"


@dataclass(frozen=True)
class ValidationResult:
    """Result of one validation during a training.

    Args:
        step: number of steps done before it.
        figures: measured values by name; the model of the lowest `score` is the best.
        weights: of the model (`Step.weights`); kept of the best model alone.
    """

    step: int
    figures: dict[str, float]
    weights: dict[str, Tensor]


@dataclass
class Run:
    """State of a training in progress.

    Args:
        folder: of the model and the checkpoint.
        config: all that shapes the result; a resumed training must have the same.
        rng: random stream of the batches.
        writes: whether this process writes files; of several ranks only the first.
        steps, minutes: how much is done.
        best, latest: validation of the lowest score, and the last one.
        initial: record of the model whose networks the training started from; empty without one.
    """

    folder: Path
    config: Mapping[str, Any]
    rng: np.random.Generator
    writes: bool = True
    steps: int = 0
    minutes: float = 0.0
    best: ValidationResult | None = None
    latest: ValidationResult | None = None
    initial: Mapping[str, Any] = field(default_factory=dict)

    def save(self, step: Step) -> None:
        """Write the checkpoint atomically; a full disk leaves the last one intact."""
        self._write(
            CHECKPOINT_FILE,
            {
                "config": json.dumps(self.config),
                "rng": json.dumps(self.rng.bit_generator.state),
                "steps": self.steps,
                "minutes": self.minutes,
                "best": asdict(self.best) if self.best else None,
                "latest": asdict(self.latest) if self.latest else None,
                "initial": json.dumps(self.initial),
                "step": step.state(),
            },
        )

    def record_validation(
        self, figures: Mapping[str, float], step: Step, keep: bool = False
    ) -> None:
        """Record a validation; the best model so far is kept, also in `best.pt`.

        Args:
            figures: measured values by name, with `score`.
            step: the step that was validated.
            keep: also keep this model in `kept/`, named by its step.
        """
        weights = {name: value.detach().cpu().clone() for name, value in step.weights().items()}
        result = ValidationResult(self.steps, dict(figures), weights)
        if keep:
            self._write(kept_name(self.steps), asdict(result))
        self.latest = replace(result, weights={})
        if self.best is None or figures["score"] < self.best.figures["score"]:
            self.best = result
            self._write(BEST_FILE, asdict(result))

    def resume(self, step: Step) -> None:
        """Go on from the folder's checkpoint.

        Raises:
            TrainingError: if there is none, it is damaged or another program's, or it was made with
                another configuration.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.is_file():
            raise TrainingError(
                f"{self.folder}: nothing to resume, no {CHECKPOINT_FILE}; train without --resume"
            )
        saved = _load(path)
        with _refuse_unreadable(path):
            before = json.loads(saved["config"])
        if config_hash(before) != config_hash(self.config):
            changed = ", ".join(
                f"{name} {old} -> {new}"
                for name, old, new in differing_settings(before, self.config)
            )
            raise TrainingError(
                f"{self.folder}: was trained with other settings ({changed}); "
                "give the same, or train into a new folder"
            )
        with _refuse_unreadable(path):
            step.restore(saved["step"])
            self.rng.bit_generator.state = json.loads(saved["rng"])
            self.steps, self.minutes = int(saved["steps"]), float(saved["minutes"])
            self.initial = json.loads(saved.get("initial", "{}"))
            self.best, self.latest = (
                ValidationResult(**saved[name]) if saved[name] else None
                for name in ("best", "latest")
            )
        if self.writes:
            self._tidy()

    def _tidy(self) -> None:
        """Remove what a killed process wrote after the checkpoint; those steps are done again."""
        forget_later(self.folder, self.steps)
        for name in (CHECKPOINT_FILE, BEST_FILE):
            for partial in self.folder.glob(f".{name}.*.partial"):
                partial.unlink(missing_ok=True)
        if self.best:
            self._write(BEST_FILE, asdict(self.best))
        else:
            (self.folder / BEST_FILE).unlink(missing_ok=True)
        for later in (self.folder / KEPT_FOLDER).glob("*.pt"):
            if later.name > Path(kept_name(self.steps)).name:
                later.unlink()

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if not self.writes:
            return
        stream = io.BytesIO()
        torch.save(content, stream)
        try:
            (self.folder / name).parent.mkdir(exist_ok=True)
            write_atomic(self.folder / name, stream.getvalue())
        except OSError as error:
            raise TrainingError(
                f"cannot save {name} at step {self.steps}: {explain(error)}; the last checkpoint "
                "is intact, go on from it with --resume"
            ) from error


def kept_name(steps: int) -> str:
    """Path in the model folder of weights kept after so many steps; names sort by step."""
    return f"{KEPT_FOLDER}/step-{steps:08d}.pt"


def kept_models(folder: Path) -> list[ValidationResult]:
    """Validations whose models a training has kept, in order of steps."""
    results = []
    for path in sorted((folder / KEPT_FOLDER).glob("step-*.pt")):
        with _refuse_unreadable(path):
            results.append(ValidationResult(**_load(path)))
    return results


def _load(path: Path) -> dict[str, Any]:
    """Load tensors and plain values from a file; `weights_only` runs no code of the file.

    Raises:
        TrainingError: if it holds anything else.
    """
    with _refuse_unreadable(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError
        return content


@contextlib.contextmanager
def _refuse_unreadable(path: Path) -> Iterator[None]:
    """Turn any error in reading a foreign file into a refusal."""
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:  # torch and pickle raise many kinds, whose text quotes the file
        raise TrainingError(
            f"{path}: no state of a training of this version ({type(error).__name__}); nothing of "
            "it was executed. Train into a new folder"
        ) from None
