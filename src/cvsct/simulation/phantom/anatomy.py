"""Parameters of a body, drawn from a seed.

There are two kinds: the chest phantom Lungman, always nearly the same, and patients, no two alike.
Lengths are those of an average body in body coordinates (see `shapes.Posture`); z = 0 is the level
of the carina, at the disc below the fourth thoracic vertebra.

Ranges are chosen so that bodies look like those of chest CT; where a figure is from literature
its source is named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvsct.core.seeding import random_stream
from cvsct.simulation.phantom.shapes import Posture


@dataclass(frozen=True)
class Body:
    """Parameters of one body: size, build, organs and tissues.

    Args:
        kind: "lungman" or "patient".
        fat_mm: thickness of the fat under the skin.
        muscle: thickness of the muscles relative to the average.
        heart: size of the heart relative to the average.
        epicardial_mm: fat around the heart.
        domes_mm: z of the right and the left dome of the diaphragm.
        kyphosis_mm: how far the thoracic spine is bowed to the back.
        vessel: width of the great vessels relative to the average.
        breast_mm: height of the breasts; 0 for none.
        wobble_mm: standard deviation of the unevenness of surfaces.
        twigs: ends of the vessel tree per litre of lung.
        parenchyma: density of the lung at the front and at the back, relative to soft tissue;
            zeros for lungs of air. Chosen: about -870 HU in front and -780 HU behind, supine.
        dependent: density added at the pleura behind.
        emphysema: noise level above which the lung is thinned; 0 for none.
        destroyed: share of the parenchyma that emphysema has destroyed, whose density is that of
            0.02 soft tissue; replaces `emphysema` unless it is 0.
        fissure: density of the fissures.
        hu: CT numbers at 120 kVp of the tissues that differ between patients, by tissue.
        grain: strength of all textures relative to the average.
        plaque: calcified plaques in the aorta.
        stomach_air: share of the stomach's height that is air.
        septa_mm: mean thickness of the sheets of connective tissue that divide fat into lobules.
        streaks_mm: thickness of the layers of fat between the bundles of muscles, where they are
            thick.
        gland_twigs: ends of the glandular tree of each breast.
    """

    kind: str
    seed: int
    posture: Posture
    fat_mm: float = 12.0
    muscle: float = 1.0
    heart: float = 1.0
    epicardial_mm: float = 3.0
    domes_mm: tuple[float, float] = (-98.0, -112.0)
    kyphosis_mm: float = 0.0
    vessel: float = 1.0
    breast_mm: float = 0.0
    wobble_mm: float = 0.8
    twigs: float = 850.0
    parenchyma: tuple[float, float] = (0.0, 0.0)
    dependent: float = 0.0
    emphysema: float = 0.0
    destroyed: float = 0.0
    fissure: float = 0.0
    hu: tuple[tuple[str, float], ...] = ()
    grain: float = 1.0
    plaque: int = 0
    stomach_air: float = 0.3
    septa_mm: float = 0.0
    streaks_mm: float = 0.0
    gland_twigs: int = 0

    @property
    def is_patient(self) -> bool:
        """Whether this is a patient, whose organs consist of different tissues."""
        return self.kind == "patient"

    def stream(self, purpose: str) -> np.random.Generator:
        """Random stream of this body for one purpose."""
        return random_stream(self.seed, self.kind, purpose)


LUNGMAN_PARENCHYMA = (0.14, 0.20)


def lungman_body(seed: int, parenchyma: bool) -> Body:
    """Parameters of the chest phantom: nearly the same for every seed, as if set up anew."""
    rng = random_stream(seed, "lungman", "body")
    size = 1 + rng.uniform(-0.015, 0.015)
    scale = tuple(float(size + rng.uniform(-0.01, 0.01)) for _ in range(3))
    return Body(
        kind="lungman",
        seed=seed,
        posture=Posture(
            scale=(scale[0], scale[1], scale[2]),
            roll_rad=float(rng.normal(0, 0.01)),
            shift_mm=(float(rng.uniform(-2, 2)), float(rng.uniform(-2, 2))),
        ),
        heart=float(1 + rng.uniform(-0.03, 0.03)),
        parenchyma=LUNGMAN_PARENCHYMA if parenchyma else (0.0, 0.0),
    )


def patient_body(seed: int) -> Body:
    """Parameters of a patient: size, build, organs and tissues drawn from the seed."""
    rng = random_stream(seed, "patient", "body")
    female = rng.random() < 0.5
    fat_mm = float(np.clip(rng.gamma(4.0, 3.2 if female else 2.6), 4, 27))
    half_width = rng.uniform(140, 158) if female else rng.uniform(148, 168)
    wide = float(np.clip((half_width - 0.9 * fat_mm) / 151, 0.80, 1.06))
    deep = wide * float(rng.uniform(0.90, 1.08))
    deep = float(np.clip(deep, 0.78, (117 - 0.8 * fat_mm) / 110))
    tall = float(rng.uniform(0.92, 1.12))
    front = float(rng.uniform(0.115, 0.155))
    right = float(rng.uniform(-106, -80))
    marrow = float(rng.uniform(60, 180))
    hu = {
        "fat": rng.uniform(-120, -100),
        "muscle": rng.uniform(42, 62),
        "blood": rng.uniform(34, 46),
        "myocardium": rng.uniform(44, 54),
        "liver": rng.uniform(38, 68),
        "spleen": rng.uniform(44, 54),
        "stomach": rng.uniform(0, 50),
        "marrow": marrow,
        "cortex": 800 + marrow + rng.uniform(0, 300),
        "cartilage": rng.uniform(85, 150),
    }
    soft = random_stream(seed, "patient", "soft parts of the body")
    septa_mm, streaks_mm = float(soft.uniform(0.10, 0.30)), float(soft.uniform(0.1, 0.6))
    gland_twigs = int(soft.integers(20, 220)) if female else 0
    return Body(
        kind="patient",
        seed=seed,
        posture=Posture(
            scale=(wide, deep, tall),
            roll_rad=float(np.clip(rng.normal(0, 0.035), -0.07, 0.07)),
            bend_mm=(float(rng.normal(0, 3)), float(rng.normal(0, 3))),
            shift_mm=(float(rng.uniform(-4, 4)), float(rng.uniform(-3, 5))),
        ),
        fat_mm=fat_mm,
        muscle=float(rng.uniform(0.65, 0.95) if female else rng.uniform(0.8, 1.25)),
        heart=float(rng.uniform(0.88, 1.14)),
        epicardial_mm=float(rng.uniform(2, 6) + 0.15 * fat_mm),
        domes_mm=(right, right - float(rng.uniform(6, 22))),
        kyphosis_mm=float(rng.uniform(-4, 9)),
        vessel=float(rng.uniform(0.88, 1.15)),
        breast_mm=float(rng.uniform(8, 16) + 0.6 * fat_mm) if female else 0.0,
        wobble_mm=float(rng.uniform(1.2, 2.2)),
        twigs=float(rng.uniform(1600, 2100)),
        parenchyma=(front, front + float(rng.uniform(0.04, 0.11))),
        dependent=float(rng.uniform(0.05, 0.35)) if rng.random() < 0.5 else 0.0,
        emphysema=float(rng.uniform(1.2, 2.2)) if rng.random() < 0.3 else 0.0,
        fissure=float(rng.uniform(0.08, 0.25)),
        hu=tuple((name, float(value)) for name, value in hu.items()),
        grain=float(rng.uniform(0.7, 1.3)),
        plaque=int(rng.integers(2, 12)) if rng.random() < 0.35 else 0,
        stomach_air=float(rng.uniform(0.15, 0.6)),
        septa_mm=septa_mm,
        streaks_mm=streaks_mm,
        gland_twigs=gland_twigs,
    )
