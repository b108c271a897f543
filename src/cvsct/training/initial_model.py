"""Start of a training from the networks of a finished model, in place of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cvsct.core.errors import TrainingError
from cvsct.methods.base import TrainingRequest
from cvsct.model.bundle import Bundle
from cvsct.model.pretrained import model_folder
from cvsct.training.network_set import NetworkSet
from cvsct.training.settings import TrainingConfig

FREE_GENERATOR_SETTINGS = {"hold_low_px"}
"""Settings of a generator that may differ from the initial model's: no weight depends on them."""


def start_from_initial_model(
    networks: NetworkSet, config: TrainingConfig, request: TrainingRequest
) -> dict[str, Any]:
    """Give the generators the weights of `config.initial_model`, where one is set.

    Discriminators and optimizers start anew: a model folder holds neither. A resumed training has
    its weights from the checkpoint.

    Returns:
        The model's hash, method and number of steps, for the record of the training; empty where
        no initial model is set.

    Raises:
        UsageError: if there is no such model.
        ModelError: if it is damaged.
        TrainingError: if its networks are not those that the settings describe.
    """
    if config.initial_model is None:
        return {}
    initial = Bundle.read(model_folder(Path(config.initial_model)))
    _refuse_other_networks(initial, config, networks)
    if not request.resume:
        networks.start_from({name: torch.from_numpy(w) for name, w in initial.weights.items()})
        request.note(
            f"starts from the networks of a {initial.method} model trained on {initial.source} "
            f"and {initial.target}"
        )
    steps = initial.training.get("steps", 0)
    steps += initial.training.get("initial_model", {}).get("steps", 0)
    return {"initial_model": {"sha256": initial.sha256, "method": initial.method, "steps": steps}}


def _refuse_other_networks(initial: Bundle, config: TrainingConfig, networks: NetworkSet) -> None:
    """Raise unless the weights fit, and mean the same with the settings of this training."""
    wanted = config.model_dump(mode="json", include={"generator", "window_hu", "resample_mm"})
    different = _differences(initial.settings, wanted)
    if different:
        raise TrainingError(
            f"initial_model: its networks were trained with other settings ({different}); train "
            "with these, or start from another model"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in networks.model_state().items()}
    if {name: weights.shape for name, weights in initial.weights.items()} != shapes:
        raise TrainingError(
            f"initial_model: a {initial.method} model, whose weights are not those of the networks "
            "to be trained; start from a model of the same method and preset"
        )


def _differences(before: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    """Settings of the initial model that differ, as `name=value` separated by commas."""
    found = []
    for name in sorted({*before, *wanted} - FREE_GENERATOR_SETTINGS):
        one, other = before.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found.append(_differences(one, other, f"{prefix}{name}."))
        elif one != other:
            found.append(f"{prefix}{name}={one}")
    return ", ".join(filter(None, found))
