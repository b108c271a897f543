"""Scanners as data: what the bundled files say, and what a wrong file is told."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cvsct.core.errors import UsageError
from cvsct.simulation.phantom.materials import (
    BONE_EPOXY,
    POLYURETHANE,
    WATER,
    Material,
    material_named,
)
from cvsct.simulation.physics.definition import ScannerDefinition, definition_names, load_definition

GE, SIEMENS = "ge-revolution-evo", "siemens-somatom-force"


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A user's scanner: a copy of the bundled one."""
    source = resources.files("cvsct.simulation.physics") / "definitions" / f"{GE}.toml"
    path = tmp_path / "mine.toml"
    path.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def change(path: Path, old: str, new: str) -> Path:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def hu(definition: ScannerDefinition, material: Material, kvp: float) -> float:
    """CT number by the detected energy's mean attenuation, without the body's hardening."""
    spectrum = definition.spectrum(kvp)
    energies_kev = spectrum.energies_kev
    detected = spectrum.photons * energies_kev * definition.detector.absorbed_share(energies_kev)
    mu = float(detected @ material.attenuation_per_mm(energies_kev))
    return 1000 * (mu / float(detected @ WATER.attenuation_per_mm(energies_kev)) - 1)


def test_six_scanners_of_four_makers_come_with_the_package() -> None:
    assert {GE, SIEMENS} < set(definition_names())
    assert len(definition_names()) == 6
    makers: dict[str, list[str]] = {}
    for name in definition_names():
        definition = load_definition(name)
        assert definition.name == name
        assert definition.software == "virtual"
        assert {80, 100, 120} <= set(definition.tube.kvp)
        makers.setdefault(definition.manufacturer, []).append(name)
        assert definition.reconstruction is not None
        strengths = definition.reconstruction.iterative
        assert [s.blend for s in strengths] == sorted(s.blend for s in strengths)
        balances = [strength.balance for strength in strengths]
        assert balances == sorted(balances, reverse=True)
    assert {maker: len(names) for maker, names in makers.items()} == {
        "GE MEDICAL SYSTEMS": 2, "SIEMENS": 2, "Philips": 1, "TOSHIBA": 1,
    }  # fmt: skip
    for name in (GE, SIEMENS):
        assert load_definition(name).tube.kvp == (70, 80, 100, 120, 140)


@pytest.mark.parametrize("name", sorted(set(definition_names()) - {GE, SIEMENS}))
def test_the_others_have_a_soft_kernel_and_a_sharp_one(name: str) -> None:
    soft, sharp = load_definition(name).kernels.values()
    f_lp_mm = np.linspace(0, 1.4, 1401)
    half = [f_lp_mm[kernel.modulation(f_lp_mm) >= 0.5][-1] for kernel in (soft, sharp)]
    assert half[0] < 0.5 < half[1]
    assert half[1] > 1.5 * half[0]


def test_geometry_sees_the_trunk() -> None:
    for name in definition_names():
        geometry = load_definition(name).geometry
        radius_mm = geometry.source_isocentre_mm * np.sin(geometry.fan_angle_rad / 2)
        assert 240 < radius_mm < 270
    assert np.degrees(load_definition(SIEMENS).geometry.fan_angle_rad) == pytest.approx(
        52, abs=0.01
    )
    assert load_definition(GE).geometry.channel_rad == pytest.approx(1.0239 / 949)


@pytest.mark.parametrize("name", [GE, SIEMENS])
def test_ct_numbers_move_with_voltage_as_the_tables_predict(name: str) -> None:
    definition = load_definition(name)
    soft = [hu(definition, POLYURETHANE, kvp) for kvp in definition.tube.kvp]
    bone = [hu(definition, BONE_EPOXY, kvp) for kvp in definition.tube.kvp]
    assert np.all(np.diff(soft) > 5)
    assert np.all(np.diff(bone) < -10)
    assert -30 < soft[3] < 0
    assert 350 < bone[3] < 450


def test_the_vendors_differ_in_tone() -> None:
    ge, siemens = load_definition(GE), load_definition(SIEMENS)
    assert hu(ge, BONE_EPOXY, 120.0) - hu(siemens, BONE_EPOXY, 120.0) == pytest.approx(25, abs=5)


def test_bowtie_evens_out_the_water_cylinder() -> None:
    definition = load_definition(GE)
    ideal = definition.bowtie.model_copy(update={"strength": 1.0})
    fan_rad = np.linspace(-0.45, 0.45, 91)
    source_mm = definition.geometry.source_isocentre_mm
    chord_mm = 2 * np.sqrt(np.maximum(160**2 - (source_mm * np.sin(fan_rad)) ** 2, 0))
    energy_kev = np.array([60.0])
    whole = (
        ideal.thickness_mm(fan_rad, source_mm)
        * material_named("aluminium").attenuation_per_mm(energy_kev)[0]
        + chord_mm * WATER.attenuation_per_mm(energy_kev)[0]
    )
    assert np.ptp(whole) < 1e-9
    thickness_mm = definition.bowtie_mm(fan_rad)
    assert thickness_mm == pytest.approx(thickness_mm[::-1])
    assert thickness_mm[45] == definition.bowtie.minimum_mm


def test_bowtie_is_about_that_of_an_open_simulator() -> None:
    """XCIST's large bowtie, beyond its thinnest part."""
    fan_rad = np.array([0.2, 0.28, 0.4])
    assert load_definition(GE).bowtie_mm(fan_rad) == pytest.approx([11.1, 24.3, 33.0], rel=0.15)


def test_detector_absorbs_nearly_all() -> None:
    for name in definition_names():
        detector = load_definition(name).detector
        assert detector.absorbed_share(np.array([60.0]))[0] == pytest.approx(0.8, abs=0.025)


@pytest.mark.parametrize(
    ("scanner", "name", "half_lp_cm", "tenth_lp_cm"),
    [(GE, "Lung", 11.0, 13.0), (SIEMENS, "Bl64", 8.0, 10.8), (SIEMENS, "Br40", 3.9, 6.4)],
)
def test_kernels(scanner: str, name: str, half_lp_cm: float, tenth_lp_cm: float) -> None:
    kernel = load_definition(scanner).kernel(name)
    f_lp_mm = np.linspace(0, 1.4, 1401)
    modulation = kernel.modulation(f_lp_mm)
    assert modulation[0] == 1
    assert 10 * f_lp_mm[modulation >= 0.5][-1] == pytest.approx(half_lp_cm, abs=0.1)
    assert 10 * f_lp_mm[modulation >= 0.1][-1] == pytest.approx(tenth_lp_cm, abs=0.1)
    assert kernel.modulation(f_lp_mm.reshape(3, 467)).shape == (3, 467)


def test_dose_is_matched_by_mas() -> None:
    ge, siemens = load_definition(GE), load_definition(SIEMENS)
    for kvp in ge.tube.kvp:
        assert siemens.mas_for(5.0, kvp) > ge.mas_for(5.0, kvp)
    assert ge.mas_for(9.3, 120.0) == pytest.approx(100, rel=0.02)


def test_a_definition_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_definition(GE).geometry.views = 1


def test_the_users_own_file_is_a_scanner(own_file: Path) -> None:
    change(own_file, "views = 984", "views = 492")
    assert load_definition(own_file).geometry.views == 492
    assert load_definition(str(own_file)).geometry.views == 492


def test_unknown_scanner_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=f"no scanner 'philips'.*{GE}.*{SIEMENS}"):
        load_definition("philips")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("views = 984", "", "geometry.views is missing"),
        ("views = 984", "veiws = 984", "geometry.veiws is no field of a scanner"),
        ("channels = 888", "channels = -1", "geometry.channels: .*greater than.*, got -1"),
        ("anode_deg = 7.0", 'anode_deg = "steep"', "tube.anode_deg: .*valid number.*'steep'"),
        ("anode_deg = 7.0", "anode_deg = 12.0", "tube: no spectra .*12 degrees; there are 7, 8"),
        ("70, 80, 100,", "70, 80, 110,", "tube: no spectrum at 110 kVp; there are 70, 80, 100"),
        ('"lutetium-garnet"', '"cheese"', "detector.material: no material is called 'cheese'"),
        ("{ aluminium = 6.0 }", "{ }", "tube.filtration_mm: .*at least 1"),
        ("strength = 0.42", "strength = 1.5", "bowtie.strength: .*less than or equal to 1"),
        ("strength = 0.42", "strength = nan", "bowtie.strength: .*finite"),
        ("channel_mm = 1.0239", "channel_mm = 3.0", "geometry: .*fan of 161 degrees"),
        ('"quarter-offset"', '"none"', "geometry.sampling: .*'quarter-offset' or 'flying"),
        ("isocentre_mm = 541.0", "isocentre_mm = 1541.0", "geometry: .*must exceed"),
        ("cutoff_lp_mm = 1.10", "", "kernels.Lung.cutoff_lp_mm is missing"),
        ("80 = ", "90 = ", "must name the same voltages.*80, 90"),
        ("[geometry]", "[geometry", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_told_file_and_field(own_file: Path, old: str, new: str, told: str) -> None:
    change(own_file, old, new)
    with pytest.raises(UsageError, match=told) as caught:
        load_definition(own_file)
    assert str(caught.value).startswith(f"{own_file}: ")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a TOML file"):
        load_definition(path)


def test_unknown_kernel_and_voltage_are_refused_with_the_list() -> None:
    definition = load_definition(SIEMENS)
    with pytest.raises(UsageError, match="no kernel 'Lung'; it has Bl64, Br40"):
        definition.kernel("Lung")
    with pytest.raises(UsageError, match="no 110 kVp; it has 70, 80, 100, 120, 140"):
        definition.spectrum(110.0)
    with pytest.raises(UsageError, match="no 110 kVp"):
        definition.mas_for(5.0, 110.0)
