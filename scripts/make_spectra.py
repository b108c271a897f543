"""Make the tube spectra that `cvsct.simulation.physics.spectrum` reads, once, with spekpy.

    python3 -m venv /tmp/spekvenv && /tmp/spekvenv/bin/pip install spekpy==2.5.4
    /tmp/spekvenv/bin/python scripts/make_spectra.py src/cvsct/simulation/physics/spectra

spekpy (MIT licence; Poludniowski et al., Med Phys 48:3630, 2021) is no dependency of this project.
Nothing but the anode filters these spectra, so a definition states its whole filtration.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import spekpy

ANODE_DEG = (7, 8)
KVP = (70, 80, 100, 120, 140)
PHYSICS = "kqp"  # tabulated bremsstrahlung of full theory; the default "casim" differs by 1 %
LOWEST_KEV, HIGHEST_KEV = 10, 140  # below 10 keV no photon passes 2 mm of aluminium


def photons_per_mm2(anode_deg: float, kvp: float) -> np.ndarray:
    """Photons per mm2 per mAs in each bin of 1 keV from 10 to 140 keV, 1000 mm from the source."""
    tube = spekpy.Spek(kvp=kvp, th=anode_deg, dk=1.0, z=100.0, mas=1.0, physics=PHYSICS)
    energies_kev, photons_per_cm2_kev = tube.get_spectrum(edges=False)
    result = np.zeros(HIGHEST_KEV - LOWEST_KEV)
    used = energies_kev > LOWEST_KEV
    bins = np.round(energies_kev[used] - 0.5).astype(int) - LOWEST_KEV
    result[bins] = photons_per_cm2_kev[used] / 100
    return result


def main(folder: Path) -> None:
    for anode_deg in ANODE_DEG:
        columns = [photons_per_mm2(anode_deg, kvp) for kvp in KVP]
        lines = [
            f"# Tungsten anode at {anode_deg} degrees, central axis, 1000 mm from the focal spot: "
            "photons per mm2 per mAs per keV.",
            f"# Made by scripts/make_spectra.py with spekpy {spekpy.__version__}, "
            f'physics model "{PHYSICS}"; 1 keV bins, named by their centre.',
            "# Filtration: none but the anode itself. Add the tube's whole filtration before use.",
            "energy_kev," + ",".join(f"{kvp}" for kvp in KVP),
        ]
        for index, values in enumerate(zip(*columns, strict=True)):
            energy_kev = LOWEST_KEV + index + 0.5
            lines.append(f"{energy_kev}," + ",".join(f"{value:.5g}" for value in values))
        path = folder / f"tungsten-{anode_deg}deg.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
