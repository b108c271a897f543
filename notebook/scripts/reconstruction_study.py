"""What iterative reconstruction does to noise and resolution on a virtual scanner.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python notebook/scripts/reconstruction_study.py
        [--scanner siemens-somatom-force] [--kernel Br40] [--seeds 4] [--out notebook/figures]

Writes OUT/reconstruction.json, OUT/reconstruction.png (noise power, task transfer, noise against
dose) and OUT/reconstruction_slice.png (a slice of a patient-like body). All from simulated data.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cvsct.simulation.phantom.materials import BASIS, BONE_EPOXY, WATER, Material
from cvsct.simulation.phantom.objects import disc_amounts
from cvsct.simulation.phantom.phantom import RasterGrid, patient
from cvsct.simulation.physics.definition import definition_names, load_definition
from cvsct.simulation.physics.scan import ImageGrid, VirtualScanner

EXTENT_MM, RASTER_PX, BODY_MM, THICK_MM, KVP = 400.0, 512, 125.0, 5.0, 120.0
GRID = ImageGrid(128, 87.5)
ROD_MM, ROD_AT_MM = 15.0, (5.0, 3.0)
CONTRASTS = (-1.0, 0.1, 0.03)
LOADS_MAS = (12.5, 25.0, 50.0, 100.0, 200.0, 400.0)
STRENGTHS = ("fbp", "iterative-1", "iterative-3", "iterative-5", "denoised-3")
STYLES = ("k-", "C0--", "C1-.", "C3:", "C2-")
CUT = slice(20, 108)

Images = dict[str, np.ndarray]


@cache
def scanner(name: str, basis: tuple[Material, Material]) -> VirtualScanner:
    return VirtualScanner(load_definition(name), basis)


def reconstructed(
    virtual: VirtualScanner,
    amounts: np.ndarray,
    extent_mm: float,
    exposures: dict[float, float],
    kernel: str,
    strengths: tuple[str, ...],
    grid: ImageGrid,
    seed: int,
) -> dict[tuple[float, str, str], np.ndarray]:
    """One slice, each acquisition in several reconstructions."""
    acquired = virtual.acquire(
        virtual.paths(amounts, extent_mm),
        exposures,
        THICK_MM,
        lambda kvp: np.random.default_rng(seed),
    )
    return virtual.reconstruct(acquired.water, (kernel,), grid, strengths)


def images(
    name: str, kernel: str, contrast: float, mas: float, seed: int, strengths: tuple[str, ...]
) -> Images:
    """A water cylinder with a rod of 1 + contrast, in several reconstructions."""
    amounts = np.zeros((2, RASTER_PX, RASTER_PX), np.float32)
    amounts[0] = disc_amounts(RASTER_PX, EXTENT_MM, BODY_MM)
    amounts[0] += contrast * disc_amounts(RASTER_PX, EXTENT_MM, ROD_MM, ROD_AT_MM)
    virtual = scanner(name, (WATER, BONE_EPOXY))
    found = reconstructed(virtual, amounts, EXTENT_MM, {KVP: mas}, kernel, strengths, GRID, seed)
    return {how: image for (_, _, how), image in found.items()}


def noise(name: str, kernel: str, mas: float, seeds: int) -> dict[str, list[np.ndarray]]:
    """Differences of pairs of scans of uniform water, over the square root of 2."""
    scans = [images(name, kernel, 0.0, mas, seed, STRENGTHS) for seed in range(seeds)]
    return {
        how: [(b[how] - a[how])[CUT, CUT] / np.sqrt(2) for a, b in pairwise(scans)]
        for how in STRENGTHS
    }


def noise_power(fields: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """Frequencies per mm, radial mean of the noise power, and its mean frequency."""
    size = len(fields[0])
    power = np.mean([np.abs(np.fft.fft2(f - f.mean())) ** 2 for f in fields], axis=0)
    power *= GRID.pixel_mm**2 / size**2
    across = np.fft.fftfreq(size, GRID.pixel_mm)
    radius = np.hypot(across[None], across[:, None])
    edges = np.linspace(0, 0.5 / GRID.pixel_mm, 25)
    middle = (edges[1:] + edges[:-1]) / 2
    bins = np.digitize(radius, edges)
    radial = np.array([power[bins == i].mean() for i in range(1, len(edges))])
    return middle, radial, float((power * radius).sum() / power.sum())


def transfer(scans: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """Frequencies per mm, modulation at the rod's edge, and where it is a half."""
    image = np.mean(scans, axis=0)
    x, y = GRID.axis_mm(0)[None] - ROD_AT_MM[0], GRID.axis_mm(1)[:, None] - ROD_AT_MM[1]
    edges = np.arange(ROD_MM - 9, ROD_MM + 9, 0.2)
    bins = np.digitize(np.hypot(x, y), edges)
    step = np.array([image[bins == i].mean() for i in range(1, len(edges))])
    spread = np.gradient(step) * np.hanning(len(step))
    modulation = np.abs(np.fft.rfft(spread, 2048))
    modulation /= modulation[0]
    f = np.fft.rfftfreq(2048, 0.2)
    below = int(np.flatnonzero(modulation < 0.5)[0])
    half = np.interp(0.5, modulation[[below, below - 1]], f[[below, below - 1]])
    return f, modulation, float(half)


def seconds(name: str, strengths: tuple[str, ...], repeats: int = 5) -> float:
    """Of one image of 512 pixels from line integrals on: readings, noise, reconstruction."""
    amounts = np.zeros((2, RASTER_PX, RASTER_PX), np.float32)
    amounts[0] = disc_amounts(RASTER_PX, EXTENT_MM, BODY_MM)
    virtual = scanner(name, (WATER, BONE_EPOXY))
    kernel = next(iter(virtual.definition.kernels))

    def took(kvps: tuple[float, ...]) -> float:
        start = time.perf_counter()
        loads = dict.fromkeys(kvps, 100.0)
        reconstructed(virtual, amounts, EXTENT_MM, loads, kernel, strengths, ImageGrid(), 0)
        return time.perf_counter() - start

    kvps = virtual.definition.tube.kvp[:3]
    took(kvps)
    return float(np.median([(took(kvps) - took(kvps[:1])) / 2 for _ in range(repeats)]))


def bias(name: str, kernel: str) -> dict[str, float]:
    """Largest shift of the strongest image's means from back-projection's, in HU, by voltage."""
    amounts = np.zeros((2, RASTER_PX, RASTER_PX), np.float32)
    amounts[0] = disc_amounts(RASTER_PX, EXTENT_MM, BODY_MM)
    places = ((0.0, 45.0), (-45.0, 0.0), (45.0, 0.0))  # water, air, bone epoxy
    amounts[1] = disc_amounts(RASTER_PX, EXTENT_MM, 18.0, places[2])
    amounts[0] -= disc_amounts(RASTER_PX, EXTENT_MM, 18.0, places[1]) + amounts[1]
    virtual, grid = scanner(name, (WATER, BONE_EPOXY)), ImageGrid(256, 140.0)
    loads = dict.fromkeys(virtual.definition.tube.kvp, 100.0)
    strengths = ("fbp", "iterative-5")
    found = reconstructed(virtual, amounts, EXTENT_MM, loads, kernel, strengths, grid, 0)
    x, y = grid.axis_mm(0)[None], grid.axis_mm(1)[:, None]
    shifts = {}
    for kvp in virtual.definition.tube.kvp:
        difference = found[kvp, kernel, "iterative-5"] - found[kvp, kernel, "fbp"]
        means = [difference[np.hypot(x - a, y - b) < 14].mean() for a, b in places]
        shifts[f"{kvp:g}"] = round(float(np.abs(means).max()), 2)
    return shifts


def slice_figure(name: str, kernel: str, out: Path) -> None:
    body = patient(3)
    low, high = body.z_range_mm
    amounts = body.slab((low + high) / 2, THICK_MM, RasterGrid())
    shown = ("fbp", "denoised-3", "iterative-3", "iterative-5")
    extent_mm, load = RasterGrid().extent_mm, {KVP: 30.0}
    virtual = scanner(name, BASIS)
    found = reconstructed(virtual, amounts, extent_mm, load, kernel, shown, ImageGrid(), 0)
    figure = Figure(figsize=(12, 2.6), layout="constrained")
    for axis, how in zip(figure.subplots(1, 4), shown, strict=True):
        axis.imshow(found[KVP, kernel, how][130:430, 60:460], cmap="gray", vmin=-160, vmax=240)
        axis.set_title(how)
        axis.axis("off")
    figure.savefig(out / "reconstruction_slice.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scanner", default="siemens-somatom-force")
    parser.add_argument("--kernel", default="Br40")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("notebook/figures"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    name, kernel = args.scanner, args.kernel
    told: dict[str, object] = {"scanner": name, "kernel": kernel, "kvp": KVP, "mm": THICK_MM}
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    power_axis, transfer_axis, dose_axis = figure.subplots(1, 3)

    by_load = {mas: noise(name, kernel, mas, args.seeds) for mas in LOADS_MAS}
    deviations = {
        how: [float(np.sqrt(np.mean(np.square(by_load[mas][how])))) for mas in LOADS_MAS]
        for how in STRENGTHS
    }
    told["noise_hu"] = {
        how: dict(zip(map(str, LOADS_MAS), v, strict=True)) for how, v in deviations.items()
    }
    told["variance_exponent"] = {
        how: list(np.diff(2 * np.log(v)) / np.diff(np.log(LOADS_MAS)))
        for how, v in deviations.items()
    }
    told["noise_mean_frequency_per_mm"] = {
        how: {str(mas): noise_power(by_load[mas][how])[2] for mas in LOADS_MAS} for how in STRENGTHS
    }
    for how, style in zip(STRENGTHS, STYLES, strict=True):
        f, power, _ = noise_power(by_load[100.0][how])
        power_axis.plot(f, power / (power.sum() * (f[1] - f[0])), style, label=how)
        dose_axis.loglog(LOADS_MAS, deviations[how], style, marker="o", ms=3, label=how)
    power_axis.set(xlabel="frequency (1/mm)", ylabel="noise power / its area (mm)")
    power_axis.set_title(f"noise power, {kernel}, 100 mAs, n = {args.seeds - 1}")
    power_axis.legend(fontsize=8)
    dose_axis.set(xlabel="tube load (mAs)", ylabel="noise (HU)", title="noise against dose")
    dose_axis.set_xticks(LOADS_MAS, [f"{mas:g}" for mas in LOADS_MAS])
    dose_axis.xaxis.set_minor_locator(NullLocator())

    halves: dict[str, dict[str, float]] = {}
    for contrast in CONTRASTS:
        scans = [
            images(name, kernel, contrast, 100.0, seed, STRENGTHS)
            for seed in range(args.seeds if abs(contrast) > 0.5 else 3 * args.seeds)
        ]
        found = {how: transfer([scan[how] for scan in scans]) for how in STRENGTHS}
        halves[f"{1000 * contrast:g} HU"] = {how: each[2] for how, each in found.items()}
        for how, style in (("fbp", "k"), ("iterative-5", "C3")):
            line = {-1.0: "-", 0.1: "--", 0.03: ":"}[contrast]
            f, modulation, _ = found[how]
            label = f"{how}, {1000 * contrast:g} HU"
            transfer_axis.plot(f, modulation, style + line, label=label)
    told["half_transfer_per_mm"] = halves
    transfer_axis.set(xlim=(0, 0.8), ylim=(0, 1.1), xlabel="frequency (1/mm)")
    transfer_axis.set(ylabel="task transfer", title="task transfer by contrast, 100 mAs")
    transfer_axis.legend(fontsize=7)
    figure.savefig(args.out / "reconstruction.png", dpi=90)
    slice_figure(name, kernel, args.out)

    told["largest_hu_shift"] = {
        each: {k: bias(each, k) for k in load_definition(each).kernels}
        for each in definition_names()
    }
    times = {
        each: (seconds(each, ("fbp",)), seconds(each, ("fbp", "iterative-5")))
        for each in definition_names()
    }
    told["seconds"] = {
        each: {"fbp": fbp, "iterative": both, "ratio": both / fbp}
        for each, (fbp, both) in times.items()
    }
    rounded = json.loads(json.dumps(told), parse_float=lambda text: float(f"{float(text):.4g}"))
    text = json.dumps(rounded, indent=1)
    (args.out / "reconstruction.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
