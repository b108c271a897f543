"""Spectrum of an X-ray tube behind its filters, in energy bins.

The unfiltered spectra lie beside this module as tables, one file per anode angle, made by
`scripts/make_spectra.py` with spekpy. They begin at 10 keV, below which no photon passes the
filters of a CT tube. The heel effect is neglected: the spectrum of the central ray holds for the
whole fan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import UsageError
from cvsct.simulation.phantom.materials import material_named

FOLDER = "spectra"
LEAST_SHARE = 1e-6
"""Bins with a smaller share of the photons than this are left out."""


@dataclass(frozen=True)
class Spectrum:
    """Spectrum on the central ray, 1000 mm from the source.

    Args:
        kvp: peak tube voltage.
        energies_kev: photon-weighted mean energy of each bin, rising.
        photons: photons per mm2 and mAs in each bin.
    """

    kvp: float
    energies_kev: Float[np.ndarray, " energies"]
    photons: Float[np.ndarray, " energies"]

    @property
    def mean_energy_kev(self) -> float:
        """Photon-weighted mean energy of the spectrum."""
        return float(np.average(self.energies_kev, weights=self.photons))


@dataclass(frozen=True)
class _Table:
    """Unfiltered spectra of one anode angle in 1 keV bins, by tube voltage."""

    energies_kev: Float[np.ndarray, " fine"]
    photons: Mapping[float, Float[np.ndarray, " fine"]]


def anode_angles_deg() -> tuple[float, ...]:
    """Anode angles for which there are spectra."""
    files = (resources.files(__package__) / FOLDER).iterdir()
    names = (file.name for file in files if file.name.endswith("deg.csv"))
    return tuple(
        sorted(float(name.removeprefix("tungsten-").removesuffix("deg.csv")) for name in names)
    )


@cache
def _table(anode_deg: float) -> _Table:
    """Read the spectra of an anode angle.

    Raises:
        UsageError: if there are no spectra for this angle.
    """
    if anode_deg not in anode_angles_deg():
        known = ", ".join(f"{angle:g}" for angle in anode_angles_deg())
        raise UsageError(
            f"no spectra for an anode angle of {anode_deg:g} degrees; there are {known} "
            "(scripts/make_spectra.py makes others)"
        )
    file = resources.files(__package__) / FOLDER / f"tungsten-{anode_deg:g}deg.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    head, *rows = (line.split(",") for line in lines if not line.startswith("#"))
    values = np.array(rows, dtype=np.float64)
    photons = {float(kvp): values[:, 1 + index] for index, kvp in enumerate(head[1:])}
    return _Table(values[:, 0], photons)


def tube_spectrum(
    anode_deg: float, kvp: float, filtration_mm: Mapping[str, float], bin_kev: float = 4.0
) -> Spectrum:
    """Spectrum of a tungsten anode behind its filters.

    Args:
        anode_deg: angle of the anode's surface to the central ray.
        kvp: tube voltage, one of those in the tables.
        filtration_mm: thickness of the total filtration by material, inherent filtration included.
        bin_kev: width of the bins; filters are applied before, in bins of 1 keV.

    Raises:
        UsageError: if there is no such anode angle, voltage or material, a thickness is negative
            or the bin narrower than 1 keV.
    """
    table = _table(anode_deg)
    if kvp not in table.photons:
        known = ", ".join(f"{voltage:g}" for voltage in table.photons)
        raise UsageError(
            f"no spectrum at {kvp:g} kVp; there are {known} kVp, none in between is interpolated"
        )
    if not bin_kev >= 1:
        raise UsageError(f"energy bins of {bin_kev:g} keV are too narrow; expected 1 keV or more")
    fine = table.photons[kvp].copy()
    for name, thickness_mm in filtration_mm.items():
        if not thickness_mm >= 0:
            raise UsageError(f"filter of {thickness_mm:g} mm {name}; expected 0 mm or more")
        fine *= np.exp(-thickness_mm * material_named(name).attenuation_per_mm(table.energies_kev))
    return _binned(kvp, table.energies_kev, fine, bin_kev)


def _binned(
    kvp: float,
    energies_kev: Float[np.ndarray, " fine"],
    fine: Float[np.ndarray, " fine"],
    bin_kev: float,
) -> Spectrum:
    """Sum a spectrum into bins, each at its mean energy; almost empty bins are left out."""
    bins = ((energies_kev - energies_kev[0]) / bin_kev).astype(int)
    photons = np.bincount(bins, weights=fine)
    energy = np.bincount(bins, weights=fine * energies_kev)
    is_kept = photons > LEAST_SHARE * photons.sum()
    return Spectrum(kvp, energy[is_kept] / photons[is_kept], photons[is_kept])
