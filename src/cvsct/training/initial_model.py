"""Start of a training from the networks of a finished model, in place of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cvsct.core.errors import TrainingError
from cvsct.core.settings import differing_settings
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import THIRD_PARTY, Bundle
from cvsct.model.pretrained import model_folder
from cvsct.training.network_set import NetworkSet
from cvsct.training.settings import TrainingConfig

INITIAL = "initial_model"
"""Key in a model's record of its training."""

FREE_SETTINGS = {"generator.hold_low_px"}
"""Settings that may differ from the initial model's: no weight depends on them."""


def start_from_initial_model(
    networks: NetworkSet, config: TrainingConfig, request: TrainingRequest
) -> dict[str, Any]:
    """Give the generators the weights of `config.initial_model`, where one is set.

    Discriminators and optimizers start anew: a model folder holds neither. A resumed training has
    all of it from its checkpoint.

    Returns:
        Record of the training: the model's method, hash and number of steps, with those of the
        models it started from, and the weights of others that it used. Empty where no initial model
        is set, or the training is resumed.

    Raises:
        UsageError: if there is no such model.
        ModelError: if it is damaged.
        TrainingError: if its networks are not those that the settings describe.
    """
    if config.initial_model is None or request.resume:
        return {}
    initial = Bundle.read(model_folder(Path(config.initial_model)))
    _refuse_other_networks(initial, config, networks)
    networks.start_from({name: torch.from_numpy(w) for name, w in initial.weights.items()})
    request.note(
        f"starts from the networks of a {initial.method} model trained on {initial.source} and "
        f"{initial.target}"
    )
    before = initial.training.get(INITIAL, {})
    steps = initial.training.get("steps", 0) + before.get("steps", 0)
    record = {"sha256": initial.sha256, "method": initial.method, "steps": steps}
    others = initial.training.get(THIRD_PARTY, [])
    return {INITIAL: record, **({THIRD_PARTY: others} if others else {})}


def _refuse_other_networks(initial: Bundle, config: TrainingConfig, networks: NetworkSet) -> None:
    """Raise unless the weights fit, and mean the same with the settings of this training."""
    shapes = {name: tuple(tensor.shape) for name, tensor in networks.model_state().items()}
    if set(initial.weights) != set(shapes):
        raise TrainingError(
            f"initial_model: a {initial.method} model, whose weights are not those of the networks "
            "to be trained; start from a model of the same method and preset"
        )
    wanted = config.model_dump(mode="json", include={"generator", "window_hu", "resample_mm"})
    different = ", ".join(
        f"{name}={old}"
        for name, old, _ in differing_settings(initial.settings, wanted)
        if name not in FREE_SETTINGS
    )
    if different or any(initial.weights[name].shape != shapes[name] for name in shapes):
        raise TrainingError(
            "initial_model: its networks were trained with other settings "
            f"({different or 'other sizes'}); train with these, or start from another model"
        )
