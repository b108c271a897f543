"""Train CVS-CT and its ablations: presets, settings, and the way from scans to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError

from cvsct.data.patches import PatchSampler
from cvsct.errors import UsageError
from cvsct.models.bundle import Bundle, Domain
from cvsct.models.discriminator import Discriminator
from cvsct.runs import TrainingRequest, config_hash, random_stream, refuse_unknown_preset
from cvsct.training.loop import Limits, Run, train
from cvsct.training.steps import CycleConfig, CycleStep, Images
from cvsct.volume import CTVolume

STATISTICS_PATCHES = 256
"""Patches from which a domain's texture and the initial scales are taken."""

_STABLE: dict[str, Any] = {
    "generator": {"last_kernel": 3, "residual": True},
    "discriminator": {"sigmoid": False, "input_gain": 6.0, "kaiming": True},
    "domain": {
        "layers": ["relu2_1", "relu2_2", "relu3_1"],
        "window_hu": [-150.0, 250.0],
        "against": "domain",
        "scale": "target",
    },
    "weight_adversarial": 0.25,
    "weight_cycle": 1.0,
    "weight_identity": 0.1,
    "weight_domain": 0.5,
    "scale_to_data": True,
    "pool": 50,
    "decay_from": 0.5,
    "average": 0.999,
}
_CPU: dict[str, Any] = {
    **_STABLE,
    "discriminator": {
        **_STABLE["discriminator"],
        "widths": [32, 64, 128, 128],
        "strides": [2, 2, 1, 1],
    },
    "domain": {**_STABLE["domain"], "layers": ["relu2_1", "relu2_2"]},
    "patch_px": 48,
    "min_tissue": 0.5,
    "batch": 4,
    "average": 0.99,
    "learning_rate": 2e-4,
    "learning_rate_discriminator": 2e-4,
    "max_steps": 1500,
}
PRESETS: dict[str, dict[str, Any]] = {"paper": {}, "stable": _STABLE, "cpu": _CPU}
"""`paper`: the paper as docs/methods.md reads it. `stable`: what trains reliably. `cpu`: what
shows an effect on two cores in half an hour."""


def cycle_config(preset: str, settings: Mapping[str, Any]) -> CycleConfig:
    """The preset with settings over it; dotted keys reach into the parts.

    Raises:
        UsageError: for an unknown preset, key or value.
    """
    refuse_unknown_preset(preset)
    merged: dict[str, Any] = json.loads(json.dumps(PRESETS[preset]))
    for key, value in settings.items():
        *parts, last = key.split(".")
        place = merged
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"setting {key}: {part} has no parts")
        place[last] = value
    try:
        return CycleConfig.model_validate(merged)
    except ValidationError as error:
        raise UsageError("; ".join(_explain(detail) for detail in error.errors())) from error


def train_cycle(
    source: Sequence[CTVolume], target: Sequence[CTVolume], request: TrainingRequest
) -> Bundle:
    """Train on unpaired scans and return the model; checkpoints and log stay in `request.out`.

    Raises:
        UsageError: for settings that do not exist.
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
    samplers = [
        PatchSampler(scans, config.patch_px, config.window, config.min_tissue)
        for scans in (source, target)
    ]
    step = _build(config, samplers, request.seed)
    limits = Limits(config.max_steps, request.max_minutes)
    run = Run(
        folder=request.out,
        config={
            "seed": request.seed,
            "scans": {side: _fingerprint(v) for side, v in (("a", source), ("b", target))},
            **config.model_dump(mode="json", exclude={"max_steps": True, "domain": {"weights"}}),
        },
        rng=random_stream(request.seed, "batches"),
    )
    request.out.mkdir(parents=True, exist_ok=True)
    if request.resume:
        run.resume(step)

    def draw(rng: Any) -> tuple[Images, Images]:
        a, b = (torch.from_numpy(sampler.draw(config.batch, rng)) for sampler in samplers)
        return a, b

    figures = train(run, step, draw, limits, request.progress)
    return Bundle(
        method=request.method,
        settings=config.model_dump(mode="json", include={"generator", "window_hu"}),
        weights={name: tensor.cpu().numpy() for name, tensor in step.averaged.items()},
        source=Domain.of(source),
        target=Domain.of(target),
        training={
            "preset": request.preset,
            "seed": request.seed,
            "steps": run.steps,
            "minutes": round(run.minutes, 2),
            "batch": config.batch,
            "patch_px": config.patch_px,
            "precision": "bf16" if step.bf16 else "fp32",
            "last_losses": {name: round(value, 6) for name, value in figures.items()},
        },
    )


def _build(config: CycleConfig, samplers: Sequence[PatchSampler], seed: int) -> CycleStep:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = [
        torch.from_numpy(sampler.draw(STATISTICS_PATCHES, random_stream(seed, "statistics", side)))
        for side, sampler in zip("ab", samplers, strict=True)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Discriminator(config.discriminator, config.window).map_size(config.patch_px)
        return CycleStep(config, samples[0], samples[1], device)


def _fingerprint(scans: Sequence[CTVolume]) -> str:
    """Tells one set of scans from another without naming them."""
    series = sorted((scan.series_uid, *scan.hu.shape) for scan in scans)
    return config_hash({"series": series})[:12]


def _explain(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = ", ".join(CycleConfig.model_fields)
        return (
            f"no setting {key!r}; choose from {known} (generator., discriminator., domain. parts)"
        )
    return f"setting {key}: {detail['msg']}"
