"""Tube spectra against published beam qualities and doses."""

from __future__ import annotations

import numpy as np
import pytest

from cvsct.core.errors import UsageError
from cvsct.simulation.phantom.materials import ALUMINIUM
from cvsct.simulation.physics.spectrum import Spectrum, anode_angles_deg, tube_spectrum

VOLTAGES_KVP = (70.0, 80.0, 100.0, 120.0, 140.0)
GE = (7.0, {"aluminium": 6.0})
SIEMENS = (8.0, {"aluminium": 2.5, "titanium": 0.9})

# Mass energy-absorption coefficient of dry air (Hubbell and Seltzer, NISTIR 5632, table 4).
AIR_KEV = np.array([10, 15, 20, 30, 40, 50, 60, 80, 100, 150.0])
AIR_CM2_G = np.array(
    [4.742, 1.334, 0.5389, 0.1537, 0.06833, 0.04098, 0.03041, 0.02407, 0.02325, 0.02496]
)


def kerma_weights(spectrum: Spectrum) -> np.ndarray:
    """Air kerma of each bin in keV cm2 / (g mm2 mAs)."""
    absorbed = np.exp(np.interp(np.log(spectrum.energies_kev), np.log(AIR_KEV), np.log(AIR_CM2_G)))
    return np.asarray(spectrum.photons * spectrum.energies_kev * absorbed)


def half_value_layer_mm(spectrum: Spectrum) -> float:
    """Aluminium that halves the air kerma."""
    weights, per_mm = kerma_weights(spectrum), ALUMINIUM.attenuation_per_mm(spectrum.energies_kev)
    thickness_mm = np.linspace(0, 20, 2001)
    kerma = np.exp(-np.outer(thickness_mm, per_mm)) @ weights / weights.sum()
    return float(np.interp(-0.5, -kerma, thickness_mm))


@pytest.mark.parametrize(("tube", "low_mm", "high_mm"), [(GE, 6.5, 7.5), (SIEMENS, 7.0, 9.0)])
def test_half_value_layer_is_that_of_ct(
    tube: tuple[float, dict[str, float]], low_mm: float, high_mm: float
) -> None:
    """CT at 120 kVp: 6.5 to 9 mm of aluminium."""
    assert low_mm < half_value_layer_mm(tube_spectrum(tube[0], 120.0, tube[1])) < high_mm


def test_dose_free_in_air_is_that_of_ct() -> None:
    """20 to 35 mGy per 100 mAs at the isocentre and 120 kVp."""
    per_mm2_mas = kerma_weights(tube_spectrum(GE[0], 120.0, GE[1])).sum()
    joule_per_kg = per_mm2_mas * 1.602e-16 * 100 * 1000  # keV; mm2 in a cm2; g in a kg
    assert 20 < 1000 * 100 * joule_per_kg * (1000 / 541) ** 2 < 35


@pytest.mark.parametrize("tube", [GE, SIEMENS])
def test_mean_energy_and_output_rise_with_voltage(tube: tuple[float, dict[str, float]]) -> None:
    spectra = [tube_spectrum(tube[0], kvp, tube[1]) for kvp in VOLTAGES_KVP]
    means_kev = [spectrum.mean_energy_kev for spectrum in spectra]
    assert np.all(np.diff(means_kev) > 2)
    assert np.all(np.diff([spectrum.photons.sum() for spectrum in spectra]) > 0)
    assert all(spectrum.energies_kev.max() < spectrum.kvp for spectrum in spectra)


def test_titanium_hardens_more() -> None:
    ge, siemens = (tube_spectrum(tube[0], 120.0, tube[1]) for tube in (GE, SIEMENS))
    assert ge.mean_energy_kev == pytest.approx(60.7, abs=0.5)
    assert siemens.mean_energy_kev == pytest.approx(63.9, abs=0.5)


@pytest.mark.parametrize("kvp", VOLTAGES_KVP)
def test_bins_keep_photons_and_energy(kvp: float) -> None:
    fine = tube_spectrum(*_with(GE, kvp), bin_kev=1.0)
    coarse = tube_spectrum(*_with(GE, kvp), bin_kev=4.0)
    assert coarse.photons.sum() == pytest.approx(fine.photons.sum(), rel=1e-4)
    assert coarse.mean_energy_kev == pytest.approx(fine.mean_energy_kev, rel=1e-4)
    assert len(coarse.photons) < len(fine.photons) / 3
    assert np.all(np.diff(coarse.energies_kev) > 0)


def test_filters_multiply() -> None:
    once = tube_spectrum(7.0, 100.0, {"aluminium": 4.0}, 1.0)
    more = tube_spectrum(7.0, 100.0, {"aluminium": 6.0}, 1.0)
    kept = np.isin(once.energies_kev.round(3), more.energies_kev.round(3))
    passed = np.exp(-2 * ALUMINIUM.attenuation_per_mm(more.energies_kev))
    assert more.photons == pytest.approx(once.photons[kept] * passed, rel=1e-9)


def test_tungstens_characteristic_lines_stand_out() -> None:
    spectrum = tube_spectrum(7.0, 120.0, {"aluminium": 6.0}, 1.0)
    by_kev = dict(zip(spectrum.energies_kev.round(1), spectrum.photons, strict=True))
    assert by_kev[59.5] > 3 * by_kev[55.5]
    assert by_kev[67.5] > 1.5 * by_kev[65.5]


def test_what_there_is_no_spectrum_for_is_refused_with_what_there_is() -> None:
    assert anode_angles_deg() == (7.0, 8.0)
    with pytest.raises(UsageError, match=r"110 kVp; there are 70, 80, 100, 120, 140 kVp"):
        tube_spectrum(7.0, 110.0, {})
    with pytest.raises(UsageError, match=r"12 degrees; there are 7, 8"):
        tube_spectrum(12.0, 120.0, {})
    with pytest.raises(UsageError, match="no material is called 'lead'"):
        tube_spectrum(7.0, 120.0, {"lead": 1.0})
    with pytest.raises(UsageError, match="-1 mm aluminium; expected 0 mm or more"):
        tube_spectrum(7.0, 120.0, {"aluminium": -1.0})
    with pytest.raises(UsageError, match="expected 1 keV or more"):
        tube_spectrum(7.0, 120.0, {}, bin_kev=0.5)


def _with(
    tube: tuple[float, dict[str, float]], kvp: float
) -> tuple[float, float, dict[str, float]]:
    return tube[0], kvp, tube[1]
