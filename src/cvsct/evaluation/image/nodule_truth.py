"""True nodules of simulated bodies, read from the `nodules.csv` that `cvsct simulate` writes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume

SPICULES = 1.8
"""Reach of a spiculated nodule's spicules from its middle, in radii of its sphere."""

_COLUMNS = ("body", "nodule", "x_mm", "y_mm", "z_mm", "diameter_mm", "hu", "shape", "volume_mm3")


@dataclass(frozen=True)
class NoduleTruth:
    """True values of one nodule of a phantom.

    Args:
        body: name of the simulated body.
        number: number of the nodule in that body.
        centre_mm: x, y and z in the patient's coordinates, which are those of the images.
        diameter_mm: diameter of the sphere; spicules reach further.
        hu: nominal CT number at 120 kVp; other voltages change it by tens of HU.
        shape: shape of the nodule; `spiculated` ones have spicules.
        volume_mm3: volume, including spicules.
    """

    body: str
    number: int
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    shape: str
    volume_mm3: float

    @property
    def sphere_mm(self) -> float:
        """Diameter of a sphere with the true volume."""
        return sphere_diameter_mm(self.volume_mm3)

    @property
    def radius_mm(self) -> float:
        """Largest distance of the nodule's surface, or of its spicules, from its middle."""
        return self.diameter_mm / 2 * (SPICULES if self.shape == "spiculated" else 1.0)


def read_nodules(path: Path) -> tuple[NoduleTruth, ...]:
    """Read the nodules of all bodies from a `nodules.csv`.

    Raises:
        EvaluationError: if the file lacks a column or a value is no number.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        table = csv.DictReader(stream)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise EvaluationError(
                f"{path}: no column {missing[0]!r}, expected the columns {', '.join(_COLUMNS)}; "
                "give the nodules.csv of cvsct simulate"
            )
        rows = list(table)
    try:
        return tuple(
            NoduleTruth(
                body=row["body"],
                number=int(row["nodule"]),
                centre_mm=(float(row["x_mm"]), float(row["y_mm"]), float(row["z_mm"])),
                diameter_mm=float(row["diameter_mm"]),
                hu=float(row["hu"]),
                shape=row["shape"],
                volume_mm3=float(row["volume_mm3"]),
            )
            for row in rows
        )
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path}: {error}; give the nodules.csv of cvsct simulate as it wrote it"
        ) from error


def nodules_of(truths: Sequence[NoduleTruth], volume: CTVolume) -> tuple[NoduleTruth, ...]:
    """Nodules of the body that a volume shows, which its Patient ID names; empty without one.

    The Patient ID of a simulated body ends with the body's name, and a derived series keeps it.
    """
    patient = str(volume.headers[0].get("PatientID", "")) if volume.headers else ""
    return tuple(
        truth for truth in truths if patient == truth.body or patient.endswith(f"-{truth.body}")
    )


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere with a volume."""
    return float(np.cbrt(6 * volume_mm3 / np.pi))
