"""Train CVS-CT and its ablations: the way from scans to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cvsct.data.domains import close_domains, open_domains
from cvsct.data.patches import PatchSampler
from cvsct.data.places import PatchRule
from cvsct.data.store import Store
from cvsct.errors import TrainingError, UsageError
from cvsct.models.bundle import Bundle, Domain
from cvsct.models.export import with_graphs
from cvsct.runs import TrainingRequest, random_stream, silent
from cvsct.training.checkpoint import Run
from cvsct.training.loop import Limits, train
from cvsct.training.parallel import Ranks, joined
from cvsct.training.settings import CycleConfig, cycle_config
from cvsct.training.steps import CycleStep, Images
from cvsct.training.validation import CycleValidator, Sample
from cvsct.volume import Scans

STATISTICS_PATCHES = 256
"""Patches from which a domain's texture and the initial scales are taken."""


def train_cycle(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Train on unpaired scans and return the model; checkpoints and log stay in `request.out`.

    Under torchrun all ranks train one model; the first alone writes.

    Raises:
        UsageError: for settings that do not exist, or a batch that the ranks cannot share.
        TrainingError: for scans without soft tissue, missing VGG weights, or divergence.
    """
    row = dict(request.settings)
    settings = {
        **({} if row.pop("domain_loss", True) else {"weight_domain": 0.0}),
        "generator.attention": row.pop("attention", True),
        **row,
    }
    if request.max_steps is not None:
        settings["max_steps"] = request.max_steps
    config = cycle_config(request.preset, settings)
    with joined() as ranks:
        _refuse_unequal_shares(config, ranks)
        if not ranks.first:
            request = replace(request, progress=silent, note=_unsaid)
        return _train(source, target, request, config, ranks)


def _train(
    source: Scans, target: Scans, request: TrainingRequest, config: CycleConfig, ranks: Ranks
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
    learned, held_out, how = _split(stores, config, request)
    everyone = [PatchSampler(store, config.window) for store in stores]
    step = _build(config, learned, request.seed, ranks)
    validator = _validator(config, held_out, everyone, request.seed, ranks)
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

    def draw(rng: np.random.Generator) -> tuple[Images, Images]:
        a, b = (
            ranks.share(torch.from_numpy(sampler.draw(config.batch, rng))) for sampler in learned
        )
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
            **_validation_record(run, how),
            "scans": run.config["scans"],
            **({"vgg_sha256": step.domain.features.weights_sha256} if step.domain else {}),
        },
    )
    return with_graphs(bundle) if ranks.first else bundle


def _refuse_unequal_shares(config: CycleConfig, ranks: Ranks) -> None:
    shares = ranks.size * config.accumulate
    if config.batch % shares:
        raise UsageError(
            f"a batch of {config.batch} cannot be shared by {ranks.size} ranks in "
            f"{config.accumulate} parts; set batch to a multiple of {shares}"
        )


def _split(
    stores: Sequence[Store], config: CycleConfig, request: TrainingRequest
) -> tuple[list[PatchSampler], list[PatchSampler], str]:
    """Samplers to learn from and to validate on, and how they were parted."""
    samplers = [PatchSampler(store, config.window) for store in stores]
    if config.validation_fraction == 0:
        return samplers, samplers, "none held out"
    try:
        parts = [
            sampler.split(config.validation_fraction, random_stream(request.seed, "split"))
            for sampler in samplers
        ]
    except TrainingError as error:
        request.note(f"{error}; validating on the patches that are learned from")
        return samplers, samplers, "none held out"
    how = "; ".join(f"{name}: {part.how}" for name, part in zip("ab", parts, strict=True))
    return [part.training for part in parts], [part.validation for part in parts], how


def _build(
    config: CycleConfig, samplers: Sequence[PatchSampler], seed: int, ranks: Ranks
) -> CycleStep:
    samples = [
        torch.from_numpy(sampler.draw(STATISTICS_PATCHES, random_stream(seed, "statistics", side)))
        for side, sampler in zip("ab", samplers, strict=True)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config.discriminator.map_size(config.patch_px)
        return CycleStep(config, samples[0], samples[1], ranks)


def _validator(
    config: CycleConfig,
    held_out: Sequence[PatchSampler],
    everyone: Sequence[PatchSampler],
    seed: int,
    ranks: Ranks,
) -> CycleValidator:
    def fixed(sampler: PatchSampler, count: int, *names: str) -> Images:
        patches = sampler.validation_patches(count, random_stream(seed, *names))
        return torch.from_numpy(patches).to(ranks.device)

    a, b = (
        Sample(
            unit=fixed(few, config.validation_patches, "validation", side),
            pixel_mm=_typical_pixel_mm(few.store),
            every=fixed(every, 2 * config.validation_patches, "validation spectra", side),
        )
        for side, few, every in zip("ab", held_out, everyone, strict=True)
    )
    return CycleValidator(a, b, config.window)


def _typical_pixel_mm(store: Store) -> float:
    """Median over slices; the domains were found alike within a few percent."""
    spacing = [float(np.sqrt(np.prod(each.pixel_mm))) for each in store.facts]
    return float(np.median(np.repeat(spacing, [each.shape[0] for each in store.facts])))


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


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def _unsaid(message: str) -> None:
    """A note that another rank gives."""
