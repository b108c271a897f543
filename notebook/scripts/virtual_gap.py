"""How far apart the virtual scanners are: the input row, its ceiling, and what the gap is made of.

usage: virtual_gap.py --out FOLDER [--body lungman|patient] [--slices 10] [--seed 7] [--workers 2]

Scans one body with both scanners at 100 mAs and compares GE's images with Siemens' as
`cvsct evaluate` compares any pair: by tube voltage and slice thickness, aligned and misregistered
by one pixel, beside a repeat scan of the target (another noise seed), the ceiling for any method.
Then it changes one thing of the target scanner at a time into GE's: its tone (tube, bowtie and
detector, at the target's noise), its resolution (kernel), its noise (at the target's kernel).
Writes gap.json and gap.md.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.files import write_atomic, write_json
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Acquisition, CTVolume, Geometry
from cvsct.evaluation.report.write import EvaluationSettings, evaluate, metrics
from cvsct.simulation.phantom.phantom import Phantom, RasterGrid, lungman, patient
from cvsct.simulation.physics.definition import ScannerDefinition, load_definition
from cvsct.simulation.physics.scan import ImageGrid, VirtualScanner

CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
PAPER = {"psnr_db": 24.11, "ncc": 0.84, "ccc_within": (0.89, 0.18, 0.28, 0.62, 0.31, 0.22)}
KVPS = (70.0, 80.0, 100.0, 120.0, 140.0)
THICKNESSES_MM = (1.0, 3.0, 5.0)
MAS = 100.0
STEP_MM = 15.0
GRID = ImageGrid()
HEADINGS = "| pair | PSNR | SSIM | NCC | bias HU | " + " | ".join(CLASSES) + " | mean |"


@dataclass(frozen=True)
class Task:
    """One slice on one scanner.

    Args:
        change: what of the scanner is another's; empty, "tone", "resolution" or "noise".
    """

    body: str
    seed: int
    z_mm: float
    scanner: str
    kernels: tuple[str, ...]
    kvps: tuple[float, ...]
    thickness_mm: float
    noise: str
    mas: float = MAS
    change: str = ""


@cache
def phantom(body: str, seed: int) -> Phantom:
    return {"lungman": lungman, "patient": patient}[body](seed)


@cache
def virtual_scanner(name: str, change: str) -> VirtualScanner:
    definition = load_definition(name)
    ge = load_definition("ge-revolution-evo")
    changes: dict[str, dict[str, Any]] = {
        "": {},
        "tone": {"tube": ge.tube, "bowtie": ge.bowtie, "detector": ge.detector},
        "resolution": {"kernels": {**definition.kernels, **ge.kernels}},
        "noise": {},
    }
    changed: ScannerDefinition = definition.model_copy(update=changes[change])
    return VirtualScanner(changed)


def scan(task: Task) -> dict[tuple[float, str], np.ndarray]:
    slab = phantom(task.body, task.seed).slab(task.z_mm, task.thickness_mm, RasterGrid())
    return virtual_scanner(task.scanner, task.change).images(
        slab,
        RasterGrid().extent_mm,
        dict.fromkeys(task.kvps, task.mas),
        task.kernels,
        task.thickness_mm,
        GRID,
        lambda kvp: random_stream(task.seed, task.noise, f"{task.z_mm}", f"{kvp}"),
    )


def series(
    pool: ProcessPoolExecutor, z_mm: np.ndarray, task: dict[str, Any]
) -> dict[tuple[float, str], CTVolume]:
    """All slices of a scan as volumes, rounded and clipped as a file would hold them."""
    found = list(pool.map(scan, [Task(z_mm=float(z), **task) for z in z_mm]))
    positions = np.zeros((len(z_mm), 3))
    positions[:, 2] = z_mm
    geometry = Geometry(
        positions, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (GRID.pixel_mm,) * 2, STEP_MM, "1.2"
    )
    return {
        key: CTVolume(
            np.clip(np.rint(np.stack([images[key] for images in found])), -1024, 3071),
            geometry,
            Acquisition(task["scanner"], "", key[1], key[0]),
            series_uid=f"{task['scanner']} {task['noise']} {key}",
        )
        for key in found[0]
    }


def compare(source: CTVolume, target: CTVolume, shift_px: int = 0) -> dict[str, Any]:
    """`cvsct evaluate`'s figures of a source beside its target."""
    moved = source.with_hu(np.roll(source.hu, shift_px, axis=2))
    found = metrics(
        evaluate(
            [moved],
            [target],
            None,
            EvaluationSettings(rois=30, workers=1, examples=0, bootstrap=20),
        )
    )
    keys = ("psnr_db", "ssim", "ncc", "hu_bias", "ccc_within", "ccc_across", "n_rois")
    return {key: found[key] for key in keys}


def soft_tissue_sd(first: CTVolume, second: CTVolume) -> float:
    """Noise of one scan in soft tissue, from two scans of it."""
    tissue = np.abs((first.hu + second.hu) / 2) < 100
    return float((first.hu - second.hu)[tissue].std() / np.sqrt(2))


def rows_by_exposure(
    pool: ProcessPoolExecutor, z_mm: np.ndarray, body: dict[str, Any]
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for thickness in THICKNESSES_MM:
        common = {**body, "kvps": KVPS, "thickness_mm": thickness}
        ge = {"scanner": "ge-revolution-evo", "kernels": ("Lung",), "noise": "ge"}
        force = {"scanner": "siemens-somatom-force", "kernels": ("Bl64", "Br40")}
        source = series(pool, z_mm, {**common, **ge})
        target = series(pool, z_mm, {**common, **force, "noise": "target"})
        again = series(pool, z_mm, {**common, **force, "noise": "repeat"})
        for kvp in KVPS:
            sides = {
                "input": source[kvp, "Lung"],
                "repeat scan": again[kvp, "Bl64"],
                "Br40, same scan": target[kvp, "Br40"],
            }
            for name, side in sides.items():
                for shift in (0, 1) if name != "Br40, same scan" else (0,):
                    label = f"{thickness:g} mm, {kvp:g} kVp, {name}" + (", 1 px" if shift else "")
                    rows[label] = compare(side, target[kvp, "Bl64"], shift)
                    print(row(label, rows[label]), flush=True)
    return rows


def parts_of_the_gap(
    pool: ProcessPoolExecutor, z_mm: np.ndarray, body: dict[str, Any]
) -> dict[str, Any]:
    """At 120 kVp and 5 mm: one property of GE's at a time on the target scanner."""
    common = {**body, "kvps": (120.0,), "thickness_mm": 5.0}
    force = {**common, "scanner": "siemens-somatom-force"}
    bl64 = {**force, "kernels": ("Bl64",)}
    ge = {**common, "scanner": "ge-revolution-evo", "kernels": ("Lung",)}

    def one(task: dict[str, Any]) -> CTVolume:
        return next(iter(series(pool, z_mm, task).values()))

    def noise_of(task: dict[str, Any]) -> float:
        return soft_tissue_sd(one({**task, "noise": "a"}), one({**task, "noise": "b"}))

    target = one({**bl64, "noise": "target"})
    toned = {**bl64, "change": "tone"}
    sharp = {**force, "kernels": ("Lung",), "change": "resolution"}
    sd = {
        "target": noise_of(bl64),
        "tone": noise_of(toned),
        "resolution": noise_of(sharp),
        "ge": noise_of(ge),
    }
    same_noise = MAS * (sd["tone"] / sd["target"]) ** 2
    same_texture = MAS * (sd["resolution"] / sd["target"]) ** 2
    louder = MAS * (sd["target"] / sd["ge"]) ** 2
    sides = {
        "tone alone": one({**toned, "noise": "tone", "mas": same_noise}),
        "resolution alone": one({**sharp, "noise": "resolution", "mas": same_texture}),
        "noise alone": one({**bl64, "noise": "noise", "mas": louder}),
        "resolution and its noise": one({**sharp, "noise": "both"}),
        "all (GE)": one({**ge, "noise": "ge"}),
        "none (repeat)": one({**bl64, "noise": "repeat"}),
    }
    rows: dict[str, Any] = {"noise SD in soft tissue, HU": sd}
    for name, side in sides.items():
        rows[name] = compare(side, target)
        print(row(name, rows[name]), flush=True)
    return rows


def row(label: str, found: dict[str, Any], reading: str = "ccc_within") -> str:
    values = [found[reading][name] for name in CLASSES]
    shown = " | ".join("-" if v is None else f"{v:.2f}" for v in values)
    mean = np.mean([v for v in values if v is not None])
    return (
        f"| {label} | {found['psnr_db']:.1f} | {found['ssim']:.3f} | {found['ncc']:.3f} | "
        f"{found['hu_bias']:+.1f} | {shown} | {mean:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--body", choices=("lungman", "patient"), default="lungman")
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    body = {"body": args.body, "seed": args.seed}
    low, high = phantom(args.body, args.seed).z_range_mm
    middle = (low + high) / 2 + (np.arange(args.slices) - (args.slices - 1) / 2) * STEP_MM
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        parts = parts_of_the_gap(pool, middle, body)
        rows = rows_by_exposure(pool, middle, body)
    record = {"body": body, "slices": args.slices, "paper": PAPER, "parts": parts, "rows": rows}
    write_json(args.out / "gap.json", record)
    lines = [f"{args.body} {args.seed}, {args.slices} slices, {MAS:g} mAs"]
    compared = {name: found for name, found in (parts | rows).items() if "psnr_db" in found}
    for reading in ("ccc_within", "ccc_across"):
        lines += ["", f"{reading}:", "", HEADINGS, "|---" * 12 + "|"]
        lines += [row(name, found, reading) for name, found in compared.items()]
    write_atomic(args.out / "gap.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
