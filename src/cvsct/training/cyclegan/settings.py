"""Settings of the cycle family of trainings, and their presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from cvsct.methods.settings import read_settings, refuse_unknown_preset
from cvsct.networks.cvsct_generator import GeneratorConfig
from cvsct.networks.discriminator import DiscriminatorConfig
from cvsct.networks.highpass import reach_px
from cvsct.training.settings import TrainingConfig
from cvsct.training.texture_loss import TextureLossConfig
from cvsct.training.vgg_files import WantedWeights


class CycleConfig(TrainingConfig):
    """Everything that shapes a CycleGAN-like training. The defaults are the preset `paper`."""

    generator: GeneratorConfig = GeneratorConfig()
    """The network that a model is made of, one for each direction."""

    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The critic of each domain."""

    domain: TextureLossConfig = TextureLossConfig()
    """The texture ("domain") loss."""

    weight_adversarial: float = Field(default=1.0, ge=0)
    """Weight of the adversarial loss of translated patches."""

    weight_cycle: float = Field(default=1.0, ge=0)
    """Weight of the cycle loss: difference of a patch from itself after both directions."""

    weight_identity: float = Field(default=0.5, ge=0)
    """Weight of the identity loss: change of patches that are the target's already."""

    weight_domain: float = Field(default=1.0, ge=0)
    """Weight of the texture ("domain") loss; 0 trains without it."""

    scale_to_data: bool = False
    """Scale the generators' first weights so that features have unit variance on the patches."""

    pool: int = Field(default=0, ge=0)
    """How many earlier translated images are kept and shown to a discriminator again."""

    def wanted_weights(self) -> WantedWeights | None:
        """The weights that the training needs of others; None without a texture loss."""
        return self.domain.wanted_weights() if self.weight_domain else None

    @model_validator(mode="after")
    def _refuse_small_patches(self) -> CycleConfig:
        hold_px = self.generator.hold_low_px if self.generator.residual else 0.0
        if hold_px and self.patch_px <= reach_px(hold_px):
            raise ValueError(
                f"patches of {self.patch_px} px are too small to hold their low frequencies with "
                f"generator.hold_low_px={hold_px:g}, which looks {reach_px(hold_px)} px far; set "
                "larger patches, or a smaller hold_low_px"
            )
        return self


_STABLE: dict[str, Any] = {
    "generator": {"last_kernel": 3, "residual": True, "hold_low_px": 3.0},
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
"""`paper`: the paper as docs/reference/methods.md reads it. `stable`: what trains reliably.
`cpu`: what shows an effect on two cores in half an hour."""


def cycle_config(preset: str, given: Mapping[str, Any]) -> CycleConfig:
    """The preset with the given settings over it; dotted keys reach into the parts.

    Raises:
        UsageError: for an unknown preset, key or value.
    """
    refuse_unknown_preset(preset)
    return read_settings(CycleConfig, given, PRESETS[preset])
