"""Several ranks, or several parts one after another, learn what one process learns at once."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import multiprocessing

from cvsct.core.errors import TrainingError, UsageError
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import Bundle
from cvsct.training.cyclegan.settings import cycle_config
from cvsct.training.cyclegan.step import CycleStep
from cvsct.training.cyclegan.train import train_cycle
from cvsct.training.distributed import join_ranks
from cvsct.training.logging import LOG
from cvsct.training.paired.settings import paired_config
from cvsct.training.paired.step import PairedStep
from tests.support.commands import Run, options
from tests.support.training_process import SETTINGS, noisy
from tests.training.test_paired_steps import pairs
from tests.training.test_paired_steps import settings as settings_of

BATCH, STEPS = 4, 3
LOSSES = {
    "running mean": {"domain.against": "domain", "domain.scale": "target"},
    "batch": {"domain.against": "batch", "domain.scale": "start"},
}


def settings(weights: Path, loss: str) -> dict[str, Any]:
    return {
        **SETTINGS,
        "weight_domain": 0.5,
        "generator.attention": True,
        **LOSSES[loss],
        "batch": BATCH,
        "generator.residual": False,
        "learning_rate": 1e-4,
        "domain.weights": str(weights),
        "domain.layers": ["relu1_2", "relu2_1"],
    }


def learn(
    weights: Path, loss: str, accumulate: int = 1, meet_at: str = "env://"
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """A few steps with all ranks there are: what was learned, and what each step said.

    In float64: rounding, which float32 would let grow from step to step, cannot hide a fault.
    """
    torch.set_default_dtype(torch.float64)
    try:
        return learn_precisely(weights, loss, accumulate, meet_at)
    finally:
        torch.set_default_dtype(torch.float32)


def learn_precisely(
    weights: Path, loss: str, accumulate: int, meet_at: str
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    torch.manual_seed(0)
    images = 0.05 * torch.randn(BATCH * 2 * STEPS, 1, 24, 24)
    config = cycle_config("cpu", {**settings(weights, loss), "accumulate": accumulate})
    said = []
    with join_ranks(meet_at) as ranks:
        step = CycleStep(config, images, images.flip(0) * 0.7, ranks)
        rng = np.random.default_rng(0)
        for batch in images.split(2 * BATCH):
            a, b = batch[:BATCH], 0.7 * batch[BATCH:]
            said.append(step(ranks.share(a), ranks.share(b), 0.0, rng))
    return step.state(), said


def learn_in_turns(accumulate: int = 1, meet_at: str = "env://") -> tuple[dict[str, Any], Any]:
    """The same of GANai, whose discriminators and generator take turns step by step."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        more = {"alternation.phase_steps": 1, "generator.residual": False, "accumulate": accumulate}
        config = paired_config("cpu", settings_of("ganai", **more))
        said = []
        with join_ranks(meet_at) as ranks:
            step = PairedStep(config, pairs(BATCH, 0)[0].double(), ranks)
            rng = np.random.default_rng(0)
            for seed in range(5):
                a, b = (ranks.share(x.double()) for x in pairs(BATCH, seed))
                values = step(a, b, 0.0, rng)
                # the lowest of two means, which is not the mean of two lowest
                said.append({k: v for k, v in values.items() if not k.startswith("fools_")})
        return step.state(), said
    finally:
        torch.set_default_dtype(torch.float32)


def be_rank(rank: int, folder: Path) -> str:
    """Take this rank's place among two; where they meet."""
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE="2")
    torch.set_num_threads(1)
    return f"file://{folder / 'meet'}"


def learn_as_rank(rank: int, folder: Path, weights: Path) -> None:
    """Both losses, one of them in parts, and GANai."""
    for loss, accumulate in zip(LOSSES, (1, 2), strict=True):
        found = learn(weights, loss, accumulate, be_rank(rank, folder / loss))
        torch.save(found, folder / loss / f"{rank}.pt")
    turns = learn_in_turns(1, be_rank(rank, folder / "turns"))
    torch.save(turns, folder / "turns" / f"{rank}.pt")


def fail_as_rank(rank: int, folder: Path) -> None:
    try:
        with join_ranks(be_rank(rank, folder)) as ranks:
            ranks.average_([torch.ones(3)])
            if rank == 1:
                os._exit(7)
            ranks.average_([torch.ones(3)])
    except TrainingError as error:
        (folder / "error").write_text(str(error))


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of a nested state, by its path."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if not isinstance(value, dict | list | tuple):
        return {}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {key: each for i, part in parts for key, each in tensors(part, f"{name}/{i}").items()}


def assert_the_same(one: Any, other: Any) -> None:
    """Weights, gradients (in the optimisers) and statistics to 1e-9 of the largest.

    The generators are not residual: those begin as the identity, where the sign in the gradient
    of an L1 loss is rounding.
    """
    mine, theirs = tensors(one[0]), tensors(other[0])
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        off = float((tensor - theirs[name]).abs().max())
        assert off <= 1e-9 * float(tensor.abs().max()), (name, off)
    for said, heard in zip(one[1], other[1], strict=True):
        assert said == pytest.approx(heard, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_parts_one_after_another_learn_what_the_whole_batch_learns(
    vgg_weights: Path, loss: str
) -> None:
    assert_the_same(learn(vgg_weights, loss), learn(vgg_weights, loss, accumulate=2))


def test_parts_learn_the_same_in_turns() -> None:
    assert_the_same(learn_in_turns(), learn_in_turns(accumulate=2))


def test_two_ranks_learn_what_one_process_learns(tmp_path: Path, vgg_weights: Path) -> None:
    for name in (*LOSSES, "turns"):
        (tmp_path / name).mkdir()
    multiprocessing.spawn(learn_as_rank, (tmp_path, vgg_weights), nprocs=2)
    alone = {loss: partial(learn, vgg_weights, loss) for loss in LOSSES}
    for loss, learn_alone in {**alone, "turns": learn_in_turns}.items():
        first, second = (
            torch.load(tmp_path / loss / f"{rank}.pt", weights_only=True) for rank in (0, 1)
        )
        theirs = tensors(second[0])
        assert all(torch.equal(value, theirs[name]) for name, value in tensors(first[0]).items())
        assert first[1] == second[1]
        assert_the_same(learn_alone(), first)


def test_a_rank_that_dies_ends_the_others(tmp_path: Path) -> None:
    with pytest.raises(multiprocessing.ProcessExitedException, match="exit code 7"):
        multiprocessing.spawn(fail_as_rank, (tmp_path,), nprocs=2)


def test_a_batch_that_ranks_cannot_share_is_refused(tmp_path: Path) -> None:
    request = TrainingRequest("cyclegan", tmp_path, {**SETTINGS, "accumulate": 3}, max_steps=1)
    with pytest.raises(UsageError, match="batch of 2 cannot be shared by 1 ranks in 3 parts"):
        train_cycle([noisy(0, 0.4)], [noisy(1, 1.0)], request)


@pytest.mark.slow
def test_the_command_trains_the_same_model_with_two_ranks(
    tmp_path: Path, scans: Path, run: Run
) -> None:
    """The first rank alone writes and reports."""
    words = [
        *("train", "cyclegan", "--source", scans / "sharp", "--target", scans / "soft"),
        *options("cyclegan"),
    ]
    assert run(*words, "--out", tmp_path / "one")[0] == 0
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "cvsct.cli", *map(str, words), "--out", str(tmp_path / "two")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("cyclegan from") == 1
    one, two = (Bundle.read(tmp_path / name) for name in ("one", "two"))
    assert (one.training["ranks"], two.training["ranks"]) == (1, 2)
    for name, array in one.weights.items():
        assert np.abs(array - two.weights[name]).max() < 1e-6, name
    logs = [(tmp_path / name / LOG).read_text().splitlines() for name in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == 2
    files = [sorted(each.name for each in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
