"""Tissues of the phantoms: amounts of the two basis materials, and strengths of texture.

CT numbers are nominal, at 120 kVp; a tissue's composition is that of its ICRU material, its
density such that the CT number at 65 keV, about the mean energy seen at 120 kVp, is the one named.
Means follow native chest CT; strengths of textures are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32

from cvsct.simulation.phantom.anatomy import Body
from cvsct.simulation.phantom.materials import BASIS, WATER, basis_amounts, material_named

EFFECTIVE_KEV = 65.0

SMOOTH = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

# material, CT number, texture: fine, middle, coarse, fibrous noise; sheets of coarse and fibrous
PATIENT: dict[str, tuple[str, float, tuple[float, ...]]] = {
    "skin": ("muscle", 30.0, (0.01, 0.01, 0.0, 0.0, 0.0, 0.0)),
    "fat": ("adipose", -102.0, (0.004, 0.005, 0.004, 0.0, 0.0, 0.0)),
    "septa": ("muscle", 50.0, SMOOTH),
    "muscle": ("muscle", 52.0, (0.006, 0.006, 0.008, 0.004, 0.0, 0.0)),
    "mediastinal fat": ("adipose", -98.0, (0.006, 0.008, 0.006, 0.0, 0.0, 0.0)),
    "blood": ("blood", 40.0, (0.002, 0.002, 0.002, 0.0, 0.0, 0.0)),
    "myocardium": ("muscle", 49.0, (0.004, 0.006, 0.005, 0.004, 0.0, 0.0)),
    "liver": ("liver", 55.0, (0.004, 0.004, 0.004, 0.0, 0.0, 0.0)),
    "spleen": ("liver", 49.0, (0.005, 0.003, 0.003, 0.0, 0.0, 0.0)),
    "stomach": ("soft-tissue", 25.0, (0.010, 0.012, 0.015, 0.0, 0.0, 0.0)),
    "wall": ("muscle", 45.0, (0.004, 0.004, 0.0, 0.0, 0.0, 0.0)),
    "cartilage": ("cartilage", 110.0, (0.010, 0.016, 0.010, 0.0, 0.0, 0.0)),
    "disc": ("cartilage", 85.0, (0.005, 0.008, 0.004, 0.0, 0.0, 0.0)),
    "canal": ("water", 12.0, SMOOTH),
    "cord": ("soft-tissue", 36.0, SMOOTH),
    "lung": ("muscle", 0.0, (0.05, 0.058, 0.05, 0.0, 0.0, 0.0)),
    "nodule": ("muscle", 0.0, SMOOTH),
    "marrow": ("spongiosa", 180.0, (0.050, 0.012, 0.022, 0.0, 0.0, 0.0)),
    "cortex": ("cortical-bone", 1150.0, SMOOTH),
    "plaque": ("cortical-bone", 600.0, SMOOTH),
}

LUNGMAN_LUNG = (0.03, 0.045, 0.05, 0.0, 0.0, 0.0)
"""Texture of the parenchyma with which the paper's phantom can be filled; chosen."""


@dataclass(frozen=True)
class Tissue:
    """A tissue: amounts of the basis materials, and the strengths of its texture."""

    amounts: Float32[np.ndarray, " 2"]
    texture: Float32[np.ndarray, " 6"]

    def scaled(self, density: float) -> Tissue:
        """The same tissue at another density."""
        return Tissue(self.amounts * np.float32(density), self.texture)


def tissue(
    amounts: tuple[float, float], texture: tuple[float, ...] = SMOOTH, grain: float = 1.0
) -> Tissue:
    """A tissue from plain numbers."""
    return Tissue(np.array(amounts, np.float32), (np.array(texture) * grain).astype(np.float32))


@cache
def _amounts_and_hu(name: str) -> tuple[tuple[float, float], float]:
    """Basis amounts of a material at its own density, and its CT number at 65 keV."""
    amounts = basis_amounts(material_named(name))
    energy = np.array([EFFECTIVE_KEV])
    mixed = sum(
        amount * float(part.attenuation_per_mm(energy)[0])
        for amount, part in zip(amounts, BASIS, strict=True)
    )
    return amounts, 1000 * (mixed / float(WATER.attenuation_per_mm(energy)[0]) - 1)


def _at_hu(name: str, hu: float) -> tuple[float, float]:
    (soft, bone), own_hu = _amounts_and_hu(name)
    density = (1000 + hu) / (1000 + own_hu)
    return density * soft, density * bone


def tissues_of(body: Body) -> dict[str, Tissue]:
    """All tissues of a body, by name."""
    if not body.is_patient:
        soft = {name: tissue((1.0, 0.0)) for name in PATIENT}
        rigid = {"cortex": (0.0, 1.0), "plaque": (0.0, 1.0), "marrow": (0.0, 0.92)}
        soft["lung"] = tissue((1.0, 0.0), LUNGMAN_LUNG)
        return soft | {name: tissue(amounts) for name, amounts in rigid.items()}
    hu_of_body = dict(body.hu)
    hu_of_body["mediastinal fat"] = hu_of_body["fat"] + 14
    return {
        name: tissue(_at_hu(material, hu_of_body.get(name, hu)), texture, body.grain)
        for name, (material, hu, texture) in PATIENT.items()
    }
