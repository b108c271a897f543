"""The training loop: precision and losses are the step's business, files and time are here."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cvsct.core.errors import TerminatedError, TrainingError
from cvsct.core.progress import Progress
from cvsct.training.checkpoint import Run, Step
from cvsct.training.distributed import ALONE, Ranks
from cvsct.training.logging import Picture, Record, last_means

Validator = Callable[[Any], dict[str, float]]
"""Measures a step's model. `score` decides which model is kept, the lowest; the rest is logged."""

Painter = Callable[[Any], dict[str, Picture]]
"""Pictures in [0, 1] by name that show what a step's model does."""


class Schedule(BaseModel):
    """When a training does what is no training. Nothing here changes what the weights become.

    Attributes:
        save_steps: write a checkpoint each time so many steps are done; 0 is never.
        save_seconds: and when so much time has passed since the last; 0 is never. One is written
            at the beginning and at the end in any case.
        validate_steps: measure the model each time so many steps are done, and at the end. The
            model of the lowest score is the one that is kept; without validation, the last.
        validate_minutes: and when so much time has passed.
        keep_models: keep the model of every validation in `kept/`, to look at a training's way.
        pictures_minutes: how often TensorBoard gets pictures, where it is installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    save_steps: int = Field(default=0, ge=0)
    save_seconds: float = Field(default=60.0, ge=0)
    validate_steps: int = Field(default=0, ge=0)
    validate_minutes: float = Field(default=0.0, ge=0)
    keep_models: bool = False
    pictures_minutes: float = Field(default=5.0, ge=0)

    @property
    def validates(self) -> bool:
        """Whether the model is measured at all."""
        return bool(self.validate_steps or self.validate_minutes)


@dataclass(frozen=True)
class Limits:
    """When a training ends: after so many steps, or minutes, whichever is first."""

    steps: int
    minutes: float | None = None

    def fraction_done(self, steps: int, minutes: float) -> float:
        """Share of the training that is over, in [0, 1]."""
        by_time = minutes / self.minutes if self.minutes else 0.0
        return min(1.0, max(steps / self.steps, by_time))


class Every:
    """Tells when something is due: at each so many steps, or after so much time; 0 is never."""

    def __init__(self, steps: int, seconds: float) -> None:
        self._steps, self._seconds = steps, seconds
        self._last = time.monotonic()

    def due(self, steps: int) -> bool:
        """Whether it is due now; the time then counts anew."""
        now = time.monotonic()
        by_time = self._seconds > 0 and now - self._last >= self._seconds
        if by_time or (self._steps > 0 and steps % self._steps == 0):
            self._last = now
            return True
        return False


def train(
    run: Run,
    step: Step,
    draw: Callable[[np.random.Generator], tuple[Any, Any]],
    limits: Limits,
    progress: Progress,
    schedule: Schedule | None = None,
    validator: Validator | None = None,
    painter: Painter | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Run steps until a limit; log each, save and measure now and then and at the end.

    Args:
        validator: run by the first rank alone, when the schedule says.
        painter: likewise.

    Returns:
        The mean of each logged value over the last tenth of the steps, at least ten; empty on
        a rank that does not write.

    Raises:
        TrainingError: when a value is no longer finite, or the step refuses to go on; the last
            good checkpoint stays.
        TerminatedError: when SIGTERM asked the process to end, once the step under way is saved.
    """
    schedule = schedule or Schedule()
    save = Every(schedule.save_steps, schedule.save_seconds)
    validate = Every(schedule.validate_steps, schedule.validate_minutes * 60)
    paint = Every(0, schedule.pictures_minutes * 60)
    before, begun = run.minutes, time.monotonic()
    if run.steps == 0:
        run.save(step)
    with Record(run.folder, run.steps, run.writes) as record, _termination() as asked_to_end:
        while (done := limits.fraction_done(run.steps, run.minutes)) < 1:
            values = _advance(run, step, draw, done)
            run.minutes = ranks.agreed(before + (time.monotonic() - begun) / 60)
            record.step(run.steps, {"minutes": round(run.minutes, 4), **values})
            progress("training", round(done * limits.steps), limits.steps)
            if validator and ranks.first and validate.due(run.steps):
                _measure(run, step, validator, record, schedule.keep_models)
            if painter and record.shows_pictures and paint.due(run.steps):
                record.pictures(run.steps, painter(step))
            ending = ranks.agreed(float(asked_to_end())) > 0  # all end after the same step
            if save.due(run.steps) or ending:
                run.save(step)
            if ending:
                raise TerminatedError(
                    f"asked to end (SIGTERM) after step {run.steps}; the checkpoint in "
                    f"{run.folder} holds all of them, go on from it with --resume"
                )
        measured = run.latest.step if run.latest else -1
        if validator and ranks.first and measured != run.steps:
            _measure(run, step, validator, record, schedule.keep_models)
        run.save(step)
    progress("training", limits.steps, limits.steps)
    return last_means(run.folder, run.steps) if run.writes else {}


@contextlib.contextmanager
def _termination() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM ends nothing; whether it came is what the value given tells.

    It is how SLURM, Docker and torchrun end a process, with time left to save. Only a main thread
    can take signals; elsewhere nothing changes.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


def _advance(run: Run, step: Step, draw: Callable[..., Any], done: float) -> dict[str, float]:
    """One step, and the seconds it took; stops where it cannot go on."""
    begun = time.monotonic()
    try:
        a, b = draw(run.rng)
        values = step(a, b, done, run.rng)
    except TrainingError as error:
        raise TrainingError(f"training stopped at step {run.steps + 1}: {error}") from error
    run.steps += 1
    _stop_if_diverged(values, run)
    return {**values, "seconds": round(time.monotonic() - begun, 4)}


def _measure(run: Run, step: Step, validator: Validator, record: Record, keep: bool) -> None:
    figures = validator(step)
    _stop_if_diverged(figures, run)
    record.validation(run.steps, figures)
    run.judge(figures, step, keep)


def _stop_if_diverged(values: Mapping[str, float], run: Run) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"training diverged at step {run.steps}: {', '.join(bad)} not finite; the last "
            f"checkpoint in {run.folder} is intact, lower the learning rate or that term's weight"
        )
