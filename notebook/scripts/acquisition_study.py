"""What the optional steps of the virtual scanners' acquisition do to images, in figures.

usage: python notebook/scripts/acquisition_study.py [--out notebook/figures]

Tube current, scatter, beam hardening, the turning gantry, the helix, table and arms, one at a time
on one simulated scanner; no patient's image is used. Writes acquisition.json and five PNGs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cvsct.core.files import write_json
from cvsct.simulation.phantom.materials import BASIS, BONE_EPOXY, WATER, Material
from cvsct.simulation.phantom.objects import disc_amounts
from cvsct.simulation.phantom.phantom import RasterGrid, patient
from cvsct.simulation.phantom.surroundings import BodyOutline, Surroundings, beside
from cvsct.simulation.physics.definition import Helical, ScannerDefinition, load_definition
from cvsct.simulation.physics.helical import SliceSensitivity
from cvsct.simulation.physics.scan import ImageGrid, VirtualScanner

NAME, KVP, MAS, THICK_MM = "ge-revolution-evo", 120.0, 100.0, 5.0
EXTENT_MM, WIDE_MM = 400.0, 500.0
STANDARD = {"cutoff_lp_mm": 0.42, "exponent": 2.5}
LIMITS = {"minimum_ma": 10, "maximum_ma": 1300}
LAWS: dict[str, dict[str, Any]] = {
    "Siemens, average": {"law": "siemens-care-dose4d-average", "reference_water_mm": 250},
    "Philips": {"law": "philips-doseright", "reference_water_mm": 250},
    "Canon": {"law": "canon-sureexposure-3d", "reference_water_mm": 250},
    "GE, noise index 15": {
        "law": "ge-smartma", "noise_index": 15, "noise_index_kernel": "Standard",
    },
}  # fmt: skip
SCATTER = {
    "ratio": 0.08, "forward_rad": 0.10, "multiple_rad": 0.30, "multiple_water_mm": 200.0,
    "residue": 0.0, "correction_noise": 0.05,
}  # fmt: skip
STYLES = ("-", "--", "-.", ":")


def scanner(basis: tuple[Material, Material] = BASIS, **changes: Any) -> VirtualScanner:
    """The scanner with a standard kernel and some sections changed."""
    plain = {**load_definition(NAME).record()}
    plain["geometry"]["sub_views"] = changes.pop("sub_views", 1)
    plain["kernels"]["Standard"] = STANDARD
    return VirtualScanner(ScannerDefinition.model_validate({**plain, **changes}), basis)


def image_of(
    virtual: VirtualScanner, amounts: np.ndarray, extent_mm: float, grid: ImageGrid,
    kernel: str = "Standard",
) -> np.ndarray:  # fmt: skip
    """An image without noise."""
    images = virtual.images(
        amounts, extent_mm, {KVP: MAS}, (kernel,), THICK_MM, grid, lambda _: None
    )
    return images[KVP, kernel]


def cylinder(radius_mm: float) -> np.ndarray:
    amounts = np.zeros((2, 512, 512), np.float32)
    amounts[0] = disc_amounts(512, EXTENT_MM, radius_mm)
    return amounts


def tube_current(views: Axes, along: Axes) -> dict[str, Any]:
    """Current by view at one level, and noise along z, of a patient-like body."""
    body = patient(3)
    low, high = body.z_range_mm
    places = np.linspace(low + 20, high - 10, 9)
    grid = ImageGrid(128, 90.0, (0.0, 30.0))
    slabs = [body.slab(float(z), THICK_MM, RasterGrid(512, EXTENT_MM)) for z in places]
    plain = scanner()
    paths = [plain.paths(slab, EXTENT_MM) for slab in slabs]
    record: dict[str, Any] = {"z_mm": places.round(1).tolist(), "laws": {}}
    for style, (name, law) in zip(
        ("-", *STYLES), {"constant 100 mAs": None, **LAWS}.items(), strict=True
    ):
        virtual = plain if law is None else scanner(tube_current={**law, **LIMITS})
        noise, loads = [], []
        for z, each in zip(places, paths, strict=True):
            images = []
            for seed in (1, 2):
                acquired = virtual.acquire(
                    each, {KVP: MAS}, THICK_MM,
                    lambda _, seed=seed, z=z: np.random.default_rng([seed, int(z + 1000)]),
                    law is not None,
                )  # fmt: skip
                images.append(virtual.reconstruct(acquired.water, ("Standard",), grid))
            first, second = (found[KVP, "Standard", "fbp"] for found in images)
            noise.append(float((first - second).std() / np.sqrt(2)))
            exposure = acquired.exposures[KVP]
            loads.append(exposure.mas)
            if z == places[6] and exposure.shares is not None:
                current = exposure.mas * exposure.shares / virtual.definition.protocol.rotation_s
                turn = np.arange(len(current)) * 360 / len(current)
                views.plot(turn, current, style, label=name)
        along.plot(places, noise, style, marker="o", markersize=3, label=name)
        record["laws"][name] = {
            "noise_hu": np.round(noise, 2).tolist(), "mas": np.round(loads, 1).tolist(),
            "noise_max_over_min": round(max(noise) / min(noise), 2),
        }  # fmt: skip
    views.set(xlabel="angle of the source, degrees", ylabel="tube current, mA", ylim=(0, None))
    along.set(xlabel="z, mm", ylabel="noise (SD), HU", ylim=(0, None))
    views.legend(fontsize=7)
    along.legend(fontsize=7)
    return record


def scatter(axes: Axes) -> dict[str, float]:
    """Profiles through 30 cm of water by the share of scatter that is left."""
    grid = ImageGrid(175, 350.0)
    found = {}
    for style, residue in zip(("-", "--", "-."), (0.3, 0.0, -0.3), strict=True):
        virtual = scanner((WATER, BONE_EPOXY), scatter={**SCATTER, "residue": residue})
        image = image_of(virtual, cylinder(150.0), EXTENT_MM, grid)
        middle = image[84:91].mean(axis=0)
        inside = np.abs(grid.axis_mm(0)) < 142
        axes.plot(grid.axis_mm(0)[inside], middle[inside], style, label=f"residue {residue:+.1f}")
        found[f"{residue:+.1f}"] = round(float(image[80:95, 80:95].mean()), 2)
    axes.set(xlabel="x, mm", ylabel="HU in 30 cm of water, SPR 8 %")
    axes.legend(fontsize=7)
    return found


def hardening(axes: Axes) -> dict[str, dict[str, float]]:
    """CT numbers of inserts of soft material, fat and bone by what the correction is made for."""
    inserts = {
        "-100 HU": (-0.1, 0.0),
        "+50 HU": (0.05, 0.0),
        "bone .3": (0.0, 0.3),
        "bone 1": (-1.0, 1.0),
    }
    amounts = cylinder(110.0)
    places = [(60.0, 0.0), (0.0, 60.0), (-60.0, 0.0), (0.0, -60.0)]
    for (soft, bone), at in zip(inserts.values(), places, strict=True):
        disc = disc_amounts(512, EXTENT_MM, 16.0, at)
        amounts += np.stack((np.float32(soft) * disc, np.float32(bone) * disc))
    grid = ImageGrid(256, 240.0)
    x, y = grid.axis_mm(0)[None], grid.axis_mm(1)[:, None]
    settings: dict[str, dict[str, Any]] = {
        "as calibrated": {},
        "bone correction .5": {"bone_correction": 0.5},
        "bone correction 1": {"bone_correction": 1.0},
        "order 2": {"calibration_order": 2},
        "made with polyurethane": {"calibration_material": "polyurethane"},
    }
    spots = dict(zip(("water", *inserts), ((0.0, 0.0), *places), strict=True))
    record: dict[str, dict[str, float]] = {}
    for name, section in settings.items():
        changes = {"beam_hardening": section} if section else {}
        image = image_of(scanner((WATER, BONE_EPOXY), **changes), amounts, EXTENT_MM, grid)
        record[name] = {
            spot: round(float(image[np.hypot(x - at[0], y - at[1]) < 10.0].mean()), 2)
            for spot, at in spots.items()
        }
    for style, (name, values) in zip(STYLES, list(record.items())[1:], strict=True):
        change = [values[spot] - record["as calibrated"][spot] for spot in spots]
        axes.plot(range(len(spots)), change, style, marker="o", markersize=3, label=name)
    axes.set_xticks(range(len(spots)), list(spots), fontsize=7)
    axes.set(ylabel="HU against the usual correction")
    axes.legend(fontsize=7)
    return record


def wire(panels: list[Axes]) -> dict[str, float]:
    """A wire 10 cm off the centre by the number of sub-views."""
    amounts = np.zeros((2, 2048, 2048), np.float32)
    amounts[0] = 0.1 * disc_amounts(2048, 260.0, 0.25, (100.0, 0.0))
    grid = ImageGrid(256, 40.0, (100.0, 0.0))
    place = (np.arange(256) - 127.5) * grid.pixel_mm
    away = np.hypot(place[None], place[:, None]) > 8.0
    ghosts = {}
    for axes, count in zip(panels, (1, 3, 8), strict=True):
        virtual = scanner((WATER, BONE_EPOXY), sub_views=count)
        image = image_of(virtual, amounts, 260.0, grid, "Lung") + 1000
        ghosts[str(count)] = round(float(image[away].std() / image.max()), 5)
        axes.imshow(image / image.max(), cmap="gray", vmin=-0.005, vmax=0.01)
        axes.set_title(f"{count} sub-views: ghosts {100 * ghosts[str(count)]:.2f} %", fontsize=8)
        axes.set_axis_off()
    return ghosts


def sensitivity(axes: Axes) -> dict[str, float]:
    """Slice sensitivities, their widths over the nominal thickness."""
    z = np.linspace(-4.5, 4.5, 3601)
    widths = {}
    cases = (("180LI", 0.625 * 1.03), ("180LI", 1.25), ("z-filter", 2.5), ("z-filter", 5.0))
    for style, (interpolation, nominal) in zip(STYLES, cases, strict=True):
        helical = Helical.model_validate({"pitch": 0.98, "interpolation": interpolation})
        curve = SliceSensitivity(helical, 0.625, nominal).curve(z)
        above = z[curve > curve.max() / 2]
        name = f"{interpolation}, {nominal:.3g} mm"
        widths[name] = round(float(above[-1] - above[0]), 3)
        axes.plot(z, curve / curve.max(), style, label=f"{name}: {widths[name]:.2f} mm")
    axes.set(xlabel="z, mm", ylabel="sensitivity")
    axes.legend(fontsize=7)
    return widths


def table_and_arms(panels: list[Axes]) -> dict[str, float]:
    """One slice of a patient-like body alone, on a table, and with its arms beside it."""
    body = patient(3)
    slab = body.slab(sum(body.z_range_mm) / 2, THICK_MM, RasterGrid(1024, EXTENT_MM))
    outline = BodyOutline.of((slab != 0).any(axis=0), EXTENT_MM)
    grid = ImageGrid(340, 340.0)
    virtual = scanner()
    noise = {}
    for axes, (name, table, arms) in zip(
        panels,
        (("alone", False, "up"), ("on a table", True, "up"), ("arms at the side", True, "side")),
        strict=True,
    ):
        around = Surroundings(outline, table, arms).amounts(1280, WIDE_MM)
        amounts = beside(slab, around)
        first, second = (
            virtual.images(
                amounts, WIDE_MM, {KVP: MAS}, ("Standard",), THICK_MM, grid,
                lambda _, seed=seed: np.random.default_rng(seed),
            )[KVP, "Standard"]
            for seed in (1, 2)
        )  # fmt: skip
        noise[name] = round(float((first - second)[120:220, 120:220].std() / np.sqrt(2)), 2)
        axes.imshow(first, cmap="gray", vmin=-250, vmax=300)
        axes.set_title(f"{name}: SD {noise[name]:.1f} HU", fontsize=8)
        axes.set_axis_off()
    return noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("notebook/figures"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"scanner": NAME, "kvp": KVP, "mas": MAS, "thickness_mm": THICK_MM}

    def drawn(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
        figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
        return figure, list(figure.subplots(1, columns, squeeze=False)[0])

    figure, (left, right) = drawn(8.6, 3.2, 2)
    record["tube_current"] = tube_current(left, right)
    figure.savefig(out / "acquisition_current.png")
    figure, (left, right) = drawn(8.6, 3.2, 2)
    record["scatter_hu"] = scatter(left)
    record["hardening_hu"] = hardening(right)
    figure.savefig(out / "acquisition_residues.png")
    figure, panels = drawn(8.6, 3.1, 3)
    record["ghosts"] = wire(panels)
    figure.savefig(out / "acquisition_wire.png")
    figure, (only,) = drawn(4.6, 3.2, 1)
    record["slice_width_mm"] = sensitivity(only)
    figure.savefig(out / "acquisition_slices.png")
    figure, panels = drawn(8.6, 3.1, 3)
    record["table_and_arms_sd_hu"] = table_and_arms(panels)
    figure.savefig(out / "acquisition_table.png")
    write_json(out / "acquisition.json", record)
    print(record)


if __name__ == "__main__":
    main()
