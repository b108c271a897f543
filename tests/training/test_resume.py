"""A training that is killed and resumed ends as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvsct.core.errors import TerminatedError, TrainingError
from cvsct.core.progress import silent
from cvsct.model.bundle import CHECKPOINT_FILE, WEIGHTS_FILE, Bundle
from cvsct.training import checkpoint
from cvsct.training.checkpoint import BEST_FILE, Run, kept_models
from cvsct.training.logging import LOG, VALIDATION_LOG, TrainingLog, forget_later
from cvsct.training.loop import Limits, Schedule, train
from tests.support.training_process import STEPS
from tests.support.training_steps import Judge, NoBatches

ROOT = Path(__file__).resolve().parents[2]
TIMES = {"minutes", "seconds"}


def start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.training_process", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(out: Path) -> None:
    process = start(out)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def kill_sometime(out: Path, rng: np.random.Generator) -> bool:
    """Let it do a few steps, then kill it at any moment of the next; False if it came through."""
    process = start(out)
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith("training")
        if seen > rng.integers(1, 6):
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def test_a_training_asked_to_end_loses_no_step_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("training 3"):
            process.terminate()
            break
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    done = log(tmp_path, LOG)[-1]["step"]
    assert 3 <= done < STEPS
    assert f"asked to end (SIGTERM) after step {done}" in said
    assert "--resume" in said
    assert torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)["steps"] == done


def ask_to_end_in_step_four(folder: Path) -> None:
    """A training that SIGTERM meets within a step; run in a process of its own."""
    run, before = Run(folder, {}, np.random.default_rng(0)), signal.getsignal(signal.SIGTERM)

    class Interrupting(NoBatches):
        def draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            if run.steps == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().draw(rng)

    with pytest.raises(TerminatedError, match=r"after step 4; .*--resume"):
        train(
            run, Still(), Interrupting(), Limits(steps=9), silent,
            Schedule(save_seconds=0, validate_steps=4), Judge(lambda _: {"score": 0.5}),
        )  # fmt: skip
    assert signal.getsignal(signal.SIGTERM) is before


def test_termination_waits_for_the_step_and_its_validation(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.training.test_resume import *; "
        "ask_to_end_in_step_four(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    saved = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)
    assert (saved["steps"], saved["best"]["step"]) == (4, 4)


def log(out: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_training_killed_at_any_moment_ends_as_if_it_had_not_been(
    tmp_path: Path, kills: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(whole)
    rng = np.random.default_rng(kills)
    assert sum(kill_sometime(parts, rng) for _ in range(kills)) >= kills / 2
    finish(parts)
    assert (parts / WEIGHTS_FILE).read_bytes() == (whole / WEIGHTS_FILE).read_bytes()
    assert log(parts, LOG) == log(whole, LOG)
    assert log(parts, VALIDATION_LOG) == log(whole, VALIDATION_LOG)
    assert [line["step"] for line in log(whole, LOG)] == list(range(1, STEPS + 1))
    assert [line["step"] for line in log(whole, VALIDATION_LOG)] == [7, 14, 21]
    ends = [torch.load(out / CHECKPOINT_FILE, weights_only=True) for out in (whole, parts)]
    for end in ends:
        del end["minutes"]
    assert equal(*ends)
    assert Bundle.read(parts).training["kept"] == Bundle.read(whole).training["kept"]
    assert not list(parts.glob(".*.partial"))


def equal(one: Any, other: Any) -> bool:
    """Bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


class Still:
    """A step that does nothing."""

    def __call__(self, *_: Any) -> dict[str, float]:
        return {"loss": 0.0}

    def weights(self) -> dict[str, torch.Tensor]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("name", [CHECKPOINT_FILE, BEST_FILE])
def test_a_full_disk_keeps_the_last_good_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run, step = Run(tmp_path, {}, np.random.default_rng(0)), Still()
    run.save(step)
    run.record_validation({"score": 1.0}, step)
    before = (tmp_path / name).read_bytes()

    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    run.steps = 5
    with pytest.raises(TrainingError, match=rf"{name} at step 5: .*No space left.*--resume"):
        if name == CHECKPOINT_FILE:
            run.save(step)
        else:
            run.record_validation({"score": 0.5}, step)
    assert (tmp_path / name).read_bytes() == before


def test_lines_after_the_checkpoint_are_forgotten_and_so_is_a_torn_one(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as record:
        for step in (1, 2, 3):
            record.step(step, {"loss": 1.0})
            record.validation(step, {"score": 1.0})
    with (tmp_path / LOG).open("a") as stream:
        stream.write('{"step": 4, "lo')
    forget_later(tmp_path, 2)
    for name in (LOG, VALIDATION_LOG):
        assert [line["step"] for line in log(tmp_path, name)] == [1, 2]


def test_what_a_killed_process_left_is_tidied(tmp_path: Path) -> None:
    """`best.pt` of a step after the checkpoint goes; the checkpoint's own best comes back."""
    run, step = Run(tmp_path, {}, np.random.default_rng(0)), Still()
    run.steps = 1
    run.record_validation({"score": 1.0}, step, keep=True)
    run.save(step)
    run.steps = 2
    run.record_validation({"score": 0.5}, step, keep=True)
    left = tmp_path / f".{CHECKPOINT_FILE}.99.partial"
    left.write_bytes(b"half")
    again = Run(tmp_path, {}, np.random.default_rng(0))
    again.resume(step)
    assert again.best is not None
    assert again.best.step == 1
    assert torch.load(tmp_path / BEST_FILE, weights_only=True)["step"] == 1
    assert [one.step for one in kept_models(tmp_path)] == [1]
    assert not left.exists()
