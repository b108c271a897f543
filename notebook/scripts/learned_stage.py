"""The network of `spectrum-network`: simulated scanners to learn from, its training, its file.

    python notebook/scripts/learned_stage.py simulate --work WORK [--scanners 14] [--workers N]
    python notebook/scripts/learned_stage.py prepare --work WORK
    python notebook/scripts/learned_stage.py train --work WORK --out STAGE.pt [--minutes 25]
    python notebook/scripts/learned_stage.py export --stage STAGE.pt

`simulate` scans two patient-like bodies on each of some random scanners: four slices, three random
kernels, each by filtered back-projection, one strength of iterative reconstruction and one of a
denoiser, all nine of the same readings, so that their quantum noise is one. `prepare` takes random
ordered pairs of these nine techniques whose reconstructions differ, fits `spectrum` to one body on
each side, and keeps source, filtered image, the noise that the filter adds, and target; pairs that
the fit takes for one kernel are left out. `train` trains the network on the filtered images before
that noise, conditioned on the texture of both sides. `export` writes its weights into the package;
`filter_study.py --method spectrum-network` then measures it on pairs whose scanners and bodies were
in no training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from cvsct.cli.progress import progress
from cvsct.core.errors import CvsctError
from cvsct.core.files import write_atomic
from cvsct.core.fourier import frequency_radius
from cvsct.core.seeding import random_stream
from cvsct.core.volume import CTVolume
from cvsct.io.dicom.simulated import write_simulated
from cvsct.io.read import read_all
from cvsct.methods.base import TrainingRequest
from cvsct.methods.registry import find_method
from cvsct.methods.spectrum_network.gain_network import (
    DILATIONS,
    LOW_HU,
    MARGIN_PX,
    MAX_GAIN,
    WEIGHTS_FILE,
)
from cvsct.methods.spectrum_network.texture_condition import (
    BANDS,
    SCALED,
    TextureCondition,
    texture_by_tissue,
)
from cvsct.methods.spectrum_network.train import FilteredSlices
from cvsct.model.bundle import Bundle
from cvsct.simulation.benchmark import FBP, Scan, Subject
from cvsct.simulation.run import run_simulation

BASES = ("ge-revolution-evo", "siemens-somatom-force", "siemens-definition-as", "philips-ict")
"""Scanners whose geometry, tube and detector the random ones have; Canon's and the Revolution CT's,
of the pair `held-out`, are not among them."""
KERNELS = ("K1", "K2", "K3")
RECONSTRUCTIONS = (FBP, "iterative-1", "denoised-1")
BODIES, SLICES = 2, 4
FIRST_BODY = 770_001
"""Seed of the first body; no seed of `cvsct simulate` comes near it."""
SPACING_MM = 12.0


def definition(number: int) -> str:
    """Definition of a random scanner."""
    rng = random_stream(number, "scanner")
    lines = [
        f'base = "{BASES[number % len(BASES)]}"',
        f'name = "random-{number:02d}"',
        f'model = "random {number:02d}"',
    ]
    cutoffs = np.sort(rng.uniform(0.36, 0.95, len(KERNELS)))
    for name, cutoff in zip(KERNELS, cutoffs, strict=True):
        boost = float(rng.choice([0.0, rng.uniform(0.0, 0.35)]))
        lines += [
            f"[kernels.{name}]",
            f"cutoff_lp_mm = {cutoff:.3f}",
            f"exponent = {rng.uniform(2.0, 4.0):.2f}",
            f"boost = {boost:.3f}",
            f"boost_lp_mm = {cutoff * rng.uniform(0.5, 0.8):.3f}",
            f"boost_width_lp_mm = {rng.uniform(0.15, 0.3):.3f}",
        ]
    lines += [
        "[reconstruction]",
        'family = "RANDOM"',
        f"edge = {rng.uniform(0.7, 1.5):.2f}",
        f"dose_exponent = {rng.uniform(0.2, 0.6):.2f}",
        f"iterative = [{{ blend = {rng.uniform(0.4, 1.0):.2f}, "
        f"balance = {rng.uniform(0.45, 0.6):.2f} }}]",
        f"denoised = [{{ blend = {rng.uniform(0.4, 1.0):.2f}, "
        f"threshold = {rng.uniform(0.8, 3.0):.2f} }}]",
    ]
    return "\n".join(lines) + "\n"


def scans(work: Path, count: int) -> Iterator[Scan]:
    """Scans of all bodies on all random scanners."""
    for number in range(count):
        file = work / "scanners" / f"{number:02d}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(definition(number), encoding="utf-8")
        rng = random_stream(number, "protocol")
        thickness_mm = float(rng.choice([1.5, 3.0, 5.0]))
        mas = round(float(np.exp(rng.uniform(np.log(30), np.log(250)))), 1)
        for body in range(BODIES):
            yield Scan(
                part="random",
                number=number * BODIES + body,
                body=Subject("patient", FIRST_BODY + number * BODIES + body),
                scanner=str(file),
                thickness_mm=thickness_mm,
                first_mm=-(SLICES - 1) / 2 * SPACING_MM,
                slices=SLICES,
                kvps=(120.0,),
                mas=(mas,),
                kernels=KERNELS,
                noise_seed=number,
                fov_mm=350.0,
                matrix_px=512,
                raster_px=1024,
                reconstructions=RECONSTRUCTIONS,
                spacing_mm=SPACING_MM,
                side=f"{number:02d}",
            )


def simulate(work: Path, count: int, workers: int) -> None:
    """Simulate what the folder does not hold yet."""
    config = {"scans": "learned stage", "scanners": count}
    result = run_simulation(
        list(scans(work, count)), config, work / "scans", write_simulated, workers, progress(),
        note=print,
    )  # fmt: skip
    print(f"{result.n_images} images of {result.n_bodies} bodies; failed: {result.failed}")


def fitted(source: CTVolume, target: CTVolume) -> Bundle:
    """`spectrum` between two scans."""
    row = find_method("spectrum")
    return row.train(
        [source], [target], TrainingRequest("spectrum", Path(), {**row.settings, "refine": False})
    )


PAIRS_PER_SCANNER = 12


def prepare(work: Path) -> None:
    """Source, filtered image and target of random pairs of techniques of each random scanner."""
    folders = sorted((work / "scans" / "random").iterdir())
    for folder in folders:
        out = work / "pairs" / f"{folder.name}.npz"
        series = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        techniques = sorted({name.split("kVp_", 1)[1] for name in series})
        if out.exists() or len(series) < len(techniques) * BODIES or len(techniques) < 9:
            continue
        bodies = sorted({name.split("_", 1)[0] for name in series})
        scans_of = {
            technique: [
                read_all(folder / f"{body}_120kVp_{technique}")[0] for body in bodies
            ]
            for technique in techniques
        }  # fmt: skip
        rng = random_stream(int(folder.name), "pairs")
        every = [(a, b) for a in techniques for b in techniques
                 if reconstruction_of(a) != reconstruction_of(b)]  # fmt: skip
        chosen = [every[i] for i in rng.permutation(len(every))[:PAIRS_PER_SCANNER]]
        images: dict[str, Any] = {
            f"scan/{name}": np.concatenate([v.hu for v in volumes]).astype(np.int16)
            for name, volumes in scans_of.items()
        }
        for number, (a, b) in enumerate(chosen):
            first = int(rng.integers(2))  # the body that the source is fitted to
            source, target = scans_of[a][first], scans_of[b][1 - first]
            try:
                bundle = fitted(source, target)
            except CvsctError as error:
                print(f"{folder.name} {a} {b}: {error}")
                continue
            if bundle.weights["one_kernel"].any():
                continue
            made = [FilteredSlices.of(bundle, volume, False) for volume in scans_of[a]]
            condition = TextureCondition(
                texture_by_tissue([source.with_hu(made[first].after)]),
                texture_by_tissue([target]),
                texture_by_tissue([source]),
            )
            key = f"pair/{number}"
            before, after = (
                np.rint(np.concatenate(part)).astype(np.int16)
                for part in ([m.before for m in made], [m.after for m in made])
            )
            images[f"{key}/filtered"], images[f"{key}/added"] = before, after - before
            images[f"{key}/names"] = np.array([a, b])
            images[f"{key}/condition"] = condition.to_array()
        images["pixel_mm"] = np.array(scans_of[a][0].geometry.pixel_mm)
        out.parent.mkdir(parents=True, exist_ok=True)
        hidden = out.with_name(f".{out.name}")
        np.savez(hidden, **images)
        hidden.rename(out)
        kept = sum(key.endswith("/names") for key in images)
        print(f"{out}: {kept} pairs of {len(chosen)}", flush=True)


def reconstruction_of(technique: str) -> str:
    """Reconstruction of a technique by its folder's name, which says nothing of `fbp`."""
    last = technique.rpartition("_")[2]
    return FBP if last in KERNELS else last


class Stage(torch.nn.Module):
    """The network of `cvsct.methods.spectrum_network.gain_network`, to be trained."""

    def __init__(self, n_conditions: int, width: int = 32) -> None:
        super().__init__()
        inputs = [2 * SCALED + 1] + [width] * (len(DILATIONS) - 1)
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(n, width, 3, padding=d, dilation=d, padding_mode="reflect")
            for n, d in zip(inputs, DILATIONS, strict=True)
        )
        self.conditions = torch.nn.Sequential(
            torch.nn.Linear(n_conditions, 64), torch.nn.SiLU(),
            torch.nn.Linear(64, 2 * width * len(DILATIONS)),
        )  # fmt: skip
        self.gains = torch.nn.Conv2d(width, 2 * SCALED, 1)
        torch.nn.init.zeros_(self.gains.weight)
        torch.nn.init.zeros_(self.gains.bias)

    def forward(
        self, filtered: torch.Tensor, source: torch.Tensor, condition: torch.Tensor,
        noise_hu: torch.Tensor, shares: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Images in HU of (batch, rows, columns); `condition` and `noise_hu` of each.

        Args:
            shares: of each band at each frequency of the images (`shares_of`).
        """
        unit = noise_hu[:, None, None, None]
        made, given = split(filtered, shares), split(source, shares)
        upper, source_upper = made[:, 1:], given[:, 1:]
        x = torch.cat([torch.asinh(upper / unit), torch.asinh(source_upper / unit),
                       made[:, :1] / LOW_HU], 1)  # fmt: skip
        scales = self.conditions(condition).chunk(len(self.convolutions), 1)
        for convolution, scale in zip(self.convolutions, scales, strict=True):
            factor, offset = scale[:, :, None, None].chunk(2, 1)
            y = torch.nn.functional.silu(convolution(x) * (1 + factor) + offset)
            x = x + y if x.shape == y.shape else y
        gains = MAX_GAIN * torch.tanh(self.gains(x))
        added = (gains[:, :SCALED] * upper + gains[:, SCALED:] * source_upper).sum(1)
        return filtered + added


def shares_of(rows: int, columns: int, pixel_mm: tuple[float, float]) -> torch.Tensor:
    """Share of each band at each frequency of a real transform."""
    radius = frequency_radius((rows, columns), pixel_mm)
    return torch.from_numpy(
        np.stack([BANDS.share(band, radius) for band in range(BANDS.count)]).astype(np.float32)
    )


def split(images: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Bands of images, which sum to them: (batch, bands, rows, columns)."""
    spectra = torch.fft.rfft2(images)[:, None] * shares
    return torch.fft.irfft2(spectra, s=images.shape[-2:])


PATCH_PX, BATCH = 96, 6
BLOCK_PX = 16
"""Side of the blocks whose energies are compared, in pixels."""
WEIGHT_ENERGY = 0.5


@dataclass(frozen=True)
class Prepared:
    """Pairs of one scanner, in memory."""

    scans: dict[str, np.ndarray]
    made: list[np.ndarray]
    added: list[np.ndarray]
    names: list[tuple[str, str]]
    conditions: list[TextureCondition]
    shares: torch.Tensor

    @classmethod
    def read(cls, file: Path) -> Prepared:
        """Read what `prepare` wrote."""
        with np.load(file) as held:
            keys = [f"pair/{n}" for n in range(PAIRS_PER_SCANNER) if f"pair/{n}/names" in held]
            return cls(
                {n.removeprefix("scan/"): held[n] for n in held.files if n.startswith("scan/")},
                [held[f"{key}/filtered"] for key in keys],
                [held[f"{key}/added"] for key in keys],
                [tuple(map(str, held[f"{key}/names"])) for key in keys],
                [TextureCondition(*held[f"{key}/condition"]) for key in keys],
                shares_of(PATCH_PX, PATCH_PX, tuple(held["pixel_mm"])),
            )

    def batch(self, rng: np.random.Generator, count: int) -> list[torch.Tensor]:
        """Patches of filtered image, source, target and added noise; conditions and noise."""
        number = int(rng.integers(len(self.names)))
        a, b = self.names[number]
        images = self.made[number], self.scans[a], self.scans[b], self.added[number]
        patches: list[list[np.ndarray]] = [[], [], [], []]
        while len(patches[0]) < count:
            z, y, x = (int(rng.integers(n - p + 1)) for n, p in
                       zip(images[0].shape, (1, PATCH_PX, PATCH_PX), strict=True))  # fmt: skip
            place = z, slice(y, y + PATCH_PX), slice(x, x + PATCH_PX)
            if (images[2][place] > -950).mean() < 0.5:
                continue
            for image, own in zip(images, patches, strict=True):
                own.append(image[place].astype(np.float32))
        condition = self.conditions[number]
        return [
            *(torch.from_numpy(np.stack(own)) for own in patches),
            torch.from_numpy(np.tile(condition.vector, (count, 1))),
            torch.full((count,), condition.unit_hu),
        ]


def loss_of(
    made: torch.Tensor, added: torch.Tensor, target: torch.Tensor, noise_hu: torch.Tensor,
    shares: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Difference in units of the target's noise, and difference of energies of blocks by band.

    Args:
        made: before noise is added, as the difference sees it.
        added: noise, which the energies have too.
    """
    inner = slice(MARGIN_PX, -MARGIN_PX)
    difference = torch.asinh(((made - target) / noise_hu[:, None, None])[:, inner, inner]).abs()
    logs = [
        torch.log(
            torch.nn.functional.avg_pool2d(split(image, shares)[:, 1:, inner, inner] ** 2, BLOCK_PX)
            + (0.05 * noise_hu[:, None, None, None]) ** 2
        )
        for image in (made + added, target)
    ]
    return difference.mean(), (logs[0] - logs[1]).abs().mean()


Check = tuple[list[torch.Tensor], torch.Tensor]
"""A batch and the shares of its bands."""


@torch.no_grad()
def checked(stage: Stage, checks: Sequence[Check]) -> dict[str, list[float]]:
    """Both terms of the loss without the network and with it, mean over batches."""
    found = []
    for (made, source, target, added, condition, noise_hu), shares in checks:
        images = made, stage(made, source, condition, noise_hu, shares)
        found.append([
            [float(term) for term in loss_of(image, added, target, noise_hu, shares)]
            for image in images
        ])  # fmt: skip
    filter_terms, stage_terms = np.mean(found, axis=0).round(4).tolist()
    return {"filter": filter_terms, "stage": stage_terms}


def train(work: Path, out: Path, minutes: float, seed: int) -> None:
    """Train the network on what is prepared; one scanner in eight is held out."""
    files = sorted((work / "pairs").glob("*.npz"))
    held_out, learned = files[::8], [file for file in files if file not in files[::8]]
    print(f"learns from {len(learned)} scanners, {len(held_out)} held out")
    prepared = [Prepared.read(file) for file in learned]
    others = [Prepared.read(file) for file in held_out]
    torch.manual_seed(seed)
    rng = random_stream(seed, "patches")
    checks = [
        (each.batch(random_stream(number, "checks"), 16), each.shares)
        for each in others
        for number in range(12)
    ]
    n_conditions = len(prepared[0].conditions[0].vector)
    stage = Stage(n_conditions)
    optimizer = torch.optim.AdamW(stage.parameters(), 1e-3, weight_decay=1e-4)
    begun, step = time.monotonic(), 0
    log = out.with_suffix(".jsonl").open("w", encoding="utf-8")
    while (passed := (time.monotonic() - begun) / 60 / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * passed))
        each = prepared[int(rng.integers(len(prepared)))]
        made, source, target, added, condition, noise_hu = each.batch(rng, BATCH)
        result = stage(made, source, condition, noise_hu, each.shares)
        difference, energy = loss_of(result, added, target, noise_hu, each.shares)
        optimizer.zero_grad()
        (difference + WEIGHT_ENERGY * energy).backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            line = {"step": step, "minutes": round(passed * minutes, 2), **checked(stage, checks)}
            print(line, flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            torch.save({"weights": stage.state_dict(), "conditions": n_conditions}, out)
        step += 1
    torch.save({"weights": stage.state_dict(), "conditions": n_conditions}, out)
    print(f"{step} steps")


def export(stage: Path) -> None:
    """Put a network that `train` wrote into the package."""
    weights = torch.load(stage, weights_only=True)["weights"]
    content = save({name: tensor.numpy() for name, tensor in weights.items()})
    write_atomic(WEIGHTS_FILE, content)
    print(f"{WEIGHTS_FILE}: {len(content) / 1e3:.0f} kB, {hashlib.sha256(content).hexdigest()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["simulate", "prepare", "train", "export"])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--scanners", type=int, default=14)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "simulate":
        simulate(args.work, args.scanners, args.workers)
    elif args.command == "prepare":
        prepare(args.work)
    elif args.command == "train":
        train(args.work, args.out, args.minutes, args.seed)
    else:
        export(args.stage)


if __name__ == "__main__":
    main()
