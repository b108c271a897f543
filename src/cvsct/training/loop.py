"""The training loop: precision and losses are the step's business, files and time are here.

State is kept in one atomic checkpoint: networks, optimisers, statistics, the random stream and
the count of steps. A killed run goes on from it.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from cvsct.errors import TrainingError, explain
from cvsct.models.bundle import CHECKPOINT_FILE
from cvsct.runs import JsonLines, Progress, config_hash, write_atomic

LOG = "train.jsonl"
SAVE_EVERY_S = 60.0


@runtime_checkable
class Step(Protocol):
    """What the loop runs."""

    def __call__(
        self, a: Any, b: Any, fraction_done: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """Train on one batch of each domain and return the loss terms."""

    def state(self) -> dict[str, Any]:
        """All that must survive a restart."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state."""


@dataclass(frozen=True)
class Limits:
    """When a training ends: after so many steps, or minutes, whichever is first."""

    steps: int
    minutes: float | None = None

    def fraction_done(self, steps: int, minutes: float) -> float:
        """Share of the training that is over, in [0, 1]."""
        by_time = minutes / self.minutes if self.minutes else 0.0
        return min(1.0, max(steps / self.steps, by_time))


@dataclass
class Run:
    """A training under way: its folder, random stream, and how far it has come."""

    folder: Path
    config: Mapping[str, Any]
    rng: np.random.Generator
    steps: int = 0
    minutes: float = 0.0

    def save(self, step: Step) -> None:
        """Write the checkpoint atomically; a full disk leaves the last one intact."""
        stream = io.BytesIO()
        torch.save(
            {
                "config": json.dumps(self.config),
                "rng": json.dumps(self.rng.bit_generator.state),
                "steps": self.steps,
                "minutes": self.minutes,
                "step": step.state(),
            },
            stream,
        )
        try:
            write_atomic(self.folder / CHECKPOINT_FILE, stream.getvalue())
        except OSError as error:
            raise TrainingError(
                f"cannot save a checkpoint at step {self.steps}: {explain(error)}; the last one is "
                "intact, go on from it with --resume"
            ) from error

    def resume(self, step: Step) -> None:
        """Go on from the folder's checkpoint.

        Raises:
            TrainingError: if there is none, or it was made with another configuration.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.is_file():
            raise TrainingError(
                f"{self.folder}: nothing to resume, no {CHECKPOINT_FILE}; train without --resume"
            )
        saved = torch.load(path, weights_only=True)
        before = json.loads(saved["config"])
        if config_hash(before) != config_hash(self.config):
            raise TrainingError(
                f"{self.folder}: was trained with other settings "
                f"({_difference(before, self.config)}); give the same, or train into a new folder"
            )
        step.restore(saved["step"])
        self.rng.bit_generator.state = json.loads(saved["rng"])
        self.steps, self.minutes = saved["steps"], saved["minutes"]
        self._forget_later_log()

    def _forget_later_log(self) -> None:
        """Drop log lines of steps after the checkpoint: they will be run again."""
        log = self.folder / LOG
        lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.steps]
        write_atomic(log, "".join(kept))


def train(
    run: Run,
    step: Step,
    draw: Callable[[np.random.Generator], tuple[Any, Any]],
    limits: Limits,
    progress: Progress,
) -> dict[str, float]:
    """Run steps until a limit, logging each, saving now and then and at the end.

    Returns:
        The mean of each loss term over the last tenth of this call's steps, at least ten.

    Raises:
        TrainingError: when a loss is no longer finite; the last good checkpoint stays.
    """
    log = JsonLines(run.folder / LOG)
    history: list[dict[str, float]] = []
    begun, before = time.monotonic(), run.minutes
    saved = begun
    while (done := limits.fraction_done(run.steps, run.minutes)) < 1:
        terms = step(*draw(run.rng), done, run.rng)
        run.steps += 1
        run.minutes = before + (time.monotonic() - begun) / 60
        _stop_if_diverged(terms, run)
        log.write(step=run.steps, minutes=round(run.minutes, 4), **terms)
        history.append(terms)
        progress("training", round(done * limits.steps), limits.steps)
        if time.monotonic() - saved > SAVE_EVERY_S:
            run.save(step)
            saved = time.monotonic()
    run.save(step)
    progress("training", limits.steps, limits.steps)
    last = history[-max(10, len(history) // 10) :]
    return {name: float(np.mean([terms[name] for terms in last])) for name in (last or [{}])[0]}


def _stop_if_diverged(terms: Mapping[str, float], run: Run) -> None:
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"training diverged at step {run.steps}: {', '.join(bad)} not finite; the last "
            f"checkpoint in {run.folder} is intact, lower the learning rate or that term's weight"
        )


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> str:
    changed = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changed.append(_difference(old, new, f"{prefix}{key}."))
        elif old != new:
            changed.append(f"{prefix}{key} {old} -> {new}")
    return ", ".join(part for part in changed if part)
