"""The training loop: precision and losses are the step's business, files and time are here."""

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
from cvsct.training.logging import Record, last_means
from cvsct.training.protocols import AnyStep, Batches, Step, Validator


class Schedule(Settings):
    """When a training does what is no training. Nothing here changes what the weights become."""

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
    step: AnyStep,
    batches: Batches,
    limits: Limits,
    progress: Progress,
    schedule: Schedule | None = None,
    validator: Validator[AnyStep] | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Run steps until a limit; log each, save and measure now and then and at the end.

    Args:
        validator: measures and shows the model, on the first rank alone, when the schedule says.

    Returns:
        The mean of each logged value over the last tenth of the steps, at least ten; empty on
        a rank that does not write.

    Raises:
        TrainingError: when a value is no longer finite, or the step refuses to go on; the last
            good checkpoint stays.
        TerminatedError: when SIGTERM asked the process to end, once the step under way is saved.
    """
    schedule = schedule or Schedule()
    judge = validator if schedule.validates and ranks.first else None
    save = Every(schedule.save_steps, schedule.save_seconds)
    validate = Every(schedule.validate_steps, schedule.validate_minutes * 60)
    paint = Every(0, schedule.pictures_minutes * 60)
    before, begun = run.minutes, time.monotonic()
    if run.steps == 0:
        run.save(step)
    with Record(run.folder, run.steps, run.writes) as record, _termination() as asked_to_end:
        while (done := limits.fraction_done(run.steps, run.minutes)) < 1:
            values = _advance(run, step, batches, done)
            run.minutes = ranks.agreed(before + (time.monotonic() - begun) / 60)
            record.step(run.steps, {"minutes": round(run.minutes, 4), **values})
            progress("training", round(done * limits.steps), limits.steps)
            if judge is not None and validate.due(run.steps):
                _measure(run, step, judge, record, schedule.keep_models)
            if validator is not None and record.shows_pictures and paint.due(run.steps):
                record.pictures(run.steps, validator.pictures(step))
            ending = ranks.agreed(float(asked_to_end())) > 0  # all end after the same step
            if save.due(run.steps) or ending:
                run.save(step)
            if ending:
                raise TerminatedError(
                    f"asked to end (SIGTERM) after step {run.steps}; the checkpoint in "
                    f"{run.folder} holds all of them, go on from it with --resume"
                )
        measured = run.latest.step if run.latest else -1
        if judge is not None and measured != run.steps:
            _measure(run, step, judge, record, schedule.keep_models)
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


def _advance(run: Run, step: Step, batches: Batches, done: float) -> dict[str, float]:
    """One step, and the seconds it took; stops where it cannot go on."""
    begun = time.monotonic()
    try:
        a, b = batches.draw(run.rng)
        values = step(a, b, done, run.rng)
    except TrainingError as error:
        raise TrainingError(f"training stopped at step {run.steps + 1}: {error}") from error
    run.steps += 1
    _stop_if_diverged(values, run)
    return {**values, "seconds": round(time.monotonic() - begun, 4)}


def _measure(
    run: Run, step: AnyStep, validator: Validator[AnyStep], record: Record, keep: bool
) -> None:
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
