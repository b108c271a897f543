"""Scanners as data: what the bundled files say, and what a wrong file is told."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cvsct.core.errors import UsageError
from cvsct.simulation.phantom.materials import (
    WATER,
    Material,
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


MADE = tuple(name for name in definition_names() if load_definition(name).manufacturer != "Virtual")
"""Scanners after a maker's, without the two that are built to be unlike each other."""
TONED = "siemens-somatom-force-toned"


def test_scanners_of_four_makers_come_with_the_package() -> None:
    assert {GE, SIEMENS, TONED} < set(MADE)
    assert set(definition_names()) - set(MADE) == {"denoised-quiet", "fbp-noisy"}
    makers: dict[str, list[str]] = {}
    for name in set(MADE) - {TONED}:
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
        assert definition.tube_current is not None
        assert definition.helical is not None
    assert {maker: len(names) for maker, names in makers.items()} == {
        "GE MEDICAL SYSTEMS": 2, "SIEMENS": 2, "Philips": 1, "TOSHIBA": 1,
    }  # fmt: skip
    for name in (GE, SIEMENS):
        assert load_definition(name).tube.kvp == (70, 80, 100, 120, 140)


@pytest.mark.parametrize("name", sorted(set(MADE) - {GE, SIEMENS}))
def test_the_others_have_a_soft_kernel_and_a_sharp_one(name: str) -> None:
    kernels = load_definition(name).kernels.values()
    f_lp_mm = np.linspace(0, 1.4, 1401)
    soft, sharp = sorted(f_lp_mm[k.modulation(f_lp_mm) >= 0.5][-1] for k in kernels)
    assert soft < 0.5 < sharp
    assert sharp > 1.5 * soft


def test_a_definition_takes_from_its_base_what_it_does_not_give() -> None:
    base, toned = load_definition(SIEMENS), load_definition(TONED)
    assert toned.tone_hu is not None
    same = toned.model_copy(update={"name": base.name, "tone_hu": None})
    assert same == base


def test_a_table_of_a_definition_changes_its_bases_table_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'base = "{GE}"\n[geometry]\nviews = 492\n[kernels.Soft]\n'
                    "cutoff_lp_mm = 0.4\nexponent = 2.5\n")  # fmt: skip
    own, base = load_definition(path), load_definition(GE)
    assert own.geometry == base.geometry.model_copy(update={"views": 492})
    assert set(own.kernels) == {*base.kernels, "Soft"}


@pytest.mark.parametrize("base", ['"siemens"', f'"{TONED}"', "3"])
def test_a_base_that_is_no_complete_scanner_is_refused(tmp_path: Path, base: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"base = {base}\n")
    with pytest.raises(UsageError, match=r"own\.toml: base is .*; expected one of canon"):
        load_definition(path)


def test_detector_absorbs_nearly_all() -> None:
    for name in MADE:
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
