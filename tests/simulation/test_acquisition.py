"""Tube current, scatter, hardening, tone and the turning gantry against independent physics."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.simulation.phantom.materials import BONE_EPOXY, WATER
from cvsct.simulation.physics.definition import ScannerDefinition, Scatter
from cvsct.simulation.physics.recon import ImageGrid
from cvsct.simulation.physics.scan import VirtualScanner
from cvsct.simulation.physics.scatter import ScatterModel
from tests.support.slices import disc
from tests.support.water import (
    EXTENT_MM,
    changed_definition,
    cylinder,
    ellipse,
    signal_behind,
    water_scanner,
)

GE, SIEMENS = "ge-revolution-evo", "siemens-somatom-force"
LIMITS = {"minimum_ma": 1.0, "maximum_ma": 5000.0}
CARE = {"law": "siemens-care-dose4d-average", "reference_water_mm": 250.0, **LIMITS}
INDEX = {"law": "ge-smartma", "noise_index": 12.0, "noise_index_kernel": "Standard", **LIMITS}
SCATTER = {
    "ratio": 0.10, "forward_rad": 0.10, "multiple_rad": 0.30, "multiple_water_mm": 200.0,
    "residue": 0.2, "correction_noise": 0.0,
}  # fmt: skip
MIDDLE = ImageGrid(size_px=96, fov_mm=60.0)


def noise_sd(scanner: VirtualScanner, amounts: np.ndarray, modulate: bool, pairs: int = 3) -> float:
    """Standard deviation in the middle, from the differences of repeated scans."""
    paths = scanner.paths(amounts, EXTENT_MM)
    images = []
    for seed in range(2 * pairs):
        acquired = scanner.acquire(
            paths, {120.0: 100.0}, 5.0, lambda _, seed=seed: np.random.default_rng(seed), modulate
        )
        images.append(scanner.reconstruct(acquired.water, ("Standard",), MIDDLE))
    key = (120.0, "Standard", "fbp")
    differences = [
        first[key] - second[key] for first, second in zip(images[::2], images[1::2], strict=True)
    ]
    return float(np.sqrt(np.mean(np.square(differences)) / 2))


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_lateral_over_ap_current_is_the_ratio_of_attenuations_to_the_exponent(
    exponent: float,
) -> None:
    scanner = water_scanner(GE, tube_current={**CARE, "angular_exponent": exponent})
    paths = scanner.paths(ellipse(160.0, 110.0), EXTENT_MM)
    acquired = scanner.acquire(paths, {120.0: 100.0}, 5.0, lambda _: None, modulate=True)
    shares = acquired.exposures[120.0].shares
    assert shares is not None
    offset = np.linspace(-20.0, 20.0, 81)
    logs = []
    for along, across in ((320.0, 110.0), (220.0, 160.0)):
        path = along * np.sqrt(1 - (offset / across) ** 2)
        fan = np.arcsin(offset / scanner.definition.geometry.source_isocentre_mm)
        logs.append(-np.log(signal_behind(scanner.definition, 120.0, path, fan)).mean())
    quarter = len(shares) // 4
    for lateral, ap in ((quarter, 0), (3 * quarter, 2 * quarter)):
        expected = np.exp(exponent * (logs[0] - logs[1]))
        assert shares[lateral] / shares[ap] == pytest.approx(expected, rel=0.01)
    assert shares.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("name", [GE, SIEMENS])
def test_noise_in_water_is_the_noise_index(name: str) -> None:
    scanner = water_scanner(name, tube_current=INDEX)
    for radius in (90.0, 140.0):
        water = cylinder(radius, 256)
        assert noise_sd(scanner, water, modulate=True) == pytest.approx(12.0, rel=0.05)
    water = ellipse(160.0, 110.0, 256)
    assert noise_sd(scanner, water, modulate=True) == pytest.approx(12.0, rel=0.05)


def test_noise_along_z_is_flatter_with_modulation() -> None:
    """A cone's slices: noise goes as attenuation to (1 - exponent) / 2."""
    scanner = water_scanner(GE, tube_current=CARE)
    radii = (90.0, 115.0, 140.0)
    flat, modulated = (
        [noise_sd(scanner, cylinder(radius, 256), modulate) for radius in radii]
        for modulate in (False, True)
    )
    assert max(flat) / min(flat) > 2.0
    gain = np.log(max(modulated) / min(modulated)) / np.log(max(flat) / min(flat))
    assert gain == pytest.approx(0.5, abs=0.06)
    assert modulated == sorted(modulated)


def test_the_current_stays_within_its_limits() -> None:
    law = {**CARE, "minimum_ma": 150.0, "maximum_ma": 260.0}
    scanner = water_scanner(GE, tube_current=law)
    paths = scanner.paths(ellipse(170.0, 100.0, 256), EXTENT_MM)
    exposure = scanner.acquire(paths, {120.0: 100.0}, 5.0, lambda _: None, modulate=True).exposures[
        120.0
    ]
    assert exposure.shares is not None
    current = exposure.mas * exposure.shares / scanner.definition.protocol.rotation_s
    assert current.min() == pytest.approx(150.0)
    assert current.max() == pytest.approx(260.0)
    assert exposure.mas == pytest.approx(current.mean() * scanner.definition.protocol.rotation_s)


def test_a_scanner_without_the_section_refuses_to_modulate() -> None:
    scanner = water_scanner("fbp-noisy")
    paths = scanner.paths(cylinder(50.0, 64), EXTENT_MM)
    with pytest.raises(UsageError, match="no section tube_current"):
        scanner.acquire(paths, {120.0: 100.0}, 5.0, lambda _: None, modulate=True)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({**CARE, "noise_index": 10.0, "noise_index_kernel": "Standard"}, "give either z_exponent"),
        ({"angular_exponent": 0.5, **LIMITS}, "give either z_exponent"),
        ({**CARE, "law": "none"}, "law must be one of siemens-care-dose4d-weak"),
        ({**INDEX, "noise_index_kernel": "Sharp"}, "noise_index_kernel must be one of Lung"),
        ({**CARE, "maximum_ma": 0.5}, "minimum_ma must lie below"),
    ],
)
def test_a_law_that_cannot_be_followed_is_refused(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        changed_definition(GE, tube_current=section)


def expected_scatter(
    definition: ScannerDefinition, kvp: float, radius_mm: float, fan: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Water paths, primary and scattered signal over the blank one, from plain integrals.

    The definition's formula in float64 without any grid of readings: potential = signal times its
    logarithm, split by exp(-water path at 30 cm's attenuation), each part folded with a Gaussian.
    """
    isocentre = definition.geometry.source_isocentre_mm

    def parts(radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        path = 2 * np.sqrt(np.maximum(radius**2 - (isocentre * np.sin(fan)) ** 2, 0))
        through = signal_behind(definition, kvp, path, fan)
        bowtie = signal_behind_bowtie(definition, kvp, fan)
        return path, through, through * bowtie, -np.log(through)

    reference_log = parts(150.0)[3][len(fan) // 2]
    scale_log = definition.scatter.multiple_water_mm * reference_log / 300.0  # type: ignore[union-attr]
    section = definition.scatter
    assert section is not None

    def folded(signal: np.ndarray, log: np.ndarray) -> np.ndarray:
        single = np.exp(-log / scale_log)
        step = fan[1] - fan[0]
        total = np.zeros_like(fan)
        for share, sigma in ((single, section.forward_rad), (1 - single, section.multiple_rad)):
            near = np.exp(-((fan[:, None] - fan[None, :]) ** 2) / (2 * sigma**2))
            total += near @ (signal * log * share) * step / (sigma * np.sqrt(2 * np.pi))
        return total

    _, _, reference, log = parts(150.0)
    middle = len(fan) // 2
    scale = section.ratio * reference[middle] / folded(reference, log)[middle]
    path, _, signal, log = parts(radius_mm)
    return path, signal, scale * folded(signal, log)


def signal_behind_bowtie(definition: ScannerDefinition, kvp: float, fan: np.ndarray) -> np.ndarray:
    """Signal without an object over that of the central ray."""
    from tests.support.water import ALUMINIUM

    spectrum = definition.spectrum(kvp, bin_kev=1.0)
    energies = spectrum.energies_kev
    weights = spectrum.photons * definition.detector.absorbed_share(energies) * energies
    bowtie = np.outer(definition.bowtie_mm(fan), ALUMINIUM.attenuation_per_mm(energies))
    return (weights * np.exp(-bowtie)).sum(axis=1) / weights.sum()


@cache
def water_logs(water_mm: tuple[float, ...], fan: tuple[float, ...]) -> np.ndarray:
    """Logarithms of the signal behind paths of water, a row for each angle of the fan."""
    angle, path = (axis.ravel() for axis in np.meshgrid(fan, water_mm, indexing="ij"))
    signal = signal_behind(changed_definition(GE), 120.0, path, angle)
    return -np.log(signal).reshape(len(fan), len(water_mm))


@pytest.mark.parametrize("residue", [0.3, -0.3])
def test_scatter_that_is_left_darkens_the_middle_of_water_as_reckoned(residue: float) -> None:
    """Each reading's path from the signal with what is left, then an inverse Abel transform."""
    scanner = water_scanner(GE, scatter={**SCATTER, "residue": residue})
    definition = scanner.definition
    half = definition.geometry.fan_angle_rad / 2
    fan = np.linspace(-half, half, 401)
    path, primary, scatter = expected_scatter(definition, 120.0, 150.0, fan)
    water = np.linspace(0, 450, 181)
    seen = np.empty_like(fan)
    for i, logs in enumerate(water_logs(tuple(water), tuple(fan))):
        left = np.log(primary[i] / (primary[i] + residue * scatter[i]))
        true = np.interp(path[i], water, logs)
        seen[i] = np.interp(true + left, logs, water) - path[i]
    isocentre = definition.geometry.source_isocentre_mm
    angles = ((np.arange(2000) + 0.5) / 2000 - 0.5) * np.pi
    distance = isocentre * np.sin(half) * 0.999 * np.sin(angles)
    error = np.interp(np.arcsin(distance / isocentre), fan, seen)
    middle = -(np.gradient(error, angles) / distance).mean() / 2
    images = scanner.images(
        cylinder(150.0), EXTENT_MM, {120.0: 100.0}, ("Standard",), 5.0, MIDDLE, lambda _: None
    )
    measured = float(images[120.0, "Standard"][32:64, 32:64].mean())
    assert abs(measured) > 5.0
    assert measured == pytest.approx(1000 * middle, abs=1.0)


def test_a_perfect_scatter_correction_leaves_water_at_0_and_more_noise() -> None:
    perfect = {**SCATTER, "residue": 0.0}
    quiet = water_scanner(GE, scatter=perfect)
    image = quiet.images(
        cylinder(150.0, 256), EXTENT_MM, {120.0: 100.0}, ("Standard",), 5.0, MIDDLE, lambda _: None
    )[120.0, "Standard"]
    assert image.mean() == pytest.approx(0.0, abs=1.0)
    without = noise_sd(water_scanner(GE), cylinder(150.0, 256), modulate=False)
    with_it = noise_sd(quiet, cylinder(150.0, 256), modulate=False)
    # Behind 30 cm there is a tenth more energy in the signal, of photons a little softer.
    assert with_it / without == pytest.approx(np.sqrt(1.10), rel=0.03)


def test_the_correction_has_noise_of_its_own_smooth_along_a_view() -> None:
    fan = np.linspace(-0.45, 0.45, 900)
    blank = np.full(900, 1e4)
    section = Scatter.model_validate({**SCATTER, "correction_noise": 0.1})
    model = ScatterModel(section, fan, blank, blank * np.exp(-6.0 * np.cos(2 * fan)), 0.02)
    scatter = np.full((400, 900), 500.0, np.float32)
    assert model.estimate(scatter, None) == pytest.approx(400.0)
    estimate = model.estimate(scatter, np.random.default_rng(0))
    error = estimate / 400.0 - 1
    assert error.mean() == pytest.approx(0.0, abs=0.01)
    assert error[:, 450].std() == pytest.approx(0.1, rel=0.15)
    assert np.corrcoef(error[:, 430], error[:, 470])[0, 1] > 0.9
    assert abs(np.corrcoef(error[:-1, 450], error[1:, 450])[0, 1]) < 0.2


def test_inserts_follow_the_tone_curve() -> None:
    curve = ((-1000.0, 0.0), (-100.0, -4.0), (0.0, 3.0), (60.0, 5.0), (400.0, -6.0))
    places = ((0.0, 55.0), (52.0, 17.0), (32.0, -45.0), (-32.0, -45.0), (-52.0, 17.0))
    amounts = cylinder(100.0)
    for (hu, _), at in zip(curve, places, strict=True):
        amounts[0] += np.float32(hu / 1000) * disc(512, EXTENT_MM, 14.0, at)
    grid = ImageGrid(256, 220.0)
    plain, curved = (
        water_scanner(GE, **changes).images(
            amounts, EXTENT_MM, {120.0: 100.0}, ("Standard",), 5.0, grid, lambda _: None
        )[120.0, "Standard"]
        for changes in ({}, {"tone_hu": curve})
    )
    x, y = grid.axis_mm(0)[None], grid.axis_mm(1)[:, None]
    for (hu, offset), at in zip(curve, places, strict=True):
        roi = np.hypot(x - at[0], y - at[1]) < 8.0
        assert plain[roi].mean() == pytest.approx(hu, abs=4.0)
        assert (curved[roi] - plain[roi]).mean() == pytest.approx(offset, abs=0.3)


@pytest.mark.parametrize(
    "curve", [((0.0, 0.0), (0.0, 3.0)), ((0.0, 10.0), (5.0, 0.0)), ((0.0, 1.0),)]
)
def test_a_tone_curve_that_turns_back_is_refused(curve: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="tone_hu"):
        changed_definition(GE, tone_hu=curve)


DENSITY = 2.5


def two_bones() -> np.ndarray:
    amounts = cylinder(100.0)
    for x in (-60.0, 60.0):
        bone = disc(512, EXTENT_MM, 18.0, (x, 0.0))
        amounts[0] -= bone
        amounts[1] += np.float32(DENSITY) * bone
    return amounts


def test_bone_correction_takes_the_dark_band_away_by_its_share() -> None:
    """Corrected in full, bone reads as at one energy and the water between two bones as water."""
    bands, bones = {}, {}
    grid = ImageGrid(256, 220.0)
    x, y = grid.axis_mm(0)[None], grid.axis_mm(1)[:, None]
    for share in (0.0, 0.5, 1.0):
        image = water_scanner(SIEMENS, beam_hardening={"bone_correction": share}).images(
            two_bones(), EXTENT_MM, {120.0: 100.0}, ("Br40",), 5.0, grid, lambda _: None
        )[120.0, "Br40"]
        bands[share] = image[np.hypot(x, y) < 12.0].mean()
        bones[share] = image[np.hypot(x - 60.0, y) < 10.0].mean()
    assert bands[0.0] < -4.0
    assert bands[1.0] == pytest.approx(0.0, abs=0.5)
    assert bands[0.5] == pytest.approx(bands[0.0] / 2, abs=0.3)
    definition = changed_definition(SIEMENS)
    spectrum = definition.spectrum(120.0, bin_kev=1.0)
    energies = spectrum.energies_kev
    seen = spectrum.photons * definition.detector.absorbed_share(energies) * energies
    seen = seen * np.exp(-200.0 * WATER.attenuation_per_mm(energies))
    energy = np.array([np.average(energies, weights=seen)])
    ratio = BONE_EPOXY.attenuation_per_mm(energy) / WATER.attenuation_per_mm(energy)
    assert bones[1.0] == pytest.approx(1000 * DENSITY * ratio[0] - 1000, abs=8.0)


def test_a_low_order_of_calibration_leaves_cupping_and_20_cm_of_water_right() -> None:
    grid = ImageGrid(128, 280.0)
    r = np.hypot(grid.axis_mm(0)[None], grid.axis_mm(1)[:, None])
    cups = {}
    for order in (1, 2, 5):
        scanner = water_scanner(GE, beam_hardening={"calibration_order": order})
        image = scanner.images(
            cylinder(120.0), EXTENT_MM, {120.0: 100.0}, ("Standard",), 5.0, grid, lambda _: None
        )[120.0, "Standard"]
        cups[order] = image[(r > 95) & (r < 110)].mean() - image[r < 25].mean()
    assert cups[1] > 20.0
    assert cups[1] > 5 * abs(cups[2])
    assert cups[5] == pytest.approx(0.0, abs=0.5)
    definition = changed_definition(GE, beam_hardening={"calibration_order": 1})
    from cvsct.simulation.physics.detector import DetectorModel

    middle = DetectorModel(definition, 120.0, np.array([-0.0005, 0.0005]), 984, (WATER, BONE_EPOXY))
    paths = np.zeros((2, 1, 2), np.float32)
    paths[0] = 200.0
    readings = middle.readings([paths], 1e6, 1.0, None)
    assert middle.water_mm(readings) == pytest.approx(200.0, abs=0.05)


def tangential_blur_mm(radius_mm: float) -> float:
    """Width of the uniform blur along the circle that the turning gantry adds at a radius.

    With few views, so that the blur is wide, read at a frequency that they carry.
    """
    f = 10.0 / radius_mm
    grid = ImageGrid(128, radius_mm, (radius_mm, 0.0))
    extent = 3 * radius_mm
    amounts = np.zeros((2, 768, 768), np.float32)
    amounts[0] = disc(768, extent, radius_mm / 40, (radius_mm, 0.0))
    soft = {"Soft": {"cutoff_lp_mm": 15.0 / radius_mm, "exponent": 2.5}}
    modulations = []
    for count in (1, 7):
        geometry = {
            **changed_definition(GE).geometry.model_dump(),
            "views": 240,
            "sub_views": count,
        }
        image = water_scanner(GE, geometry=geometry, kernels=soft, tube_current=None).images(
            amounts, extent, {120.0: 100.0}, ("Soft",), 5.0, grid, lambda _: None
        )[120.0, "Soft"]
        along = image[:, 32:96].sum(axis=1, dtype=np.float64)
        along -= along[[0, 1, -2, -1]].mean()
        wave = np.exp(-2j * np.pi * f * grid.axis_mm(1))
        modulations.append(abs((along * wave).sum()) / along.sum())
    widths = np.linspace(0.0, 0.9 / f, 4000)
    return float(np.interp(-modulations[1] / modulations[0], -np.sinc(f * widths), widths))


def test_the_turning_gantry_blurs_in_proportion_to_the_radius() -> None:
    turn = 2 * np.pi / 240
    for radius in (60.0, 90.0, 120.0):
        assert tangential_blur_mm(radius) == pytest.approx(radius * turn, rel=0.08)


def test_the_turning_gantry_throws_fewer_ghosts() -> None:
    """What the views cannot carry is blurred, no longer folded back."""
    left = {}
    for count in (1, 5):
        scanner = water_scanner(GE, sub_views=count)
        extent = 260.0
        amounts = np.zeros((2, 2048, 2048), np.float32)
        amounts[0] = 0.1 * disc(2048, extent, 0.25, (100.0, 0.0))
        grid = ImageGrid(256, 40.0, (100.0, 0.0))
        image = (
            scanner.images(amounts, extent, {120.0: 100.0}, ("Lung",), 5.0, grid, lambda _: None)[
                120.0, "Lung"
            ]
            + 1000
        )
        place = (np.arange(256) - 127.5) * grid.pixel_mm
        away = np.hypot(place[None], place[:, None]) > 8.0
        left[count] = image[away].std() / image.max()
    assert left[5] < 0.75 * left[1]


def test_one_sub_view_is_the_still_gantry_to_the_bit() -> None:
    amounts = cylinder(100.0, 256)
    images = [
        water_scanner(GE, sub_views=count).images(
            amounts, EXTENT_MM, {120.0: 100.0}, ("Lung",), 5.0, MIDDLE,
            lambda _: np.random.default_rng(0),
        )[120.0, "Lung"]
        for count in (1, 3)
    ]  # fmt: skip
    still = water_scanner(GE).images(
        amounts, EXTENT_MM, {120.0: 100.0}, ("Lung",), 5.0, MIDDLE,
        lambda _: np.random.default_rng(0),
    )[120.0, "Lung"]  # fmt: skip
    assert np.array_equal(images[0], still)
    assert not np.array_equal(images[1], still)
    assert changed_definition(GE).record() == changed_definition(GE, sub_views=1).record()
