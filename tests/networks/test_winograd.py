from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cvsct.networks.cvsct_generator import GeneratorConfig, build_generator
from cvsct.networks.winograd import Conv2d, Margins, convolve, train_directly, transforms


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(
    ("kernel_px", "size", "margins"),
    [
        (3, (12, 16), (1, 1, 1, 1)),
        (3, (9, 7), (0, 0, 0, 0)),
        (4, (21, 18), (1, 2, 1, 2)),
        (4, (5, 6), (2, 1, 2, 1)),
    ],
)
def test_it_is_the_convolution_with_its_gradients(
    kernel_px: int, size: tuple[int, int], margins: Margins
) -> None:
    given = (drawn(2, 3, *size), drawn(5, 3, kernel_px, kernel_px), drawn(5))
    image, weight, bias = given
    fast = convolve(image, weight, bias, margins)
    plain = functional.conv2d(functional.pad(image, margins), weight, bias)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-11)
    upstream = drawn(*plain.shape)
    for own, wanted in zip(
        torch.autograd.grad(fast, given, upstream),
        torch.autograd.grad(plain, given, upstream),
        strict=True,
    ):
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kernel_px", [3, 4])
def test_rounding_stays_near_that_of_single_precision(kernel_px: int) -> None:
    image, weight = drawn(2, 64, 24, 24), drawn(64, 64, kernel_px, kernel_px)
    bias = torch.zeros(64, dtype=torch.float64)
    exact = functional.conv2d(image, weight, bias)
    fast = convolve(image.float(), weight.float(), bias.float(), (0, 0, 0, 0))
    relative = (fast - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert relative < 3e-6


def test_the_transforms_of_a_3_px_kernel_are_the_published_ones() -> None:
    published = [  # Lavin and Gray 2016, F(4x4, 3x3), of the input
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    assert transforms(3, torch.float64).input.tolist() == published


def test_only_training_in_full_precision_takes_it() -> None:
    convolution = Conv2d(16, 16, 3, padding=1)
    image = torch.zeros(1, 16, 8, 8)
    assert convolution.trains_by_winograd(image)
    assert not Conv2d(8, 16, 3).trains_by_winograd(image[:, :8])
    with torch.no_grad():
        assert not convolution.trains_by_winograd(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolution.trains_by_winograd(image)
    train_directly(convolution)
    assert not convolution.trains_by_winograd(image)


def test_a_generator_trains_as_with_direct_convolutions() -> None:
    torch.manual_seed(0)
    generator = build_generator(GeneratorConfig(width=16)).double()
    image = drawn(2, 1, 22, 19)
    gradients: list[list[Tensor]] = []
    for _ in range(2):
        generator.zero_grad()
        generator(image).square().mean().backward()
        gradients.append([weight.grad.clone() for weight in generator.parameters()])
        train_directly(generator)
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-7, atol=1e-15)
