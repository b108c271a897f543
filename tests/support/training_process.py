"""A tiny training as a process of its own: `python -m tests.support.training_process OUT`.

Its scans are made by seed, and it says on stdout which step is done.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from cvsct.core.volume import Acquisition, CTVolume, Geometry
from cvsct.core.workers import is_first_rank
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import CHECKPOINT_FILE
from cvsct.training import trainer
from cvsct.training.cyclegan import train as cycle

SETTINGS: dict[str, Any] = {
    "generator.attention": False,
    "generator.blocks": 1,
    "generator.width": 4,
    "generator.hold_low_px": 2,
    "discriminator.widths": [8, 8],
    "discriminator.strides": [2, 1],
    "weight_domain": 0.0,
    "patch_px": 24,
    "batch": 2,
    "pool": 3,
    "average": 0.5,
    "validation_patches": 8,
    "validation_fraction": 0.0,
    "precision": "fp32",
    "schedule.save_steps": 2,
    "schedule.validate_steps": 7,
}
STEPS = 21


def noisy(seed: int, sigma_px: float) -> CTVolume:
    """Three slices of soft tissue with noise of a kernel's sharpness."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(0, 60, (3, 72, 72)), (0, sigma_px, sigma_px))
    positions = np.zeros((3, 3))
    positions[:, 2] = 5.0 * np.arange(3)
    place = Geometry(positions, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.7, 0.7), 5.0, "1.2.3")
    maker = Acquisition("Maker", "Scanner", "K1", 120.0)
    return CTVolume((40 + noise).astype(np.float32), place, maker, series_uid=f"1.2.{seed}")


def train(out: Path, steps: int = STEPS, **more: Any) -> None:
    """Train, or go on from the checkpoint in `out`, and write the model."""
    trainer.with_graphs = lambda bundle: bundle  # takes longer than the training
    request = TrainingRequest("cyclegan", out, {**SETTINGS, **more}, max_steps=steps)
    request = replace(request, resume=(out / CHECKPOINT_FILE).exists(), progress=_say)
    bundle = cycle.train_cycle([noisy(0, 0.4)], [noisy(1, 1.0)], request)
    if is_first_rank():
        bundle.write(out)


def _say(what: str, done: int, total: int) -> None:
    print(what, done, flush=True)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
