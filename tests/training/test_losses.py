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
    distances = losses.gram_distances([found, 2 * found], [wanted, 2 * wanted])
    flat = [t.reshape(2, 3, 20) for t in (fake, target)]
    grams = [f @ f.transpose(0, 2, 1) / 60 for f in flat]
    mse = ((grams[0] - grams[1]) ** 2).mean()
    assert distances.numpy() == pytest.approx([mse, 4 * mse], rel=1e-5)


def test_cross_entropies_by_hand() -> None:
    """Sums of log-probabilities, and no infinity where a discriminator is certain."""
    real, fake = np.array([2.0, -1.0]), np.array([0.5, -3.0])
    of_real, of_fake = (torch.from_numpy(each).view(2, 1, 1, 1) for each in (real, fake))
    says_real, says_fake = (1 / (1 + np.exp(-each)) for each in (real, fake))
    teaching = float(losses.generator_cross_entropy(of_fake))
    assert teaching == pytest.approx(-np.log(says_fake).mean(), rel=1e-12)
    learning = float(losses.discriminator_cross_entropy(of_real, of_fake))
    by_hand = -(np.log(says_real).mean() + np.log(1 - says_fake).mean()) / 2
    assert learning == pytest.approx(by_hand, rel=1e-12)
    assert float(losses.generator_cross_entropy(torch.full((1, 1, 1, 1), -500.0))) == 500.0


def test_mean_squared_by_hand() -> None:
    a = torch.tensor([[1.0, -2.0], [0.5, 0.0]])[None, None]
    b = torch.tensor([[0.0, 1.0], [0.5, -1.0]])[None, None]
    assert float(losses.mean_squared(a, b)) == pytest.approx((1 + 9 + 0 + 1) / 4)


def test_latent_distance_by_hand_and_whatever_the_scale() -> None:
    rng = np.random.default_rng(0)
    found, wanted = rng.normal(size=(2, 3, 4, 2, 2))
    by_hand = np.mean(
        [((f - w) ** 2).sum() / (w**2).sum() for f, w in zip(found, wanted, strict=True)]
    )
    tensors = torch.from_numpy(found), torch.from_numpy(wanted)
    assert float(losses.latent_distance(*tensors)) == pytest.approx(by_hand, rel=1e-12)
    small = losses.latent_distance(*(1e-3 * each for each in tensors))
    assert float(small) == pytest.approx(by_hand, rel=1e-9)
    assert float(losses.latent_distance(tensors[1], tensors[1])) == 0.0


def test_feature_distance_by_hand() -> None:
    rng = np.random.default_rng(0)
    one, other = ([rng.normal(size=(2, c, 3, 3)) for c in (4, 8)] for _ in range(2))
    by_hand = np.mean(
        [
            np.abs(a - b).mean() / ((np.abs(a).mean() + np.abs(b).mean()) / 2)
            for a, b in zip(one, other, strict=True)
        ]
    )
    found = losses.feature_distance(
        [torch.from_numpy(each) for each in one], [torch.from_numpy(each) for each in other]
    )
    assert float(found) == pytest.approx(by_hand, rel=1e-12)
    opposite = torch.ones(1, 2, 3, 3)
    assert float(losses.feature_distance([opposite], [-opposite])) == pytest.approx(2.0)
