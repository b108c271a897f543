"""Each loss against a hand computation in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvsct.training import losses


def test_adversarial_losses_by_hand() -> None:
    fake = torch.tensor([0.2, 0.9]).view(2, 1, 1, 1)
    real = torch.tensor([0.7, 1.1]).view(2, 1, 1, 1)
    assert float(losses.generator_adversarial(fake)) == pytest.approx((0.8**2 + 0.1**2) / 2)
    by_hand = ((0.3**2 + 0.1**2) / 2 + (0.2**2 + 0.9**2) / 2) / 2
    assert float(losses.discriminator_adversarial(real, fake)) == pytest.approx(by_hand)


def test_mean_absolute_by_hand() -> None:
    a = torch.tensor([[1.0, -2.0], [0.5, 0.0]])[None, None]
    b = torch.tensor([[0.0, 1.0], [0.5, -1.0]])[None, None]
    assert float(losses.mean_absolute(a, b)) == pytest.approx((1 + 3 + 0 + 1) / 4)


def test_gram_and_domain_distance_by_hand() -> None:
    rng = np.random.default_rng(0)
    fake, target = rng.normal(size=(2, 2, 3, 4, 5))
    found = losses.gram(torch.from_numpy(fake).float())
    by_hand = np.empty((2, 3, 3))
    for n in range(2):
        for i in range(3):
            for j in range(3):
                by_hand[n, i, j] = (fake[n, i] * fake[n, j]).sum() / (3 * 4 * 5)
    assert found.numpy() == pytest.approx(by_hand, abs=1e-6)
    wanted = losses.gram(torch.from_numpy(target).float())
    distances = losses.domain_distances([found, 2 * found], [wanted, 2 * wanted])
    flat = [t.reshape(2, 3, 20) for t in (fake, target)]
    grams = [f @ f.transpose(0, 2, 1) / 60 for f in flat]
    mse = ((grams[0] - grams[1]) ** 2).mean()
    assert distances.numpy() == pytest.approx([mse, 4 * mse], rel=1e-5)
