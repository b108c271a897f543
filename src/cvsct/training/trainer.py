"""Parts of training from scans to a model that all families of methods share.

Each family's `train_*` function reads from top to bottom and calls these: what was asked for, the
stores of the scans, the run and its checkpoint, and the model with what it records of its training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cvsct.core.errors import CvsctError, TrainingError, UsageError
from cvsct.core.progress import silent
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import THIRD_PARTY, Bundle, Domain
from cvsct.networks.export import with_graphs
from cvsct.training.checkpoint import Run
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.prepare import close_domains, open_domains
from cvsct.training.data.store import Store
from cvsct.training.distributed import Ranks
from cvsct.training.protocols import Step
from cvsct.training.settings import TrainingConfig

Stores = tuple[Store, Store]
"""Of the source and of the target."""

NONE_HELD_OUT = "none held out"


def requested_settings(request: TrainingRequest) -> dict[str, Any]:
    """The settings of the row and the user, and the limit of steps that was asked for."""
    limit = {} if request.max_steps is None else {"max_steps": request.max_steps}
    return {**request.settings, **limit}


def refuse_unequal_shares(config: TrainingConfig, ranks: Ranks) -> None:
    """Refuse a batch that the ranks cannot share.

    Raises:
        UsageError: with what the batch must be a multiple of.
    """
    shares = ranks.size * config.accumulate
    if config.batch % shares:
        raise UsageError(
            f"a batch of {config.batch} cannot be shared by {ranks.size} ranks in "
            f"{config.accumulate} parts; set batch to a multiple of {shares}"
        )


def quiet_unless_first(request: TrainingRequest, ranks: Ranks) -> TrainingRequest:
    """Request whose progress and notes are silent on all ranks but the first."""
    return request if ranks.first else replace(request, progress=silent, note=_discard_note)


def _discard_note(message: str) -> None:
    """Drop a note, which the first rank gives."""


def open_stores(
    source: Scans, target: Scans, request: TrainingRequest, config: TrainingConfig
) -> Stores:
    """Store both domains in `request.out`, or open the stores that are there.

    Raises:
        TrainingError: if nothing can be learned from the scans, or the disk is too small.
        CvsctError: if a scan cannot be read.
    """
    return open_domains(
        source,
        target,
        request.out,
        PatchRule(config.patch_px, config.min_tissue),
        config.batch,
        config.resample_mm,
        request.progress,
        request.note,
    )


@contextlib.contextmanager
def remove_stores_if_refused(request: TrainingRequest, ranks: Ranks) -> Iterator[None]:
    """Remove the stores if the block raises a refusal, unless an earlier run is being resumed."""
    try:
        yield
    except CvsctError:
        if ranks.first and not request.resume:
            close_domains(request.out)
        raise


def typical_pixel_mm(store: Store) -> float:
    """Median pixel spacing over all slices of a store, in mm."""
    spacing = [float(np.sqrt(np.prod(scan.pixel_mm))) for scan in store.facts]
    return float(np.median(np.repeat(spacing, [scan.shape[0] for scan in store.facts])))


def start_run(
    request: TrainingRequest,
    config: TrainingConfig,
    stores: Stores,
    step: Step,
    ranks: Ranks,
    initial: Mapping[str, Any],
) -> Run:
    """Start a training run, or resume it from the checkpoint in `request.out` if that is asked.

    Args:
        initial: record of the model whose networks the step started from; a resumed run has its
            own.

    Raises:
        TrainingError: if there is nothing to resume, or it was trained with other settings.
    """
    run = Run(
        folder=request.out,
        config={
            "seed": request.seed,
            "scans": {side: store.fingerprint for side, store in zip("ab", stores, strict=True)},
            **config.fingerprint(),
        },
        rng=random_stream(request.seed, "batches"),
        writes=ranks.first,
        initial=initial,
    )
    request.out.mkdir(parents=True, exist_ok=True)
    if request.resume:
        run.resume(step)
        if bool(run.initial) != (config.initial_model is not None):
            started = "from a model" if run.initial else "from random weights"
            raise TrainingError(
                f"{request.out}: this training started {started}; resume it with the same "
                "initial_model"
            )
    return run


def finished_model(
    request: TrainingRequest,
    config: TrainingConfig,
    stores: Stores,
    run: Run,
    step: Step,
    ranks: Ranks,
    record: Mapping[str, Any],
) -> Bundle:
    """Build the model of a finished training and remove its stores.

    Args:
        record: what the family adds to the model's record of its training; plain JSON values.
    """
    if ranks.first:
        close_domains(request.out)
    weights = run.best.weights if run.best else step.weights()
    bundle = Bundle(
        method=request.method,
        settings=config.model_dump(mode="json", include={"generator", "window_hu", "resample_mm"}),
        weights={name: tensor.cpu().numpy() for name, tensor in weights.items()},
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
            **record,
        },
    )
    return with_graphs(bundle) if ranks.first else bundle


def training_record(
    run: Run, losses: Mapping[str, float], bf16: bool, held_out: str
) -> dict[str, Any]:
    """Record of losses and of the step whose weights were kept, for the model.

    Args:
        losses: means over the last steps.
        held_out: how what the model was measured on was parted from what was learned from.
    """
    record = {
        "precision": "bf16" if bf16 else "fp32",
        "last_losses": _rounded(losses),
        "kept_step": run.steps,
    }
    if run.best is not None and run.latest is not None:
        record |= {
            "kept_step": run.best.step,
            "kept": _rounded(run.best.figures),
            "last": _rounded(run.latest.figures),
            "held_out": held_out,
        }
    return {**record, "scans": run.config["scans"], **run.initial}


def third_party_record(run: Run, weights_origin: Mapping[str, str] | None) -> dict[str, Any]:
    """Record of VGG weights that a training used, which the model's card attributes.

    Those that an initial model had used stay in what is learned from it.

    Args:
        weights_origin: as `vgg_files.describe_weights` returns it; None where none were used.
    """
    own = [] if weights_origin is None else [dict(weights_origin)]
    origins = own + [origin for origin in run.initial.get(THIRD_PARTY, []) if origin not in own]
    record: dict[str, Any] = {THIRD_PARTY: origins} if origins else {}
    return record | ({"vgg_sha256": own[0]["sha256"]} if own else {})


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}
