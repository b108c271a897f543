"""Settings of a training that the families of methods share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from cvsct.core.settings import Settings
from cvsct.core.volume import HUWindow
from cvsct.training.collapse_monitor import CollapseConfig
from cvsct.training.loop import Schedule
from cvsct.training.vgg_files import WantedWeights


class TrainingConfig(Settings):
    """Settings that trainings of all families share."""

    window_hu: tuple[float, float] = (-1000.0, 900.0)
    """The HU range that networks see as -1 to 1; voxels outside come back unchanged."""

    patch_px: int = Field(default=80, ge=1)
    """Side of the patches that are learned from, in pixels."""

    min_tissue: float = Field(default=0.8, ge=0, le=1)
    """Share of a patch that must be soft tissue."""

    resample_mm: float | None = Field(default=None, ge=0.1, le=5)
    """Pixel size to which both domains are brought; as they are where there is none."""

    batch: int = Field(default=32, ge=1)
    """Patches of each domain a step, of all ranks together."""

    accumulate: int = Field(default=1, ge=1)
    """Parts in which a rank computes its slice, one after the other, to save memory; what is
    learned is the same up to rounding."""

    learning_rate: float = Field(default=1e-4, ge=0)
    """Adam's learning rate for generators at the beginning."""

    learning_rate_discriminator: float = Field(default=1e-4, ge=0)
    """Adam's learning rate for discriminators at the beginning."""

    beta1: float = Field(default=0.5, ge=0, lt=1)
    """Adam's weight of the past for gradients."""

    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Adam's weight of the past for squared gradients."""

    decay_from: float = Field(default=1.0, ge=0, le=1)
    """The fraction of the training after which learning rates fall to 0; 1 is never."""

    average: float = Field(default=0.0, ge=0, le=1)
    """Weight of the past in the running average of the weights; the average is what is kept."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the networks; `auto` takes bf16 where the hardware has it."""

    convolution: Literal["auto", "direct"] = "auto"
    """How networks convolve in training on a processor: `auto` by Winograd's algorithm where that
    is faster, `direct` as the finished model does; they differ by rounding."""

    initial_model: str | None = Field(default=None, min_length=1)
    """Model folder, or name of a bundled model, from whose networks the training starts; random
    weights where there is none."""

    max_steps: int = Field(default=31_250, ge=1)
    """Steps after which the training ends."""

    validation_patches: int = Field(default=128, ge=8)
    """Patches of each domain on which the model is measured."""

    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of each domain's slices that is held out for measuring the model."""

    health: CollapseConfig = CollapseConfig()
    """When a training is stopped because a discriminator has collapsed."""

    schedule: Schedule = Schedule()
    """When the training writes checkpoints, validates and shows pictures."""

    @property
    def window(self) -> HUWindow:
        """The HU range the networks see."""
        return HUWindow(*self.window_hu)

    def wanted_weights(self) -> WantedWeights | None:
        """The weights that the training needs of others; None where it needs none."""
        return None

    def fingerprint(self) -> dict[str, Any]:
        """All that shapes the weights: a resumed training must have the same.

        What an initial model gave is in the checkpoint, wherever its folder is now.
        """
        return self.model_dump(
            mode="json",
            exclude={
                "convolution": True,
                "initial_model": True,
                "max_steps": True,
                "schedule": True,
                "domain": {"weights", "download"},
                "vgg": {"weights", "download"},
            },
        )
