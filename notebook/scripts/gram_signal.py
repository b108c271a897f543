"""How much of a Gram matrix is scanner, how much anatomy, by VGG layer and window (decision 4)."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from cvsct.core.volume import HUWindow
from cvsct.io.read import read_all
from cvsct.training.data.patch_grid import PatchRule
from cvsct.training.data.sampler import PatchSampler
from cvsct.training.data.store import open_store
from cvsct.training.texture_loss import TextureLoss, TextureLossConfig

LAYERS = ("relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu4_1", "relu5_1")
WINDOWS = ((-1000.0, 900.0), (-300.0, 400.0), (-150.0, 250.0))
PATCHES, PATCH_PX = 96, 48


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True, help="holds B70f/ and B40f/")
    parser.add_argument("--vgg", required=True, help="VGG16 weights, .npz")
    arguments = parser.parse_args()
    patches = []
    for seed, kernel in enumerate(("B70f", "B40f")):
        (volume,) = read_all(arguments.pair / kernel)
        lower = volume.select(slice(0, len(volume.hu) // 2))
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(Path(folder) / kernel, [lower], PatchRule(PATCH_PX))
            drawn = PatchSampler(store, HUWindow()).draw(PATCHES, np.random.default_rng(seed))
        patches.append(torch.from_numpy(drawn))
    for window in WINDOWS:
        config = TextureLossConfig(weights=arguments.vgg, layers=LAYERS, window_hu=window)
        loss = TextureLoss(config, HUWindow())
        for layer, sharp, soft in zip(LAYERS, *(loss.grams(p) for p in patches), strict=True):
            unit = soft.mean(0).square().mean()
            signal = (sharp.mean(0) - soft.mean(0)).square().mean() / unit
            noise = [float((x - x.mean(0)).square().mean() / unit) for x in (sharp, soft)]
            print(f"{window} {layer}: signal {float(signal):.2f}, "
                  f"noise {noise[0]:.2f} / {noise[1]:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
