"""Measure the virtual scanners as a medical physicist would: resolution, noise, CT numbers.

    OMP_NUM_THREADS=1 python scripts/scanner_physics.py --out runs/physics
        [--scanners all | NAME,...] [--ct-numbers]

Prints the tables (also OUT/tables.md) and draws OUT/mtf_nps.png and OUT/noise_mas.png. All is seen
through `VirtualScanner`, in pixels so fine that they alias nothing; five minutes on one free core.
At a distance r from the isocentre the views end tangential resolution at views / (4 pi r).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import j1

from cvsct.evaluation.image.mtf import first_below, modulation_transfer
from cvsct.evaluation.image.noise_power import NoisePower, noise_power_spectrum
from cvsct.simulation.phantom.materials import (
    BONE_EPOXY,
    POLYURETHANE,
    WATER,
    Material,
    material_named,
)
from cvsct.simulation.phantom.objects import disc_amounts
from cvsct.simulation.physics.definition import ScannerDefinition, definition_names, load_definition
from cvsct.simulation.physics.scan import ImageGrid, VirtualScanner

KVP, MAS, THICK_MM = 120.0, 100.0, 5.0
PAPER_SCANNERS = "ge-revolution-evo", "siemens-somatom-force"
EXTENT_MM = 400.0
BODY_MM, LARGE_MM = 125.0, 160.0  # radii of the water cylinders of 25 and 32 cm
SMALL_EXTENT_MM, SMALL_PX = 60.0, 1024  # the raster of wires and edges
WIRE_MM, WIRE_AMOUNT = 0.25, 0.1  # radius, and water's share: 100 HU, too little for hardening
WIRE_PX, WIRE_GRID_MM, OFF_MM = 512, 40.0, 100.0
EDGE_MM = 15.0  # radius of the disc with an edge, and of inserts
EDGE_AT_MM = (20.0, 9.0)  # off the isocentre, where every view would sample the edge alike
NOISE_PX, NOISE_PIXEL_MM, NOISE_SEEDS, NOISE_RINGS = 192, 0.35, 16, 32
LOADS_MAS = np.array([5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 400.0])
LAW = np.sqrt(LOADS_MAS[-1] / LOADS_MAS)  # noise of photons alone, over that of the last load
LOAD_KVPS, LOAD_SEEDS = (80.0, 120.0), 4
NYQUIST_PER_MM = ImageGrid().size_px / ImageGrid().fov_mm / 2
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by all eyes

Rows = list[list[str]]
Images = dict[tuple[float, str], np.ndarray]
Curves = tuple[np.ndarray, np.ndarray, np.ndarray]  # frequencies, target, measured modulation


@cache
def scanner(name: str, second: Material) -> VirtualScanner:
    return VirtualScanner(load_definition(name), (WATER, second))


def images(
    definition: ScannerDefinition,
    amounts: Sequence[np.ndarray],
    grid: ImageGrid,
    second: Material = BONE_EPOXY,
    extent_mm: float = EXTENT_MM,
    kvps: Sequence[float] = (KVP,),
    mas: float = MAS,
    thickness_mm: float = THICK_MM,
    seed: int | None = None,
) -> Images:
    """Images by voltage and kernel of amounts of water and, if given, of a second material."""
    maps = np.zeros((2, *amounts[0].shape), np.float32)
    maps[: len(amounts)] = amounts
    return scanner(definition.name, second).images(
        maps, extent_mm, dict.fromkeys(kvps, mas), list(definition.kernels), thickness_mm, grid,
        lambda kvp: None if seed is None else np.random.default_rng([seed, int(kvp)]),
    )  # fmt: skip


def ring_mean(image: np.ndarray, grid: ImageGrid, low_mm: float, high_mm: float) -> float:
    """Mean over the pixels between two distances from the isocentre."""
    r = np.hypot(grid.axis_mm(0)[None], grid.axis_mm(1)[:, None])
    return float(image[(r >= low_mm) & (r < high_mm)].mean())


def wire(definition: ScannerDefinition, x_mm: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frequencies, and for each kernel the modulation of a wire by frequency down and across."""
    extent = SMALL_EXTENT_MM + 2 * x_mm
    size = round(extent / SMALL_EXTENT_MM * SMALL_PX)
    grid = ImageGrid(WIRE_PX, WIRE_GRID_MM, (x_mm, 0.0))
    amounts = WIRE_AMOUNT * disc_amounts(size, extent, WIRE_MM, (x_mm, 0.0))
    found = images(definition, [amounts], grid, extent_mm=extent)
    f = np.fft.fftfreq(grid.size_px, grid.pixel_mm)
    x = 2 * np.pi * np.maximum(np.hypot(f[None], f[:, None]), 1e-9) * WIRE_MM
    pixel = np.sinc(f * extent / size)
    own = 1000 * WIRE_AMOUNT * WIRE_MM**2 * 2 * np.pi * j1(x) / x * pixel * pixel[:, None]
    return f, {
        kernel: np.abs(np.fft.fft2(image + 1000)) * grid.pixel_mm**2 / own
        for (_, kernel), image in found.items()
    }


def resolution(definition: ScannerDefinition) -> tuple[Rows, dict[str, Curves]]:
    """Rows of the table and the curves of each kernel, by wires and by a disc of water in air."""
    f, middle = wire(definition, 0.0)
    _, off = wire(definition, OFF_MM)
    disc = disc_amounts(2 * SMALL_PX, 2 * SMALL_EXTENT_MM, EDGE_MM, EDGE_AT_MM)
    grid = ImageGrid(WIRE_PX, SMALL_EXTENT_MM, EDGE_AT_MM)
    discs = images(definition, [disc], grid, extent_mm=2 * SMALL_EXTENT_MM)
    radius = np.hypot(f[None], f[:, None])
    kept = f[: np.searchsorted(f[: len(f) // 2], 1.4)]
    rows, curves = [], {}
    for kernel, shape in definition.kernels.items():
        rings = [np.abs(radius - each) <= kept[1] / 2 for each in kept]
        mean = np.array([middle[kernel][ring].mean() for ring in rings])
        curves[kernel] = kept, shape.modulation(kept), mean
        edge = modulation_transfer(discs[KVP, kernel], grid.pixel_mm, EDGE_MM)
        for name, x, curve in (
            ("target", *curves[kernel][:2]),
            ("wire, isocentre", kept, mean),
            ("edge of a disc", edge.f_per_mm, edge.mtf),
            ("wire, 10 cm off, radial", kept, off[kernel][0, : len(kept)]),
            ("wire, 10 cm off, tangential", kept, off[kernel][: len(kept), 0]),
        ):
            halves = [f"{10 * first_below(x, curve, level):.2f}" for level in (0.5, 0.1)]
            rows.append([kernel, name, *halves, f"{curve.max():.3f}"])
    return rows, curves


def noise(definition: ScannerDefinition) -> tuple[Rows, dict[str, NoisePower]]:
    """Rows of the table, in the middle of 25 cm of water; for each kernel that of thin slices."""
    water = disc_amounts(512, EXTENT_MM, BODY_MM)
    grid = ImageGrid(NOISE_PX, NOISE_PX * NOISE_PIXEL_MM)
    rows, thin = [], {}
    for mm in (definition.detector.row_mm, THICK_MM):
        seeds = range(NOISE_SEEDS)
        scans = [images(definition, [water], grid, thickness_mm=mm, seed=seed) for seed in seeds]
        for kernel in definition.kernels:
            regions = np.array([scan[KVP, kernel] for scan in scans])
            one = noise_power_spectrum(regions, NOISE_PIXEL_MM, NOISE_RINGS)
            thin.setdefault(kernel, one)
            peak, mean = f"{one.peak_per_mm:.2f}", f"{one.mean_per_mm:.2f}"
            rows.append([kernel, f"{mm:g}", peak, mean, f"{one.sd_hu:.1f}"])
    return rows, thin


def water_and_air(definition: ScannerDefinition) -> Rows:
    """By voltage the CT numbers of 25 cm of water and of the air around it, without noise."""
    grid, kernel = ImageGrid(), next(iter(definition.kernels))
    water = disc_amounts(1024, EXTENT_MM, BODY_MM)
    found = images(definition, [water], grid, kvps=definition.tube.kvp)
    places = ((0, 30), (60, 75), (105, 119), (135, 170))
    return [
        [f"{kvp:g}", *(f"{ring_mean(found[kvp, kernel], grid, *place):+.2f}" for place in places)]
        for kvp in definition.tube.kvp
    ]


def expected_hu(definition: ScannerDefinition, kvp: float, material: Material) -> float:
    """CT number of an insert amid 25 cm of water, from the water that replaces it on one ray."""
    spectrum = definition.spectrum(kvp, bin_kev=1.0)
    kev = spectrum.energies_kev
    water, own = WATER.attenuation_per_mm(kev), material.attenuation_per_mm(kev)
    bowtie = material_named(definition.bowtie.material).attenuation_per_mm(kev)
    around = bowtie * definition.bowtie_mm(np.zeros(1)) + 2 * (BODY_MM - EDGE_MM) * water
    seen = spectrum.photons * definition.detector.absorbed_share(kev) * kev * np.exp(-around)
    paths_mm = np.linspace(0, 4 * EDGE_MM, 601)
    logs = -np.log(np.exp(-np.outer(paths_mm, water)) @ seen)
    same_mm = np.interp(-np.log(np.exp(-2 * EDGE_MM * own) @ seen), logs, paths_mm)
    return float(1000 * (same_mm / (2 * EDGE_MM) - 1))


def materials(definition: ScannerDefinition) -> Rows:
    """By voltage a cylinder of polyurethane; inserts of it and of epoxy, measured and expected."""
    body = disc_amounts(1024, EXTENT_MM, BODY_MM)
    insert = disc_amounts(1024, EXTENT_MM, EDGE_MM)
    grid, kernel, kvps = ImageGrid(128, 60.0), next(iter(definition.kernels)), definition.tube.kvp
    found = [
        images(definition, [0 * body, body], grid, POLYURETHANE, kvps=kvps),
        images(definition, [body - insert, insert], grid, POLYURETHANE, kvps=kvps),
        images(definition, [body - insert, insert], grid, BONE_EPOXY, kvps=kvps),
    ]
    rows = []
    for kvp in kvps:
        values = [ring_mean(each[kvp, kernel], grid, 0, 10) for each in found]
        values.insert(2, expected_hu(definition, kvp, POLYURETHANE))
        values.append(expected_hu(definition, kvp, BONE_EPOXY))
        rows.append([f"{kvp:g}", *(f"{value:+.1f}" for value in values)])
    return rows


def loads(definition: ScannerDefinition) -> tuple[Rows, dict[float, np.ndarray]]:
    """By voltage the noise in the middle of 32 cm of water, 5 mm slices, for each tube load."""
    water = disc_amounts(512, EXTENT_MM, LARGE_MM)
    grid = ImageGrid(NOISE_PX, NOISE_PX * NOISE_PIXEL_MM)
    kernel, rows, found = next(iter(definition.kernels)), [], {}
    scans = [
        images(definition, [water], grid, kvps=LOAD_KVPS, mas=mas, seed=seed)
        for mas in LOADS_MAS
        for seed in range(LOAD_SEEDS)
    ]
    for kvp in LOAD_KVPS:
        values = np.array([scan[kvp, kernel] for scan in scans])
        values = values.reshape(len(LOADS_MAS), LOAD_SEEDS, NOISE_PX, NOISE_PX)
        found[kvp] = np.sqrt(values.var(axis=1, ddof=1).mean(axis=(1, 2)))
        pairs = zip(found[kvp], found[kvp] / (found[kvp][-1] * LAW), strict=True)
        rows.append([f"{kvp:g}", *(f"{sd:.0f} ({ratio:.2f})" for sd, ratio in pairs)])
    return rows, found


def axes_of(figure: Figure, count: int) -> list[Axes]:
    """Axes side by side on an empty figure, without frames, with a light grid."""
    axes = list(np.ravel(figure.subplots(1, count)))
    for axis in axes:
        axis.grid(color="0.92", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return axes


def draw_kernels(curves: dict[str, Curves], noises: dict[str, NoisePower], path: Path) -> None:
    """Modulation, target and measured, beside the noise power of thin slices over its variance."""
    figure = Figure(figsize=(10.4, 4), layout="constrained")
    left, right = axes_of(figure, 2)
    dashed = {"color": "black", "linestyle": (0, (2, 2)), "linewidth": 1}
    for colour, name in zip(COLOURS, curves, strict=False):
        (f, target, measured), thin = curves[name], noises[name]
        left.plot(f, measured, color=colour, label=f"{name}, measured")
        left.plot(f, target, **dashed)
        texture = thin.power_hu2_mm2 / thin.sd_hu**2
        right.plot(thin.f_per_mm, texture, color=colour, label=f"{name}, SD {thin.sd_hu:.0f} HU")
    left.plot([], [], **dashed, label="target")
    left.set_title("Modulation transfer of a wire at the isocentre", fontsize=10)
    left.set(xlabel="spatial frequency (lp/mm)", ylabel="modulation")
    right.set_title(f"Noise in 25 cm of water, {KVP:g} kVp, {MAS:g} mAs, thin slices", fontsize=10)
    right.set(xlabel="spatial frequency (1/mm)", ylabel="noise power over variance (mm²)")
    dotted = {"color": "0.5", "linestyle": ":", "label": "Nyquist frequency, 350 mm / 512 px"}
    for axis in (left, right):
        axis.axvline(NYQUIST_PER_MM, ymax=0.68, linewidth=1, **dotted)
        axis.set(xlim=(0, 1.4), ylim=(0, 1.4 * axis.get_ylim()[1]))
        axis.legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(path, dpi=150)


def draw_loads(found: dict[str, dict[float, np.ndarray]], path: Path) -> None:
    """Noise against tube load beside what photons alone would make."""
    figure = Figure(figsize=(5.4, 4), layout="constrained")
    (axis,) = axes_of(figure, 1)
    for colour, (name, by_kvp) in zip(COLOURS, found.items(), strict=False):
        for mark, (kvp, sd_hu) in zip("os", by_kvp.items(), strict=True):
            axis.loglog(LOADS_MAS, LAW * sd_hu[-1], color=colour, linewidth=1, linestyle="--")
            axis.loglog(LOADS_MAS, sd_hu, mark, color=colour, label=f"{name}, {kvp:g} kVp")
    axis.plot([], [], color="0.4", linestyle="--", linewidth=1, label="1 / √mAs from 400 mAs")
    axis.set(xlabel="tube load (mAs)", ylabel="noise, standard deviation (HU)")
    axis.set_xticks(LOADS_MAS, [f"{mas:g}" for mas in LOADS_MAS])
    axis.set_title("Noise in the middle of 32 cm of water, 5 mm slices", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


TABLES = (
    ("Resolution, 120 kVp", "kernel, measured, MTF50 lp/cm, MTF10 lp/cm, peak"),
    ("Noise, 25 cm of water, 120 kVp, 100 mAs, pixels of 0.35 mm",
     "kernel, slice mm, NPS peak /mm, NPS mean /mm, SD HU"),
    ("CT numbers without noise, 25 cm of water, by distance from the isocentre",
     "kVp, water 0-30 mm, water 60-75 mm, water 105-119 mm, air 135-170 mm"),
    ("The phantom's materials, HU; inserts of 3 cm in 25 cm of water",
     "kVp, polyurethane 25 cm, polyurethane insert, from tables, epoxy insert, from tables"),
    ("Noise, 32 cm of water, 5 mm: SD HU (over what 1 / sqrt(mAs) makes of 400 mAs)",
     "kVp, " + ", ".join(f"{mas:g} mAs" for mas in LOADS_MAS)),
)  # fmt: skip


def table(title: str, heads: str, rows: Rows) -> str:
    names = ["scanner", *heads.split(", ")]
    lines = [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]
    return "\n".join([title, "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scanners", default=",".join(PAPER_SCANNERS), help="names, or `all`")
    parser.add_argument("--ct-numbers", action="store_true", help="water, air and inserts alone")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = definition_names() if args.scanners == "all" else args.scanners.split(",")
    definitions = [load_definition(name) for name in names]
    measured = ct_numbers(definitions) if args.ct_numbers else everything(definitions, args.out)
    text = "\n".join(
        table(*head, rows) for head, rows in zip(TABLES, measured, strict=True) if rows
    )
    (args.out / "tables.md").write_text(text, encoding="utf-8", newline="\n")
    print(text)


def ct_numbers(definitions: Sequence[ScannerDefinition]) -> list[Rows]:
    """Rows of the tables of water, air and materials; the other tables are empty."""
    water, inserts = [], []
    for definition in definitions:
        water += [[definition.name, *row] for row in water_and_air(definition)]
        inserts += [[definition.name, *row] for row in materials(definition)]
    return [[], [], water, inserts, []]


def everything(definitions: Sequence[ScannerDefinition], out: Path) -> list[Rows]:
    """Rows of every table; draws the figures."""
    measured: list[Rows] = [[] for _ in TABLES]
    curves, noises, by_load = {}, {}, {}
    for definition in definitions:
        name = definition.manufacturer.split()[0].capitalize().replace("Ge", "GE")
        sharpness, shapes = resolution(definition)
        deviations, thin = noise(definition)
        electronics, by_load[definition.name] = loads(definition)
        curves |= {f"{name} {kernel}": shapes[kernel] for kernel in definition.kernels}
        noises |= {f"{name} {kernel}": thin[kernel] for kernel in definition.kernels}
        parts = (
            sharpness,
            deviations,
            water_and_air(definition),
            materials(definition),
            electronics,
        )
        for rows, part in zip(measured, parts, strict=True):
            rows += [[definition.name, *row] for row in part]
    draw_kernels(curves, noises, out / "mtf_nps.png")
    draw_loads(by_load, out / "noise_mas.png")
    return measured


if __name__ == "__main__":
    main()
