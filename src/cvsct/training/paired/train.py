"""Train the methods that learn from pairs: the same bodies at the same places on both scanners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cvsct.core.errors import TrainingError
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import Bundle
from cvsct.training.data.pairs import PairSampler, PairSamplerSplit
from cvsct.training.distributed import Ranks, join_ranks
from cvsct.training.initial_model import start_from_initial_model
from cvsct.training.loop import Limits, train
from cvsct.training.network_set import Images
from cvsct.training.paired.settings import PairedConfig, paired_config
from cvsct.training.paired.step import PairedStep
from cvsct.training.paired.validation import PairValidator
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

SAMPLE_PATCHES = 16
"""Patches from which the scales of a frozen encoder's features are taken."""


def train_paired(source: Scans, target: Scans, request: TrainingRequest) -> Bundle:
    """Train on pairs of slices and return the model, which maps source to target alone.

    Checkpoints and log stay in `request.out`. Under torchrun all ranks train one model; the first
    alone writes.

    Raises:
        UsageError: for settings that do not exist, or a batch that the ranks cannot share.
        TrainingError: for scans that do not pair or show no soft tissue, missing VGG weights, or
            divergence.
    """
    config = paired_config(request.preset, requested_settings(request))
    with join_ranks() as ranks:
        refuse_unequal_shares(config, ranks)
        request = quiet_unless_first(request, ranks)
        stores = open_stores(source, target, request, config)
        with remove_stores_if_refused(request, ranks):
            pairs = _pair(stores, config, request)
            split = _split(pairs, config, request)
            step = _build_step(config, split.training, request.seed, ranks)
            initial = start_from_initial_model(step.networks, config, request)
            validator = _build_validator(config, split.validation, stores, request.seed, ranks)
        batches = PairedBatches(split.training, config.batch, ranks)
        run = start_run(request, config, stores, step, ranks, initial)
        limits = Limits(config.max_steps, request.max_minutes)
        losses = train(
            run, step, batches, limits, request.progress, config.schedule, validator, ranks
        )
        record = training_record(run, losses, step.bf16, split.how) | {"pairs": pairs.n_pairs}
        record |= third_party_record(run, step.weights_origin)
        return finished_model(request, config, stores, run, step, ranks, record)


@dataclass(frozen=True)
class PairedBatches:
    """Patches of the source, and of the target at the same places.

    Args:
        batch: pairs of patches, of all ranks together.
    """

    sampler: PairSampler
    batch: int
    ranks: Ranks

    def draw(self, rng: np.random.Generator) -> tuple[Images, Images]:
        """Draw this rank's slice of the next batch."""
        a, b = (
            self.ranks.share(torch.from_numpy(patches))
            for patches in self.sampler.draw(self.batch, rng)
        )
        return a, b


def _pair(stores: Stores, config: PairedConfig, request: TrainingRequest) -> PairSampler:
    """The pairs of slices; what a user must know of them is noted."""
    pairs = PairSampler.of(*stores, config.window)
    for remark in pairs.notes:
        request.note(remark)
    return pairs


def _split(pairs: PairSampler, config: PairedConfig, request: TrainingRequest) -> PairSamplerSplit:
    """Pairs to learn from and to validate on; the same ones where too few can be held out."""
    if config.validation_fraction == 0:
        return PairSamplerSplit(pairs, pairs, NONE_HELD_OUT)
    try:
        return pairs.split(config.validation_fraction, random_stream(request.seed, "split"))
    except TrainingError as error:
        request.note(f"{error}; validating on the pairs that are learned from")
        return PairSamplerSplit(pairs, pairs, NONE_HELD_OUT)


def _build_step(config: PairedConfig, learned: PairSampler, seed: int, ranks: Ranks) -> PairedStep:
    """The networks with their initial weights."""
    if config.critics:
        config.discriminator.map_size(config.patch_px)
    sample, _ = learned.draw(SAMPLE_PATCHES, random_stream(seed, "statistics"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PairedStep(config, torch.from_numpy(sample), ranks)


def _build_validator(
    config: PairedConfig, held_out: PairSampler, stores: Stores, seed: int, ranks: Ranks
) -> PairValidator:
    """The validator, with its fixed pairs of patches on the device."""
    a, b = (
        torch.from_numpy(patches).to(ranks.device)
        for patches in held_out.validation_patches(
            config.validation_patches, random_stream(seed, "validation")
        )
    )
    return PairValidator(a, b, typical_pixel_mm(stores[0]), config.window)
