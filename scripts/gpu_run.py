"""Train the next model of a list on a GPU machine, within a time limit; see scripts/gpu_run.sh.

    gpu_run.sh METHOD:PRESET[:SEED] ... [--list FILE] [--minutes 9] [--source DIR --target DIR]
               [--weights FILE] [--wheels DIR] [--earlier DIR] [--work DIR] [--out DIR]

A call trains one model: the first of the list that is neither finished nor failed. Where the time
ends it, the next call on the same machine goes on from its checkpoint. Scans are simulated where
none are given. OUT gets at most eight files of at most 16 MiB; for each model that was trained:

| file | what |
|---|---|
| `NAME.json` | finished, stopped or failed, steps, figures, bf16 error; `--earlier` reads it |
| `NAME.safetensors` | weights of both generators, fp32 |
| `NAME.tar.gz` | the model folder, of a finished training |
| `NAME.checkpoint.pt` | of one that was stopped, where 16 MiB hold it: nearly never |
| `NAME.train.jsonl.gz`, `NAME.png`, `NAME.log` | every step's losses, their curves, what was said |

and `report.json`: machine, speed, the state of the list. Exit codes: 0 trained, stopped by the time
or nothing left to do; 1 something is missing or the training failed; 2 bad arguments.
"""

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
from typing import Any

from gpu_checks import check_device, check_packages, check_weights, say, stop

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


def train_next(sitting: Sitting, job: Job) -> tuple[str, dict[str, Any]]:
    """Train one model and write its files; its state, and what its JSON says."""
    import torch  # noqa: PLC0415

    from gpu_results import Result, bring, take_up  # noqa: PLC0415

    args, folder = sitting.args, sitting.model(job)
    scans = (args.source, args.target) if args.source else simulate(sitting)
    if scans is None:
        return "to do", {}
    if args.earlier and take_up(job.name, folder, args.earlier):
        say(f"{job.name}: takes up the checkpoint in {args.earlier}")
    state = train(sitting, job, scans)
    why = sitting.failure(job).read_text() if state == "failed" else ""
    result = Result(job.name, folder, sitting.log(job), state, why)
    about = bring(result, sitting.out, scans[0], torch.device(args.device))
    for note in about["notes"]:
        say(note)
    say(f"{job.name}: {state} after {about.get('training', {}).get('steps', 0)} steps")
    return state, about


def speed_of(sitting: Sitting) -> dict[str, Any]:
    """The machine's speed, measured once and kept in the work folder."""
    import torch  # noqa: PLC0415

    from gpu_speed import lines, measure  # noqa: PLC0415

    args, kept = sitting.args, sitting.work / "speed.json"
    if not kept.exists():
        say("measuring speed")
        device = torch.device(args.device)
        found = measure(device, sitting.work / "step", args.slice_px, args.settings, args.quick)
        kept.write_text(json.dumps(found))
    speed: dict[str, Any] = json.loads(kept.read_text())
    for line in lines(speed):
        say(line)
    return speed


def main() -> None:
    """One sitting."""
    args = arguments()
    limit_s = args.minutes * 60
    deadline = time.monotonic() + limit_s - min(RESERVE_S, limit_s / 5)
    if bool(args.source) != bool(args.target):
        stop("give both --source and --target, or neither to simulate scans", code=2)
    for folder in filter(None, (args.source, args.target, args.wheels, args.earlier)):
        if not folder.is_dir():
            stop(f"{folder}: no such folder", code=2)
    sitting = Sitting(args.work.resolve(), args.out.resolve(), deadline, args)
    check_packages(args.wheels, sitting.work / "site", simulates=not args.source)
    jobs = [Job.read(text) for text in [*args.models, *listed(args.list)]]
    if not jobs:
        stop("no model to train; name some, such as cvsct:stable, or give --list", code=2)
    check_device(args.device)
    for folder in (sitting.work / "logs", sitting.out):
        folder.mkdir(parents=True, exist_ok=True)
    states = {job: state_of(sitting, job) for job in jobs}
    for job, state in states.items():
        if state not in TO_TRAIN:
            say(f"{job.name}: {state} already, skipped")
    to_do = [job for job, state in states.items() if state in TO_TRAIN]
    check_weights(args.weights, [job.method for job in to_do])
    report: dict[str, Any] = {} if args.no_speed else {"speed": speed_of(sitting)}
    if to_do:
        states[to_do[0]], report["trained"] = train_next(sitting, to_do[0])
    left = [job.name for job, state in states.items() if state in TO_TRAIN]
    report["models"] = {job.name: state for job, state in states.items()}
    (sitting.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    say(f"left: {', '.join(left)}; call again to go on" if left else "nothing is left to train")
    if why := report.get("trained", {}).get("why"):
        stop(f"{to_do[0].name} failed: {why} (skipped from now on; --retry tries it again)")


def listed(path: Path | None) -> list[str]:
    """The words of a list file, without what follows a #."""
    if path is None:
        return []
    if not path.is_file():
        stop(f"{path}: no such list", code=2)
    return [word for line in path.read_text().splitlines() for word in line.split("#")[0].split()]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_run.sh", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("models", nargs="*", metavar="METHOD:PRESET[:SEED]", help="such as cvsct:stable")
    add("--list", type=Path, help="a file of such words, # begins a comment")
    add("--minutes", type=float, default=9.0, help="time limit of this call")
    add("--model-minutes", type=float, help="training time of a model in all (--max-minutes)")
    add("--max-steps", type=int, help="steps of a model; the preset's where not given")
    add("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    add("--save-seconds", type=float, default=30.0, help="between checkpoints")
    add("--source", type=Path, help="DICOM of scanner A; simulated where not given")
    add("--target", type=Path, help="DICOM of scanner B")
    add("--scale", default="demo", choices=["tiny", "demo", "paper"], help="of the simulations")
    add("--bodies", type=int, default=16, help="simulations, each of other bodies")
    add("--weights", type=Path, help="VGG weights; else CVSCT_VGG_WEIGHTS")
    add("--wheels", type=Path, help="folder of wheels for what is not installed")
    add("--earlier", type=Path, help="folder of what came back from earlier machines")
    add("--work", type=Path, default=Path("/tmp/cvsct-gpu"), help="kept between calls")
    add("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-out")), help="default $OUT")
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--slice-px", type=int, default=512, help="side of the slice that is timed")
    add("--retry", action="store_true", help="train what has failed before again")
    add("--no-speed", action="store_true", help="measure no speed")
    add("--quick", action="store_true", help="for tests: speed is not really measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
