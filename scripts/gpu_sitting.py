"""One call of scripts/gpu_run.sh: models to train, their scans and trainings, until a time."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_checks import say, stop

RESERVE_S = 30.0
"""Kept of the time limit for what comes after the training."""

TO_TRAIN = {"stopped", "to do"}


@dataclass(frozen=True)
class Job:
    """A model of the list."""

    method: str
    preset: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and files."""
        return f"{self.method}-{self.preset}" + (f"-seed{self.seed}" if self.seed else "")

    @classmethod
    def read(cls, text: str) -> Job:
        """From `METHOD:PRESET[:SEED]`."""
        from cvsct.methods import METHODS  # noqa: PLC0415
        from cvsct.runs import PRESETS  # noqa: PLC0415

        method, preset, *seed = text.split(":")[:3] if ":" in text else (text, "")
        digits = seed[0] if seed else "0"
        if method not in METHODS or preset not in PRESETS or not digits.isdigit():
            stop(
                f"{text!r} is no METHOD:PRESET[:SEED]; methods are {', '.join(METHODS)}, presets "
                f"{', '.join(PRESETS)}",
                code=2,
            )
        return cls(method, preset, int(digits))


@dataclass(frozen=True)
class Sitting:
    """One call: where it works, and until when."""

    work: Path
    out: Path
    deadline: float
    args: argparse.Namespace

    def left_s(self) -> float:
        """Seconds until the work must end."""
        return max(1.0, self.deadline - time.monotonic())

    def model(self, job: Job) -> Path:
        """The model's folder."""
        return self.work / "models" / job.name

    def log(self, job: Job) -> Path:
        """What its trainings have said."""
        return self.work / "logs" / f"{job.name}.log"

    def failure(self, job: Job) -> Path:
        """Exists where its training failed."""
        return self.work / "logs" / f"{job.name}.failed"


def run(words: Sequence[object], log: Path, seconds: float) -> int | None:
    """A `cvsct` command with its output in a log; `None` where the time ended it.

    What it was writing is whole or not there: it can be ended at any moment.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "cvsct.cli", *map(str, words)],
            stdout=stream,
            stderr=stream,
            process_group=0,  # of the same session: it must not outlive this one's
        )
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGTERM, RESERVE_S / 3), (signal.SIGKILL, 60.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def simulate(sitting: Sitting) -> tuple[Path, Path] | None:
    """Training scans of both virtual scanners; `None` where the time ends it, it goes on later."""
    from cvsct.scanner.benchmark import GE, SIEMENS, TRAIN  # noqa: PLC0415

    train = [sitting.work / "train" / scanner for scanner in (GE, SIEMENS)]
    args = sitting.args
    for seed in range(args.bodies):
        scans = sitting.work / "scans" / f"{args.scale}-{seed}"
        if not (scans / "manifest.json").exists():
            say(f"simulating, scale {args.scale}, seed {seed}")
            log = sitting.work / "logs" / "simulate.log"
            words = ["simulate", "--out", scans, "--scale", args.scale, "--seed", seed]
            code = run(words, log, sitting.left_s())
            if code is None:
                say(f"time is up in simulation {seed + 1} of {args.bodies}: call again to go on")
                return None
            if code:
                stop(f"simulation {seed} failed with exit code {code}: {last_words(log)}")
        for scanner, folder in zip((GE, SIEMENS), train, strict=True):
            for series in sorted((scans / TRAIN / scanner).iterdir()):
                link(series, folder / f"{args.scale}-{seed}-{series.name}")
    return train[0], train[1]


def link(series: Path, folder: Path) -> None:
    """The same files under another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in series.glob("*.dcm"):
        with contextlib.suppress(FileExistsError):
            os.link(path, folder / path.name)


def state_of(sitting: Sitting, job: Job) -> str:
    """`finished`, `failed`, `stopped` or `to do`, here or on an earlier machine."""
    from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE  # noqa: PLC0415

    earlier = sitting.args.earlier
    told = earlier / f"{job.name}.json" if earlier else None
    before = json.loads(told.read_text())["state"] if told and told.is_file() else ""
    folder = sitting.model(job)
    if (folder / SUMS_FILE).exists() or before == "finished":
        return "finished"
    if not sitting.args.retry and (sitting.failure(job).exists() or before == "failed"):
        return "failed"
    return "stopped" if (folder / CHECKPOINT_FILE).exists() else "to do"


def train(sitting: Sitting, job: Job, scans: tuple[Path, Path]) -> str:
    """Train until it has finished or the time is up; the state it is in then."""
    from cvsct.methods import METHODS  # noqa: PLC0415
    from cvsct.models.bundle import CHECKPOINT_FILE, SUMS_FILE  # noqa: PLC0415

    args, folder = sitting.args, sitting.model(job)
    sitting.failure(job).unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    words: list[object] = ["train", job.method, "--source", scans[0], "--target", scans[1]]
    words += ["--out", folder]
    if METHODS[job.method].kind != "classical":
        words += ["--preset", job.preset, "--seed", job.seed]
        for setting in (f"schedule.save_seconds={args.save_seconds:g}", *args.settings):
            words += ["--set", setting]
        words += ["--max-steps", args.max_steps] if args.max_steps else []
        words += ["--max-minutes", args.model_minutes] if args.model_minutes else []
        if (folder / CHECKPOINT_FILE).exists():
            words.append("--resume")
    going_on = " goes on" if "--resume" in words else ""
    say(f"{job.name}{going_on}, {sitting.left_s() / 60:.1f} minutes at most")
    code = run(words, sitting.log(job), sitting.left_s())
    if code:
        sitting.failure(job).write_text(last_words(sitting.log(job)))
        return "failed"
    return "finished" if (folder / SUMS_FILE).exists() else "stopped"


def last_words(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else f"see {log}"
