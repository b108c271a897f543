"""CTDIvol of the scanners' definitions by Monte Carlo: the dose tables that the definitions hold.

    python scripts/make_dose.py [--definition NAME_OR_FILE ...] [--histories 2e7] [--seed 1]

CTDI100 (IEC 60601-2-44; AAPM report 96) is the air kerma of one axial rotation along the middle
100 mm of a chamber, integrated over z and divided by the beam's width; CTDIw is a third of the
central one and two thirds of the peripheral one, in the 32 cm acrylic phantom; CTDIvol is CTDIw
over the pitch, here 1 (rotations side by side).

Photons leave a fixed source within the detector's fan, through the definition's filters and bowtie,
and are followed by analog transport: photoelectric absorption and Compton scattering. For a
rotating tube the score of a rod is that of the ring at its radius. Each collision in the scored
ring adds E mu_en/rho(air) / mu(acrylic): the collision estimator of fluence times the absorption
of a chamber's air that does not disturb it.

Left out: coherent scattering (tried once, with atomic form factors: the centre read 2-4 % less, the
edge up to 0.7 % more, CTDIw at most 0.5 % less), electron binding in the angles of Compton
scattering, fluorescence of carbon and oxygen (below 1 keV), electron transport, scatter from the
bowtie, the heel effect, overbeaming (the penumbra outside the slices, which raises a real scanner's
CTDI), the table and the chamber itself.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import xraydb
from numba import njit

from cvsct.simulation.phantom.materials import material_named
from cvsct.simulation.physics.definition import ScannerDefinition, definition_names, load_definition

# The phantom: 32 cm wide, 15 cm long (IEC asks for 14 or more), holes of 13 mm, the outer ones'
# axes 10 mm below the surface. The rod in the middle is taken wider than its hole: the dose is
# flat there, and more photons meet it.
PHANTOM_RADIUS_MM, PHANTOM_HALF_MM = 160.0, 75.0
CENTRE_RADIUS_MM = 10.0
EDGE_INNER_MM, EDGE_OUTER_MM = 143.5, 156.5
CHAMBER_HALF_MM = 50.0
BEAM_HALF_MM = 20.0
"""Half the beam's width at the isocentre: 64 rows of 0.625 mm, and the widest for which the IEC
defines CTDI100 without a correction. The same for all scanners."""

ACRYLIC = {"H": 0.080538, "C": 0.599848, "O": 0.319614}
ACRYLIC_G_CM3 = 1.19
"""Polymethyl methacrylate, mass fractions and density as NIST gives them
(physics.nist.gov/PhysRefData/XrayMassCoef/tab2.html)."""

AIR_KEV = (5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
AIR_CM2_G = (
    39.31, 22.70, 9.446, 4.742, 1.334, 0.5389, 0.1537, 0.06833, 0.04098, 0.03041, 0.02407, 0.02325,
    0.02496,
)  # fmt: skip
"""Mass energy-absorption coefficient of dry air near sea level (Hubbell and Seltzer, NISTIR 5632;
physics.nist.gov/PhysRefData/XrayMassCoef/ComTab/air.html)."""

ELECTRON_KEV = 510.999
LOWEST_KEV = 5
"""A slower photon is dropped: its mean free path in acrylic is less than 0.5 mm."""
HIGHEST_KEV = 151
MGY_PER_SCORE = 1.602177e-16 * 1e3 * 1e2 * 1e3
"""From keV/mm2 times cm2/g: J per keV, g per kg, mm2 per cm2, mGy per Gy."""

BOWTIE_STEPS = 400
BATCHES = 20
MAS = 100.0


@dataclass(frozen=True)
class Dose:
    """What 100 mAs give at one voltage, in mGy: means over batches and standard errors of them."""

    kvp: float
    free_in_air: float
    centre: float
    edge: float
    weighted: float
    weighted_error: float


@njit(cache=True)
def compton(energy_kev, rng):
    """Energy and cosine after Compton scattering: Klein-Nishina by Kahn's rejection.

    H. Kahn, Applications of Monte Carlo, RAND AECU-3259 (1954).
    """
    alpha = energy_kev / ELECTRON_KEV
    while True:
        first, second, third = rng.random(), rng.random(), rng.random()
        if first <= (1 + 2 * alpha) / (9 + 2 * alpha):
            ratio = 1 + 2 * alpha * second
            accepted = third <= 4 * (1 / ratio - 1 / ratio**2)
        else:
            ratio = (1 + 2 * alpha) / (1 + 2 * alpha * second)
            accepted = third <= ((1 - (ratio - 1) / alpha) ** 2 + 1 / ratio) / 2
        if accepted:
            return energy_kev / ratio, 1 - (ratio - 1) / alpha


@njit(cache=True)
def turned(dx, dy, dz, cosine, rng):
    """A direction after a turn by this angle about itself, the azimuth at random."""
    azimuth = 2 * np.pi * rng.random()
    sine = np.sqrt(max(0.0, 1 - cosine * cosine))
    a, b = sine * np.cos(azimuth), sine * np.sin(azimuth)
    across = np.sqrt(max(0.0, 1 - dz * dz))
    if across < 1e-3:
        return a, b, cosine * np.sign(dz)
    return (
        cosine * dx + (a * dx * dz - b * dy) / across,
        cosine * dy + (a * dy * dz + b * dx) / across,
        cosine * dz - a * across,
    )


@njit(cache=True)
def follow(histories, rng, source_mm, half_fan, cumulated, energies, bowtie, photo, compt, air):
    """Scores of the middle rod and the outer ring, in keV mm cm2/g per history.

    Args:
        cumulated: distribution function of the spectrum over `energies`.
        bowtie: transmission by energy and fan angle, from 0 to `half_fan`.
        photo, compt: 1/mm of acrylic; `air` in cm2/g; each at 0, 1, 2, ... keV.
    """
    centre, edge = 0.0, 0.0
    for _ in range(histories):
        bin_ = min(np.searchsorted(cumulated, rng.random()), len(energies) - 1)
        energy = energies[bin_]
        fan = (2 * rng.random() - 1) * half_fan
        place = int(abs(fan) / half_fan * (bowtie.shape[1] - 1) + 0.5)
        weight = bowtie[bin_, place]
        # Uniform over the cylinder around the source that holds the isocentre (cos^3 = 1 +- 0.2 %).
        rise = (2 * rng.random() - 1) * BEAM_HALF_MM / source_mm
        norm = np.sqrt(1 + rise * rise)
        dx, dy, dz = np.cos(fan) / norm, np.sin(fan) / norm, rise / norm
        flat = dx * dx + dy * dy
        middle = source_mm * dx / flat
        inside = middle**2 - (source_mm**2 - PHANTOM_RADIUS_MM**2) / flat
        if inside <= 0:
            continue
        way = middle - np.sqrt(inside)
        x, y, z = dx * way - source_mm, dy * way, dz * way
        while energy >= LOWEST_KEV:
            below = int(energy)
            part = energy - below
            absorbed = photo[below] * (1 - part) + photo[below + 1] * part
            scattered = compt[below] * (1 - part) + compt[below + 1] * part
            total = absorbed + scattered
            way = -np.log(1 - rng.random()) / total
            x, y, z = x + dx * way, y + dy * way, z + dz * way
            radius = np.hypot(x, y)
            if radius > PHANTOM_RADIUS_MM or abs(z) > PHANTOM_HALF_MM:
                break
            if abs(z) < CHAMBER_HALF_MM:
                in_air = air[below] * (1 - part) + air[below + 1] * part
                score = weight * energy * in_air / total
                if radius < CENTRE_RADIUS_MM:
                    centre += score
                elif EDGE_INNER_MM < radius < EDGE_OUTER_MM:
                    edge += score
            if rng.random() * total < absorbed:
                break
            energy, cosine = compton(energy, rng)
            dx, dy, dz = turned(dx, dy, dz, cosine, rng)
    return centre / histories, edge / histories


def coefficients() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photoelectric and Compton 1/mm of acrylic, mu_en/rho of air in cm2/g, at 0, 1, ... keV."""
    kev = np.maximum(np.arange(HIGHEST_KEV + 1.0), LOWEST_KEV)
    parts = [
        0.1 * ACRYLIC_G_CM3
        * sum(share * xraydb.mu_elam(name, 1000 * kev, kind) for name, share in ACRYLIC.items())
        for kind in ("photo", "incoh")
    ]  # fmt: skip
    air = np.exp(np.interp(np.log(kev), np.log(AIR_KEV), np.log(AIR_CM2_G)))
    return parts[0], parts[1], air


def dose(definition: ScannerDefinition, kvp: float, histories: int, seed: int) -> Dose:
    """CTDI of one voltage, from batches with streams of their own."""
    photo, compt, air = coefficients()
    spectrum = definition.spectrum(kvp, bin_kev=1.0)
    energies, source_mm = spectrum.energies_kev, definition.geometry.source_isocentre_mm
    half_fan = definition.geometry.fan_angle_rad / 2
    per_mm = material_named(definition.bowtie.material).attenuation_per_mm(energies)
    bowtie = np.exp(-np.outer(per_mm, definition.bowtie_mm(np.linspace(0, half_fan, BOWTIE_STEPS))))
    cumulated = np.cumsum(spectrum.photons) / spectrum.photons.sum()
    rods = np.array(
        [
            follow(histories // BATCHES, rng, source_mm, half_fan, cumulated, energies, bowtie,
                   photo, compt, air)
            for rng in np.random.default_rng(seed).spawn(BATCHES)
        ]
    )  # fmt: skip
    per_mm2 = MAS * (1000 / source_mm) ** 2  # fluence at the isocentre, of the spectrum's at 1 m
    window_mm2 = 2 * half_fan * source_mm * 2 * BEAM_HALF_MM
    areas_mm2 = np.pi * np.array([CENTRE_RADIUS_MM**2, EDGE_OUTER_MM**2 - EDGE_INNER_MM**2])
    # Mean over the chamber's length times that length over the beam's width: the length cancels.
    ctdi = rods * spectrum.photons.sum() * per_mm2 * window_mm2 * MGY_PER_SCORE
    ctdi /= areas_mm2 * 2 * BEAM_HALF_MM
    weighted = ctdi @ (1 / 3, 2 / 3)
    kerma = spectrum.photons * energies * np.interp(energies, np.arange(len(air)), air)
    return Dose(
        kvp=kvp,
        free_in_air=float(kerma.sum() * per_mm2 * MGY_PER_SCORE),
        centre=float(ctdi[:, 0].mean()),
        edge=float(ctdi[:, 1].mean()),
        weighted=float(weighted.mean()),
        weighted_error=float(weighted.std(ddof=1) / np.sqrt(BATCHES)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--definition", nargs="+", default=definition_names(), metavar="NAME_OR_FILE"
    )
    parser.add_argument("--histories", type=float, default=2e7, help="photons a voltage")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.definition:
        definition = load_definition(name)
        held = definition.protocol.ctdi_vol_mgy_per_100mas
        print(f"{definition.name}, mGy per {MAS:g} mAs")
        print("| kVp | free in air | centre | edge | CTDIw | standard error | definition holds |")
        print("|---" * 7 + "|")
        found = []
        for kvp in definition.tube.kvp:
            one = dose(definition, kvp, int(arguments.histories), arguments.seed)
            found.append(one)
            print(
                f"| {kvp:g} | {one.free_in_air:.2f} | {one.centre:.3f} | {one.edge:.3f} "
                f"| {one.weighted:.3f} | {one.weighted_error:.3f} | {held[kvp]:g} |",
                flush=True,
            )
        print("\n[protocol.ctdi_vol_mgy_per_100mas]")
        for one in found:
            print(f"{one.kvp:g} = {one.weighted:#.3g}")
        print()


if __name__ == "__main__":
    main()
