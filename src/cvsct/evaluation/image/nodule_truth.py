"""What is known of a phantom's nodules: the table that `cvsct simulate` leaves, read back."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvsct.core.errors import EvaluationError
from cvsct.core.volume import CTVolume

SPICULES = 1.8
"""How far a spiculated nodule's spicules reach, in radii of its body."""

_COLUMNS = ("body", "nodule", "x_mm", "y_mm", "z_mm", "diameter_mm", "hu", "shape", "volume_mm3")


@dataclass(frozen=True)
class NoduleTruth:
    """One nodule as the phantom was built.

    Args:
        centre_mm: x, y, z in the patient's coordinates, those of the images.
        diameter_mm: of the sphere; spicules reach further.
        hu: nominal CT number (at 120 kVp; other voltages move it by tens of HU).
        volume_mm3: spicules included.
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
        """Diameter of the sphere of the true volume."""
        return sphere_diameter_mm(self.volume_mm3)

    @property
    def radius_mm(self) -> float:
        """To the end of the spicules, where there are any."""
        return self.diameter_mm / 2 * (SPICULES if self.shape == "spiculated" else 1.0)


def read_nodules(path: Path) -> tuple[NoduleTruth, ...]:
    """The nodules of a benchmark's `nodules.csv`, of all its bodies.

    Raises:
        EvaluationError: if the file lacks a column or a value is no number.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        table = csv.DictReader(stream)
        lost = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if lost:
            raise EvaluationError(
                f"{path}: no column {lost[0]!r}; expected the nodules.csv of cvsct simulate"
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
        raise EvaluationError(f"{path}: {error}; expected the nodules.csv of cvsct simulate") from (
            error
        )


def nodules_of(truths: Sequence[NoduleTruth], volume: CTVolume) -> tuple[NoduleTruth, ...]:
    """Those of the body that a volume shows, by its header's Patient ID; none where it has none.

    A simulated body's Patient ID ends with its name, and a derived series keeps it.
    """
    patient = str(volume.headers[0].get("PatientID", "")) if volume.headers else ""
    return tuple(one for one in truths if patient == one.body or patient.endswith(f"-{one.body}"))


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere of a volume."""
    return float(np.cbrt(6 * volume_mm3 / np.pi))
