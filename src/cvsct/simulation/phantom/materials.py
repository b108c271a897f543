"""Materials of the phantoms, the filters and the detectors, and their attenuation.

Attenuation is total attenuation, coherent scatter included: the projector models a narrow beam
in which a photon scattered by any process is lost. Coefficients are those of Elam, Ravel and
Sieber (Radiat Phys Chem 63, 2002) as tabulated by xraydb; they agree with NIST's within 1 %.

Sources of the compositions:
    ICRU-44: ICRU Report 44 (1989), tables of body tissues, as reprinted by NIST
        (physics.nist.gov/PhysRefData/XrayMassCoef/tab2.html).
    ICRU-46: ICRU Report 46 (1992), adult tissues; the same media serve ICRP Publication 110.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
from jaxtyping import Float

from cvsct.core.errors import UsageError, import_extra

ATOMIC_MASS = {
    "H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999, "Al": 26.982, "S": 32.06, "Ca": 40.078,
    "Y": 88.906, "Gd": 157.25, "Tb": 158.925, "Lu": 174.967,
}  # fmt: skip
"""Standard atomic weights (IUPAC 2021, abridged) of what appears in a formula below."""

LOWEST_KEV, HIGHEST_KEV = 5.0, 200.0
"""The range in which a coefficient may be asked for; a CT spectrum lies well inside it."""


@cache
def _xraydb() -> ModuleType:
    """The tables, loaded on first use: importing them takes more than a second."""
    module: ModuleType = import_extra("xraydb", "the virtual scanner", "simulate")
    return module


@dataclass(frozen=True)
class Material:
    """A homogeneous material.

    Args:
        name: its name in definitions and phantoms.
        composition: element symbol and mass fraction, in any order; the fractions sum to 1.
        density_g_cm3: mass density.
    """

    name: str
    composition: tuple[tuple[str, float], ...]
    density_g_cm3: float

    def __post_init__(self) -> None:
        total = sum(fraction for _, fraction in self.composition)
        if not math.isclose(total, 1.0, abs_tol=0.006) or not self.density_g_cm3 > 0:
            raise UsageError(
                f"material {self.name!r}: mass fractions sum to {total:.3f} and the density is "
                f"{self.density_g_cm3} g/cm3; expected a sum of 1 and a positive density"
            )

    def attenuation_per_mm(
        self, energies_kev: Float[np.ndarray, " energies"]
    ) -> Float[np.ndarray, " energies"]:
        """Linear attenuation coefficient in 1/mm, coherent scatter included.

        Raises:
            UsageError: if an energy lies outside 5-200 keV.
            MissingExtraError: if xraydb is not installed.
        """
        if energies_kev.size == 0:
            return np.zeros(0)
        if not (energies_kev.min() >= LOWEST_KEV and energies_kev.max() <= HIGHEST_KEV):
            raise UsageError(
                f"attenuation of {self.name} asked for at {energies_kev.min():g}-"
                f"{energies_kev.max():g} keV; expected energies in keV, "
                f"{LOWEST_KEV:g}-{HIGHEST_KEV:g}"
            )
        tables, energies_ev = _xraydb(), 1000.0 * energies_kev.astype(np.float64)
        cm2_g = np.zeros(len(energies_ev))
        for element, fraction in self.composition:
            cm2_g += fraction * tables.mu_elam(element, energies_ev)
        return 0.1 * self.density_g_cm3 * cm2_g


def _tissue(name: str, percent_by_mass: str, density_g_cm3: float) -> Material:
    """A material from a line such as "H 11.2 O 88.8"."""
    words = percent_by_mass.split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return Material(
        name, tuple((element, float(percent) / 100) for element, percent in pairs), density_g_cm3
    )


def _mass_fractions(atoms: Mapping[str, int]) -> dict[str, float]:
    """Mass fractions of a chemical formula."""
    mass = {element: count * ATOMIC_MASS[element] for element, count in atoms.items()}
    total = sum(mass.values())
    return {element: part / total for element, part in mass.items()}


def _compound(name: str, atoms: Mapping[str, int], density_g_cm3: float) -> Material:
    """A material of one chemical formula."""
    return Material(name, tuple(_mass_fractions(atoms).items()), density_g_cm3)


def _mixture(
    name: str, parts: tuple[tuple[float, Mapping[str, int]], ...], density_g_cm3: float
) -> Material:
    """A mixture of formulas, each with its share by mass."""
    total: dict[str, float] = {}
    for share, atoms in parts:
        for element, fraction in _mass_fractions(atoms).items():
            total[element] = total.get(element, 0.0) + share * fraction
    return Material(name, tuple(total.items()), density_g_cm3)


# The phantom of the paper (Kyoto Kagaku N1 "Lungman"): the maker names polyurethane of specific
# gravity 1.06 and epoxy bones. Formula of the polyurethane and filler of the epoxy are chosen.
POLYURETHANE = _compound("polyurethane", {"C": 25, "H": 42, "N": 2, "O": 6}, 1.06)
BONE_EPOXY = _mixture(
    "bone-epoxy",
    (
        (0.85, {"C": 21, "H": 24, "O": 4}),  # diglycidyl ether of bisphenol A
        (0.15, {"Ca": 1, "C": 1, "O": 3}),
    ),
    1.31,
)

WATER = _compound("water", {"H": 2, "O": 1}, 1.0)

# Tissues: mass percentages and densities of ICRU-44 unless another source is named.
ADIPOSE = _tissue("adipose", "H 11.4 C 59.8 N 0.7 O 27.8 Na 0.1 S 0.1 Cl 0.1", 0.95)
MUSCLE = _tissue(
    "muscle", "H 10.2 C 14.3 N 3.4 O 71.0 Na 0.1 P 0.2 S 0.3 Cl 0.1 K 0.4", 1.05
)  # fmt: skip
BLOOD = _tissue(
    "blood", "H 10.2 C 11.0 N 3.3 O 74.5 Na 0.1 P 0.1 S 0.2 Cl 0.3 K 0.2 Fe 0.1", 1.06
)  # fmt: skip
SOFT_TISSUE = _tissue(
    "soft-tissue", "H 10.2 C 14.3 N 3.4 O 70.8 Na 0.2 P 0.3 S 0.3 Cl 0.2 K 0.3", 1.06
)  # fmt: skip
LUNG = _tissue(  # density of a lung full of air (ICRU-44); ICRP-110 takes 0.38, the tissue is 1.05
    "lung", "H 10.3 C 10.5 N 3.1 O 74.9 Na 0.2 P 0.2 S 0.3 Cl 0.3 K 0.2", 0.26
)  # fmt: skip
LIVER = _tissue(  # ICRU-46
    "liver", "H 10.2 C 13.9 N 3.0 O 71.6 Na 0.2 P 0.3 S 0.3 Cl 0.2 K 0.3", 1.06
)  # fmt: skip
RED_MARROW = _tissue(  # ICRU-46
    "red-marrow", "H 10.5 C 41.4 N 3.4 O 43.9 P 0.1 S 0.2 Cl 0.2 K 0.2 Fe 0.1", 1.03
)  # fmt: skip
YELLOW_MARROW = _tissue(  # ICRU-46
    "yellow-marrow", "H 11.5 C 64.4 N 0.7 O 23.1 Na 0.1 S 0.1 Cl 0.1", 0.98
)  # fmt: skip
CARTILAGE = _tissue("cartilage", "H 9.6 C 9.9 N 2.2 O 74.4 Na 0.5 P 2.2 S 0.9 Cl 0.3", 1.10)
CORTICAL_BONE = _tissue(
    "cortical-bone", "H 3.4 C 15.5 N 4.2 O 43.5 Na 0.1 Mg 0.2 P 10.3 S 0.3 Ca 22.5", 1.92
)  # fmt: skip
SPONGIOSA = _tissue(  # ICRU-46
    "spongiosa",
    "H 8.5 C 40.4 N 2.8 O 36.7 Na 0.1 Mg 0.1 P 3.4 S 0.2 Cl 0.2 K 0.1 Ca 7.4 Fe 0.1",
    1.18,
)

ALUMINIUM = _tissue("aluminium", "Al 100", 2.699)
TITANIUM = _tissue("titanium", "Ti 100", 4.54)
GRAPHITE = _tissue("graphite", "C 100", 1.70)

# The patient's table: sandwich of carbon fibre in epoxy (60 % fibre by volume) and rigid foam; the
# densities are common ones of such materials.
CARBON_FIBRE = _mixture(
    "carbon-fibre", ((0.68, {"C": 1}), (0.32, {"C": 21, "H": 24, "O": 4})), 1.55
)
TABLE_FOAM = _compound("table-foam", {"C": 25, "H": 42, "N": 2, "O": 6}, 0.06)

GOS = _compound("gos", {"Gd": 2, "O": 2, "S": 1}, 7.34)
"""Gadolinium oxysulphide, Siemens' ultra-fast ceramic; its dopants are left out."""
LUTETIUM_GARNET = _compound("lutetium-garnet", {"Lu": 12, "Tb": 3, "Al": 25, "O": 60}, 6.6)
"""Approximation of GE's garnet scintillator: (Lu,Tb)3Al5O12. The ratio Lu:Tb is chosen; the
density lies between those of the two pure garnets (6.7 and 6.1 g/cm3)."""

MATERIALS: dict[str, Material] = {
    material.name: material
    for material in (
        WATER, POLYURETHANE, BONE_EPOXY, ADIPOSE, MUSCLE, BLOOD, SOFT_TISSUE, LUNG, LIVER,
        RED_MARROW, YELLOW_MARROW, CARTILAGE, CORTICAL_BONE, SPONGIOSA, ALUMINIUM, TITANIUM,
        GRAPHITE, CARBON_FIBRE, TABLE_FOAM, GOS, LUTETIUM_GARNET,
    )
}  # fmt: skip


def material_named(name: str) -> Material:
    """One of `MATERIALS`.

    Raises:
        UsageError: if there is none of that name, listing those there are.
    """
    try:
        return MATERIALS[name]
    except KeyError:
        raise UsageError(
            f"no material is called {name!r}; there are {', '.join(sorted(MATERIALS))}"
        ) from None


BASIS = (POLYURETHANE, BONE_EPOXY)
"""The two materials whose line integrals the projector computes; all others are mixed of them."""


def basis_amounts(
    material: Material, basis: tuple[Material, Material] = BASIS
) -> tuple[float, float]:
    """How much of each basis material attenuates as one unit of this one does.

    Amounts are in units of the basis material at its full density, so that a voxel of amount 1 of
    the first is polyurethane; they may be negative. They minimise the squared relative error of
    the attenuation coefficient at 40-130 keV in 1 keV steps. The largest relative errors there are
    0.07 % for water, 0.02 % for adipose, 0.06 % for muscle and 0.09 % for cortical bone, and no
    tissue's exceeds 0.1 %; at 30 keV they stay below 0.7 %, at 20 keV below 3 %.

    Metals and scintillators with a K edge in the range (`GOS`) do not fit.
    """
    energies_kev = np.arange(40.0, 131.0)
    wanted = material.attenuation_per_mm(energies_kev)
    columns = np.stack([part.attenuation_per_mm(energies_kev) / wanted for part in basis], axis=1)
    amounts = np.linalg.lstsq(columns, np.ones(len(wanted)), rcond=None)[0]
    return float(amounts[0]), float(amounts[1])
