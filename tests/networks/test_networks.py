from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cvsct.core.errors import TrainingError
from cvsct.core.volume import HUWindow
from cvsct.networks.cvsct_generator import (
    CBAM,
    Generator,
    GeneratorConfig,
    SameConv,
    build_generator,
    scale_to_data,
)
from cvsct.networks.discriminator import Discriminator, DiscriminatorConfig

SMALL = {"width": 8, "reduction": 4}
RESNET = {"architecture": "resnet-9", "width": 2}


def displacement_px(network: torch.nn.Module, size_px: int = 64) -> Tensor:
    """Where the response to an impulse lies, relative to the impulse, by centre of energy."""
    middle = size_px // 2
    flat = torch.zeros(1, 1, size_px, size_px)
    impulse = flat.clone()
    impulse[..., middle, middle] = 1.0
    with torch.no_grad():
        response = (network(impulse) - network(flat)).square()[0, 0]
    index = torch.arange(size_px, dtype=torch.float32) - middle
    total = response.sum()
    return torch.stack(((response.sum(1) * index).sum(), (response.sum(0) * index).sum())) / total


def test_the_papers_generator_has_332150_parameters() -> None:
    network = build_generator(GeneratorConfig())
    assert sum(p.numel() for p in network.parameters()) == 332_150


def test_the_public_resnet_has_its_parameters() -> None:
    """11,378,179 with three channels in and out; two fewer at each end here."""
    network = build_generator(GeneratorConfig(architecture="resnet-9"))
    count = sum(p.numel() for p in network.parameters())
    assert count == 11_378_179 - 4 * 49 * 64 - 2 == 11_365_633


@pytest.mark.parametrize(("last_kernel", "bound_px"), [(4, 0.5), (3, 0.0)])
@pytest.mark.parametrize("attention", [True, False])
def test_an_impulse_stays_in_place(last_kernel: Any, bound_px: float, attention: bool) -> None:
    """At initialisation, averaged over seeds: random kernels lean to no side."""
    found = []
    for seed in range(48):
        torch.manual_seed(seed)
        network = Generator(GeneratorConfig(width=32, attention=attention, last_kernel=last_kernel))
        found.append(displacement_px(network, size_px=40))
    shifts = torch.stack(found)
    error = 3 * shifts.std(0) / len(shifts) ** 0.5
    assert (shifts.mean(0).abs() <= bound_px + error).all()
    assert (error < 0.25).all()


def test_the_field_of_influence_is_centred() -> None:
    """Exact, for uniform kernels: naive one-sided padding would move the image by 3.5 px."""
    for last_kernel, expected in ((4, 0.5), (3, 0.0)):
        network = Generator(GeneratorConfig(attention=False, last_kernel=last_kernel, **SMALL))
        for module in network.modules():
            if isinstance(module, SameConv):
                torch.nn.init.constant_(module.weight, 0.01)
                torch.nn.init.zeros_(module.bias)
        assert displacement_px(network).abs().numpy() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("size", [(48, 48), (37, 61), (5, 6), (63, 40)])
@pytest.mark.parametrize("config", [SMALL, RESNET])
def test_the_generator_keeps_the_size(config: dict[str, Any], size: tuple[int, int]) -> None:
    network = build_generator(GeneratorConfig.model_validate(config))
    assert network(torch.zeros(2, 1, *size)).shape == (2, 1, *size)


def test_resnet_pads_odd_sizes_and_cuts_them_back() -> None:
    torch.manual_seed(0)
    network = build_generator(GeneratorConfig.model_validate(RESNET))
    odd = torch.randn(1, 1, 38, 43)
    by_hand = torch.cat((odd, odd[..., [-2]]), dim=-1)
    by_hand = torch.cat((by_hand, by_hand[..., [-2, -3], :]), dim=-2)
    assert torch.allclose(network(odd), network(by_hand)[..., :38, :43], atol=1e-6)


def test_resnet_starts_from_the_published_weights_and_stays_in_place() -> None:
    """Two halvings and doublings could move the image by whole pixels."""
    found = []
    for seed in range(24):
        torch.manual_seed(seed)
        network = build_generator(GeneratorConfig(architecture="resnet-9", width=8))
        found.append(displacement_px(network))
    weights = torch.cat([p.detach().flatten() for p in network.parameters() if p.ndim == 4])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    shifts = torch.stack(found)
    error = 3 * shifts.std(0) / len(shifts) ** 0.5
    assert (shifts.mean(0).abs() <= error).all()
    assert (error < 0.9).all()


def test_resnet_normalises_over_the_whole_image() -> None:
    """As published: a tile comes back otherwise alone than within a slice."""
    torch.manual_seed(0)
    network = build_generator(GeneratorConfig.model_validate(RESNET))
    scale_to_data(network, torch.randn(4, 1, 40, 40))
    slice_ = torch.randn(1, 1, 160, 160)
    slice_[..., 80:] = -1
    middle = network(slice_[..., 80:])[..., 60:100, 20:60], network(slice_)[..., 60:100, 100:140]
    assert float((middle[0] - middle[1]).detach().abs().max()) > 1e-3


def test_resnet_has_no_attention_and_nine_blocks() -> None:
    config = GeneratorConfig(architecture="resnet-9")
    assert (config.attention, config.blocks) == (False, 9)
    assert GeneratorConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match=r"no attention; train cyclegan or cvsct-1"):
        GeneratorConfig(architecture="resnet-9", attention=True)
    with pytest.raises(ValidationError, match="resnet-9 has 9 blocks, not 6"):
        GeneratorConfig(architecture="resnet-9", blocks=6)
    with pytest.raises(ValidationError, match="resnet-9 has instance normalization"):
        GeneratorConfig(architecture="resnet-9", norm="none")


@torch.no_grad()
def test_normalisation_is_an_option_of_the_papers_generator() -> None:
    """The paper names none; with it a layer forgets the scale of what came before."""
    images = torch.randn(2, 1, 40, 40)
    torch.manual_seed(0)
    plain = Generator(GeneratorConfig(**SMALL, attention=False))
    normed = Generator(GeneratorConfig(**SMALL, attention=False, norm="instance"))
    louder, loud = normed.body(10 * images), normed.body(images)
    assert torch.allclose(louder, loud, atol=1e-2)
    assert not torch.allclose(plain.body(10 * images), plain.body(images), atol=1e-2)
    convolutions = [type(layer).__name__ for layer in normed.body].count("InstanceNorm2d")
    assert convolutions == 6


def test_attention_gates_do_not_depend_on_the_image_size() -> None:
    """A spatial softmax would: paper's text against Woo et al.'s sigmoid."""
    torch.manual_seed(0)
    gate = CBAM(8, 4)
    tile = torch.rand(1, 8, 16, 16)
    tiled = tile.repeat(1, 1, 3, 3)
    assert torch.allclose(gate(tiled)[..., 20:28, 20:28], gate(tile)[..., 4:12, 4:12], atol=1e-6)


@torch.no_grad()
def test_scaling_to_data_undoes_the_gates_and_residual_starts_as_identity() -> None:
    images = torch.randn(8, 1, 40, 40) * 0.1
    torch.manual_seed(3)
    plain = Generator(GeneratorConfig())
    gated_std = float(plain.body(images).std())
    scale_to_data(plain, images)
    assert float(plain.body(images).std()) > 20 * gated_std
    residual = Generator(GeneratorConfig(residual=True, last_kernel=3))
    scale_to_data(residual, images)
    assert torch.equal(residual(images), images.clamp(-1, 1))


@torch.no_grad()
def test_scaling_to_data_serves_resnet_too() -> None:
    images = torch.randn(8, 1, 40, 40) * 0.1
    torch.manual_seed(3)
    plain = build_generator(GeneratorConfig.model_validate(RESNET))
    scale_to_data(plain, images)
    assert 0.2 < float(plain(images).std()) < 0.3  # 0.3 before the tanh
    residual = build_generator(GeneratorConfig.model_validate({**RESNET, "residual": True}))
    scale_to_data(residual, images)
    assert torch.equal(residual(images), images.clamp(-1, 1))


def test_the_papers_discriminator_gives_one_number_a_patch() -> None:
    critic = Discriminator(DiscriminatorConfig(), HUWindow())
    assert critic(torch.zeros(1, 1, 80, 80)).shape == (1, 1, 1, 1)
    assert DiscriminatorConfig().map_size(80) == 1
    with pytest.raises(TrainingError, match="48 px vanish"):
        DiscriminatorConfig().map_size(48)
    with pytest.raises(TrainingError, match="one stride a width"):
        Discriminator(DiscriminatorConfig(widths=(8,), strides=(1, 1)), HUWindow())


@pytest.mark.parametrize("patch_px", [48, 64, 80])
def test_the_map_size_is_what_comes_out(patch_px: int) -> None:
    config = DiscriminatorConfig(widths=(4, 4, 4), strides=(2, 1, 1), input_gain=6.0, sigmoid=False)
    critic = Discriminator(config, HUWindow())
    assert critic(torch.zeros(1, 1, patch_px, patch_px)).shape[-1] == config.map_size(patch_px)
