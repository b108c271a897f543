"""Train `ct-texture`, the texture network of our own, on simulated CT; and compare networks.

    python scripts/texture_network.py train --data FOLDER [FOLDER ...] --out FILE.npz
           [--steps 600] [--seed 0]
    python scripts/texture_network.py compare --a FOLDER --b FOLDER [--ct-texture FILE.npz]
           [--vgg FILE]

`train`: each folder holds the scans of one technique (scanner, kernel, dose, reconstruction); the
network learns to tell from a patch of soft tissue which technique made it. A fifth of each
technique's slices is held out, and the share of their patches that is recognized is printed.

`compare`: how much of a Gram matrix is technique and how much is anatomy and chance, for two
techniques that no network was trained on: squared distance of the mean Gram matrices of A and B
over the mean squared distance of a patch's matrix from its mean, by network and layer, and the
share of single patches that lie nearer to their own side's mean matrix (leave one out).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvsct.core.seeding import random_stream
from cvsct.core.volume import HUWindow
from cvsct.io.read import read_all
from cvsct.networks.vgg import CONVOLUTIONS, CT_TEXTURE_WIDTHS, VGG, convolution_positions
from cvsct.training import losses
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.sampler import PatchSampler
from cvsct.training.data.store import open_store
from cvsct.training.vgg_weights import load_ct_texture, load_vgg

WINDOW = HUWindow(-150.0, 250.0)
"""What the domain loss of `stable` and `cpu` shows the network."""
PATCH_PX, MIN_TISSUE, BATCH = 48, 0.5, 32
LAYERS = ("relu1_1", "relu1_2", "relu2_1", "relu2_2")
GAIN, MEAN = 4.0, 2.0
"""Input of the first convolution: `grey * GAIN - MEAN`, zero at 50 HU."""


def gray(patches: np.ndarray) -> Tensor:
    """Patches in [-1, 1] of the window as gray images in [0, 1]."""
    return torch.from_numpy((patches + 1) / 2)


def sampler_of(folder: Path, work: Path, number: int) -> PatchSampler:
    """Sampler of the soft-tissue patches of all scans below a folder."""
    store = open_store(
        work / str(number), read_all(folder), PatchRule(PATCH_PX, MIN_TISSUE), name=str(folder)
    )
    return PatchSampler(store, WINDOW)


def train(args: argparse.Namespace, work: Path) -> None:
    """Train on the techniques of `args.data`, and write the convolutions."""
    samplers = [sampler_of(folder, work, number) for number, folder in enumerate(args.data)]
    splits = [sampler.split(0.2, random_stream(args.seed, "split")) for sampler in samplers]
    torch.manual_seed(args.seed)
    network = VGG(LAYERS, "ct-texture").train()
    network.gain.fill_(GAIN)
    network.mean.fill_(MEAN)
    for convolution in network.convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
    network.requires_grad_(True)
    head = nn.Linear(2 * CT_TEXTURE_WIDTHS[-1], len(args.data))
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-3)
    rng = random_stream(args.seed, "patches")

    def scores(images: Tensor) -> Tensor:
        """Scores of the techniques, from mean and deviation of the last features."""
        last = network(images)[-1]
        return head(torch.cat((last.mean(dim=(2, 3)), last.std(dim=(2, 3))), dim=1))

    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - step / args.steps))
        labels = rng.integers(len(samplers), size=BATCH)
        images = gray(np.concatenate([splits[k].training.draw(1, rng) for k in labels]))
        loss = functional.cross_entropy(scores(images), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == args.steps - 1:
            print(f"step {step + 1}: cross entropy {loss.item():.3f}", flush=True)
    with torch.no_grad():
        for number, (folder, split) in enumerate(zip(args.data, splits, strict=True)):
            found = scores(gray(split.validation.draw(BATCH, rng))).argmax(dim=1)
            print(f"{folder.name}: {float((found == number).float().mean()):.2f} recognized")
    arrays = {"gain": np.float32(GAIN), "mean": np.float32(MEAN)}
    for (block, place), convolution in zip(
        convolution_positions("ct-texture"), network.convolutions, strict=True
    ):
        arrays[f"block{block}_conv{place}/kernel"] = (
            convolution.weight.detach().numpy().astype("f2")
        )
        arrays[f"block{block}_conv{place}/bias"] = convolution.bias.detach().numpy().astype("f2")
    np.savez(args.out, **arrays)


@torch.no_grad()
def compare(args: argparse.Namespace, work: Path) -> None:
    """Print signal and recognition of two techniques by network and layer."""
    sides = [
        gray(sampler_of(folder, work, number).draw(args.patches, random_stream(0, str(number))))
        for number, folder in enumerate((args.a, args.b))
    ]
    torch.manual_seed(0)
    untrained = VGG(LAYERS, "ct-texture")
    for convolution in untrained.convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    untrained.gain.fill_(GAIN)
    untrained.mean.fill_(MEAN)
    networks = {"ct-texture": load_ct_texture(LAYERS, args.ct_texture), "untrained": untrained}
    if args.vgg:
        networks["vgg16"] = load_vgg(args.vgg, (*LAYERS, "relu3_1"))
    print("| network | layer | signal | nearer to its own side |\n|---|---|---|---|")
    for name, network in networks.items():
        grams = [
            [
                torch.cat([losses.gram(features[layer]) for features in batches])
                for layer in range(len(network.layers))
            ]
            for batches in ([network(images) for images in torch.split(side, 32)] for side in sides)
        ]
        for layer, a, b in zip(network.layers, *grams, strict=True):
            signal, recognized = signal_of(a, b)
            print(f"| {name} | {layer} | {signal:.2f} | {recognized:.2f} |", flush=True)


def signal_of(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Distance of two sides over the scatter within them, and the share of patches told apart."""
    means = a.mean(0), b.mean(0)
    within = ((a - means[0]).square().mean() + (b - means[1]).square().mean()) / 2
    signal = (means[0] - means[1]).square().mean() / within
    right = []
    for own, mean, other in ((a, means[0], means[1]), (b, means[1], means[0])):
        left_out = (len(own) * mean - own) / (len(own) - 1)
        distances = [(own - reference).square().mean(dim=(1, 2)) for reference in (left_out, other)]
        right.append((distances[0] < distances[1]).float().mean())
    return float(signal), float(torch.stack(right).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and run one of the two commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("--data", type=Path, nargs="+", required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--steps", type=int, default=600)
    training.add_argument("--seed", type=int, default=0)
    training.set_defaults(run=train)
    comparison = commands.add_parser("compare")
    comparison.add_argument("--a", type=Path, required=True)
    comparison.add_argument("--b", type=Path, required=True)
    comparison.add_argument("--ct-texture", type=Path, help="default: the one of the package")
    comparison.add_argument("--vgg", type=Path, help="VGG16 weights")
    comparison.add_argument("--patches", type=int, default=128)
    comparison.set_defaults(run=compare)
    args = parser.parse_args(arguments)
    assert CONVOLUTIONS["ct-texture"] == (2, 2)
    with tempfile.TemporaryDirectory() as work:
        args.run(args, Path(work))


if __name__ == "__main__":
    main()
