"""Water and inserts for the virtual scanners, and sums over spectra that owe nothing to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvsct.simulation.phantom.materials import BONE_EPOXY, WATER, Material
from cvsct.simulation.physics.definition import Kernel, ScannerDefinition, load_definition
from cvsct.simulation.physics.scan import VirtualScanner
from tests.support.slices import disc

EXTENT_MM = 400.0
STANDARD = Kernel(cutoff_lp_mm=0.42, exponent=2.5)
"""A soft body kernel; its modulation is 50 % at 4.2 and 10 % at 6.8 lp/cm."""
ALUMINIUM = Material("aluminium", (("Al", 1.0),), 2.699)


def changed_definition(name: str, **changes: Any) -> ScannerDefinition:
    """A scanner of the package with a standard kernel and some sections changed."""
    scanner = load_definition(name)
    plain = {**scanner.record(), **changes}
    plain["kernels"] = {**plain["kernels"], "Standard": STANDARD.model_dump()}
    if "sub_views" in plain:
        plain["geometry"]["sub_views"] = plain.pop("sub_views")
    return ScannerDefinition.model_validate(plain)


def water_scanner(name: str, **changes: Any) -> VirtualScanner:
    """A scanner whose first map holds amounts of water."""
    return VirtualScanner(changed_definition(name, **changes), (WATER, BONE_EPOXY))


def cylinder(radius_mm: float, size: int = 512) -> np.ndarray:
    """Maps of a centred cylinder of the first material."""
    amounts = np.zeros((2, size, size), np.float32)
    amounts[0] = disc(size, EXTENT_MM, radius_mm)
    return amounts


def ellipse(half_x_mm: float, half_y_mm: float, size: int = 512) -> np.ndarray:
    """Maps of a centred elliptic cylinder of the first material."""
    place = (np.arange(4 * size) + 0.5) * (EXTENT_MM / 4 / size) - EXTENT_MM / 2
    inside = (place[None] / half_x_mm) ** 2 + (place[:, None] / half_y_mm) ** 2 < 1
    amounts = np.zeros((2, size, size), np.float32)
    amounts[0] = inside.reshape(size, 4, size, 4).mean(axis=(1, 3))
    return amounts


def signal_behind(
    scanner: ScannerDefinition, kvp: float, water_mm: np.ndarray, fan_rad: np.ndarray
) -> np.ndarray:
    """Energy detected behind these water paths over that without them, in 1 keV bins."""
    spectrum = scanner.spectrum(kvp, bin_kev=1.0)
    energies = spectrum.energies_kev
    weights = spectrum.photons * scanner.detector.absorbed_share(energies) * energies
    bowtie = np.outer(scanner.bowtie_mm(fan_rad), ALUMINIUM.attenuation_per_mm(energies))
    seen = weights * np.exp(-bowtie)
    through = np.exp(-np.outer(water_mm, WATER.attenuation_per_mm(energies)))
    return (seen * through).sum(axis=1) / seen.sum(axis=1)
