"""Generators of the paired methods: sizes, places, published parameter counts, graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from cvsct.core.volume import HUWindow
from cvsct.inference.engines.load import load_network
from cvsct.model.bundle import Bundle, Domain
from cvsct.networks import export
from cvsct.networks.cvsct_generator import GeneratorConfig, build_generator, read_config
from cvsct.networks.discriminator import Discriminator, DiscriminatorConfig
from cvsct.networks.padding import reflected
from cvsct.networks.unet import UNet, UNetConfig
from cvsct.networks.vgg import CONVOLUTIONS, VGG
from cvsct.networks.vgg_unet import VGGUNet, VGGUNetConfig
from tests.conftest import make_volume

RESIDUAL_CNN = {"architecture": "residual-cnn", "width": 8}
UNET = {"architecture": "unet", "width": 4, "depth": 3}
VGG_UNET = {"architecture": "vgg-unet", "layers": ["relu1_1", "relu2_1"], "reduction": 8}
EACH = pytest.mark.parametrize("config", [RESIDUAL_CNN, UNET, VGG_UNET])


def built(config: dict[str, Any], seed: int = 0) -> nn.Module:
    """A network whose head does something, also where it starts at zero."""
    torch.manual_seed(seed)
    network = build_generator(read_config(config))
    nn.init.normal_(network.head.weight, std=0.05)
    return network.eval()


@EACH
@pytest.mark.parametrize("size", [(48, 48), (37, 61), (5, 6), (63, 40)])
def test_sizes_are_kept(config: dict[str, Any], size: tuple[int, int]) -> None:
    assert built(config)(torch.zeros(2, 1, *size)).shape == (2, 1, *size)


@EACH
@torch.no_grad()
def test_what_is_left_and_right_stays_so(config: dict[str, Any]) -> None:
    """With kernels that are their own mirror image a network commutes with mirroring.

    Exactly, if it moves the image nowhere: half a pixel anywhere would show.
    """
    network = built(config)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            kernel = module.weight
            for axis in (-1, -2):
                kernel = (kernel + kernel.flip(axis)) / 2
            module.weight.copy_(kernel)
    image = torch.randn(1, 1, 32, 40) * 0.3
    there = network(image)
    assert float((there - image).std()) > 1e-3
    for axis in (-1, -2):
        assert torch.allclose(network(image.flip(axis)), there.flip(axis), atol=1e-5)


@pytest.mark.parametrize("config", [UNET, VGG_UNET])
@torch.no_grad()
def test_odd_sizes_are_reflected_and_cut_back(config: dict[str, Any]) -> None:
    network = built({**config, "norm": "none"})
    step_px = network.step_px
    assert isinstance(step_px, int)
    odd = torch.randn(1, 1, 30, 29)
    by_hand = torch.cat([odd, *(odd[..., [-2 - i]] for i in range(-29 % step_px))], dim=-1)
    below = [by_hand[..., [-2 - i], :] for i in range(-30 % step_px)]
    by_hand = torch.cat([by_hand, *below], dim=-2)
    assert torch.equal(reflected(odd, step_px), by_hand)
    assert torch.allclose(network(odd), network(by_hand)[..., :30, :29], atol=1e-6)


@EACH
@torch.no_grad()
def test_residual_generators_start_as_the_identity(config: dict[str, Any]) -> None:
    residual = {} if config is RESIDUAL_CNN else {"residual": True}
    network = build_generator(read_config({**config, **residual}))
    image = torch.randn(2, 1, 24, 24)
    assert torch.equal(network(image), image.clamp(-1, 1))


@EACH
@torch.no_grad()
def test_a_slice_does_not_depend_on_others(config: dict[str, Any]) -> None:
    network = built(config)
    images = torch.randn(3, 1, 24, 24)
    assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-5)


def test_the_residual_cnn_has_six_convolutions_of_64() -> None:
    network = build_generator(read_config({"architecture": "residual-cnn"}))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64] * 5 + [1]
    assert sum(p.numel() for p in network.parameters()) == 640 + 4 * 36_928 + 577


def test_the_unet_has_pix2pix_parameters() -> None:
    """Its public code reports 54.414 M for three channels in and out, biases but the last off."""
    network = build_generator(UNetConfig())
    kernels = sum(p.numel() for p in network.parameters() if p.ndim == 4)
    norms = sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.InstanceNorm2d))
    more_channels = 2 * 64 * 16 + 2 * 128 * 16
    assert round((kernels + norms + more_channels + 3) / 1e6, 3) == 54.414


def test_the_conditional_discriminator_has_pix2pix_parameters() -> None:
    """2.769 M there, two images of three channels, with normalisation; 30x30 scores of 256 px."""
    config = DiscriminatorConfig(widths=(64, 128, 256, 512), strides=(2, 2, 2, 1), sigmoid=False)
    critic = Discriminator(config, HUWindow(), images=2)
    kernels = sum(p.numel() for p in critic.parameters() if p.ndim == 4)
    norms_and_biases = 2 * (128 + 256 + 512) + 64 + 1
    assert round((kernels + 4 * 64 * 16 + norms_and_biases) / 1e6, 3) == 2.769
    assert critic(torch.zeros(1, 2, 256, 256)).shape == (1, 1, 30, 30)
    scores, features = critic.scores_and_features(torch.zeros(1, 2, 64, 64))
    assert [each.shape[1] for each in features] == [64, 128, 256, 512]
    assert torch.equal(scores, critic(torch.zeros(1, 2, 64, 64)))


def test_the_innermost_features_are_of_the_whole_patch() -> None:
    network = build_generator(UNetConfig(width=2, depth=7))
    assert isinstance(network, UNet)
    assert network.latent(torch.zeros(1, 1, 128, 128)).shape == (1, 16, 1, 1)


def test_the_vgg_encoder_is_frozen_and_the_rest_is_not() -> None:
    network = build_generator(VGGUNetConfig())
    assert isinstance(network, VGGUNet)
    frozen = [p for p in network.parameters() if not p.requires_grad]
    assert len(frozen) == 2 * sum(CONVOLUTIONS["vgg16"][:4])
    assert sum(p.numel() for p in frozen) == 7_635_264
    assert len(list(network.parameters())) > len(frozen)


@pytest.mark.parametrize(
    "layers", [[], ["relu2_1"], ["relu1_1", "relu1_2"], ["relu1_2", "relu2_2", "relu3_4"]]
)
def test_layers_that_make_no_encoder_are_refused(layers: list[str]) -> None:
    with pytest.raises(ValidationError, match="one of each block of VGG16, from the first on"):
        VGGUNetConfig(layers=tuple(layers))
    with pytest.raises(ValueError, match="no layers"):
        VGG(["relu3_9"])


def test_a_model_without_architecture_is_the_papers() -> None:
    """As the first versions wrote it."""
    config = read_config({"width": 8, "reduction": 4})
    assert config == GeneratorConfig(width=8, reduction=4)
    assert read_config({"architecture": "resnet-9"}) == GeneratorConfig(architecture="resnet-9")
    with pytest.raises(ValueError, match="does not match any of the expected"):
        read_config({"architecture": "transformer"})


@EACH
def test_a_model_of_one_direction_has_one_graph_and_runs(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Through the folder, with a frozen encoder in half precision."""
    network = built(config)
    weights: dict[str, np.ndarray] = {}
    for name, tensor in network.state_dict().items():
        if "encoder.convolutions" in name:
            tensor.copy_(tensor.half())
            weights[f"a2b.{name}"] = tensor.half().numpy()
        else:
            weights[f"a2b.{name}"] = tensor.numpy()
    domain = Domain.of([make_volume(np.zeros((1, 4, 4)))])
    settings = {"generator": config, "window_hu": [-1000.0, 1000.0]}
    bundle = export.with_graphs(Bundle("cgan", settings, weights, domain, domain))
    assert list(bundle.graphs) == ["a2b"], bundle.training["graphs"]
    bundle.write(tmp_path)
    hu = np.random.default_rng(0).uniform(-900, 900, (2, 37, 61)).astype(np.float32)
    found = load_network(Bundle.read(tmp_path), False, "torch")(make_volume(hu))
    with torch.no_grad():
        wanted: Tensor = network(torch.from_numpy(hu / 1000)[:, None])
    assert np.abs(found - 1000 * wanted[:, 0].numpy()).max() < 0.01
