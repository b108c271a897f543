"""What a residual generator may change: physics of the filter, and where it is used."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from cvsct.networks.cvsct_generator import GeneratorConfig, build_generator
from cvsct.networks.highpass import HighPass, reach_px

SIGMA_PX = 3.0
SMALL: dict[str, Any] = {"width": 8, "residual": True, "last_kernel": 3, "attention": False}


def test_it_is_an_image_less_its_gaussian_blur() -> None:
    image = np.random.default_rng(0).normal(size=(41, 57)).astype(np.float32)
    blurred = ndimage.gaussian_filter(image, SIGMA_PX, mode="mirror", truncate=3.0)
    found = HighPass(SIGMA_PX)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    assert found == pytest.approx(image - blurred, abs=1e-5)


def test_constants_vanish_and_half_passes_at_0_19_over_sigma() -> None:
    keep = HighPass(SIGMA_PX)
    assert float(keep(torch.full((1, 1, 40, 40), 0.7)).abs().max()) < 1e-6
    place = torch.arange(400.0)
    wave = torch.cos(2 * torch.pi * 0.1874 / SIGMA_PX * place).expand(1, 1, 60, 400)
    middle = keep(wave)[0, 0, 30, 100:300]
    assert float(middle.abs().max()) == pytest.approx(0.5, abs=0.02)


def test_a_tile_with_a_margin_gives_what_the_whole_gives() -> None:
    keep, margin = HighPass(SIGMA_PX), reach_px(SIGMA_PX)
    image = torch.randn(1, 1, 80, 96, generator=torch.Generator().manual_seed(1))
    tile = keep(image[..., 20:70, 30:80])[..., margin:-margin, margin:-margin]
    whole = keep(image)[..., 20 + margin : 70 - margin, 30 + margin : 80 - margin]
    assert torch.allclose(tile, whole, atol=1e-6)


def test_bf16_leaves_no_bias() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = HighPass(SIGMA_PX)(torch.full((1, 1, 40, 40), 0.7))
    assert float(found.abs().max()) < 1e-6


@pytest.mark.parametrize("architecture", ["cvs-ct", "resnet-9"])
def test_a_generator_that_holds_cannot_move_the_mean(architecture: str) -> None:
    torch.manual_seed(0)
    image = 0.3 + 0.02 * torch.randn(1, 1, 64, 64)
    moved = {}
    for hold_px in (0.0, SIGMA_PX):
        made_of = {**SMALL, "architecture": architecture, "hold_low_px": hold_px}
        network = build_generator(GeneratorConfig.model_validate(made_of))
        torch.nn.init.normal_(network.head.weight, std=0.05)
        with torch.no_grad():
            change = network(image) - image
        moved[hold_px] = float(change.mean().abs() / change.abs().mean())
    assert moved[0.0] > 0.2
    assert moved[SIGMA_PX] < 0.05


def test_it_adds_no_weights_and_freezes_the_bias_it_makes_idle() -> None:
    held, free = (
        build_generator(GeneratorConfig(**SMALL, hold_low_px=px)) for px in (SIGMA_PX, 0.0)
    )
    assert held.state_dict().keys() == free.state_dict().keys()
    assert held.head.bias is not None
    assert not held.head.bias.requires_grad
    assert float(held.head.bias) == 0.0
    direct = build_generator(GeneratorConfig(width=8, hold_low_px=SIGMA_PX))
    assert direct.head.bias is not None
    assert direct.head.bias.requires_grad


def test_it_exports_as_plain_convolutions() -> None:
    onnx = pytest.importorskip("onnx")
    network = build_generator(GeneratorConfig(**SMALL, hold_low_px=SIGMA_PX)).eval()
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(1, 1, 40, 40),), stream, dynamo=False, opset_version=17
        )
    graph = onnx.load_from_string(stream.getvalue()).graph
    kinds = {node.op_type for node in graph.node}
    assert {"Conv", "Pad"} <= kinds
    assert not kinds & {"Loop", "If", "FFT", "DFT"}
