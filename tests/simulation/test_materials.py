"""Attenuation against NIST's tables, and how well two materials stand for all tissues."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.simulation.phantom import materials
from cvsct.simulation.phantom.materials import MATERIALS, Material, basis_amounts, material_named

TISSUES = (
    "water", "adipose", "muscle", "blood", "soft-tissue", "lung", "liver", "red-marrow",
    "yellow-marrow", "cartilage", "cortical-bone", "spongiosa",
)  # fmt: skip


def mass_attenuation_cm2_g(material: Material, energy_kev: float) -> float:
    per_mm = material.attenuation_per_mm(np.array([energy_kev]))[0]
    return float(10 * per_mm / material.density_g_cm3)


def hu(material: Material, energy_kev: float) -> float:
    energies_kev = np.array([energy_kev])
    ratio = material.attenuation_per_mm(energies_kev) / materials.WATER.attenuation_per_mm(
        energies_kev
    )
    return float(1000 * (ratio[0] - 1))


@pytest.mark.parametrize(
    ("name", "energy_kev", "nist_cm2_g"),
    [  # Hubbell and Seltzer, NISTIR 5632, tables 3 and 4
        ("water", 30.0, 0.3756),
        ("water", 60.0, 0.2059),
        ("water", 100.0, 0.1707),
        ("aluminium", 60.0, 0.2778),
        ("titanium", 60.0, 0.7661),
        ("cortical-bone", 60.0, 0.3148),
        ("muscle", 60.0, 0.2048),
        ("adipose", 60.0, 0.1974),
    ],
)
def test_mass_attenuation_is_nists(name: str, energy_kev: float, nist_cm2_g: float) -> None:
    value = mass_attenuation_cm2_g(MATERIALS[name], energy_kev)
    assert value == pytest.approx(nist_cm2_g, rel=0.005)


def test_attenuation_jumps_at_gadoliniums_k_edge() -> None:
    below, above = materials.GOS.attenuation_per_mm(np.array([50.0, 50.5]))
    assert above > 3 * below


@pytest.mark.parametrize("name", MATERIALS)
def test_compositions_are_whole(name: str) -> None:
    assert sum(part for _, part in MATERIALS[name].composition) == pytest.approx(1, abs=0.002)


def test_a_formula_gives_its_mass_fractions() -> None:
    assert dict(materials.WATER.composition)["H"] == pytest.approx(0.1119, abs=1e-4)
    assert dict(materials.BONE_EPOXY.composition)["Ca"] == pytest.approx(0.15 * 0.4004, abs=1e-4)


def test_tissues_have_their_published_ct_numbers() -> None:
    """At 70 keV, about the effective energy of 120 kVp."""
    assert hu(materials.ADIPOSE, 70.0) == pytest.approx(-90, abs=15)
    assert hu(materials.MUSCLE, 70.0) == pytest.approx(45, abs=10)
    assert -800 < hu(materials.LUNG, 70.0) < -700
    assert hu(materials.POLYURETHANE, 50.0) < hu(materials.POLYURETHANE, 90.0)
    assert hu(materials.BONE_EPOXY, 50.0) > hu(materials.BONE_EPOXY, 90.0)


@pytest.mark.parametrize("name", TISSUES)
def test_two_materials_stand_for_every_tissue(name: str) -> None:
    def worst(low_kev: float, high_kev: float) -> float:
        energies_kev = np.arange(low_kev, high_kev + 1)
        fitted = sum(
            amount * part.attenuation_per_mm(energies_kev)
            for amount, part in zip(basis_amounts(MATERIALS[name]), materials.BASIS, strict=True)
        )
        return float(np.abs(fitted / MATERIALS[name].attenuation_per_mm(energies_kev) - 1).max())

    assert worst(40.0, 130.0) < 0.001
    assert worst(30.0, 140.0) < 0.007
    assert worst(20.0, 140.0) < 0.03


def test_the_basis_is_made_of_itself() -> None:
    assert basis_amounts(materials.POLYURETHANE) == pytest.approx((1, 0), abs=1e-9)
    assert basis_amounts(materials.BONE_EPOXY) == pytest.approx((0, 1), abs=1e-9)


def test_an_unknown_material_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"'unobtainium'.*adipose.*water"):
        material_named("unobtainium")


def test_energies_in_ev_are_refused() -> None:
    with pytest.raises(UsageError, match="expected energies in keV"):
        materials.WATER.attenuation_per_mm(np.array([60_000.0]))


def test_a_composition_in_percent_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'ice'.*expected a sum of 1"):
        Material("ice", (("H", 11.2), ("O", 88.8)), 0.92)
