"""How simulated patients differ from real chest CT, in figures and side by side.

usage: OMP_NUM_THREADS=1 python notebook/scripts/realism_study.py REAL --out FOLDER
       [--seeds 1 2 3 4 5] [--slices 4] [--workers 2] [--before FOLDER/realism.json]

REAL is the folder of real CT described in its README: `siemens_sensation10/B70f` and `B40f` (one
patient, one acquisition, two kernels) and single slices in `ge_lightspeed_vct`. Bodies of kind
`patient` are scanned at the same thickness and pixel size with the nearest kernel there is, at a
load chosen such that noise in tissue is about that of the real slices. Writes realism.json, prints
a table of ranges, and lays real beside simulated slices in PNGs, which must never be committed.
With --before the table has the earlier run's ranges.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from matplotlib.figure import Figure

from cvsct.core.files import write_json
from cvsct.core.masks import LUNG_WINDOW, SOFT_TISSUE_WINDOW
from cvsct.core.seeding import random_stream
from cvsct.core.volume import Acquisition, CTVolume, Geometry
from cvsct.evaluation.image.noise import tissue_noise
from cvsct.simulation.phantom.phantom import Phantom, RasterGrid, patient
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.physics.scan import ImageGrid, VirtualScanner
from realism_measures import Slice, figures_of

KVP = 120.0
LEVELS = (-95.0, 45.0)
"""Lowest and highest slice of a simulated chest, mm from the carina in an average body."""


@dataclass(frozen=True)
class Protocol:
    """A set of real slices and how bodies are scanned to be compared with it.

    Args:
        files: of the real slices, below the folder of real CT, and which lungs of each are free
            of disease.
        contrast: of them, those with contrast medium; their soft tissue, fat and bone are left out.
    """

    name: str
    files: dict[str, str]
    contrast: tuple[str, ...]
    scanner: str
    kernel: str
    thickness_mm: float
    grid: ImageGrid
    mas: float
    sides: str


def _sensation(kernel: str, similar: str) -> Protocol:
    """One patient with a tumor of the right lung; slices between apices and diaphragm."""
    files = {f"siemens_sensation10/{kernel}/1-{i:02d}.dcm": "left" for i in range(7, 21)}
    return Protocol(
        f"Siemens {kernel}", files, (), "siemens-somatom-force", similar, 8.0,
        ImageGrid(512, 331.0), 34.0, "left",
    )  # fmt: skip


GE_FILES = {
    "A048383": "both", "A072894": "right", "A046441": "none", "A056642": "none", "A002304": "none",
}  # fmt: skip
PROTOCOLS = (
    _sensation("B70f", "Bl64"),
    _sensation("B40f", "Br40"),
    Protocol(
        "GE STANDARD", {f"ge_lightspeed_vct/{name}.dcm": side for name, side in GE_FILES.items()},
        ("ge_lightspeed_vct/A002304.dcm",), "ge-revolution-ct", "STANDARD", 5.0,
        ImageGrid(424, 349.0), 60.0, "both",
    ),
)  # fmt: skip


def real_slices(folder: Path, protocol: Protocol) -> list[Slice]:
    """The real slices of a set."""
    slices = []
    for file, sides in protocol.files.items():
        header = pydicom.dcmread(folder / file)
        hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        slices.append(
            Slice(
                np.clip(hu, -1024, 3071).astype(np.float64), float(header.PixelSpacing[0]), sides,
                file not in protocol.contrast,
            )
        )  # fmt: skip
    return slices


@cache
def body_of(seed: int) -> Phantom:
    return patient(seed)


@cache
def scanner_of(name: str) -> VirtualScanner:
    return VirtualScanner(load_definition(name))


@dataclass(frozen=True)
class Scanned:
    """One simulated slice at each protocol, and the seconds its raster took."""

    images: dict[str, np.ndarray]
    raster_s: float
    slice_s: float


def simulated(seed: int, level_mm: float) -> Scanned:
    """One level of one body, at every protocol."""
    body = body_of(seed)
    z_mm = level_mm * body.body.posture.scale[2]
    body.raster(z_mm)  # compiled before anything is timed
    images, raster_s, slices_s = {}, 0.0, []
    for protocol in PROTOCOLS:
        start = time.perf_counter()
        slab = body.slab(z_mm, protocol.thickness_mm, RasterGrid())
        count = np.ceil(protocol.thickness_mm / 0.625 - 1e-6)
        raster_s += (time.perf_counter() - start) / float(count) / len(PROTOCOLS)
        image = scanner_of(protocol.scanner).images(
            slab, RasterGrid().extent_mm, {KVP: protocol.mas}, (protocol.kernel,),
            protocol.thickness_mm, protocol.grid,
            lambda kvp, name=protocol.name: random_stream(seed, name, f"{level_mm}"),
        )[KVP, protocol.kernel]  # fmt: skip
        slices_s.append(time.perf_counter() - start)
        images[protocol.name] = np.clip(np.rint(image), -1024, 3071).astype(np.float64)
    return Scanned(images, raster_s, float(np.median(slices_s)))


def noise_figures(slices: list[Slice], thickness_mm: float) -> dict[str, float]:
    """Noise of homogeneous tissue; slices of another pixel size than the first are left out."""
    pixel_mm, shape = slices[0].pixel_mm, slices[0].hu.shape
    stack = np.stack([s.hu for s in slices if s.pixel_mm == pixel_mm and s.hu.shape == shape])
    positions = np.zeros((len(stack), 3))
    positions[:, 2] = thickness_mm * np.arange(len(stack))
    geometry = Geometry(
        positions, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (pixel_mm,) * 2, thickness_mm, "1.2"
    )
    volume = CTVolume(stack, geometry, Acquisition("", "", "", KVP), series_uid="1.3")
    noise = tissue_noise({"image": [volume]})
    if not noise:
        return {}
    power = noise["image"]
    return {
        "noise SD": power.power.sd_hu, "noise mean frequency": power.mean_per_mm,
        "noise peak frequency": power.peak_per_mm,
    }  # fmt: skip


def ranges(groups: list[list[dict[str, float]]]) -> dict[str, list[float]]:
    """Lowest, median and highest of each figure over groups (bodies, or real slices).

    A group's figure is the median of its slices.
    """
    names = sorted({name for group in groups for figures in group for name in figures})
    shown = {}
    for name in names:
        values = [
            float(np.median([figures[name] for figures in group if name in figures]))
            for group in groups
            if any(name in figures for figures in group)
        ]
        shown[name] = [min(values), float(np.median(values)), max(values), float(len(values))]
    return shown


def picture(real: list[Slice], made: list[Slice], title: str, path: Path) -> None:
    """Real above simulated slices, in the lung and the soft-tissue window."""
    count = min(4, len(real), len(made))
    figure = Figure(figsize=(6.0 * count, 24.0), constrained_layout=True)
    axes = figure.subplots(4, count, squeeze=False)
    rows = product((LUNG_WINDOW, SOFT_TISSUE_WINDOW), (("real", real), ("simulated", made)))
    for row, (window, (label, slices)) in zip(axes, rows, strict=True):
        chosen = np.linspace(0, len(slices) - 1, count).round().astype(int)
        for axis, index in zip(row, chosen, strict=True):
            low, high = window.limits_hu
            axis.imshow(slices[index].hu, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axis.set_title(f"{label}, {title}")
            axis.set_axis_off()
    figure.savefig(path, dpi=60)


def table(record: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Ranges of every figure: real, simulated before, simulated; * where medians are outside."""
    lines = []
    for name, sets in record["sets"].items():
        lines += ["", f"{name}", "| figure | real | before | simulated |", "|---|---|---|---|"]
        earlier = before["sets"][name]["simulated"] if before else {}
        for figure, (low, _, high, _) in sets["real"].items():
            cells = []
            for side in (earlier, sets["simulated"]):
                if figure in side:
                    least, middle, most, _ = side[figure]
                    out = "" if low <= middle <= high else " *"
                    cells.append(f"{least:.3g} .. {middle:.3g} .. {most:.3g}{out}")
                else:
                    cells.append("-")
            middle = sets["real"][figure][1]
            lines.append(f"| {figure} | {low:.3g} .. {middle:.3g} .. {high:.3g} | "
                         f"{cells[0]} | {cells[1]} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    levels = [float(level) for level in np.linspace(*LEVELS, args.slices)]
    seeds = [seed for seed in args.seeds for _ in levels]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        scans = list(pool.map(simulated, seeds, levels * len(args.seeds), chunksize=len(levels)))
        record: dict[str, Any] = {
            "seeds": args.seeds, "levels_mm": levels, "sets": {},
            "raster_s": float(np.median([scan.raster_s for scan in scans])),
            "slice_s": float(np.median([scan.slice_s for scan in scans])),
        }  # fmt: skip
        for protocol in PROTOCOLS:
            real = real_slices(args.real, protocol)
            pixel_mm = protocol.grid.pixel_mm
            made = [Slice(s.images[protocol.name], pixel_mm, protocol.sides) for s in scans]
            real_figures = list(pool.map(figures_of, real))
            figures = list(pool.map(figures_of, made))
            bodies = []
            for first in range(0, len(made), len(levels)):
                of_body = slice(first, first + len(levels))
                noise = noise_figures(made[of_body], protocol.thickness_mm)
                bodies.append([*figures[of_body], noise])
            real_groups = [[single] for single in real_figures]
            real_groups.append([noise_figures(real, protocol.thickness_mm)])
            record["sets"][protocol.name] = {
                "real": ranges(real_groups), "simulated": ranges(bodies),
            }  # fmt: skip
            picture(real, made, protocol.name, args.out / f"{protocol.name.replace(' ', '_')}.png")
    write_json(args.out / "realism.json", record)
    print(f"{record['raster_s']:.3f} s a raster, {record['slice_s']:.2f} s a slice")
    print(table(record, json.loads(args.before.read_text()) if args.before else None))


if __name__ == "__main__":
    main()
