"""The way from scans to a model, for any family of methods.

A family brings what `Prepared` holds; stores, ranks, checkpoints, limits and what the model
records of its training are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cvsct.core.errors import CvsctError, UsageError
from cvsct.core.progress import silent
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import Bundle, Domain
from cvsct.networks.export import with_graphs
from cvsct.training.checkpoint import Run, Step
from cvsct.training.cyclegan.settings import TrainingConfig
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.prepare import close_domains, open_domains
from cvsct.training.data.store import Store
from cvsct.training.distributed import Ranks, joined
from cvsct.training.logging import Picture
from cvsct.training.loop import Limits, train


@runtime_checkable
class AnyStep(Step, Protocol):
    """A step of any family.

    Attributes:
        bf16: whether its networks run in bf16.
    """

    bf16: bool


@runtime_checkable
class AnyValidator(Protocol):
    """Measures a step's model, and shows what it does."""

    def __call__(self, step: Any) -> dict[str, float]:
        """Figures; the lowest `score` is the best."""

    def pictures(self, step: Any) -> dict[str, Picture]:
        """Images in [0, 1] by name."""


@dataclass(frozen=True)
class Prepared:
    """What a family of methods brings to a training.

    Args:
        draw: patches of both domains in [-1, 1], a whole batch of all ranks.
        held_out: how what the validator measures on was parted from what is learned from.
        about: what else the model records of its training; plain JSON values.
    """

    step: AnyStep
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    validator: AnyValidator
    held_out: str
    about: dict[str, Any] = field(default_factory=dict)


Prepare = Callable[[tuple[Store, Store], TrainingRequest, Ranks], Prepared]


def settings_of(request: TrainingRequest) -> dict[str, Any]:
    """The settings of the row and the user, and the limit of steps that was asked for."""
    limit = {} if request.max_steps is None else {"max_steps": request.max_steps}
    return {**request.settings, **limit}


def train_model(
    source: Scans,
    target: Scans,
    request: TrainingRequest,
    config: TrainingConfig,
    prepare: Prepare,
) -> Bundle:
    """Train and return the model; checkpoints and log stay in `request.out`.

    Under torchrun all ranks train one model; the first alone writes.

    Raises:
        UsageError: for a batch that the ranks cannot share.
        TrainingError: for scans that nothing can be learned from, or divergence.
    """
    with joined() as ranks:
        _refuse_unequal_shares(config, ranks)
        if not ranks.first:
            request = replace(request, progress=silent, note=_unsaid)
        return _train(source, target, request, config, prepare, ranks)


def _train(
    source: Scans,
    target: Scans,
    request: TrainingRequest,
    config: TrainingConfig,
    prepare: Prepare,
    ranks: Ranks,
) -> Bundle:
    stores = open_domains(
        source,
        target,
        request.out,
        PatchRule(config.patch_px, config.min_tissue),
        config.batch,
        config.resample_mm,
        request.progress,
        request.note,
    )
    try:
        prepared = prepare(stores, request, ranks)
    except CvsctError:  # refused: nothing is left behind but what an earlier run left
        if ranks.first and not request.resume:
            close_domains(request.out)
        raise
    step, validator = prepared.step, prepared.validator
    run = Run(
        folder=request.out,
        config={
            "seed": request.seed,
            "scans": {side: store.fingerprint for side, store in zip("ab", stores, strict=True)},
            **config.fingerprint(),
        },
        rng=random_stream(request.seed, "batches"),
        writes=ranks.first,
    )
    request.out.mkdir(parents=True, exist_ok=True)
    if request.resume:
        run.resume(step)

    def draw(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        a, b = (ranks.share(torch.from_numpy(patches)) for patches in prepared.draw(rng))
        return a, b

    figures = train(
        run,
        step,
        draw,
        Limits(config.max_steps, request.max_minutes),
        request.progress,
        config.schedule,
        validator if config.schedule.validates else None,
        validator.pictures,
        ranks,
    )
    if ranks.first:
        close_domains(request.out)
    bundle = Bundle(
        method=request.method,
        settings=config.model_dump(mode="json", include={"generator", "window_hu", "resample_mm"}),
        weights={
            name: tensor.cpu().numpy()
            for name, tensor in (run.best.weights if run.best else step.weights()).items()
        },
        source=Domain.from_facts(stores[0].facts),
        target=Domain.from_facts(stores[1].facts),
        training={
            "preset": request.preset,
            "seed": request.seed,
            "steps": run.steps,
            "minutes": round(run.minutes, 2),
            "batch": config.batch,
            "ranks": ranks.size,
            "patch_px": config.patch_px,
            "precision": "bf16" if step.bf16 else "fp32",
            "last_losses": _rounded(figures),
            **_validation_record(run, prepared.held_out),
            "scans": run.config["scans"],
            **prepared.about,
        },
    )
    return with_graphs(bundle) if ranks.first else bundle


def typical_pixel_mm(store: Store) -> float:
    """Median over slices; the domains were found alike within a few percent."""
    spacing = [float(np.sqrt(np.prod(each.pixel_mm))) for each in store.facts]
    return float(np.median(np.repeat(spacing, [each.shape[0] for each in store.facts])))


def _refuse_unequal_shares(config: TrainingConfig, ranks: Ranks) -> None:
    shares = ranks.size * config.accumulate
    if config.batch % shares:
        raise UsageError(
            f"a batch of {config.batch} cannot be shared by {ranks.size} ranks in "
            f"{config.accumulate} parts; set batch to a multiple of {shares}"
        )


def _validation_record(run: Run, how: str) -> dict[str, Any]:
    """Which step's weights were kept and why, beside what the last step measured."""
    if run.best is None or run.latest is None:
        return {"kept_step": run.steps}
    return {
        "kept_step": run.best.step,
        "kept": _rounded(run.best.figures),
        "last": _rounded(run.latest.figures),
        "held_out": how,
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def _unsaid(message: str) -> None:
    """A note that another rank gives."""
