"""The virtual scanners against physics: water, air, attenuation tables, noise, resolution."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cvsct.core.errors import GeometryError, UsageError
from cvsct.simulation.phantom.materials import BASIS, BONE_EPOXY, POLYURETHANE, WATER, Material
from cvsct.simulation.physics.definition import load_definition
from cvsct.simulation.physics.detector import DetectorModel
from cvsct.simulation.physics.recon import ImageGrid, Reconstructor, Sampling
from cvsct.simulation.physics.scan import VirtualScanner
from tests.support.slices import crossing, disc, disc_spectrum, radial

GE, SIEMENS = "ge-revolution-evo", "siemens-somatom-force"
LUNG_KERNEL = {GE: "Lung", SIEMENS: "Bl64"}
EXTENT_MM = 400.0


@cache
def scanner(name: str, soft: Material = POLYURETHANE) -> VirtualScanner:
    """A scanner whose first map holds amounts of `soft`."""
    return VirtualScanner(load_definition(name), (soft, BONE_EPOXY))


@cache
def cylinder(name: str, soft: Material) -> dict[float, np.ndarray]:
    """A cylinder of 25 cm without noise at three voltages."""
    amounts = np.zeros((2, 1024, 1024), np.float32)
    amounts[0] = disc(1024, EXTENT_MM, 125.0)
    images = scanner(name, soft).images(
        amounts,
        EXTENT_MM,
        dict.fromkeys((70.0, 120.0, 140.0), 100.0),
        (LUNG_KERNEL[name],),
        5.0,
        ImageGrid(),
        lambda kvp: None,
    )
    return {kvp: image for (kvp, _), image in images.items()}


def ring(low_mm: float, high_mm: float, grid: ImageGrid | None = None) -> np.ndarray:
    """Pixels between two distances from the isocentre."""
    grid = grid or ImageGrid()
    r = np.hypot(grid.axis_mm(0)[None], grid.axis_mm(1)[:, None])
    return (r >= low_mm) & (r < high_mm)


@pytest.mark.parametrize("name", [GE, SIEMENS])
@pytest.mark.parametrize("kvp", [70.0, 120.0, 140.0])
def test_water_is_0_hu_at_centre_and_edge_and_air_minus_1000(name: str, kvp: float) -> None:
    image = cylinder(name, WATER)[kvp]
    for low, high in ((0, 30), (60, 75), (105, 119)):
        assert image[ring(low, high)].mean() == pytest.approx(0.0, abs=2.0)
    assert image[ring(135, 170)].mean() == pytest.approx(-1000.0, abs=2.0)


@pytest.mark.parametrize("name", [GE, SIEMENS])
def test_polyurethane_follows_the_attenuation_tables(name: str) -> None:
    """Independent truth: attenuation tables in float64, then an inverse Abel transform.

    Each ray at the distance t = R sin a through a cylinder of polyurethane reads as p(t) mm of
    water, behind its own thickness of bowtie. The middle is then -1/pi times the integral of p'/t.
    """
    definition = load_definition(name)
    aluminium = Material("aluminium", (("Al", 1.0),), 2.699)
    angles = ((np.arange(800) + 0.5) / 800 - 0.5) * np.pi  # both sides of the middle
    t_mm, chord_mm = 125 * np.sin(angles), 250 * np.cos(angles)
    fan = np.arcsin(t_mm / definition.geometry.source_isocentre_mm)
    water_mm = np.linspace(0, 300, 301)
    measured, expected = [], []
    for kvp in (70.0, 120.0, 140.0):
        spectrum = definition.spectrum(kvp, bin_kev=1.0)
        energies = spectrum.energies_kev
        weights = spectrum.photons * definition.detector.absorbed_share(energies) * energies
        al, water, soft = (
            each.attenuation_per_mm(energies) for each in (aluminium, WATER, POLYURETHANE)
        )
        p = np.empty(len(angles))
        for i, bowtie_mm in enumerate(definition.bowtie_mm(fan)):
            seen = weights * np.exp(-al * bowtie_mm)
            logs = -np.log(np.exp(-np.outer(water_mm, water)) @ seen)
            p[i] = np.interp(-np.log(np.exp(-soft * chord_mm[i]) @ seen), logs, water_mm)
        middle = -(np.gradient(p, angles) / t_mm).mean() / 2
        expected.append(1000 * middle - 1000)
        measured.append(float(cylinder(name, POLYURETHANE)[kvp][ring(0, 20)].mean()))
    assert measured == pytest.approx(expected, abs=1.0)
    assert measured[0] < measured[1] < measured[2]  # less photoelectric than water: CH against O


def test_detected_signal_and_its_variance_match_a_plain_sum() -> None:
    definition = load_definition(SIEMENS)
    sampling = Sampling(definition)
    detector = DetectorModel(definition, 100.0, sampling.fan_rad, sampling.readings_per_rotation)
    paths = np.zeros((2, 400, len(sampling.fan_rad)), np.float32)
    paths[0], paths[1] = 180.0, 12.0
    quiet = detector.readings([paths], 100.0, 1.0, None)
    noisy = detector.readings([paths], 100.0, 1.0, np.random.default_rng(0))

    spectrum = definition.spectrum(100.0)
    energies = spectrum.energies_kev[:, None]
    distance, isocentre = (
        definition.geometry.source_detector_mm,
        definition.geometry.source_isocentre_mm,
    )
    area = definition.geometry.channel_mm * (distance / isocentre) * (1000 / distance) ** 2
    bowtie = Material("aluminium", (("Al", 1.0),), 2.699).attenuation_per_mm(energies[:, 0])
    photons = (
        (spectrum.photons * definition.detector.absorbed_share(energies[:, 0]))[:, None]
        * np.exp(-np.outer(bowtie, definition.bowtie_mm(sampling.fan_rad)))
        * (area * 100.0 / (2 * 1152))
    )
    through = sum(
        mm * material.attenuation_per_mm(energies[:, 0])
        for mm, material in zip((180.0, 12.0), BASIS, strict=True)
    )
    photons *= np.exp(-through)[:, None]
    mean = (photons * energies).sum(axis=0)
    variance = (photons * energies**2).sum(
        axis=0
    ) + definition.detector.electronic_noise_kev**2 / 0.6
    assert quiet.energy_kev[0] == pytest.approx(mean, rel=2e-5)
    assert noisy.energy_kev.var(axis=0).mean() == pytest.approx(variance.mean(), rel=0.01)
    again = detector.readings([paths], 100.0, 1.0, np.random.default_rng(0))
    assert np.array_equal(noisy.energy_kev, again.energy_kev)


@pytest.mark.parametrize("name", [GE, SIEMENS])
def test_noise_variance_goes_as_one_over_mas(name: str) -> None:
    amounts = np.zeros((2, 512, 512), np.float32)
    amounts[0] = disc(512, EXTENT_MM, 110.0)
    grid = ImageGrid(size_px=192, fov_mm=130.0)

    def variance(mas: float) -> float:
        pair = [
            scanner(name).images(
                amounts,
                EXTENT_MM,
                {120.0: mas},
                (LUNG_KERNEL[name],),
                5.0,
                grid,
                lambda kvp, seed=seed: np.random.default_rng(seed),
            )
            for seed in (1, 2)
        ]
        key = (120.0, LUNG_KERNEL[name])
        return float(np.var(pair[0][key] - pair[1][key]))

    assert variance(50.0) / variance(200.0) == pytest.approx(4.0, rel=0.05)


def wire_image(name: str, kernel: str, at_mm: tuple[float, float]) -> tuple[np.ndarray, ImageGrid]:
    """A thin wire's image on a fine grid around it, without noise."""
    extent = 60.0 + 2 * max(at_mm)
    size = int(extent / 60.0 * 1024)
    amounts = np.zeros((2, size, size), np.float32)
    amounts[0] = 0.1 * disc(size, extent, 0.25, at_mm)
    grid = ImageGrid(size_px=512, fov_mm=40.0, centre_mm=at_mm)
    images = scanner(name, WATER).images(
        amounts, extent, {120.0: 100.0}, (kernel,), 5.0, grid, lambda kvp: None
    )
    return images[120.0, kernel] + 1000, grid


def modulation(image: np.ndarray, grid: ImageGrid) -> tuple[np.ndarray, np.ndarray]:
    """|Fourier transform| of a wire's image over the wire's own, and its radial frequencies."""
    f = np.fft.fftfreq(grid.size_px, grid.pixel_mm)
    radius = np.hypot(f[None], f[:, None])
    raster = 60.0 / 1024
    wire = 100 * disc_spectrum(radius, 0.25) * np.sinc(f * raster)[None]
    return np.abs(np.fft.fft2(image)) * grid.pixel_mm**2 / (wire * np.sinc(f * raster)[:, None]), (
        radius
    )


@pytest.mark.parametrize(("name", "kernel"), [(GE, "Lung"), (SIEMENS, "Bl64"), (SIEMENS, "Br40")])
def test_mtf50_and_mtf10_are_the_kernels_own(name: str, kernel: str) -> None:
    measured, radius = modulation(*wire_image(name, kernel, (0.0, 0.0)))
    f = np.arange(0.05, 1.4, 0.025)
    curve = radial(measured, radius, f)
    target = load_definition(name).kernel(kernel).modulation(f)
    for level in (0.5, 0.1):
        assert crossing(f, curve, level) == pytest.approx(crossing(f, target, level), rel=0.05)
    assert curve[:8] == pytest.approx(target[:8], rel=0.02)


@pytest.mark.parametrize(("name", "kernel"), [(GE, "Lung"), (SIEMENS, "Bl64")])
@pytest.mark.parametrize(("at_mm", "ghosts"), [(55.0, 5e-4), (100.0, 3e-3)])
def test_no_detector_aliasing_off_centre(
    name: str, kernel: str, at_mm: float, ghosts: float
) -> None:
    """A wire off the centre keeps its radial resolution and throws no ghosts.

    At single channel pitch, frequencies beyond 0.85 lp/mm would come back as lower ones. What is
    left at 10 cm is the views' doing: n of them carry f lp/mm along the circle of radius
    n / (4 pi f), 6 cm for GE's 984 and the 1.3 lp/mm of its Lung kernel.
    """
    image, grid = wire_image(name, kernel, (at_mm, 0.0))
    measured, _ = modulation(image, grid)
    f = np.fft.fftfreq(grid.size_px, grid.pixel_mm)[1:60]
    target = load_definition(name).kernel(kernel).modulation(f)
    radially = measured[0, 1:60]
    assert crossing(f, radially, 0.1) == pytest.approx(crossing(f, target, 0.1), rel=0.05)
    place = (np.arange(grid.size_px) - (grid.size_px - 1) / 2) * grid.pixel_mm
    away = np.hypot(place[None], place[:, None]) > 8.0
    assert image[away].std() < ghosts * image.max()


def test_a_small_field_of_view_is_the_same_image_sampled_elsewhere() -> None:
    amounts = np.zeros((2, 512, 512), np.float32)
    amounts[0] = disc(512, EXTENT_MM, 110.0)
    amounts[1] = disc(512, EXTENT_MM, 12.0, (40.0, -20.0))
    whole = ImageGrid(size_px=128, fov_mm=256.0)
    part = ImageGrid(size_px=32, fov_mm=64.0, centre_mm=(32.0, -32.0))
    images = [
        scanner(GE).images(
            amounts,
            EXTENT_MM,
            {120.0: 100.0},
            ("Lung",),
            5.0,
            grid,
            lambda kvp: np.random.default_rng(3),
        )[120.0, "Lung"]
        for grid in (whole, part)
    ]
    assert images[0][32:64, 64:96] == pytest.approx(images[1], abs=0.5)


def test_interpolation_never_reads_beyond_the_detector() -> None:
    """Of readings that are all 1 every sample is 1, wide as the channels may be."""
    geometry = load_definition(SIEMENS).geometry
    for width in (1, 4, 10):
        wide = {"channels": geometry.channels // width, "channel_mm": geometry.channel_mm * width}
        definition = load_definition(SIEMENS).model_copy(
            update={"geometry": geometry.model_copy(update={**wide, "views": 16})}
        )
        reconstructor = Reconstructor(definition)
        readings = np.ones((16, len(Sampling(definition).fan_rad)), np.float32)
        samples = np.fft.irfft(reconstructor.spectra(readings), axis=1)
        count = round(float(samples[0].sum()))
        assert samples[:, :count] == pytest.approx(1.0, abs=1e-3)
        assert samples[:, count:] == pytest.approx(0.0, abs=1e-3)
        assert count * 0.25 > 450


def test_refusals_name_what_there_is() -> None:
    amounts = np.zeros((2, 64, 64), np.float32)

    def ask(kvp: float = 120.0, kernel: str = "Lung", fov_mm: float = 350.0) -> None:
        scanner(GE).images(
            amounts, 200.0, {kvp: 100.0}, (kernel,), 5.0, ImageGrid(64, fov_mm), lambda k: None
        )

    with pytest.raises(UsageError, match="no 90 kVp; it has 70, 80"):
        ask(kvp=90.0)
    with pytest.raises(UsageError, match="no kernel 'Br40'; it has Lung"):
        ask(kernel="Br40")
    with pytest.raises(GeometryError, match="detector sees"):
        ask(fov_mm=500.0)
