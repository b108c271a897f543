from __future__ import annotations

import pytest
import torch

from cvsct.networks.pooling import Over, mean_and_max


@pytest.mark.parametrize("over", ["channels", "pixels"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_mean_and_the_maximum_with_their_gradients(
    over: Over, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 4, 6, generator=generator, dtype=torch.float64)
    features = features.contiguous(memory_format=layout).requires_grad_()
    axes = (1,) if over == "channels" else (2, 3)
    plain = features.mean(dim=axes, keepdim=True), features.amax(dim=axes, keepdim=True)
    own = mean_and_max(features, over)
    upstream = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in plain]
    for mine, wanted in zip(own, plain, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(own, features, upstream)
    (wanted_gradient,) = torch.autograd.grad(plain, features, upstream)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=0, atol=1e-14)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("over", ["channels", "pixels"])
def test_one_of_several_maxima_gets_the_gradient(over: Over) -> None:
    features = torch.ones(2, 3, 4, 5, requires_grad=True)
    _, peak = mean_and_max(features, over)
    (gradient,) = torch.autograd.grad(peak.sum(), features)
    assert gradient.sum() == peak.numel()
    assert set(gradient.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("over", ["channels", "pixels"])
def test_it_is_the_same_without_gradients(over: Over) -> None:
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    with_gradients = mean_and_max(features.clone().requires_grad_(), over)
    for mine, wanted in zip(mean_and_max(features, over), with_gradients, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)
