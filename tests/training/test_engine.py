"""The training engine: what is logged, what stops it, which model is kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvsct.core.errors import TrainingError
from cvsct.core.progress import silent
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import CHECKPOINT_FILE, Bundle
from cvsct.training import loop, losses, trainer
from cvsct.training.checkpoint import BEST_FILE, Run, kept_models
from cvsct.training.collapse_monitor import CollapseConfig, CollapseMonitor
from cvsct.training.cyclegan import train as cycle
from cvsct.training.cyclegan.settings import PRESETS, cycle_config
from cvsct.training.cyclegan.step import CRITICS, CycleStep
from cvsct.training.logging import BOARD_FOLDER, LOG, VALIDATION_LOG, TrainingLog
from cvsct.training.loop import Interval, Limits, Schedule
from tests.support.training_process import SETTINGS, noisy
from tests.support.training_steps import Judge, NoBatches

TERMS = {
    *(f"{loss}_{way}" for loss in ("adversarial",) for way in ("a2b", "b2a")),
    *(f"{loss}_{side}" for loss in ("cycle", "identity", "critic") for side in "ab"),
}


@pytest.fixture(autouse=True)
def _without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "with_graphs", lambda bundle: bundle)


def train(out: Path, steps: int = 4, **settings: Any) -> Bundle:
    request = TrainingRequest("cyclegan", out, {**SETTINGS, **settings}, max_steps=steps)
    return cycle.train_cycle([noisy(0, 0.4)], [noisy(1, 1.0)], request)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tiny_step(**settings: Any) -> tuple[CycleStep, torch.Tensor]:
    torch.manual_seed(0)
    images = 0.05 * torch.randn(4, 1, 24, 24)
    config = cycle_config("cpu", {**SETTINGS, **settings})
    return CycleStep(config, images, images), images


def test_a_line_holds_terms_gradients_rates_and_times(tmp_path: Path) -> None:
    train(tmp_path, weight_cycle=0.5, decay_from=0.5, learning_rate=1e-3)
    logged = lines(tmp_path / LOG)
    nets = ("a2b", "b2a", *CRITICS)
    assert logged[0].keys() == {
        *(TERMS | {f"gradient_{net}" for net in nets}),
        *("rate_generators", "rate_critics", "step", "minutes", "seconds"),
    }
    assert all(line[f"gradient_{net}"] > 0 for line in logged for net in nets)
    assert [line["rate_generators"] for line in logged] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4])


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    with TrainingLog(tmp_path / "with") as record:
        record.step(1, {"loss": 1.0})
        record.pictures(1, {"a": np.zeros((8, 8))})
        assert record.shows_pictures
    assert list((tmp_path / "with" / BOARD_FOLDER).iterdir())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with TrainingLog(tmp_path / "with") as record:
        record.step(2, {"loss": 1.0})
        record.pictures(2, {"a": np.zeros((8, 8))})
        assert not record.shows_pictures
    assert [line["step"] for line in lines(tmp_path / "with" / LOG)] == [1, 2]


def test_real_and_translated_in_one_call_score_as_in_two() -> None:
    """No network normalises over the batch."""
    step, images = tiny_step(batch=4)
    critic = step.nets["critic_a"]
    together = critic(torch.cat((images[:2], images[2:]))).chunk(2)
    apart = critic(images[:2]), critic(images[2:])
    one, two = losses.discriminator_adversarial(*together), losses.discriminator_adversarial(*apart)
    assert one.item() == pytest.approx(two.item(), abs=1e-5)
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_translation_is_by_the_averaged_weights_in_parts_as_in_one() -> None:
    step, images = tiny_step(average=1.0)
    for _ in range(2):
        step(images, images.flip(0), 0.0, np.random.default_rng(0))
    assert torch.allclose(step.translate("a2b", images), images, atol=1e-6)
    for name, tensor in step.generator_state().items():
        step.averaged[name].copy_(tensor)
    trained = step.nets["a2b"](images)
    assert not torch.allclose(trained, images, atol=1e-6)
    assert torch.allclose(step.translate("a2b", images), trained, atol=1e-5)


class Scripted:
    """A step that does nothing; its weights are how often it was called."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, *_: Any) -> dict[str, float]:
        self.done += 1
        return {"loss": 1.0}

    def weights(self) -> dict[str, torch.Tensor]:
        return {"w": torch.tensor(float(self.done))}

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


def test_the_best_is_kept_by_score_and_measured_at_the_end_too(tmp_path: Path) -> None:
    scores = {2: 0.9, 4: 0.3, 6: 0.3, 7: 0.5}
    step = Scripted()
    run = Run(tmp_path, {}, np.random.default_rng(0))
    loop.train(
        run,
        step,
        NoBatches(),
        Limits(7),
        silent,
        Schedule(validate_steps=2),
        Judge(lambda step: {"score": scores[step.done], "bias_hu": 1.0}),
    )
    assert [line["step"] for line in lines(tmp_path / VALIDATION_LOG)] == list(scores)
    assert run.best is not None
    assert (run.best.step, float(run.best.weights["w"])) == (4, 4.0)
    assert run.latest is not None
    assert run.latest.figures == {"score": 0.5, "bias_hu": 1.0}
    assert torch.load(tmp_path / BEST_FILE, weights_only=True)["step"] == 4
    assert kept_models(tmp_path) == []


def test_the_way_of_a_training_is_kept_where_asked(tmp_path: Path) -> None:
    step, run = Scripted(), Run(tmp_path, {}, np.random.default_rng(0))
    schedule = Schedule(validate_steps=2, save_steps=4, keep_models=True)

    judge = Judge(lambda step: {"score": 1.0 + step.done})
    loop.train(run, step, NoBatches(), Limits(6), silent, schedule, judge)
    kept = kept_models(tmp_path)
    assert [(one.step, float(one.weights["w"]), one.figures) for one in kept] == [
        (number, float(number), {"score": 1.0 + number}) for number in (2, 4, 6)
    ]


def test_a_model_is_its_best_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.2, 0.8])
    monkeypatch.setattr(
        cycle.CycleValidator, "__call__", lambda *_: {"score": next(scores), "cycle_hu_a2b": 2.0}
    )
    bundle = train(tmp_path, steps=6, **{"schedule.validate_steps": 2})
    assert bundle.training["kept_step"] == 4
    assert bundle.training["kept"] == {"score": 0.2, "cycle_hu_a2b": 2.0}
    assert bundle.training["last"]["score"] == 0.8
    best = torch.load(tmp_path / BEST_FILE, weights_only=True)
    last = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)["step"]["averaged"]
    for name, array in bundle.weights.items():
        assert np.array_equal(array, best["weights"][name].numpy())
    assert any(not np.array_equal(bundle.weights[name], last[name].numpy()) for name in last)


def test_without_validation_the_last_step_is_the_model(tmp_path: Path) -> None:
    bundle = train(tmp_path, steps=3, **{"schedule.validate_steps": 0})
    assert bundle.training["kept_step"] == 3
    assert not (tmp_path / VALIDATION_LOG).exists()
    assert not (tmp_path / BEST_FILE).exists()


def test_validation_changes_nothing_of_the_training(tmp_path: Path) -> None:
    for every in (0, 1):
        train(tmp_path / str(every), steps=3, **{"schedule.validate_steps": every})
    ends = [
        torch.load(tmp_path / name / CHECKPOINT_FILE, weights_only=True)["step"]["nets"]
        for name in "01"
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_is_due_is_due_by_steps_or_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    by_steps, by_time, never = Interval(3, 0.0), Interval(0, 10.0), Interval(0, 0.0)
    assert [by_steps.due(step) for step in range(1, 7)] == [False, False, True] * 2
    due = []
    for now[0] in (4.0, 10.0, 15.0, 20.0):
        due.append(by_time.due(1))
    assert due == [False, True, False, True]
    assert not never.due(3)


def test_a_gradient_that_is_not_finite_stops_and_is_named(tmp_path: Path) -> None:
    class Exploding(Scripted):
        def __call__(self, *_: Any) -> dict[str, float]:
            self.done += 1
            return {"loss": 1.0, "gradient_a2b": float("nan") if self.done == 3 else 1.0}

    run = Run(tmp_path, {}, np.random.default_rng(0))
    with pytest.raises(TrainingError, match=r"step 3: gradient_a2b not finite.*learning rate"):
        loop.train(run, Exploding(), NoBatches(), Limits(9), silent)
    again, step = Run(tmp_path, {}, np.random.default_rng(0)), Exploding()
    again.resume(step)
    assert step.done == 0


def test_a_loss_that_overflows_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"diverged at step \d+: .*gradient_a2b.* not finite"):
        train(tmp_path, steps=60, weight_cycle=1e39)


def feed(health: CollapseMonitor, loss: float, gradient: float, steps: int) -> None:
    for _ in range(steps):
        health.check({"critic_a": loss}, {"critic_a": gradient})


def test_a_discriminator_that_has_won_stops_the_training() -> None:
    health = CollapseMonitor(CollapseConfig(dead_steps=5))
    feed(health, 0.001, 0.1, 4)
    feed(health, 0.02, 0.1, 1)
    feed(health, 0.001, 0.1, 4)
    with pytest.raises(TrainingError, match=r"critic_a has won.*below 0\.005 for 5 steps.*lower"):
        feed(health, 0.001, 0.1, 1)


def test_a_discriminator_without_gradient_stops_the_training() -> None:
    health = CollapseMonitor(CollapseConfig(dead_steps=5))
    with pytest.raises(TrainingError, match=r"critic_a is stuck.*is 0\.5.*sigmoid=false"):
        feed(health, 0.5, 0.0, 6)


def test_a_discriminator_at_chance_that_still_learns_is_let_go_on() -> None:
    health, rng = CollapseMonitor(CollapseConfig(dead_steps=5)), np.random.default_rng(0)
    for _ in range(50):
        feed(health, 0.25 + 0.002 * float(rng.normal()), 0.02, 1)
    off = CollapseMonitor(CollapseConfig(dead_steps=0))
    feed(off, 0.0, 0.0, 50)


def test_health_survives_a_restart() -> None:
    health, again = (
        CollapseMonitor(CollapseConfig(dead_steps=5)),
        CollapseMonitor(CollapseConfig(dead_steps=5)),
    )
    feed(health, 0.001, 0.1, 4)
    again.restore(json.loads(json.dumps(health.state())))
    with pytest.raises(TrainingError, match="has won"):
        feed(again, 0.001, 0.1, 1)


def test_a_saturated_sigmoid_ends_a_training_and_says_what_to_change(tmp_path: Path) -> None:
    """An input gain so large that every score is 0 or 1 to the last bit."""
    with pytest.raises(TrainingError, match=r"training stopped at step \d+: critic_. (is|has)"):
        train(
            tmp_path,
            steps=60,
            **{
                "discriminator.sigmoid": True,
                "discriminator.input_gain": 1e6,
                "discriminator.kaiming": True,
                "health.dead_steps": 5,
            },
        )


def test_presets_watch_validate_and_hold_as_documented() -> None:
    paper, stable, cpu = (cycle_config(name, {}) for name in PRESETS)
    assert not paper.schedule.validates
    assert (paper.window_hu, paper.health.dead_steps) == ((-1000.0, 900.0), 3000)
    assert paper.validation_fraction == 0
    for preset in (stable, cpu):
        assert preset.schedule.validate_steps == 200
        assert (preset.window_hu, preset.health.dead_steps) == ((-1024.0, 900.0), 300)
        assert preset.generator.hold_low_px == 3.0
