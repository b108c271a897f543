"""Losses of the trainings as pure functions of tensors.

Equation numbers are the CVS-CT paper's. Weights are applied by the step that adds them up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Scalar = Float[Tensor, ""]


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor in single precision, or as it is where it is more precise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def generator_adversarial(scores_of_fake: Float[Tensor, "n 1 y x"]) -> Scalar:
    """Least-squares loss of a generator: its images should score 1 (eqs 4 and 5)."""
    return (1 - scores_of_fake).square().mean()


def discriminator_adversarial(
    scores_of_real: Float[Tensor, "n 1 y x"], scores_of_fake: Float[Tensor, "m 1 y x"]
) -> Scalar:
    """Least-squares loss of a discriminator: real 1, translated 0.

    Not given in the paper; half the sum, as in Mao et al. 2017 and CycleGAN.
    """
    return ((scores_of_real - 1).square().mean() + scores_of_fake.square().mean()) / 2


def generator_cross_entropy(logits_of_fake: Float[Tensor, "n 1 y x"]) -> Scalar:
    """Non-saturating loss of a generator (Goodfellow et al. 2014; pix2pix): -log D(fake)."""
    return functional.softplus(-logits_of_fake).mean()


def discriminator_cross_entropy(
    logits_of_real: Float[Tensor, "n 1 y x"], logits_of_fake: Float[Tensor, "m 1 y x"]
) -> Scalar:
    """-log D(real) - log(1 - D(fake)), half the sum as in pix2pix."""
    return (
        functional.softplus(-logits_of_real).mean() + functional.softplus(logits_of_fake).mean()
    ) / 2


def mean_absolute(images: Float[Tensor, "n 1 h w"], wanted: Float[Tensor, "n 1 h w"]) -> Scalar:
    """L1 distance, a mean over pixels: cycle consistency (eq. 6) and identity (eq. 7)."""
    return (images - wanted).abs().mean()


def mean_squared(images: Float[Tensor, "n 1 h w"], wanted: Float[Tensor, "n 1 h w"]) -> Scalar:
    """L2 distance, a mean over pixels."""
    return (images - wanted).square().mean()


def latent_distance(features: Float[Tensor, "n c y x"], wanted: Float[Tensor, "n c y x"]) -> Scalar:
    """Squared distance of latent features over the energy of those wanted, a mean over images.

    Relative, so that no encoder can make it small by making its features small.
    """
    features, wanted = at_least_single(features), at_least_single(wanted)
    energy = wanted.detach().square().sum(dim=(1, 2, 3)).clamp_min(1e-12)
    return ((features - wanted).square().sum(dim=(1, 2, 3)) / energy).mean()


def feature_distance(
    first: Sequence[Float[Tensor, "n _ _ _"]], second: Sequence[Float[Tensor, "n _ _ _"]]
) -> Scalar:
    """Distance of a discriminator's features of two sets of images: 0 where they are equal.

    Mean absolute difference over the mean absolute value of both, a mean over layers; at most 2.
    """
    layers = []
    for pair in zip(first, second, strict=True):
        a, b = map(at_least_single, pair)
        size = (a.abs().mean() + b.abs().mean()) / 2
        layers.append((a - b).abs().mean() / size.clamp_min(1e-12))
    return torch.stack(layers).mean()


def gram(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c c"]:
    """Gram matrix of each image's feature maps, divided by c h w (Gatys et al. 2015)."""
    n, channels, height, width = features.shape
    flat = at_least_single(features.reshape(n, channels, height * width))
    return flat @ flat.transpose(1, 2) / (channels * height * width)


def gram_distances(
    fake_grams: Sequence[Float[Tensor, "..."]], target_grams: Sequence[Float[Tensor, "..."]]
) -> Float[Tensor, " layers"]:
    """Mean squared difference of Gram matrices, one value a layer (eqs 1 and 2)."""
    return torch.stack(
        [
            (fake - target).square().mean()
            for fake, target in zip(fake_grams, target_grams, strict=True)
        ]
    )
