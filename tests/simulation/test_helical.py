"""Slices of a helical scan: their width, their noise, and thin ones averaged to thick ones."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.simulation.physics.definition import Helical
from cvsct.simulation.physics.detector import WaterPaths
from cvsct.simulation.physics.helical import HelicalReader, SliceSensitivity
from cvsct.simulation.physics.recon import ImageGrid
from cvsct.simulation.physics.scan import VirtualScanner
from tests.support.water import EXTENT_MM, cylinder, water_scanner

SIEMENS = "siemens-somatom-force"
ROW_MM = 0.6
GRID = ImageGrid(48, 40.0)
COARSE = {
    "source_isocentre_mm": 595.0, "source_detector_mm": 1085.6, "channels": 230,
    "channel_mm": 4.2836, "views": 120, "sampling": "flying-focal-spot",
}  # fmt: skip
Z_FILTER = Helical(pitch=0.8, interpolation="z-filter")


def width_mm(z_mm: np.ndarray, curve: np.ndarray) -> float:
    """Full width at half maximum, linear between samples."""
    half = curve.max() / 2
    above = np.flatnonzero(curve > half)
    first, last = above[0], above[-1]
    left = np.interp(half, curve[[first - 1, first]], z_mm[[first - 1, first]])
    right = np.interp(half, curve[[last + 1, last]], z_mm[[last + 1, last]])
    return float(right - left)


def disc_readings(
    scanner: VirtualScanner, sensitivity: SliceSensitivity, disc_mm: float
) -> HelicalReader:
    """Readings of a thin disc of water at z = 0, wide across, in rows whose mean is exact."""
    plate = scanner.paths(cylinder(30.0, 128), EXTENT_MM)

    def read(number: int) -> dict[float, WaterPaths]:
        z = number * sensitivity.sample_mm
        low, high = z - sensitivity.row_mm / 2, z + sensitivity.row_mm / 2
        share = max(min(high, disc_mm / 2) - max(low, -disc_mm / 2), 0.0) / sensitivity.row_mm
        thin = tuple(paths * np.float32(share) for paths in plate)
        return scanner.acquire(thin, {120.0: 100.0}, 1.0, lambda _: None).water

    return HelicalReader(sensitivity, read, 0.1)


@pytest.mark.parametrize(
    ("thickness_mm", "within"), [(0.6, 0.15), (1.0, 0.05), (1.5, 0.05), (3.0, 0.02), (5.0, 0.02)]
)
def test_a_thin_disc_is_as_wide_along_z_as_the_nominal_thickness(
    thickness_mm: float, within: float
) -> None:
    """The thinnest slice is wider where it falls between the readings of the lattice."""
    scanner = water_scanner(SIEMENS, geometry=COARSE)
    sensitivity = SliceSensitivity(Z_FILTER, ROW_MM, thickness_mm)
    reader = disc_readings(scanner, sensitivity, 0.1)
    z = np.arange(-1.2 * thickness_mm - 0.6, 1.2 * thickness_mm + 0.6, 0.11)
    curve = []
    for place in z:
        image = scanner.reconstruct(reader.slice(place), ("Br40",), ImageGrid(16, 12.0))
        curve.append(float(image[120.0, "Br40", "fbp"].mean()) + 1000)
    assert width_mm(z, np.array(curve)) == pytest.approx(thickness_mm, rel=within)


@pytest.mark.parametrize(
    ("interpolation", "pitch", "published"),
    [("360LI", 1.0, 1.27), ("180LI", 1.0, 1.00), ("180LI", 2.0, 1.27)],
)
def test_the_thinnest_slice_widens_with_the_pitch_as_published(
    interpolation: str, pitch: float, published: float
) -> None:
    """Widths over the collimation of a single row: Polacin et al., Radiology 185, 1992.

    The lattice is half a row: its cells widen the thinnest slices by up to 5 %.
    """
    helical = Helical.model_validate({"pitch": pitch, "interpolation": interpolation})
    thinnest = SliceSensitivity(helical, 1.0, published)
    z = np.linspace(-3, 3, 2401)
    assert width_mm(z, thinnest.curve(z)) == pytest.approx(published, rel=0.05)
    assert np.trapezoid(thinnest.curve(z), z) == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(UsageError, match="give no less than"):
        SliceSensitivity(helical, 1.0, 0.9 * published).weights(0.0)


def test_a_z_filters_slice_does_not_depend_on_the_pitch() -> None:
    z = np.linspace(-4, 4, 801)
    slow, fast = (
        SliceSensitivity(Helical(pitch=pitch, interpolation="z-filter"), ROW_MM, 2.0)
        for pitch in (0.5, 1.5)
    )
    assert np.array_equal(slow.curve(z), fast.curve(z))
    assert slow.photons_mm == pytest.approx(3 * fast.photons_mm)


def test_weights_sum_to_one_and_move_with_the_slice() -> None:
    sensitivity = SliceSensitivity(Z_FILTER, ROW_MM, 3.0)
    for z in (0.0, 0.07, -11.4):
        weights = sensitivity.weights(z)
        assert sum(weights.values()) == pytest.approx(1.0)
        middle = sum(k * sensitivity.sample_mm * share for k, share in weights.items())
        assert middle == pytest.approx(z, abs=1e-6)


def noisy_reader(
    scanner: VirtualScanner, sensitivity: SliceSensitivity, seed: int = 7
) -> HelicalReader:
    paths = scanner.paths(cylinder(80.0, 128), EXTENT_MM)

    def read(number: int) -> dict[float, WaterPaths]:
        rng = np.random.default_rng([seed, number + 1000])
        return scanner.acquire(paths, {120.0: 200.0}, sensitivity.photons_mm, lambda _: rng).water

    return HelicalReader(sensitivity, read, 0.1)


def without_noise(scanner: VirtualScanner) -> np.ndarray:
    paths = scanner.paths(cylinder(80.0, 128), EXTENT_MM)
    water = scanner.acquire(paths, {120.0: 200.0}, 1.0, lambda _: None).water
    return scanner.reconstruct(water, ("Standard",), GRID)[120.0, "Standard", "fbp"]


def slice_at(scanner: VirtualScanner, reader: HelicalReader, z_mm: float) -> np.ndarray:
    return scanner.reconstruct(reader.slice(z_mm), ("Standard",), GRID)[120.0, "Standard", "fbp"]


def test_a_thick_slice_is_the_mean_of_thin_ones_of_the_same_scan() -> None:
    """A thin series without further averaging, weighted as the thick one weights the lattice."""
    scanner = water_scanner(SIEMENS, geometry=COARSE)
    thick = SliceSensitivity(Z_FILTER, ROW_MM, 2.4)
    thin = SliceSensitivity(Z_FILTER, ROW_MM, thick.row_mm * 1.03)
    step, places = 0.02, np.arange(-60, 60) * 0.02 + 0.01
    weights: dict[int, float] = {}
    width = thick.mean_mm
    inside = places[np.abs(places) < width / 2 - step / 4]
    for place in inside:
        for number, share in thin.weights(place).items():
            weights[number] = weights.get(number, 0.0) + share / len(inside)
    direct = thick.weights(0.0)
    assert set(direct) == set(weights)
    for number, share in direct.items():
        assert weights[number] == pytest.approx(share, abs=0.004)

    reader = noisy_reader(scanner, thin)
    thins = [slice_at(scanner, reader, float(place)) for place in inside[::4]]
    averaged = np.mean(thins, axis=0)
    wanted = slice_at(scanner, noisy_reader(scanner, thick), 0.0)
    rounding = np.abs(averaged - wanted).std()
    assert rounding < 0.1 * wanted.std()
    assert np.corrcoef(averaged.ravel(), wanted.ravel())[0, 1] > 0.99


def test_noise_of_overlapping_slices_is_shared_and_of_apart_ones_is_not() -> None:
    scanner = water_scanner(SIEMENS, geometry=COARSE)
    sensitivity = SliceSensitivity(Z_FILTER, ROW_MM, 1.5)
    reader = noisy_reader(scanner, sensitivity)
    object_alone = without_noise(scanner)
    here, near, far = (slice_at(scanner, reader, z) - object_alone for z in (0.0, 0.75, 6.0))
    weights = [sensitivity.weights(z) for z in (0.0, 0.75)]
    shared = sum(share * weights[1].get(k, 0.0) for k, share in weights[0].items())
    norm = np.sqrt(np.prod([sum(v**2 for v in each.values()) for each in weights]))
    correlation = np.corrcoef(here.ravel(), near.ravel())[0, 1]
    assert correlation == pytest.approx(shared / norm, abs=0.1)
    assert abs(np.corrcoef(here.ravel(), far.ravel())[0, 1]) < 0.12


def test_the_variance_that_a_helical_slice_foretells_is_that_of_its_noise() -> None:
    """What weights the readings of an iterative reconstruction: 60 noise draws of one slice."""
    scanner = water_scanner(SIEMENS, geometry=COARSE)
    sensitivity = SliceSensitivity(Z_FILTER, ROW_MM, 2.4)
    paths = scanner.paths(cylinder(80.0, 128), EXTENT_MM)
    draws, foretold = [], []
    for seed in range(60):

        def read(number: int, seed: int = seed) -> dict[float, WaterPaths]:
            rng = np.random.default_rng([seed, number + 1000])
            photons_mm = sensitivity.photons_mm
            return scanner.acquire(paths, {120.0: 200.0}, photons_mm, lambda _: rng).water

        water = HelicalReader(sensitivity, read, 2.4).slice(0.0)[120.0]
        draws.append(water.mm)
        foretold.append(water.variance_mm2())
    ratio = np.var(draws, axis=0, ddof=1) / np.mean(foretold, axis=0)
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    views = ratio.mean(axis=1)
    assert views.std() < 0.1


def test_iterative_reconstruction_smooths_a_helical_slice_as_it_does_an_axial_one() -> None:
    """Noise is what differs between two scans: coarse views leave the same pattern in both."""
    scanner = water_scanner(SIEMENS, geometry=COARSE)
    sensitivity = SliceSensitivity(Z_FILTER, ROW_MM, 2.4)
    paths = scanner.paths(cylinder(80.0, 128), EXTENT_MM)
    axial_mm = sensitivity.photons_mm / sensitivity.variance_share()

    def axial(seed: int) -> dict[float, WaterPaths]:
        rng = np.random.default_rng(seed)
        return scanner.acquire(paths, {120.0: 200.0}, axial_mm, lambda _: rng).water

    def helical(seed: int) -> dict[float, WaterPaths]:
        return noisy_reader(scanner, sensitivity, seed).slice(0.0)

    noise, mean = {}, {}
    for kind, water_of in (("axial", axial), ("helical", helical)):
        scans = [
            scanner.reconstruct(water_of(seed), ("Standard",), GRID, ("fbp", "iterative-4"))
            for seed in (7, 8)
        ]
        for name in ("fbp", "iterative-4"):
            first, second = (images[120.0, "Standard", name] for images in scans)
            noise[kind, name] = (first - second).std()
            mean[kind, name] = (first + second).mean() / 2
    assert noise["helical", "fbp"] == pytest.approx(noise["axial", "fbp"], rel=0.15)
    kept = {kind: noise[kind, "iterative-4"] / noise[kind, "fbp"] for kind in ("axial", "helical")}
    assert kept["helical"] < 0.9
    assert kept["helical"] == pytest.approx(kept["axial"], abs=0.08)
    assert mean["helical", "iterative-4"] == pytest.approx(mean["helical", "fbp"], abs=2.0)


@pytest.mark.parametrize(("interpolation", "variance"), [("360LI", 2 / 3), ("180LI", 4 / 3)])
def test_noise_of_the_thinnest_slice_over_an_axial_one(interpolation: str, variance: float) -> None:
    """Interpolation's noise at pitch 1: Polacin et al. (1992). The lattice smooths it a little."""
    helical = Helical.model_validate({"pitch": 1.0, "interpolation": interpolation})
    width = {"360LI": 1.27, "180LI": 1.0}[interpolation]
    sensitivity = SliceSensitivity(helical, 1.0, width)
    variances = [
        sum(share**2 for share in sensitivity.weights(z).values()) / sensitivity.photons_mm
        for z in np.linspace(0, sensitivity.sample_mm, 21)
    ]
    assert np.mean(variances) == pytest.approx(variance, rel=0.2)
    assert np.mean(variances) < variance


def test_the_noise_index_is_that_of_the_slice_it_is_meant_for() -> None:
    """A water cylinder scanned on a helix, its slices' noise against the index."""
    law = {
        "law": "ge-smartma", "noise_index": 15.0, "noise_index_kernel": "Standard",
        "minimum_ma": 1.0, "maximum_ma": 5000.0,
    }  # fmt: skip
    scanner = water_scanner(SIEMENS, tube_current=law)
    sensitivity = SliceSensitivity(Z_FILTER, ROW_MM, 1.2)
    paths = scanner.paths(cylinder(90.0, 256), EXTENT_MM)

    def read(number: int) -> dict[float, WaterPaths]:
        rng = np.random.default_rng([11, number + 1000])
        return scanner.acquire(
            paths, {120.0: 100.0}, sensitivity.photons_mm, lambda _: rng,
            modulate=True, variance_share=sensitivity.variance_share(),
        ).water  # fmt: skip

    reader = HelicalReader(sensitivity, read, 6.0)
    slices = [slice_at(scanner, reader, 6.0 * i) for i in range(6)]
    noise = np.std([a - b for a, b in zip(slices[::2], slices[1::2], strict=True)]) / np.sqrt(2)
    assert noise == pytest.approx(15.0, rel=0.1)
