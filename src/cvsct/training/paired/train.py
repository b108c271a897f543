"""Train the methods that learn from pairs: the same bodies at the same places on both scanners."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from cvsct.core.errors import TrainingError
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Scans
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import Bundle
from cvsct.training.data.pairs import PairSampler
from cvsct.training.data.store import Store
from cvsct.training.distributed import Ranks
from cvsct.training.paired.settings import PairedConfig, paired_config
from cvsct.training.paired.step import PairedStep
from cvsct.training.paired.validation import PairValidator
from cvsct.training.trainer import Prepared, settings_of, train_model, typical_pixel_mm

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
    config = paired_config(request.preset, settings_of(request))
    return train_model(source, target, request, config, partial(_prepare, config))


def _prepare(
    config: PairedConfig, stores: tuple[Store, Store], request: TrainingRequest, ranks: Ranks
) -> Prepared:
    pairs = PairSampler.of(*stores, config.window)
    for remark in pairs.notes:
        request.note(remark)
    learned, held_out, how = _split(pairs, config, request)
    if config.critics:
        config.discriminator.map_size(config.patch_px)
    sample, _ = learned.draw(SAMPLE_PATCHES, random_stream(request.seed, "statistics"))
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        step = PairedStep(config, torch.from_numpy(sample), ranks)
    a, b = (
        torch.from_numpy(patches).to(ranks.device)
        for patches in held_out.validation_patches(
            config.validation_patches, random_stream(request.seed, "validation")
        )
    )

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return learned.draw(config.batch, rng)

    return Prepared(
        step,
        draw,
        PairValidator(a, b, typical_pixel_mm(stores[0]), config.window),
        how,
        {
            "pairs": pairs.n_pairs,
            **({"vgg_sha256": step.vgg_sha256} if step.vgg_sha256 else {}),
        },
    )


def _split(
    pairs: PairSampler, config: PairedConfig, request: TrainingRequest
) -> tuple[PairSampler, PairSampler, str]:
    """Pairs to learn from and to validate on, and how they were parted."""
    if config.validation_fraction == 0:
        return pairs, pairs, "none held out"
    try:
        parts = pairs.split(config.validation_fraction, random_stream(request.seed, "split"))
    except TrainingError as error:
        request.note(f"{error}; validating on the pairs that are learned from")
        return pairs, pairs, "none held out"
    return parts.training, parts.validation, parts.how
