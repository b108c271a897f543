"""Train CVS-CT and its ablations, from unpaired scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cvsct.core.errors import TrainingError
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import Bundle
from cvsct.training.cyclegan.settings import CycleConfig, cycle_config
from cvsct.training.cyclegan.step import CycleStep, Images
from cvsct.training.cyclegan.validation import CycleValidator, DomainPatches
from cvsct.training.data.sampler import PatchSampler
from cvsct.training.distributed import Ranks, join_ranks
from cvsct.training.initial_model import start_from_initial_model
from cvsct.training.loop import Limits, train
from cvsct.training.trainer import (
    NONE_HELD_OUT,
    Stores,
    finished_model,
    open_stores,
    quiet_unless_first,
    refuse_unequal_shares,
    remove_stores_if_refused,
    requested_settings,
    start_run,
    third_party_record,
    training_record,
    typical_pixel_mm,
)

STATISTICS_PATCHES = 256
"""Patches from which a domain's texture and the initial scales are taken."""

Samplers = tuple[PatchSampler, PatchSampler]
"""Of the source and of the target."""


def train_cycle(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Train on unpaired scans and return the model; checkpoints and log stay in `request.out`.

    Under torchrun all ranks train one model; the first alone writes.

    Raises:
        UsageError: for settings that do not exist, or a batch that the ranks cannot share.
        TrainingError: for scans without soft tissue, missing VGG weights, or divergence.
    """
    config = cycle_config(request.preset, requested_settings(request))
    with join_ranks() as ranks:
        refuse_unequal_shares(config, ranks)
        request = quiet_unless_first(request, ranks)
        stores = open_stores(source, target, request, config)
        with remove_stores_if_refused(request, ranks):
            all_samplers = _samplers(stores, config)
            split = _split(all_samplers, config, request)
            step = _build_step(config, split.training, request.seed, ranks)
            initial = start_from_initial_model(step.networks, config, request)
            validator = _build_validator(
                config, split.validation, all_samplers, request.seed, ranks
            )
        batches = UnpairedBatches(split.training, config.batch, ranks)
        run = start_run(request, config, stores, step, ranks, initial)
        limits = Limits(config.max_steps, request.max_minutes)
        losses = train(
            run, step, batches, limits, request.progress, config.schedule, validator, ranks
        )
        record = training_record(run, losses, step.bf16, split.how)
        origin = step.texture_loss.weights_origin if step.texture_loss else None
        record |= third_party_record(run, origin)
        return finished_model(request, config, stores, run, step, ranks, record)


@dataclass(frozen=True)
class UnpairedBatches:
    """Patches of both domains that have nothing to do with each other.

    Args:
        batch: patches of each domain, of all ranks together.
    """

    samplers: Samplers
    batch: int
    ranks: Ranks

    def draw(self, rng: np.random.Generator) -> tuple[Images, Images]:
        """Draw this rank's slice of the next batch of each domain."""
        a, b = (
            self.ranks.share(torch.from_numpy(sampler.draw(self.batch, rng)))
            for sampler in self.samplers
        )
        return a, b


@dataclass(frozen=True)
class Split:
    """Samplers of the training and of the validation patches, and how they were split."""

    training: Samplers
    validation: Samplers
    how: str


def _samplers(stores: Stores, config: CycleConfig) -> Samplers:
    a, b = (PatchSampler(store, config.window) for store in stores)
    return a, b


def _split(all_samplers: Samplers, config: CycleConfig, request: TrainingRequest) -> Split:
    """Patients to learn from and to validate on; the same ones where too few can be held out."""
    if config.validation_fraction == 0:
        return Split(all_samplers, all_samplers, NONE_HELD_OUT)
    try:
        a, b = (
            sampler.split(config.validation_fraction, random_stream(request.seed, "split"))
            for sampler in all_samplers
        )
    except TrainingError as error:
        request.note(f"{error}; validating on the patches that are learned from")
        return Split(all_samplers, all_samplers, NONE_HELD_OUT)
    return Split((a.training, b.training), (a.validation, b.validation), f"a: {a.how}; b: {b.how}")


def _build_step(config: CycleConfig, learned: Samplers, seed: int, ranks: Ranks) -> CycleStep:
    """The networks with their initial weights, and what the losses know of both domains."""
    a, b = (
        torch.from_numpy(sampler.draw(STATISTICS_PATCHES, random_stream(seed, "statistics", side)))
        for side, sampler in zip("ab", learned, strict=True)
    )
    config.discriminator.map_size(config.patch_px)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CycleStep(config, a, b, ranks)


def _build_validator(
    config: CycleConfig, held_out: Samplers, all_samplers: Samplers, seed: int, ranks: Ranks
) -> CycleValidator:
    """The validator, with its fixed patches on the device."""
    count = config.validation_patches
    a, b = (
        DomainPatches(
            unit=_fixed_patches(validated, count, random_stream(seed, "validation", side), ranks),
            pixel_mm=typical_pixel_mm(validated.store),
            spectrum_patches=_fixed_patches(
                all_patients, 2 * count, random_stream(seed, "validation spectra", side), ranks
            ),
        )
        for side, validated, all_patients in zip("ab", held_out, all_samplers, strict=True)
    )
    return CycleValidator(a, b, config.window)


def _fixed_patches(
    sampler: PatchSampler, count: int, rng: np.random.Generator, ranks: Ranks
) -> Images:
    return torch.from_numpy(sampler.validation_patches(count, rng)).to(ranks.device)
