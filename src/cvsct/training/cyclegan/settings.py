"""What shapes a training: settings that any family has, those of the cycle family, and its presets.

The paired family's are in `paired_settings.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cvsct.core.errors import UsageError
from cvsct.core.volume import HUWindow
from cvsct.methods.base import refuse_unknown_preset
from cvsct.networks.cvsct_generator import GeneratorConfig
from cvsct.networks.discriminator import DiscriminatorConfig
from cvsct.networks.highpass import reach_px
from cvsct.training.cyclegan.collapse_monitor import HealthConfig
from cvsct.training.loop import Schedule
from cvsct.training.texture_loss import DomainConfig


class TrainingConfig(BaseModel):
    """What shapes a training of any family.

    Attributes:
        batch: patches of each domain a step, of all ranks together.
        accumulate: parts in which a rank computes its slice, one after the other, to save memory;
            what is learned is the same up to rounding.
        average: weight of the past in the running average of the weights; it is what is kept.
        decay_from: the fraction of the training after which learning rates fall to 0; 1 is never.
        validation_patches: of each domain, on which the model is measured.
        validation_fraction: share of each domain's slices that is held out for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_hu: tuple[float, float] = (-1000.0, 900.0)
    patch_px: int = 80
    min_tissue: float = 0.8
    resample_mm: float | None = Field(default=None, ge=0.1, le=5)
    batch: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float = 1e-4
    learning_rate_discriminator: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    decay_from: float = 1.0
    average: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    max_steps: int = 31_250
    validation_patches: int = Field(default=128, ge=8)
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    health: HealthConfig = HealthConfig()
    schedule: Schedule = Schedule()

    @property
    def window(self) -> HUWindow:
        """The HU range the networks see."""
        return HUWindow(*self.window_hu)

    def fingerprint(self) -> dict[str, Any]:
        """All that shapes the weights: a resumed training must have the same."""
        return self.model_dump(
            mode="json",
            exclude={
                "max_steps": True,
                "schedule": True,
                "domain": {"weights", "download"},
                "vgg": {"weights", "download"},
            },
        )


class CycleConfig(TrainingConfig):
    """Everything that shapes a CycleGAN-like training. The defaults are the preset `paper`."""

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    domain: DomainConfig = DomainConfig()
    weight_adversarial: float = 1.0
    weight_cycle: float = 1.0
    weight_identity: float = 0.5
    weight_domain: float = 1.0
    scale_to_data: bool = False
    pool: int = 0

    @model_validator(mode="after")
    def _refuse_small_patches(self) -> CycleConfig:
        held = self.generator.hold_low_px if self.generator.residual else 0.0
        if held and self.patch_px <= reach_px(held):
            raise ValueError(
                f"patches of {self.patch_px} px are too small to hold their low frequencies with "
                f"generator.hold_low_px={held:g}, which looks {reach_px(held)} px far; set larger "
                "patches, or a smaller hold_low_px"
            )
        return self


_STABLE: dict[str, Any] = {
    "generator": {"last_kernel": 3, "residual": True, "hold_low_px": 8.0},
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
    "window_hu": [-1024.0, 900.0],
    "validation_fraction": 0.1,
    "schedule": {"validate_steps": 200},
    "health": {"dead_steps": 300},
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
    "validation_patches": 64,
    "average": 0.99,
    "learning_rate": 2e-4,
    "learning_rate_discriminator": 2e-4,
    "max_steps": 1500,
}
PRESETS: dict[str, dict[str, Any]] = {"paper": {}, "stable": _STABLE, "cpu": _CPU}
"""`paper`: the paper as docs/methods.md reads it. `stable`: what trains reliably. `cpu`: what
shows an effect on two cores in half an hour."""


ARCHITECTURES = ("residual-cnn", "unet", "vgg-unet")
"""Of which one is chosen by `generator.architecture`; pydantic names it in the way to a field."""

Config = TypeVar("Config", bound=TrainingConfig)


def cycle_config(preset: str, settings: Mapping[str, Any]) -> CycleConfig:
    """The preset with settings over it; dotted keys reach into the parts.

    Raises:
        UsageError: for an unknown preset, key or value.
    """
    refuse_unknown_preset(preset)
    return configured(CycleConfig, PRESETS[preset], settings)


def configured(
    kind: type[Config], preset: Mapping[str, Any], settings: Mapping[str, Any]
) -> Config:
    """A preset's values with settings over them; dotted keys reach into the parts.

    Raises:
        UsageError: for an unknown key or value.
    """
    merged: dict[str, Any] = json.loads(json.dumps(preset))
    for key, value in settings.items():
        *parts, last = key.split(".")
        place = merged
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"setting {key}: {part} has no parts")
        place[last] = value
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise UsageError("; ".join(_explain(kind, each) for each in error.errors())) from error


def _explain(kind: type[TrainingConfig], detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"] if part not in ARCHITECTURES)
    if detail["type"] == "extra_forbidden":
        fields = kind.model_fields
        parts = [name for name in fields if isinstance(fields[name].default, BaseModel)]
        return (
            f"no setting {key!r}; choose from {', '.join(fields)} "
            f"({', '.join(f'{name}.' for name in parts)} have parts)"
        )
    message = detail["msg"].removeprefix("Value error, ")
    return f"setting {key}: {message}" if key else message
