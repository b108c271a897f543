"""Training loop: runs steps, and writes checkpoints and logs; it knows no loss."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from cvsct.core.errors import TerminatedError, TrainingError
from cvsct.core.progress import Progress
from cvsct.core.settings import Settings
from cvsct.training.checkpoint import Run
from cvsct.training.distributed import ALONE, Ranks
from cvsct.training.logging import TrainingLog, last_means
from cvsct.training.protocols import AnyStep, Batches, Step, Validator


class Schedule(Settings):
    """Schedule of checkpoints, validations and pictures; it does not change what is learned."""

    save_steps: int = Field(default=0, ge=0)
    """Write a checkpoint each time so many steps are done; 0 is never."""

    save_seconds: float = Field(default=60.0, ge=0)
    """Write a checkpoint when so much time has passed since the last; 0 is never. One is written at
    the beginning and at the end in any case."""

    validate_steps: int = Field(default=0, ge=0)
    """Measure the model each time so many steps are done, and at the end. The model of the lowest
    score is the one that is kept; without validation, the last."""

    validate_minutes: float = Field(default=0.0, ge=0)
    """Measure the model when so much time has passed since the last time; 0 is never."""

    keep_models: bool = False
    """Keep the model of every validation in `kept/`, to look at a training's way."""

    pictures_minutes: float = Field(default=5.0, ge=0)
    """How often TensorBoard gets pictures, where it is installed."""

    @property
    def validates(self) -> bool:
        """Whether the model is measured at all."""
        return bool(self.validate_steps or self.validate_minutes)


@dataclass(frozen=True)
class Limits:
    """Limits of a training in steps and in minutes; the first that is reached ends it."""

    steps: int
    minutes: float | None = None

    def fraction_done(self, steps: int, minutes: float) -> float:
        """Fraction of the training that is done, in [0, 1]."""
        by_time = minutes / self.minutes if self.minutes else 0.0
        return min(1.0, max(steps / self.steps, by_time))

    def state(self, steps: int, minutes: float) -> tuple[str, int, int]:
        """What `progress` is told: steps, or seconds where time ends the training before."""
        if self.minutes and minutes / self.minutes > steps / self.steps:
            total = math.ceil(60 * self.minutes)
            return "training, seconds", min(round(60 * minutes), total), total
        return "training", min(steps, self.steps), self.steps


class Interval:
    """Interval of steps or of seconds at which an action is due; 0 is never."""

    def __init__(self, steps: int, seconds: float) -> None:
        self._steps, self._seconds = steps, seconds
        self._last = time.monotonic()

    def due(self, steps: int) -> bool:
        """Whether the action is due after so many steps; if so, the time starts again."""
        now = time.monotonic()
        by_time = self._seconds > 0 and now - self._last >= self._seconds
        if by_time or (self._steps > 0 and steps % self._steps == 0):
            self._last = now
            return True
        return False


def train(
    run: Run,
    step: AnyStep,
    batches: Batches,
    limits: Limits,
    progress: Progress,
    schedule: Schedule | None = None,
    validator: Validator[AnyStep] | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Run training steps until a limit, with checkpoints, validations and a log.

    Args:
        run: state of the training, which is advanced.
        step: one training step of the method.
        batches: source of the batches of each step.
        limits: when the training ends.
        progress: called after each step as (name, done, total).
        schedule: when checkpoints and validations are due.
        validator: measures and shows the model, on the first rank alone.
        ranks: processes that train together.

    Returns:
        The mean of each logged value over the last tenth of the steps, at least ten; empty on
        a rank that does not write.

    Raises:
        TrainingError: when a value is no longer finite, or the step refuses to go on; the last
            good checkpoint stays.
        TerminatedError: when SIGTERM asked the process to end, once the step under way is saved.
    """
    schedule = schedule or Schedule()
    scheduled_validator = validator if schedule.validates and ranks.first else None
    save = Interval(schedule.save_steps, schedule.save_seconds)
    validate = Interval(schedule.validate_steps, schedule.validate_minutes * 60)
    show_pictures = Interval(0, schedule.pictures_minutes * 60)
    minutes_before, started = run.minutes, time.monotonic()
    if run.steps == 0:
        run.save(step)
    with TrainingLog(run.folder, run.steps, run.writes) as log, _termination() as asked_to_end:
        while (done := limits.fraction_done(run.steps, run.minutes)) < 1:
            values = _advance(run, step, batches, done)
            run.minutes = ranks.value_of_first_rank(
                minutes_before + (time.monotonic() - started) / 60
            )
            log.step(run.steps, {"minutes": round(run.minutes, 4), **values})
            progress(*limits.state(run.steps, run.minutes))
            if scheduled_validator is not None and validate.due(run.steps):
                _measure(run, step, scheduled_validator, log, schedule.keep_models)
            if validator is not None and log.shows_pictures and show_pictures.due(run.steps):
                log.pictures(run.steps, validator.pictures(step))
            ending = (
                ranks.value_of_first_rank(float(asked_to_end())) > 0
            )  # all end after the same step
            if save.due(run.steps) or ending:
                run.save(step)
            if ending:
                raise TerminatedError(
                    f"asked to end (SIGTERM) after step {run.steps}; the checkpoint in "
                    f"{run.folder} holds all of them, go on from it with --resume"
                )
        last_validated = run.latest.step if run.latest else -1
        if scheduled_validator is not None and last_validated != run.steps:
            _measure(run, step, scheduled_validator, log, schedule.keep_models)
        run.save(step)
    task, _, total = limits.state(run.steps, run.minutes)
    progress(task, total, total)
    return last_means(run.folder, run.steps) if run.writes else {}


@contextlib.contextmanager
def _termination() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM is only noted; the function given tells whether it was received.

    It is how SLURM, Docker and torchrun end a process, with time left to save. Only a main thread
    can take signals; elsewhere nothing changes.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _advance(run: Run, step: Step, batches: Batches, done: float) -> dict[str, float]:
    """Run one step; its logged values and the seconds it took."""
    started = time.monotonic()
    try:
        a, b = batches.draw(run.rng)
        values = step(a, b, done, run.rng)
    except TrainingError as error:
        raise TrainingError(f"training stopped at step {run.steps + 1}: {error}") from error
    run.steps += 1
    _stop_if_diverged(values, run)
    return {**values, "seconds": round(time.monotonic() - started, 4)}


def _measure(
    run: Run, step: AnyStep, validator: Validator[AnyStep], log: TrainingLog, keep: bool
) -> None:
    figures = validator(step)
    _stop_if_diverged(figures, run)
    log.validation(run.steps, figures)
    run.record_validation(figures, step, keep)


def _stop_if_diverged(values: Mapping[str, float], run: Run) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"training diverged at step {run.steps}: {', '.join(bad)} not finite; the last "
            f"checkpoint in {run.folder} is intact, lower the learning rate or that term's weight"
        )
