"""Settings of the paired family of trainings, and their presets.

The methods differ in what their rows of METHODS set. Facts of the papers and what was chosen where
they are silent are listed in docs/reference/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from cvsct.core.errors import UsageError
from cvsct.core.settings import Settings
from cvsct.core.text import did_you_mean
from cvsct.methods.settings import read_settings, refuse_unknown_preset
from cvsct.networks.cvsct_generator import PairedGeneratorConfig
from cvsct.networks.discriminator import DiscriminatorConfig
from cvsct.networks.unet import UNetConfig
from cvsct.networks.vgg_unet import VGGUNetConfig
from cvsct.training.paired.alternation import AlternationConfig
from cvsct.training.settings import TrainingConfig
from cvsct.training.vgg_files import WantedWeights

View = Literal["conditional", "plain"]
"""What a discriminator sees: source and result side by side (pix2pix), or the result alone."""


_PATCH_GAN: dict[str, Any] = {
    "widths": (64, 128, 256, 512),
    "strides": (2, 2, 2, 1),
    "sigmoid": False,
}
"""pix2pix's discriminator of 70 px patches (appendix 6.1.2), without its normalization."""


class VGGFile(Settings):
    """Where the weights of a frozen VGG encoder come from."""

    weights: str = ""
    """File of the weights, `.npz`, Keras's `.h5` or torchvision's `.pth`; empty takes
    CVSCT_VGG_WEIGHTS, else torch's cache, else this program's."""

    download: bool = False
    """Download the convolutions that Keras publishes (VGG16 59 MB, VGG19 80 MB) into the cache of
    this program where there is no file."""


class PairedConfig(TrainingConfig):
    """Everything that shapes a training on pairs. The defaults are pix2pix in preset `paper`."""

    generator: PairedGeneratorConfig = UNetConfig()
    """The network that a model is made of."""

    vgg: VGGFile = VGGFile()
    """Weights of the encoder of a `vgg-unet`."""

    critics: tuple[View, ...] = ("conditional",)
    """The discriminators, by what each sees; none trains by the pixels alone."""

    discriminator: DiscriminatorConfig = DiscriminatorConfig(**_PATCH_GAN)
    """What each discriminator is built from."""

    adversarial: Literal["cross-entropy", "least-squares"] = "cross-entropy"
    """Adversarial loss: cross entropy as published, or least squares."""

    pixels: Literal["l1", "l2"] = "l1"
    """Norm of the difference from the target's image."""

    weight_adversarial: float = Field(default=1.0, ge=0)
    """Weight of what discriminators make of the result."""

    weight_pixels: float = Field(default=100.0, ge=0)
    """Weight of the difference from the target's image."""

    weight_latent: float = Field(default=0.0, ge=0)
    """Weight of the distance of the U-Net's innermost features of the result from those of the
    target's image."""

    weight_feature: float = Field(default=0.0, ge=0)
    """Weight of what a discriminator pays for features that are alike for real and translated
    images."""

    alternation: AlternationConfig = AlternationConfig()
    """Whether generator and discriminators learn in turns."""

    window_stages: tuple[float, ...] = ()
    """Shares of the HU window that are trained on one after the other, each for an equal part of
    the training: images are clipped to it and stretched to [-1, 1]. The last must be 1, the whole;
    none is that from the start."""

    window_centre_hu: float | None = None
    """What lies in the middle of a narrow window, as far as it fits; without it windows begin at
    the lower end."""

    def wanted_weights(self) -> WantedWeights | None:
        """The weights that the training needs of others; None without a frozen VGG encoder."""
        if not isinstance(self.generator, VGGUNetConfig):
            return None
        return WantedWeights(self.generator.network, self.vgg.weights, self.vgg.download, "vgg")

    @model_validator(mode="after")
    def _refuse_what_does_not_fit(self) -> PairedConfig:
        if self.weight_latent and not isinstance(self.generator, UNetConfig):
            raise ValueError(
                f"weight_latent needs a U-Net's innermost features, {self.generator.architecture} "
                "has none; set generator.architecture=unet, or weight_latent=0"
            )
        if self.discriminator.sigmoid:
            raise ValueError(
                "discriminators of paired training end without a sigmoid, the loss has it; leave "
                "discriminator.sigmoid out"
            )
        if self.alternation.phase_steps and not self.critics:
            raise ValueError(
                "without discriminators nobody takes turns with the generator; set critics, or "
                "alternation.phase_steps=0"
            )
        if len(set(self.critics)) < len(self.critics):
            raise ValueError(f"critics has one twice: {', '.join(self.critics)}")
        stages = self.window_stages
        if stages and (stages[-1] != 1 or not all(0 < share <= 1 for share in stages)):
            raise ValueError(
                f"window_stages are shares of the window and end with 1, the whole; not {stages}"
            )
        return self


_GENERATORS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"residual-cnn": {}, "unet": {"depth": 7}, "vgg-unet": {}},
    "stable": {
        "residual-cnn": {},
        "unet": {"depth": 4, "norm": "none", "residual": True},
        "vgg-unet": {"norm": "none", "residual": True},
    },
    "cpu": {
        "residual-cnn": {"width": 32},
        "unet": {"width": 32, "depth": 3, "norm": "none", "residual": True},
        "vgg-unet": {
            "layers": ["relu1_2", "relu2_2", "relu3_1"],
            "reduction": 4,
            "norm": "none",
            "residual": True,
        },
    },
}
"""What a preset makes of each architecture."""

_STABLE: dict[str, Any] = {
    "discriminator": {**_PATCH_GAN, "input_gain": 6.0, "kaiming": True},
    "adversarial": "least-squares",
    "window_hu": [-1024.0, 900.0],
    "window_centre_hu": 40.0,
    "min_tissue": 0.5,
    "batch": 16,
    "decay_from": 0.5,
    "average": 0.999,
    "max_steps": 20_000,
    "validation_fraction": 0.1,
    "schedule": {"validate_steps": 200},
}
PAIRED_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "discriminator": _PATCH_GAN,
        "patch_px": 128,
        "min_tissue": 0.5,
        "batch": 4,
        "learning_rate": 2e-4,
        "learning_rate_discriminator": 2e-4,
    },
    "stable": {**_STABLE, "learning_rate": 2e-4, "learning_rate_discriminator": 1e-4},
    "cpu": {
        **_STABLE,
        "discriminator": {
            **_STABLE["discriminator"],
            "widths": [32, 64, 128],
            "strides": [2, 2, 1],
        },
        "patch_px": 48,
        "batch": 8,
        "validation_patches": 64,
        "average": 0.99,
        "learning_rate": 1e-3,
        "learning_rate_discriminator": 2e-4,
        "max_steps": 3000,
    },
}
"""As in the cycle family: `paper` as docs/reference/methods.md reads the papers, `stable` for a
GPU, `cpu` for minutes on two cores."""


def paired_config(preset: str, given: Mapping[str, Any]) -> PairedConfig:
    """The preset with the given settings over it; dotted keys reach into the parts.

    Raises:
        UsageError: for an unknown preset, key or value.
    """
    refuse_unknown_preset(preset)
    generators = _GENERATORS[preset]
    architecture = given.get("generator.architecture", "unet")
    if architecture not in generators:
        raise UsageError(
            f"setting generator.architecture: {architecture!r} is no generator of paired methods; "
            f"{did_you_mean(str(architecture), generators)}choose one of {', '.join(generators)}"
        )
    generator = {"architecture": architecture, **generators[architecture]}
    return read_settings(PairedConfig, given, {**PAIRED_PRESETS[preset], "generator": generator})
