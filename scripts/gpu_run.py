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
import json
import os
import time
from pathlib import Path
from typing import Any

from gpu_checks import check_device, check_packages, check_weights, say, stop
from gpu_sitting import RESERVE_S, TO_TRAIN, Job, Sitting, simulate, state_of, train


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
