"""Train CVS-CT and its ablations, from unpaired scans."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from cvsct.core.errors import TrainingError
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import Bundle
from cvsct.training.cyclegan.settings import CycleConfig, cycle_config
from cvsct.training.cyclegan.step import CycleStep, Images
from cvsct.training.cyclegan.validation import CycleValidator, Sample
from cvsct.training.data.sampler import PatchSampler
from cvsct.training.data.store import Store
from cvsct.training.distributed import Ranks
from cvsct.training.trainer import Prepared, settings_of, train_model, typical_pixel_mm

STATISTICS_PATCHES = 256
"""Patches from which a domain's texture and the initial scales are taken."""


def train_cycle(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Train on unpaired scans and return the model; checkpoints and log stay in `request.out`.

    Under torchrun all ranks train one model; the first alone writes.

    Raises:
        UsageError: for settings that do not exist, or a batch that the ranks cannot share.
        TrainingError: for scans without soft tissue, missing VGG weights, or divergence.
    """
    row = settings_of(request)
    settings = {
        **({} if row.pop("domain_loss", True) else {"weight_domain": 0.0}),
        "generator.attention": row.pop("attention", True),
        **row,
    }
    config = cycle_config(request.preset, settings)
    return train_model(source, target, request, config, partial(_prepare, config))


def _prepare(
    config: CycleConfig, stores: tuple[Store, Store], request: TrainingRequest, ranks: Ranks
) -> Prepared:
    learned, held_out, how = _split(stores, config, request)
    everyone = [PatchSampler(store, config.window) for store in stores]
    step = _build(config, learned, request.seed, ranks)

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        a, b = (sampler.draw(config.batch, rng) for sampler in learned)
        return a, b

    return Prepared(
        step,
        draw,
        _validator(config, held_out, everyone, request.seed, ranks),
        how,
        {"vgg_sha256": step.domain.weights_sha256} if step.domain else {},
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
            pixel_mm=typical_pixel_mm(few.store),
            every=fixed(every, 2 * config.validation_patches, "validation spectra", side),
        )
        for side, few, every in zip("ab", held_out, everyone, strict=True)
    )
    return CycleValidator(a, b, config.window)
