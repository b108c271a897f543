"""A simulated study of several hospitals: patients, protocols, lesions and a hidden outcome.

Each patient has one lung lesion and is scanned at one of five hospitals, each with another scanner
and two protocols; some are scanned at a second hospital as well. The outcome of a patient is drawn
from the latent trait that sets how heterogeneous the lesion is, so that radiomic features of the
lesion can foretell it as far as scanners do not confound them; hospitals differ in how often the
outcome occurs, as they do in practice. Everything follows from the seed. All distributions are
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cvsct.core.seeding import random_stream
from cvsct.simulation.benchmark import (
    BODIES_PER_SEED,
    SIEMENS,
    STUDY,
    ImageSize,
    LesionTraits,
    Scan,
    ScanMode,
    SimulationOptions,
    Subject,
)
from cvsct.simulation.pairs import Technique

FIRST_PATIENT = 7001
"""Seed of the first patient's body, within the range of a simulation's seed."""
FIRST_NUMBER = 5000
"""Number of the first scan of the study, beyond those of the pairs."""

EFFECT = 1.5
"""Change of the outcome's log odds by one standard deviation of the latent trait."""
TWO_HOSPITALS = 0.15
"""Share of the patients who are scanned at a second hospital too."""
MAS_SPREAD = 0.25
"""Standard deviation of the logarithm of the tube load about the protocol's."""
DIAMETERS_MM = 14.0, 32.0
"""Range of the lesions' diameters; their logarithm is uniform."""
LESION_HU = 38.0, 8.0
"""Mean and standard deviation of the lesions' CT numbers."""
HETEROGENEITY_HU = 24.0, 0.40
"""Median of the texture's standard deviation, and change of its logarithm by the latent trait."""
GRAIN_MM = 2.4, -0.12, 0.15
"""Median correlation length, change of its logarithm by the latent trait, and its own spread."""

_CURRENT = ScanMode(tube_current=True)


@dataclass(frozen=True)
class Hospital:
    """A hospital of the study.

    Args:
        name: folder name.
        scanner: name of its scanner's definition.
        protocols: how the scanner is used, the usual protocol first.
        usual: share of the patients who get the first protocol.
        share: share of the study's patients.
        log_odds: log odds of the outcome of a patient with the mean latent trait.
        mask_format: `seg`, `rtstruct` or `nifti`.
    """

    name: str
    protocols: tuple[Technique, Technique]
    share: float
    log_odds: float
    mask_format: str
    usual: float = 0.7


HOSPITALS = (
    Hospital(
        "north",
        (
            Technique("north", SIEMENS, "Br40", "iterative-3", thickness_mm=3.0, mas=80.0),
            Technique("north", SIEMENS, "Bl64", thickness_mm=1.5, mas=60.0),
        ),
        share=0.28, log_odds=0.3, mask_format="seg",
    ),
    Hospital(
        "east",
        (
            Technique("east", "ge-revolution-ct", "STANDARD", "iterative-2", 2.5, 110.0, 120.0,
                      _CURRENT),
            Technique("east", "ge-revolution-ct", "BONEPLUS", thickness_mm=2.5, mas=110.0,
                      mode=_CURRENT),
        ),
        share=0.24, log_odds=-0.3, mask_format="rtstruct",
    ),
    Hospital(
        "south",
        (
            Technique("south", "philips-ict", "B", "iterative-3", 3.0, 90.0, 120.0, _CURRENT),
            Technique("south", "philips-ict", "YC", thickness_mm=3.0, mas=120.0, mode=_CURRENT),
        ),
        share=0.20, log_odds=0.0, mask_format="nifti",
    ),
    Hospital(
        "west",
        (
            Technique("west", "canon-aquilion-one", "FC08", "iterative-2", 5.0, 100.0, 120.0,
                      _CURRENT),
            Technique("west", "canon-aquilion-one", "FC52", thickness_mm=2.0, mas=100.0, kvp=100.0,
                      mode=_CURRENT),
        ),
        share=0.16, log_odds=-0.6, mask_format="rtstruct",
    ),
    Hospital(
        "centre",
        (
            Technique("centre", "siemens-definition-as", "Br44", thickness_mm=5.0, mas=150.0,
                      mode=_CURRENT),
            Technique("centre", "siemens-definition-as", "Bl57", thickness_mm=3.0, mas=120.0,
                      mode=_CURRENT),
        ),
        share=0.12, log_odds=0.6, mask_format="seg",
    ),
)  # fmt: skip
"""The hospitals of the study."""


@dataclass(frozen=True)
class Visit:
    """A scan of a patient at a hospital."""

    hospital: Hospital
    technique: Technique


@dataclass(frozen=True)
class StudyPatient:
    """A patient of the study.

    Args:
        body: the patient's body, with its lesion.
        latent: the trait that outcome and texture share, of mean 0 and variance 1.
        outcome: whether the event occurred.
        visits: scans of the patient, the first at the patient's own hospital.
    """

    body: Subject
    latent: float
    outcome: bool
    visits: tuple[Visit, ...]


@dataclass(frozen=True)
class StudySize:
    """Number of patients, and length of each scan, which lies about the lesion."""

    patients: int
    length_mm: float


def draw_patients(count: int, seed: int) -> tuple[StudyPatient, ...]:
    """Draw the patients of a study.

    The first patients are the same for any `count`. Hospitals get their shares exactly, to one
    patient, in an order that depends on the seed.
    """
    first_body = BODIES_PER_SEED * seed + FIRST_PATIENT
    return tuple(
        _draw_patient(random_stream(seed, f"study patient {i}"), first_body + i, home)
        for i, home in enumerate(_homes(count, random_stream(seed, "study hospitals")))
    )


def study_scans(
    patients: Sequence[StudyPatient],
    size: StudySize,
    seed: int,
    options: SimulationOptions,
    images: ImageSize,
) -> tuple[Scan, ...]:
    """Scans of the study's patients, in a fixed order.

    Args:
        patients: from `draw_patients`.
        size: length of each scan.
        seed: seed of the noise.
        options: options of all scans.
        images: sides of image and raster.
    """
    scans: list[Scan] = []
    for patient in patients:
        for visit in patient.visits:
            thickness_mm = visit.technique.thickness_mm
            scans.append(
                visit.technique.scan(
                    STUDY, FIRST_NUMBER + len(scans), patient.body,
                    round(size.length_mm / thickness_mm), thickness_mm, seed, options, images,
                )
            )  # fmt: skip
    return tuple(scans)


def _homes(count: int, rng: np.random.Generator) -> list[Hospital]:
    """Hospital of each patient: whoever is furthest below its share is next, ties by chance."""
    shares = np.array([hospital.share for hospital in HOSPITALS])
    order = rng.permutation(len(HOSPITALS))
    counts = np.zeros(len(HOSPITALS))
    homes = []
    for i in range(count):
        lack = (i + 1) * shares - counts
        chosen = max(order, key=lambda k: lack[k])
        counts[chosen] += 1
        homes.append(HOSPITALS[chosen])
    return homes


def _draw_patient(rng: np.random.Generator, body_seed: int, home: Hospital) -> StudyPatient:
    latent = float(rng.standard_normal())
    outcome = bool(rng.random() < 1 / (1 + np.exp(-home.log_odds - EFFECT * latent)))
    grain_mm, by_latent, spread = GRAIN_MM
    heterogeneity_hu, by_trait = HETEROGENEITY_HU
    traits = LesionTraits(
        diameter_mm=round(float(np.exp(rng.uniform(*np.log(DIAMETERS_MM)))), 2),
        hu=round(float(rng.normal(*LESION_HU)), 2),
        heterogeneity_hu=round(float(heterogeneity_hu * np.exp(by_trait * latent)), 2),
        grain_mm=round(
            float(grain_mm * np.exp(by_latent * latent + spread * rng.standard_normal())), 3
        ),
    )
    visits = [Visit(home, _draw_technique(rng, home))]
    if rng.random() < TWO_HOSPITALS:
        others = [hospital for hospital in HOSPITALS if hospital is not home]
        other = others[int(rng.integers(len(others)))]
        visits.append(Visit(other, _draw_technique(rng, other)))
    body = Subject("patient", body_seed, lesion=traits)
    return StudyPatient(body, latent, outcome, tuple(visits))


def _draw_technique(rng: np.random.Generator, hospital: Hospital) -> Technique:
    usual, special = hospital.protocols
    technique = usual if rng.random() < hospital.usual else special
    mas = technique.mas * float(np.exp(MAS_SPREAD * rng.standard_normal()))
    return replace(technique, mas=round(mas, 1))
